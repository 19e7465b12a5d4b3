"""Who is in trouble is named, in the statistics and in one log line, and nobody else is."""

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import Context, Mailbox, Stream, agent, on, supervise
from autonomy_trio.actors import keeper
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import MailboxFull

Log = list[Any]


@frozen
class Run:
    what: Callable[[Context], Awaitable[object]]


@frozen
class Count(Stream[int]):
    pass


@agent
class Patient:
    @on(Run)
    async def run(self, message: Run, context: Context) -> None:
        await message.what(context)

    @on(Count)
    async def count(self, message: Count) -> AsyncIterator[int]:
        for number in range(1_000):
            await trio.sleep(0.4)
            yield number


@agent(mailbox=Mailbox(8))
class Flooder(Patient):
    @on(Run)
    async def run(self, message: Run, context: Context) -> None:
        await trio.sleep(0.01)
        try:
            for _ in range(100):
                context.self.tell_nowait(message)
        except MailboxFull:
            pass


async def fail(_: Context) -> None:
    raise ValueError


async def hang(_: Context) -> None:
    await trio.sleep_forever()


@pytest.fixture
def log() -> Generator[Log]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def lines_on_trouble(log: Log) -> list[tuple[str, str]]:
    return [(each["agent"], each["why"]) for each in log if each["event"] == "agent in trouble"]


def assert_named(runtime: Runtime, log: Log, name: str, word: str) -> None:
    assert list(runtime.keeper.troubled) == [name]
    assert word in runtime.keeper.troubled[name]
    assert [agent for agent, _ in lines_on_trouble(log)] == [name]


async def test_an_agent_that_raises_on_every_message_is_named(autojump_clock: object, log: Log) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(Patient, max_restarts=100))
        for _ in range(20):
            await runtime.ref("patient").tell(Run(fail))
            await trio.sleep(1)
        await trio.sleep(2)
        assert_named(runtime, log, "patient", "failed 20 times")
        await trio.sleep(2 * keeper.LATELY)
        assert runtime.keeper.troubled == {}


async def test_an_agent_that_was_given_up_is_named_for_a_while(autojump_clock: object, log: Log) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Patient)
        for _ in range(4):
            await ref.tell(Run(fail))
        await ref.stopped()
        await trio.sleep(2)
        assert_named(runtime, log, "patient", "failed 4 times")


async def test_failures_far_apart_are_no_trouble(autojump_clock: object, log: Log) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Patient)
        for _ in range(10):
            await ref.tell(Run(fail))
            await trio.sleep(2 * keeper.LATELY)
        assert lines_on_trouble(log) == []


async def test_an_agent_that_hangs_is_named(autojump_clock: object, log: Log) -> None:
    async with open_runtime() as runtime:
        await runtime.spawn(Patient).tell(Run(hang))
        await trio.sleep(keeper.LONG + 20)
        assert_named(runtime, log, "patient", "in one handler or hook for ")


async def test_an_agent_that_floods_its_own_mailbox_is_named(autojump_clock: object, log: Log) -> None:
    async with open_runtime(grace=0.1) as runtime:
        ref = runtime.spawn(Flooder)
        await ref.tell(Run(hang))
        await trio.sleep(10)
        assert_named(runtime, log, "flooder", "mailbox is full (8 messages)")


async def test_senders_that_wait_for_room_are_no_trouble_unless_for_long(autojump_clock: object, log: Log) -> None:
    async def work(context: Context) -> None:
        del context
        await trio.sleep(0.5)

    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(Patient, "busy")

        async def press() -> None:
            while True:
                await ref.tell(Run(work))

        nursery.start_soon(press)
        await trio.sleep(keeper.LONG - 2)
        assert lines_on_trouble(log) == []
        await trio.sleep(keeper.LONG + 64)
        assert_named(runtime, log, "busy", "mailbox is full (64 messages)")
        nursery.cancel_scope.cancel()


async def test_an_agent_with_very_many_children_is_named_also_while_it_rests(
    autojump_clock: object, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MANY_CHILDREN", 100)

    async def spawn_many(context: Context) -> None:
        for _ in range(100):
            context.spawn(Patient)

    async with open_runtime() as runtime:
        ref = runtime.spawn(Patient, "parent")
        await ref.tell(Run(spawn_many))
        await trio.sleep(100)
        assert_named(runtime, log, "parent", "100 children")
        ref.stop()
        await ref.stopped()
        await trio.sleep(2)
        assert runtime.keeper.troubled == {}


async def test_an_agent_that_was_idle_for_long_and_has_just_begun_is_in_no_trouble(
    autojump_clock: object, log: Log
) -> None:
    async def short(_: Context) -> None:
        await trio.sleep(5)

    async with open_runtime() as runtime:
        ref = runtime.spawn(Patient)
        await ref.tell(Run(short))
        for _ in range(3):
            await trio.sleep(50)
            await ref.tell(Run(short))
        await trio.sleep(20)
        assert lines_on_trouble(log) == []


async def test_a_stream_that_goes_on_for_long_is_no_trouble(autojump_clock: object, log: Log) -> None:
    async with open_runtime() as runtime, runtime.spawn(Patient).stream(Count()) as numbers:
        with trio.move_on_after(60):
            async for _ in numbers:
                pass
        assert lines_on_trouble(log) == []


async def test_an_agent_that_waits_for_its_restart_does_not_hang(autojump_clock: object, log: Log) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(Patient, backoff=(100, 100)))
        await runtime.ref("patient").tell(Run(fail))
        await trio.sleep(3 * keeper.LONG)
        assert lines_on_trouble(log) == []


async def test_trouble_that_comes_and_goes_is_one_line(autojump_clock: object, log: Log) -> None:
    async def slow(_: Context) -> None:
        await trio.sleep(keeper.LONG + 5)

    async with open_runtime() as runtime:
        ref = runtime.spawn(Patient)
        for _ in range(5):
            await ref.tell(Run(slow))
            await trio.sleep(keeper.LONG + 10)
        assert len(lines_on_trouble(log)) == 1


@pytest.mark.parametrize("queued", [False, True])
async def test_draining_waits_for_an_agent_in_backoff_only_if_a_message_waits_for_it(
    autojump_clock: object, queued: bool
) -> None:
    ran: list[float] = []

    async def note(_: Context) -> None:
        ran.append(trio.current_time())

    async with open_runtime(grace=30) as runtime:
        runtime.start(supervise(Patient, backoff=(10, 10)))
        ref = runtime.ref("patient")
        await ref.tell(Run(fail))
        await trio.testing.wait_all_tasks_blocked()
        if queued:
            await ref.tell(Run(note))
        start = trio.current_time()
    took = trio.current_time() - start
    assert (5 <= took <= 10) if queued else took == 0
    assert len(ran) == queued
