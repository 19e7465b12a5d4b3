"""What `tell` and `ask` promise wherever the agent is."""

import pytest
import trio

from autonomy_trio.errors import HandlerFailed, NotHandled, ReplyError
from tests.support.contract import Add, Broken, Note, Notes, Short, Take, VeryShort
from tests.support.settings import Open


async def test_an_ask_returns_the_reply_and_tells_arrive_in_order(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        assert await service.ask(Add(3)) == 3
        for number in range(50):
            await service.tell(Note(str(number)))
        assert await service.ask(Notes()) == [str(number) for number in range(50)]


async def test_a_protocol_error_reaches_the_asker_as_what_it_is(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        with pytest.raises(Short) as caught:
            await service.ask(Take(7))
        assert type(caught.value) is Short
        assert (caught.value.missing, caught.value.of) == (7, ("coins",))
        assert await service.ask(Add(8)) == 8, "it failed nobody"
        assert setting.server.statistics().failures == 0


async def test_a_protocol_error_of_a_derived_class_is_one_of_that(opening: Open) -> None:
    async with opening() as setting:
        with pytest.raises(VeryShort) as caught:
            await setting.ref().ask(Take(200))
        assert (caught.value.missing, caught.value.of) == (200, ("gold", "silver"))


async def test_any_other_exception_is_the_handlers_failure_and_shows_nothing(opening: Open) -> None:
    async with opening() as setting:
        with pytest.raises(HandlerFailed) as caught:
            await setting.ref().ask(Broken())
        assert "42" not in str(caught.value)


async def test_a_message_that_nobody_handles_is_said(opening: Open) -> None:
    async with opening() as setting:
        with pytest.raises(NotHandled, match="service does not handle Short"):
            await setting.ref().ask(Short(1))


async def test_an_asker_that_gives_up_withdraws_its_ask(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        await service.ask(Add(1))
        with trio.move_on_after(0):
            await service.ask(Add(50))
        assert await service.ask(Add(1)) in (2, 52)


async def test_a_protocol_error_is_caught_as_a_reply_error_without_the_agents_class(opening: Open) -> None:
    async with opening() as setting:
        with pytest.raises(ReplyError):
            await setting.ref(agent=None).ask(Take(7))
