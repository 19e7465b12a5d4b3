"""What a stream promises wherever the agent is."""

from typing import Any

import pytest
import trio

from autonomy_trio import AgentRef
from autonomy_trio.errors import HandlerFailed, NotHandled, OutcomeUnknown, Overloaded
from tests.support.contract import Add, Count, Short, Streamed
from tests.support.settings import Open, Setting, until


async def test_a_stream_yields_every_item_in_order_and_ends(opening: Open) -> None:
    async with opening() as setting, setting.ref().stream(Count(500)) as numbers:
        assert [number async for number in numbers] == list(range(500))


async def test_an_empty_stream_ends(opening: Open) -> None:
    async with opening() as setting, setting.ref().stream(Count(0)) as numbers:
        assert [number async for number in numbers] == []


async def test_a_slow_reader_stops_the_producer(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        async with service.stream(Count(1000)) as numbers:
            assert await anext(numbers) == 0
            await until(lambda: _made_at_least(setting, 16))
            for _ in range(20):  # the agent answers, and its stream gets turns in between
                made, _ = await service.ask(Streamed())
            assert made <= 1 + 16 + 8
            assert [await anext(numbers) for _ in range(100)] == list(range(1, 101))


async def _made_at_least(setting: Setting, count: int) -> bool:
    made, _ = await setting.ref().ask(Streamed())
    return made >= count


async def test_leaving_the_block_ends_the_stream_there(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        async with service.stream(Count(1000)) as numbers:
            async for number in numbers:
                if number == 5:
                    break

        async def ended() -> bool:
            return (await service.ask(Streamed()))[1] == 1

        await until(ended)


async def test_an_agent_answers_others_while_it_streams(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        async with service.stream(Count(1000)) as numbers:
            await anext(numbers)
            assert await service.ask(Add(3)) == 3


async def test_a_protocol_error_ends_a_stream_after_its_items(opening: Open) -> None:
    async with opening() as setting, setting.ref().stream(Count(3, ends="short")) as numbers:
        assert [await anext(numbers) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(Short) as caught:
            await anext(numbers)
        assert caught.value.missing == 3


async def test_a_stream_that_is_over_stays_over(opening: Open) -> None:
    async with opening() as setting:
        async with setting.ref().stream(Count(1)) as numbers:
            assert [number async for number in numbers] == [0]
            assert [number async for number in numbers] == []
        async with setting.ref().stream(Count(0, ends="short")) as numbers:
            for _ in range(2):
                with pytest.raises(Short):
                    await anext(numbers)


async def test_a_failure_ends_a_stream_after_its_items_and_shows_nothing(opening: Open) -> None:
    async with opening() as setting, setting.ref().stream(Count(3, ends="secret")) as numbers:
        assert [await anext(numbers) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(HandlerFailed) as caught:
            await anext(numbers)
        assert "secret" not in str(caught.value)


async def test_what_is_no_stream_cannot_be_opened_and_a_stream_not_asked(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        with pytest.raises(NotHandled, match="Add is no Stream: ask or tell it"):
            async with service.stream(Add(1)) as answers:
                await anext(answers)
        with pytest.raises(NotHandled, match="Count is a Stream"):
            await service.ask(Count(1))


async def test_an_agent_has_a_bounded_number_of_open_streams(opening: Open) -> None:
    async with opening() as setting:
        service = setting.ref()
        async with trio.open_nursery() as nursery:
            for _ in range(64):
                await nursery.start(_hold, service)
            with pytest.raises(Overloaded, match="has 64 open streams"):
                async with service.stream(Count(1)) as numbers:
                    await anext(numbers)
            nursery.cancel_scope.cancel()

        async def closed() -> bool:
            return (await service.ask(Streamed()))[1] >= 64

        await until(closed)
        async with service.stream(Count(1)) as numbers:
            assert [number async for number in numbers] == [0]


async def _hold(service: AgentRef[Any], task_status: trio.TaskStatus[None]) -> None:
    async with service.stream(Count(100)) as numbers:
        await anext(numbers)
        task_status.started()
        await trio.sleep_forever()


async def test_stopping_the_agent_ends_a_stream(opening: Open) -> None:
    async with opening() as setting, setting.ref().stream(Count(1, wait=True)) as numbers:
        assert await anext(numbers) == 0
        setting.server.ref("service").stop()
        with pytest.raises(OutcomeUnknown, match="service was stopped or restarted while it streamed"):
            await anext(numbers)
