from collections.abc import Callable

import pytest
import trio
from lamp import IsLit, Lamp, SwitchOn, Used
from trio.testing import MockClock

from autonomy_trio import agent, on, open_node
from autonomy_trio.errors import HandlerFailed


@agent
class Recorder:
    """Stands in for the meter, and keeps what it is told."""

    told: list[Used]

    @on(Used)
    async def record(self, message: Used) -> None:
        self.told.append(message)


@agent
class BrokenLamp(Lamp):
    """Fails as soon as it is switched on."""

    async def switch_on(self, message: SwitchOn) -> None:
        raise RuntimeError("short circuit")


def recorder(told: list[Used]) -> Callable[[], Recorder]:
    return lambda: Recorder(told)


async def test_it_goes_out_after_a_minute(autojump_clock: MockClock) -> None:
    told: list[Used] = []
    async with open_node([Lamp]) as node:
        node.spawn(recorder(told), name="meter")
        lamp = node.ref("lamp", Lamp)
        await lamp.ask(SwitchOn())
        await trio.sleep(59)
        assert await lamp.ask(IsLit())
        await trio.sleep(2)
        assert not await lamp.ask(IsLit())
    assert told == [Used(60)]


async def test_what_no_meter_takes_is_a_dead_letter(autojump_clock: MockClock) -> None:
    async with open_node([Lamp]) as node:
        await node.ref("lamp", Lamp).ask(SwitchOn())
        await trio.sleep(61)
        (letter,) = node.dead_letters
    assert (letter.recipient, letter.message, letter.reason) == ("meter", "Used", "unknown agent")


async def test_a_broken_lamp_says_so() -> None:
    async with open_node() as node:
        lamp = node.spawn(BrokenLamp)
        with pytest.raises(HandlerFailed):
            await lamp.ask(SwitchOn())
        assert not await lamp.ask(IsLit())
