"""What wraps the handling of messages: what it sees, what it may refuse, and who hears of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import Request, Stream, agent, on
from autonomy_trio.actors.interceptors import Intercepted
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import Denied, HandlerFailed, Overloaded

Proceed = Callable[[], Awaitable[Any]]


@frozen
class Add(Request[int]):
    amount: int


@frozen
class Note:
    text: str


@frozen
class Count(Stream[int]):
    most: int


@agent
class Counter:
    total: int = 0
    notes: list[str] = field(factory=list[str])

    @on(Add)
    def add(self, message: Add) -> int:
        self.total += message.amount
        return self.total

    @on(Note)
    async def note(self, message: Note) -> None:
        self.notes.append(message.text)
        msg = "a failure of the handler's own"
        raise Overloaded(msg)

    @on(Count)
    async def count(self, message: Count) -> AsyncIterator[int]:
        for number in range(message.most):
            yield number


async def refuse_large(delivery: Intercepted, proceed: Proceed) -> object:
    message = delivery.message
    if isinstance(message, (Add, Count)) and (message.amount if isinstance(message, Add) else message.most) > 10:
        msg = "too much for today"
        raise Denied(msg)
    return await proceed()


async def test_one_that_raises_a_delivery_error_refuses_the_message_and_fails_nobody(autojump_clock: object) -> None:
    async with open_runtime(interceptors=[refuse_large]) as runtime:
        counter = runtime.spawn(Counter)
        assert await counter.ask(Add(3)) == 3
        with pytest.raises(Denied, match="too much for today"):
            await counter.ask(Add(30))
        await counter.tell(Add(30))
        assert await counter.ask(Add(3)) == 6
        assert runtime.failures == 0
        assert runtime.dead_letters.counts() == {"denied": 2}


async def test_a_delivery_error_after_the_handler_has_begun_is_a_failure(autojump_clock: object) -> None:
    async def too_late(delivery: Intercepted, proceed: Proceed) -> object:
        await proceed()
        raise Denied

    async with open_runtime(interceptors=[too_late]) as runtime:
        with pytest.raises(HandlerFailed):
            await runtime.spawn(Counter).ask(Add(3))
        assert runtime.failures == 1


async def test_a_handler_that_raises_a_delivery_error_inside_one_fails(autojump_clock: object) -> None:
    async with open_runtime(interceptors=[refuse_large]) as runtime:
        await runtime.spawn(Counter).tell(Note("x"))
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.failures == 1
        assert runtime.dead_letters.counts() == {"failed": 1}


async def test_an_answer_of_another_type_never_reaches_the_asker(autojump_clock: object) -> None:
    async def distort(delivery: Intercepted, proceed: Proceed) -> object:
        return str(await proceed())

    async with open_runtime(interceptors=[distort]) as runtime:
        with pytest.raises(HandlerFailed):
            await runtime.spawn(Counter).ask(Add(3))


async def test_the_opening_of_a_stream_is_seen_and_can_be_refused(autojump_clock: object) -> None:
    seen: list[object] = []

    async def trace(delivery: Intercepted, proceed: Proceed) -> object:
        seen.append(delivery.message)
        return await proceed()

    async with open_runtime(interceptors=[trace, refuse_large]) as runtime:
        counter = runtime.spawn(Counter)
        async with counter.stream(Count(3)) as numbers:
            assert [number async for number in numbers] == [0, 1, 2]
        async with counter.stream(Count(30)) as numbers:
            with pytest.raises(Denied, match="too much for today"):
                await anext(numbers)
        assert await counter.ask(Add(3)) == 3
        assert seen == [Count(3), Count(30), Add(3)]
        assert runtime.failures == 0
        assert runtime.dead_letters.counts() == {"denied": 1}
        assert runtime.handled_so_far() == 2
        assert runtime.queued() == 0


async def test_one_that_fails_after_a_stream_has_opened_ends_it(autojump_clock: object) -> None:
    async def fails(delivery: Intercepted, proceed: Proceed) -> object:
        await proceed()
        raise ValueError

    async with open_runtime(interceptors=[fails]) as runtime:
        async with runtime.spawn(Counter).stream(Count(1_000)) as numbers:
            with pytest.raises(Exception, match="was stopped or restarted while it streamed"):
                _ = [number async for number in numbers]
        assert runtime.failures == 1


async def test_one_sees_the_deadline_of_an_ask_whatever_its_handler_takes(autojump_clock: object) -> None:
    seen: list[float] = []

    async def look(delivery: Intercepted, proceed: Proceed) -> object:
        seen.append(delivery.deadline - trio.current_time())
        return await proceed()

    async with open_runtime(interceptors=[look], ask_limit=30) as runtime:
        counter = runtime.spawn(Counter)
        with trio.fail_after(7):
            await counter.ask(Add(1))
        await counter.ask(Add(1))
    assert seen == [pytest.approx(7), pytest.approx(30)]


@pytest.mark.parametrize("message", [Add(1), Count(3)])
async def test_one_that_proceeds_twice_fails_the_agent_and_runs_no_handler_twice(
    autojump_clock: object, message: Add | Count
) -> None:
    async def again(delivery: Intercepted, proceed: Proceed) -> object:
        await proceed()
        return await proceed()

    begun: list[object] = []

    @agent
    class Careful(Counter):
        @on(Add)
        def add(self, message: Add) -> int:
            begun.append(message)
            return 0

        @on(Count)
        async def count(self, message: Count) -> AsyncIterator[int]:
            begun.append(message)
            yield 0

    async with open_runtime(interceptors=[again]) as runtime:
        ref = runtime.spawn(Careful)
        if isinstance(message, Add):
            with pytest.raises(HandlerFailed):
                await ref.ask(message)
        else:
            async with ref.stream(message):
                await trio.testing.wait_all_tasks_blocked()
        assert runtime.failures == 1
    assert begun == [message]
