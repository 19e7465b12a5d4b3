"""Ends at awkward moments: nobody waits for ever, nothing outlives its instance, each message is handled once."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, DeadLetter, Down, Request, agent, on, pool, supervise
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import Deadlock, HandlerFailed, NotDelivered

LOG: list[object] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


@frozen
class Run(Request[object]):
    what: Callable[[Any, Context], Awaitable[object]]


@frozen
class Note:
    text: str


@frozen
class Total(Request[int]):
    fails: bool = False


@agent
class First:
    notes: list[str] = field(factory=list[str])
    broken: bool = False

    @on(Run)
    async def run(self, message: Run, context: Context) -> object:
        return await message.what(self, context)

    @on(Note)
    async def note(self, message: Note) -> None:
        assert not self.broken, "an instance that has failed handles nothing"
        self.notes.append(message.text)
        LOG.append(message.text)

    @on(Down)
    async def down(self, message: Down) -> None:
        self.notes.append(message.reason)

    @on(Total)
    def total(self, message: Total) -> int:
        self.notes.append("total")
        if message.fails:
            raise ValueError
        return len(self.notes)


@agent
class Second(First):
    pass


@frozen
class Bear(Request[int]):
    pass


@agent
class Parent:
    born: int = 0

    @on(Bear)
    def bear(self, message: Bear, context: Context) -> int:
        context.spawn(First, "first")
        self.born += 1
        return self.born


@agent
class Clinging(First):
    def on_stop(self, context: Context) -> None:
        try:
            context.spawn(Second)
        except NotDelivered:
            LOG.append("refused")


async def fail(_: First, __: Context) -> None:
    raise ValueError


async def notes(agent: First, _: Context) -> list[str]:
    return list(agent.notes)


async def test_an_agent_that_asks_itself_is_told_and_goes_on(autojump_clock: object) -> None:
    async def ask_itself(_: First, context: Context) -> str:
        with pytest.raises(Deadlock, match="first → first"):
            await context.self.ask(Total())
        return "told"

    async with open_runtime() as runtime:
        ref, start = runtime.spawn(First), trio.current_time()
        assert await ref.ask(Run(ask_itself)) == "told"
        assert await ref.ask(Run(notes)) == []
        assert trio.current_time() == start


async def test_a_plain_handler_that_fails_while_its_agent_rests_has_failed_it(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        assert await ref.ask(Total()) == 1
        for _ in range(3):
            with pytest.raises(HandlerFailed):
                await ref.ask(Total(fails=True))
            assert await ref.ask(Total()) == 1, "a new instance"
        with pytest.raises(HandlerFailed):
            await ref.ask(Total(fails=True))
        with pytest.raises(NotDelivered):
            await ref.ask(Total())


async def test_a_sibling_that_is_stopped_while_it_is_to_be_restarted_holds_up_nobody(autojump_clock: object) -> None:
    async def stubborn(_: First, __: Context) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)

    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, strategy="one_for_all"))
        first, second = runtime.ref("first"), runtime.ref("second")
        await second.tell(Run(stubborn))
        await first.tell(Note("before"))
        with pytest.raises(HandlerFailed):
            await first.ask(Run(fail))
        await trio.testing.wait_all_tasks_blocked()
        second.stop()
        with trio.fail_after(10):
            assert await first.ask(Run(notes)) == []
        assert runtime.count() == 1


async def test_a_node_in_whose_backoff_it_stops_does_not_wait_for_the_pause(autojump_clock: object) -> None:
    async with open_runtime(grace=5) as runtime:
        runtime.start(supervise(First, backoff=(1_000, 1_000)))
        await runtime.ref("first").tell(Run(fail))
        await trio.testing.wait_all_tasks_blocked()
        await runtime.ref("first").tell(Note("queued"))
        start = trio.current_time()
    assert trio.current_time() - start <= 10
    assert LOG == []


async def test_a_subscriber_that_fails_on_dead_letters_breeds_none(autojump_clock: object) -> None:
    @agent
    class Morgue(First):
        def on_start(self, context: Context) -> None:
            context.subscribe("#dead_letters")

        @on(DeadLetter)
        async def dead_letter(self, message: DeadLetter) -> None:
            raise ValueError

    async with open_runtime() as runtime:
        runtime.spawn(Morgue)
        await trio.testing.wait_all_tasks_blocked()
        runtime.ref("nobody").tell_nowait(Note("lost"))
        await trio.sleep(1)
        assert runtime.dead_letters.counts() == {"unknown agent": 1, "failed": 1}
        assert runtime.failures == 1


async def test_what_belongs_to_an_agent_does_not_go_to_the_next_with_its_crew(autojump_clock: object) -> None:
    @agent(idle_after=1)
    class Sleepy(First):
        pass

    async def remind(_: First, context: Context) -> None:
        context.after(0.5, Note(context.self.name))

    async with open_runtime() as runtime:
        one, two = runtime.spawn(Sleepy, "one"), runtime.spawn(Sleepy, "two")
        for each in (one, two):
            await each.ask(Run(remind))
            await trio.sleep(10)
            assert not runtime.awake
        assert await one.ask(Run(notes)) == ["one"]
        assert await two.ask(Run(notes)) == ["two"]


async def test_an_end_that_is_cut_off_still_ends_what_belongs_to_the_instance(autojump_clock: object) -> None:
    @agent
    class Stubborn(First):
        async def on_stop(self, _: Context) -> None:
            await trio.sleep(100)

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            LOG.append("ended")

    async def settle(_: First, context: Context) -> None:
        await context.spawn(Stubborn).ask(Run(notes))
        context.start_soon(background)
        context.every(1, Note("tick"))
        context.watch(watched)

    async with open_runtime(grace=5) as runtime:
        watched, ref = runtime.spawn(Second), runtime.spawn(First)
        await ref.ask(Run(settle))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(HandlerFailed):
            await ref.ask(Run(fail))
        assert await ref.ask(Run(notes)) == []
        assert LOG == ["ended"]
        watched.stop()
        await trio.sleep(10)
        assert await ref.ask(Run(notes)) == []


async def test_a_tick_or_a_down_that_waited_is_not_the_next_instances(autojump_clock: object) -> None:
    async def busy(_: First, context: Context) -> None:
        context.after(1, Note("tick"))
        context.watch(other)
        other.stop()
        await trio.sleep(5)
        raise ValueError

    async with open_runtime() as runtime:
        other, ref = runtime.spawn(Second), runtime.spawn(First)
        with pytest.raises(HandlerFailed):
            await ref.ask(Run(busy))
        assert await ref.ask(Run(notes)) == []


@pytest.mark.parametrize("attempt", range(20))
async def test_a_message_handed_to_a_worker_as_another_fails_is_handled_once_and_not_by_what_failed(
    autojump_clock: object, attempt: int
) -> None:
    """Which of two tasks that may run does so first is random in trio: each order has its turn in the attempts."""

    @agent(concurrency=2)
    class Pair(First):
        pass

    go = trio.Event()

    async def fails(agent: First, _: Context) -> None:
        await go.wait()
        agent.broken = True
        raise ValueError

    async with open_runtime() as runtime:
        ref = runtime.spawn(Pair)
        await ref.tell(Run(fails))
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        ref.tell_nowait(Note("handed over"))
        await trio.sleep(1)
        assert LOG == ["handed over"]
        assert (runtime.failures, runtime.queued()) == (1, 0)


async def test_who_watches_a_pool_is_told_once_its_last_agent_has_ended(autojump_clock: object) -> None:
    async def watch(_: First, context: Context) -> None:
        context.watch(crowd)

    async with open_runtime() as runtime:
        crowd: AgentRef[Second] = runtime.spawn(pool(Second, 3), "crowd")
        early, late = runtime.spawn(First, "early"), runtime.spawn(First, "late")
        await early.ask(Run(watch))
        for number in range(3):
            assert await early.ask(Run(notes)) == []
            runtime.ref(f"crowd/{number}").stop()
            await trio.sleep(1)
            if number == 0:
                await late.ask(Run(watch))
        for watcher in (early, late):
            assert await watcher.ask(Run(notes)) == ["stopped"]


async def test_a_publication_to_an_agent_that_stops_is_a_dead_letter_of_a_stopped_one(autojump_clock: object) -> None:
    async def subscribe(_: First, context: Context) -> None:
        context.subscribe("#news")

    async def hold(_: First, __: Context) -> None:
        await trio.sleep(3)

    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        await ref.ask(Run(subscribe))
        await ref.tell(Run(hold))
        await trio.testing.wait_all_tasks_blocked()
        ref.stop()
        runtime.publish("#news", Note("late"))
        assert runtime.dead_letters.counts() == {"stopped": 1}


async def test_a_message_handed_to_a_crew_that_changes_hands_is_answered_when_its_agent_stops(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        first = runtime.spawn(First)
        await first.ask(Run(notes))
        await trio.sleep(100)
        second = runtime.spawn(Second)
        second.tell_nowait(Note("handed over"))  # to the worker that waited for the first agent
        second.stop()
        await second.stopped()
        assert runtime.dead_letters.counts() == {"stopped": 1}


async def test_a_child_that_fails_too_often_fails_its_parent_at_rest(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        parent = runtime.spawn(Parent)
        assert await parent.ask(Bear()) == 1
        found = runtime.find("parent")
        assert found is not None
        assert found.state == "resting"
        child = runtime.ref("first")
        for _ in range(4):
            with pytest.raises(HandlerFailed):
                await child.ask(Total(fails=True))
            await trio.sleep(0.01)
        assert await parent.ask(Bear()) == 1, "a new instance, and its child of the same name"
        assert runtime.failures == 5


async def test_a_hook_of_an_instance_that_ends_spawns_nothing_that_would_outlive_it(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Clinging)
        with pytest.raises(HandlerFailed):
            await ref.ask(Run(fail))
        assert await ref.ask(Run(notes)) == []
        assert [cell.name for cell in runtime.cells()] == ["clinging"]
        assert LOG == ["refused"]
