import pytest
import trio
from lamp import Budget, IsLit, Lamp, SwitchOff, SwitchOn, Used
from trio.testing import MockClock

from autonomy_trio import DeadLetter
from autonomy_trio.errors import HandlerFailed, Overloaded
from autonomy_trio.testing import open_test_node


async def test_it_goes_out_after_a_minute(autojump_clock: MockClock) -> None:
    async with open_test_node([Lamp]) as node:
        meter = node.probe("meter")
        meter.on(Budget).reply(60)
        lamp = node.ref("lamp", Lamp)
        await lamp.ask(SwitchOn())
        await trio.sleep(59)
        assert await lamp.ask(IsLit())
        assert await meter.receive(Used) == Used(60)
        assert not await lamp.ask(IsLit())
        assert meter.messages == (Budget(), Used(60))


async def test_it_stays_dark_where_the_meter_is_busy(autojump_clock: MockClock) -> None:
    async with open_test_node([Lamp], expected=Overloaded) as node:
        meter = node.probe("meter")
        meter.on(Budget).reply(Overloaded("too many lamps"), 0)
        lamp = node.ref("lamp", Lamp)
        with pytest.raises(HandlerFailed):
            await lamp.ask(SwitchOn())
        await lamp.ask(SwitchOn())
        assert not await lamp.ask(IsLit())
        (failure,) = node.failures
    assert (failure.agent, failure.message) == ("lamp", SwitchOn())


async def test_what_no_meter_takes_is_a_dead_letter() -> None:
    async with open_test_node([Lamp]) as node:
        lamp = node.ref("lamp", Lamp)
        await lamp.tell(SwitchOff(60))
        assert not await lamp.ask(IsLit())
        assert node.dead_letters == [DeadLetter("meter", "Used", "lamp", "unknown agent")]


async def test_a_lamp_that_fails_is_dark_afterwards(autojump_clock: MockClock) -> None:
    async with open_test_node([Lamp]) as node:
        node.probe("meter").on(Budget).reply(60)
        lamp = node.ref("lamp", Lamp)
        await lamp.ask(SwitchOn())
        node.fail_next(lamp, RuntimeError("short circuit"), message=IsLit)
        with pytest.raises(HandlerFailed):
            await lamp.ask(IsLit())
        assert not await lamp.ask(IsLit())


def test_without_pytest_trio() -> None:
    async def main() -> None:
        async with open_test_node([Lamp]) as node:
            node.probe("meter").on(Budget).reply(60)
            await node.ref("lamp", Lamp).ask(SwitchOn())
            await trio.sleep(61)
            assert not await node.ref("lamp", Lamp).ask(IsLit())

    trio.run(main, clock=MockClock(autojump_threshold=0))
