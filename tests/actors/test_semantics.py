"""What the runtime's parts promise together: groups, instances, streams, overflow, pools, the end of a node."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, DeadLetter, Down, Mailbox, Request, Stream, agent, on, pool, supervise
from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.actors.supervision import Strategy
from autonomy_trio.errors import Deadlock, HandlerFailed, NotDelivered, OutcomeUnknown, Overloaded


@frozen
class Run(Request[object]):
    what: Callable[[Any, Context], Awaitable[object]]


@frozen
class Note:
    text: str


@frozen
class Count(Stream[int]):
    fails_at: int = 1_000


@agent
class First:
    notes: list[str] = field(factory=list[str])

    @on(Run)
    async def run(self, message: Run, context: Context) -> object:
        return await message.what(self, context)

    @on(Note)
    async def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @on(Count)
    async def count(self, message: Count) -> AsyncGenerator[int]:
        try:
            for number in range(1_000):
                if number == message.fails_at:
                    raise ValueError
                yield number
        finally:
            self.notes.append("closed")

    @on(Down)
    async def down(self, message: Down) -> None:
        self.notes.append(message.reason)

    @on(DeadLetter)
    async def dead_letter(self, message: DeadLetter) -> None:
        self.notes.append(message.reason)


@agent
class Second(First):
    pass


@agent
class Third(First):
    pass


async def fail(_: First, __: Context) -> None:
    raise ValueError


async def hold(_: First, __: Context) -> None:
    await trio.sleep(20)


async def notes(agent: First, _: Context) -> list[str]:
    return list(agent.notes)


async def instance(agent: First, _: Context) -> object:
    return agent


async def outcome_of(ref: AgentRef[Any], what: Callable[[Any, Context], Awaitable[object]], into: list[object]) -> None:
    try:
        into.append(await ref.ask(Run(what)))
    except Exception as error:  # noqa: BLE001 - what the asker gets is what is tested
        into.append(type(error))


@pytest.mark.parametrize(
    ("strategy", "restarted"), [("one_for_one", "B"), ("one_for_all", "ABC"), ("rest_for_one", "BC")]
)
async def test_a_failure_restarts_whom_the_strategy_names_also_in_the_middle_of_a_handler(
    autojump_clock: object, strategy: Strategy, restarted: str
) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, Third, strategy=strategy))
        refs = dict(zip("ABC", (runtime.ref(name) for name in ("first", "second", "third")), strict=True))
        before = {each: await ref.ask(Run(instance)) for each, ref in refs.items()}
        held: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, refs["C"], hold, held)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(HandlerFailed):
                await refs["B"].ask(Run(fail))
        await trio.sleep(1)
        after = {each: await ref.ask(Run(instance)) for each, ref in refs.items()}
        assert "".join(each for each in "ABC" if after[each] is not before[each]) == restarted
        assert held == ([HandlerFailed] if "C" in restarted else [None])


async def test_a_nested_supervisor_that_gives_up_fails_the_one_above_and_that_one_last_its_group_alone(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        inner = supervise(Second, max_restarts=0)
        runtime.start(supervise(First, inner, strategy="one_for_all", max_restarts=1))
        runtime.start(Third)
        first, second, third = (runtime.ref(each) for each in ("first", "second", "third"))
        before = await first.ask(Run(instance))
        with pytest.raises(HandlerFailed):
            await second.ask(Run(fail))
        await trio.sleep(1)
        assert await first.ask(Run(instance)) is not before
        with pytest.raises(HandlerFailed):
            await second.ask(Run(fail))
        await trio.sleep(1)
        for gone in (first, second):
            with pytest.raises(NotDelivered):
                await gone.ask(Run(instance))
        assert isinstance(await third.ask(Run(instance)), Third)


async def test_an_on_start_that_fails_in_a_group_restart_holds_back_no_sibling_for_good(autojump_clock: object) -> None:
    starts: list[str] = []

    @agent
    class Fragile(First):
        async def on_start(self, _: Context) -> None:
            starts.append("start")
            if len(starts) == 2:
                raise ValueError

    async with open_runtime() as runtime:
        runtime.start(supervise(First, Fragile, Third, strategy="one_for_all"))
        await runtime.ref("fragile").ask(Run(instance))
        with pytest.raises(HandlerFailed):
            await runtime.ref("first").ask(Run(fail))
        for name in ("first", "fragile", "third"):
            await runtime.ref(name).ask(Run(instance))
        assert len(starts) == 3


async def test_a_restart_ends_children_timers_and_background_tasks(autojump_clock: object) -> None:
    ended: list[float] = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def settle(_: First, context: Context) -> None:
        context.spawn(Second, "child")
        context.every(3, Note("tick"))
        context.start_soon(background)

    async with open_runtime() as runtime:
        parent = runtime.spawn(First)
        await parent.ask(Run(settle))
        with pytest.raises(HandlerFailed):
            await parent.ask(Run(fail))
        await trio.sleep(20)
        assert await parent.ask(Run(notes)) == []
        assert runtime.find("child") is None
        assert ended == [trio.current_time() - 20]


async def test_a_background_task_that_fails_fails_its_agent(autojump_clock: object) -> None:
    async def background() -> None:
        await trio.sleep(1)
        raise ValueError

    async def begin(_: First, context: Context) -> None:
        context.start_soon(background)

    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        before = await ref.ask(Run(instance))
        await ref.ask(Run(begin))
        assert await ref.ask(Run(instance)) is before
        await trio.sleep(2)
        assert await ref.ask(Run(instance)) is not before


async def test_a_watcher_is_told_once_and_not_of_a_restart(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        watcher, watched = runtime.spawn(First), runtime.spawn(Second)

        async def watch(_: First, context: Context) -> None:
            context.watch(watched)
            context.watch(watched)

        await watcher.ask(Run(watch))
        with pytest.raises(HandlerFailed):
            await watched.ask(Run(fail))
        await trio.sleep(1)
        assert await watcher.ask(Run(notes)) == []
        watched.stop()
        await watched.stopped()
        await trio.sleep(1)
        assert await watcher.ask(Run(notes)) == ["stopped"]


async def test_what_was_stashed_before_a_restart_comes_first_and_its_asker_is_answered(autojump_clock: object) -> None:
    order: list[str] = []
    failed: list[bool] = []

    async def stashed(_: First, context: Context) -> str:
        if not failed:
            context.stash()
        order.append("stashed")
        return "late"

    async def fails(_: First, __: Context) -> None:
        failed.append(True)
        await trio.sleep(1)
        raise ValueError

    async def queued(_: First, __: Context) -> None:
        order.append("queued")

    async with open_runtime() as runtime:
        ref, answers = runtime.spawn(First), list[object]()
        async with trio.open_nursery() as nursery:
            for what in (stashed, fails, queued):
                nursery.start_soon(outcome_of, ref, what, answers)
                await trio.testing.wait_all_tasks_blocked()
        assert order == ["stashed", "queued"]
        assert set(answers) == {HandlerFailed, "late", None}


async def test_a_stream_that_is_left_early_is_closed_and_the_agent_goes_on(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        async with ref.stream(Count()) as items:
            assert await anext(items) == 0
        await trio.sleep(1)
        assert await ref.ask(Run(notes)) == ["closed"]


async def test_a_stream_that_fails_hands_over_its_items_and_then_the_failure(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref, got = runtime.spawn(First), list[int]()
        before = await ref.ask(Run(instance))
        async with ref.stream(Count(fails_at=3)) as items:
            with pytest.raises(HandlerFailed):
                got.extend([item async for item in items])
        assert await ref.ask(Run(instance)) is not before


async def test_a_restart_ends_an_open_stream_of_unknown_outcome(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        async with ref.stream(Count()) as items:
            assert await anext(items) == 0
            with pytest.raises(HandlerFailed):
                await ref.ask(Run(fail))
            with pytest.raises(OutcomeUnknown):
                _ = [item async for item in items]


async def test_a_failure_of_one_worker_cuts_off_the_others_and_the_queue_goes_on(autojump_clock: object) -> None:
    @agent(concurrency=3)
    class Crowd(First):
        pass

    async def fails(_: First, __: Context) -> None:
        await trio.sleep(1)
        raise ValueError

    async with open_runtime() as runtime:
        ref, answers = runtime.spawn(Crowd), list[object]()
        async with trio.open_nursery() as nursery:
            for what in (hold, hold, fails, notes):
                nursery.start_soon(outcome_of, ref, what, answers)
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(map(str, answers)) == sorted(map(str, [HandlerFailed] * 3 + [[]]))


@pytest.mark.parametrize(("overflow", "dropped"), [("drop_oldest", 0), ("drop_newest", 1)])
async def test_a_dropped_ask_is_overloaded_and_a_dead_letter(
    autojump_clock: object, overflow: Literal["drop_oldest", "drop_newest"], dropped: int
) -> None:
    @agent(mailbox=Mailbox(1, overflow=overflow))
    class Small(First):
        pass

    async with open_runtime() as runtime:
        ref = runtime.spawn(Small)
        answers: list[list[object]] = [[], []]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, ref, hold, [])
            await trio.testing.wait_all_tasks_blocked()
            for each in answers:
                nursery.start_soon(outcome_of, ref, notes, each)
                await trio.testing.wait_all_tasks_blocked()
        assert answers[dropped] == [Overloaded]
        assert answers[1 - dropped] == [[]]
        assert runtime.dead_letters.counts() == {"overloaded": 1}


async def test_a_pool_goes_on_without_a_member_that_was_stopped(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(pool(First, 3), "crowd")
        runtime.ref("crowd/1").stop()
        await runtime.ref("crowd/1").stopped()
        assert len({id(await ref.ask(Run(instance))) for _ in range(6)}) == 2


async def test_agents_that_ask_each_other_in_a_circle_are_told_at_once(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        first, second = runtime.spawn(First), runtime.spawn(Second)

        async def back(_: First, __: Context) -> str:
            with pytest.raises(Deadlock, match="first"):
                await first.ask(Run(notes))
            return "told"

        async def forth(_: First, __: Context) -> object:
            return await second.ask(Run(back))

        started = trio.current_time()
        assert await first.ask(Run(forth)) == "told"
        assert trio.current_time() == started


async def test_an_ask_without_a_deadline_ends_at_the_limit_of_the_node(autojump_clock: object) -> None:
    async with open_runtime(ask_limit=7) as runtime:
        ref, started = runtime.spawn(First), trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await ref.ask(Run(hold))
        assert trio.current_time() - started == pytest.approx(7)
        assert await ref.ask(Run(notes)) == []


async def test_an_idle_agent_rests_with_its_state_and_wakes_with_the_next_message(autojump_clock: object) -> None:
    @agent(idle_after=2)
    class Sleepy(First):
        pass

    async with open_runtime() as runtime:
        ref = runtime.spawn(Sleepy)
        await ref.tell(Note("kept"))
        await trio.sleep(10)
        cell = runtime.find(ref.name)
        assert isinstance(cell, Cell)
        assert cell.crew is None
        assert await ref.ask(Run(notes)) == ["kept"]


async def test_a_full_subscriber_loses_a_publication_and_the_others_get_it(autojump_clock: object) -> None:
    @agent(mailbox=Mailbox(1))
    class Small(First):
        pass

    async def subscribe(_: First, context: Context) -> None:
        context.subscribe("#news")

    async with open_runtime() as runtime:
        full, free = runtime.spawn(Small), runtime.spawn(First)
        for each in (full, free):
            await each.ask(Run(subscribe))
        await full.tell(Run(hold))
        await trio.testing.wait_all_tasks_blocked()
        for text in ("one", "two"):
            runtime.publish("#news", Note(text))
        assert await free.ask(Run(notes)) == ["one", "two"]
        with trio.fail_after(200):
            assert await full.ask(Run(notes)) == ["one"]
        assert runtime.dead_letters.counts() == {"overloaded": 1}


async def test_a_subscriber_of_dead_letters_is_told_of_them(autojump_clock: object) -> None:
    async def subscribe(_: First, context: Context) -> None:
        context.subscribe("#dead_letters")

    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        await ref.ask(Run(subscribe))
        runtime.ref("nobody").tell_nowait(Note("lost"))
        assert await ref.ask(Run(notes)) == ["unknown agent"]
