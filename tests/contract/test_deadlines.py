"""What deadlines and cancellation promise wherever the agent is."""

import pytest
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.errors import MailboxFull
from tests.support.contract import Add, Cancelled, Hold, Note, Notes, Service
from tests.support.settings import Open, Setting, until


async def cancelled(setting: Setting, count: int) -> None:
    """Wait until so many handlers were cancelled."""

    async def all_cancelled() -> bool:
        return bool(await setting.ref().ask(Cancelled()) == count)

    await until(all_cancelled)


async def begun(setting: Setting) -> None:
    """Wait until the handler runs."""
    cell = setting.server._runtime.find("service")
    assert isinstance(cell, Cell)

    async def is_running() -> bool:
        return bool(cell.instance.begun)

    await until(is_running)


async def test_the_handler_gets_the_time_that_remains(opening: Open) -> None:
    async with opening() as setting:
        with trio.fail_after(200):
            assert 100 < await setting.ref().ask(Hold(0)) <= 200
        assert 15 < await setting.ref().ask(Hold(0)) <= 30, "without a deadline the limit of an ask holds"


async def test_past_its_deadline_an_ask_is_too_slow_and_its_handler_cancelled(opening: Open) -> None:
    async with opening() as setting:
        await setting.ref().ask(Add(1))
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await setting.ref().ask(Hold(100))
        await cancelled(setting, 1)
        assert await setting.ref().ask(Add(1)) == 2, "the state stays, and it is no failure"
        assert setting.server.statistics().failures == 0


async def test_a_cancelled_asker_cancels_its_handler(opening: Open) -> None:
    async with opening() as setting, trio.open_nursery() as nursery:
        await setting.ref().ask(Add(1))
        nursery.start_soon(setting.ref().ask, Hold(100))
        await begun(setting)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await cancelled(setting, 1)


async def test_a_cancelled_ask_that_waits_for_its_turn_never_runs(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.ask, Hold(100))
            await begun(setting)
            with trio.move_on_after(0.1):
                await service.ask(Add(50))
            nursery.cancel_scope.cancel()
        assert await service.ask(Add(1)) == 1


async def test_a_full_mailbox_makes_tell_wait_and_loses_nothing(opening: Open) -> None:
    async with opening() as setting:
        service, text = setting.ref(), "x" * 4000
        told = [0]

        async def tell() -> None:
            for number in range(300):
                await service.tell(Note(f"{number} {text}"))
                told[0] += 1

        async def all_that_fits() -> bool:
            return told[0] >= 64

        await service.ask(Add(1))
        async with trio.open_nursery() as nursery, trio.open_nursery() as holding:
            holding.start_soon(service.ask, Hold(100))
            await begun(setting)
            nursery.start_soon(tell)
            await until(all_that_fits)
            await trio.sleep(0.3)
            assert told[0] < 64 + 100, "a mailbox of 64, and what may be under way to another node"
            holding.cancel_scope.cancel()
        await service.ask(Add(1))
        notes = await setting.server.ref("service", Service).ask(Notes())
        assert notes == [f"{number} {text}" for number in range(300)]
        assert setting.server.dead_letters.counts() == {}


async def test_tell_nowait_says_when_nothing_more_fits(opening: Open) -> None:
    async with opening() as setting, trio.open_nursery() as nursery:
        service = setting.ref()
        nursery.start_soon(service.ask, Hold(100))
        await begun(setting)
        await until(lambda: full(setting))
        nursery.cancel_scope.cancel()


async def full(setting: Setting) -> bool:
    try:
        setting.ref().tell_nowait(Note("x" * 4000))
    except MailboxFull:
        return True
    return False
