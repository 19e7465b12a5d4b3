"""What agents were promised beyond a mailbox: one test by name for each."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Mailbox, Request, Stream, agent, on, pool, supervise
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import Deadlock, HandlerFailed, Overloaded, ReplyError
from autonomy_trio.testing import open_test_node

LOG: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


@frozen
class Fail:
    pass


@frozen
class Say(Request[str]):
    text: str = ""


@frozen
class Count(Stream[int]):
    most: int


@frozen
class Tick:
    pass


@frozen
class Short(ReplyError):
    balance: int


@frozen
class Call(Request[str]):
    ref: AgentRef[object]


@agent
class First:
    def on_start(self, context: Context) -> None:
        LOG.append(f"start {context.self.name}")

    def on_stop(self, context: Context) -> None:
        LOG.append(f"stop {context.self.name}")

    @on(Fail)
    def fail(self, message: Fail) -> None:
        raise ValueError

    @on(Say)
    async def say(self, message: Say) -> str:
        return message.text

    @on(Call)
    async def call(self, message: Call, context: Context) -> str:
        return await message.ref.ask(Call(context.self))


@agent
class Second(First):
    pass


@agent
class Third(First):
    pass


@pytest.mark.parametrize(
    ("strategy", "after"),
    [
        ("one_for_one", ["stop second", "start second"]),
        ("one_for_all", ["stop second", "stop third", "stop first", "start first", "start second", "start third"]),
        ("rest_for_one", ["stop second", "stop third", "start second", "start third"]),
    ],
)
async def test_the_one_that_failed_ends_first_then_its_siblings_in_reverse_and_all_start_in_order(
    strategy: str, after: list[str], autojump_clock: object
) -> None:
    family = supervise(First, Second, Third, strategy=strategy)  # type: ignore[arg-type]
    async with open_test_node([family], expected=ValueError) as node:
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(LOG) == ["start first", "start second", "start third"]
        LOG.clear()
        await node.ref("second").tell(Fail())
        await trio.sleep(1)
        assert after == LOG
        assert await node.ref("third").ask(Say("on")) == "on"


async def test_past_its_intensity_a_top_level_entry_ends_and_its_siblings_live_on(autojump_clock: object) -> None:
    family = supervise(First, supervise(Second, max_restarts=0), max_restarts=1)
    async with open_test_node([family, Third]) as node:
        for _ in range(2):
            await trio.sleep(0.1)
            node.kill(node.ref("second"))
        await trio.sleep(0.1)
        assert list(node.node.agents()) == ["third"]


async def test_an_agent_in_a_cycle_of_asks_is_told_at_once(autojump_clock: object) -> None:
    async with open_test_node(expected=Deadlock) as node:
        first = node.spawn(First)
        start = trio.current_time()
        with pytest.raises(HandlerFailed):
            await first.ask(Call(first))
        assert trio.current_time() == start
        assert [type(failure.error) for failure in node.failures] == [Deadlock]


async def test_a_watcher_is_told_once_of_an_end_and_not_of_a_restart(autojump_clock: object) -> None:
    async with open_test_node() as node:
        first, watcher = node.spawn(First), node.probe()
        watcher.watch(first)
        node.kill(first)
        await trio.sleep(0.1)
        assert watcher.messages == ()
        first.stop()
        assert await watcher.receive(Down) == Down(first, "stopped")
        await trio.sleep(1)
        assert len(watcher.messages) == 1


@agent(mailbox=Mailbox(4))
class Clock:
    ticks: int = 0
    is_open: bool = False
    queue: list[str] = field(factory=list[str])

    @on(Fail)
    def begin(self, message: Fail, context: Context) -> None:
        context.every(1.0, Tick())

    @on(Tick)
    async def tick(self, message: Tick, context: Context) -> None:
        self.ticks += 1
        if self.ticks == 1:
            await trio.sleep(3.5)
        self.is_open = self.ticks >= 3
        if self.is_open:
            context.unstash_all()

    @on(Say)
    def say(self, message: Say, context: Context) -> str:
        if not self.is_open:
            context.stash()
        self.queue.append(message.text)
        return f"{self.ticks} {self.queue}"


async def test_missed_ticks_are_one_and_stashed_messages_come_back_in_order(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        clock = runtime.spawn(Clock)
        await clock.tell(Fail())
        answers: list[str] = []

        async def say(text: str) -> None:
            answers.append(await clock.ask(Say(text)))

        async with trio.open_nursery() as nursery:
            for text in "ab":
                nursery.start_soon(say, text)
                await trio.testing.wait_all_tasks_blocked()
        # Ticks at 1 (until 4.5), one for 2, 3 and 4, then 5.
        assert trio.current_time() == pytest.approx(5.0, abs=0.01)
        assert set(answers) == {"3 ['a']", "3 ['a', 'b']"}


@agent
class Counter:
    @on(Count)
    async def count(self, message: Count) -> AsyncIterator[int]:
        try:
            for number in range(message.most):
                yield number
        finally:
            LOG.append("closed")

    @on(Say, raises=Short)
    async def say(self, message: Say) -> str:
        raise Short(3)


async def test_a_stream_ends_with_its_handler_and_is_closed_when_it_is_left(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        async with counter.stream(Count(100)) as numbers:
            assert [number async for number in numbers] == list(range(100))
        async with counter.stream(Count(1_000_000)) as numbers:
            assert await anext(numbers) == 0
        await trio.testing.wait_all_tasks_blocked()
        assert LOG == ["closed", "closed"]


async def test_a_protocol_error_reaches_the_asker_and_fails_nobody(autojump_clock: object) -> None:
    async with open_test_node() as node:
        counter = node.spawn(Counter)
        with pytest.raises(Short) as short:
            await counter.ask(Say())
        assert short.value.balance == 3
        assert (node.failures, node.dead_letters) == ([], [])


@agent(mailbox=Mailbox(1, overflow="drop_oldest"))
class Dropper:
    @on(Say)
    async def say(self, message: Say) -> str:
        await trio.sleep(1)
        return message.text


async def test_drop_oldest_keeps_the_newest_and_tells_the_asker_of_the_other(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        dropper = runtime.spawn(Dropper)
        results: dict[str, object] = {}

        async def say(text: str) -> None:
            try:
                results[text] = await dropper.ask(Say(text))
            except Overloaded:
                results[text] = Overloaded

        async with trio.open_nursery() as nursery:
            for text in "abc":
                nursery.start_soon(say, text)
                await trio.testing.wait_all_tasks_blocked()
        assert results == {"a": "a", "b": Overloaded, "c": "c"}


async def test_a_pool_works_on_as_many_messages_as_it_has_agents(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        workers = runtime.spawn(pool(Dropper, 3), "worker")
        async with trio.open_nursery() as nursery:
            for text in "abc":
                nursery.start_soon(workers.ask, Say(text))
        assert trio.current_time() == pytest.approx(1.0)


async def test_an_idle_agent_gives_its_task_back_and_keeps_its_state(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        first = runtime.spawn(First)
        assert await first.ask(Say("a")) == "a"
        await trio.sleep(70)
        assert not runtime.awake
        assert await first.ask(Say("b")) == "b"
        assert LOG == ["start first"]
