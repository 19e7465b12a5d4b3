"""An agent's task under stress: no message is lost, no failure or cancellation goes further than it may."""

import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import outcome
import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, agent, on
from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.delivery import OUTSIDE, Asked
from autonomy_trio.actors.local import SENDS_PER_CHECKPOINT
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import HandlerFailed, MailboxFull, NotDelivered, OutcomeUnknown


@frozen
class Hold(Request[str]):
    seconds: float


@frozen
class Note:
    text: str


@frozen
class Run(Request[None]):
    what: Callable[[], Any]


@frozen
class Notes(Request[list[str]]):
    pass


@agent(mailbox=Mailbox(1))
class Worker:
    notes: list[str] = field(factory=list[str])

    @on(Hold)
    async def hold(self, message: Hold) -> str:
        await trio.sleep(message.seconds)
        return "held"

    @on(Note)
    def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @on(Run)
    async def run(self, message: Run) -> None:
        await message.what()

    @on(Notes)
    def all(self, message: Notes) -> list[str]:
        return list(self.notes)


def cell_of(runtime: Runtime, ref: AgentRef[Any]) -> Cell:
    cell = runtime.find(ref.name)
    assert cell is not None
    return cell


@asynccontextmanager
async def busy_worker(runtime: Runtime, seconds: float = 10) -> AsyncGenerator[AgentRef[Worker]]:
    """Give a worker that holds a message, with a mailbox that is full."""
    worker = runtime.spawn(Worker)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outcome_of, worker, Hold(seconds))
        await trio.testing.wait_all_tasks_blocked()
        worker.tell_nowait(Note("queued"))
        with pytest.raises(MailboxFull):
            worker.tell_nowait(Note("refused"))
        yield worker


async def outcome_of(ref: AgentRef[Any], message: Request[Any], into: list[object] | None = None) -> None:
    result = await outcome.acapture(ref.ask, message)
    if into is not None:
        into.append(result.value if isinstance(result, outcome.Value) else type(result.error))


async def test_a_tell_that_is_cancelled_while_it_waits_for_room_is_not_sent(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        async with busy_worker(runtime) as worker:
            with trio.move_on_after(1) as waiting:
                await worker.tell(Note("cancelled"))
            assert waiting.cancelled_caught
            assert runtime.queued() == 2
        assert await worker.ask(Notes()) == ["queued"]
        assert runtime.queued() == 0


async def test_an_ask_that_is_cancelled_while_it_waits_for_room_is_not_sent(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        async with busy_worker(runtime) as worker:
            with pytest.raises(trio.TooSlowError), trio.fail_after(1):
                await worker.ask(Run(lambda: pytest.fail("it ran")))
            assert runtime.queued() == 2
        assert runtime.queued() == 0


@pytest.mark.parametrize("step", range(25))
async def test_cancelled_at_any_step_a_crowd_of_senders_to_a_full_mailbox_loses_nothing(
    autojump_clock: object, step: int
) -> None:
    """What a tell has returned from is handled, once and in order; nothing stays unfinished."""
    sent: list[str] = []

    async def tell_many(worker: AgentRef[Worker], name: str) -> None:
        for number in range(5):
            await worker.tell(Note(f"{name}{number}"))
            sent.append(f"{name}{number}")

    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(tell_many, worker, name)
                nursery.start_soon(outcome_of, worker, Notes())
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.queued() == 0
        handled = await worker.ask(Notes())
        assert set(sent) <= set(handled)
        assert len(set(handled)) == len(handled)
        for name in "abc":
            assert [each for each in handled if each.startswith(name)] == sorted(
                each for each in handled if each.startswith(name)
            )


async def test_senders_that_wait_when_the_agent_stops_are_released(autojump_clock: object) -> None:
    results: list[object] = []
    async with open_runtime() as runtime, busy_worker(runtime) as worker:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, worker, Notes(), results)
            nursery.start_soon(worker.tell, Note("waits too"))
            await trio.testing.wait_all_tasks_blocked()
            cell_of(runtime, worker).stop(0)
        assert results == [NotDelivered]
        assert runtime.queued() == 0
        assert sorted(letter.message for letter in runtime.dead_letters) == ["Hold", "Note", "Note", "Notes"]
        assert runtime.dead_letters.counts() == {"stopped": 4}


async def test_a_tell_to_an_agent_that_is_stopping_is_a_dead_letter_and_an_ask_is_refused(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcome_of, worker, Hold(5))
            await trio.testing.wait_all_tasks_blocked()
            cell_of(runtime, worker).stop(10)
            await worker.tell(Note("late"))
            worker.tell_nowait(Note("late"))
            with pytest.raises(NotDelivered, match="worker is stopping: nothing was run"):
                await worker.ask(Notes())
        assert runtime.dead_letters.counts() == {"stopped": 2}
        with pytest.raises(NotDelivered, match="no agent is called 'worker'"):
            await worker.ask(Notes())


async def test_a_message_that_reaches_the_agent_as_it_stops_does_not_begin_to_run(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        cell = cell_of(runtime, worker)
        await worker.ask(Notes())
        await trio.testing.wait_all_tasks_blocked()
        worker.tell_nowait(Run(lambda: pytest.fail("it ran")))  # the idle agent is handed it, and runs after this task
        cell.stop(0)
        await cell.wait_stopped()
        assert runtime.dead_letters.counts() == {"stopped": 1}


async def test_a_handler_that_fails_as_it_is_stopped_is_not_restarted(autojump_clock: object) -> None:
    results: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        worker = runtime.spawn(Worker)
        nursery.start_soon(outcome_of, worker, Run(fail_when_cancelled), results)
        await trio.testing.wait_all_tasks_blocked()
        cell = cell_of(runtime, worker)
        cell.stop(1)
        await cell.wait_stopped()
        assert cell.relations.restarts == 0
    assert results == [HandlerFailed]


async def test_an_agent_that_never_ran_stops_at_once(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        cell = cell_of(runtime, worker)
        cell.stop(0)
        await cell.wait_stopped()
        cell.stop(0)
        assert runtime.cells() == []
        assert runtime.spawn(Worker).name == "worker"


async def test_an_agent_that_has_not_started_its_task_yet_stops_without_running(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        worker.tell_nowait(Note("never read"))
        cell = cell_of(runtime, worker)
        cell.stop(0)
        await cell.wait_stopped()
        assert runtime.dead_letters.counts() == {"stopped": 1}
        assert runtime.queued() == 0


async def test_patience_lets_the_running_handler_end_and_takes_no_other(autojump_clock: object) -> None:
    results: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        worker = runtime.spawn(Worker)
        nursery.start_soon(outcome_of, worker, Hold(2), results)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(outcome_of, worker, Hold(1), results)
        await trio.testing.wait_all_tasks_blocked()
        cell_of(runtime, worker).stop(3)
    assert sorted(map(str, results)) == sorted(map(str, [NotDelivered, "held"]))


async def test_the_deadline_of_an_ask_that_ended_does_not_cut_the_next(autojump_clock: object) -> None:
    async with open_runtime(ask_limit=100) as runtime:
        worker = runtime.spawn(Worker)
        with trio.fail_after(2):
            await worker.ask(Hold(1))
        assert await worker.ask(Hold(5)) == "held"


async def test_a_shielded_handler_runs_to_its_end_and_the_next_is_not_cancelled(autojump_clock: object) -> None:
    ended: list[float] = []

    async def shielded() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        ended.append(trio.current_time())

    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        start = trio.current_time()
        with trio.move_on_after(1):
            await worker.ask(Run(shielded))
        await worker.tell(Note("next"))
        assert await worker.ask(Hold(1)) == "held"
        assert await worker.ask(Notes()) == ["next"]
        assert ended == [start + 5]
        assert cell_of(runtime, worker).relations.restarts == 0


async def test_a_handler_that_swallows_its_cancellation_does_not_pass_it_on(autojump_clock: object) -> None:
    async def swallow() -> None:
        with contextlib.suppress(trio.Cancelled):
            await trio.sleep(100)

    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        with trio.move_on_after(1):
            await worker.ask(Run(swallow))
        assert await worker.ask(Hold(1)) == "held"


async def test_an_expired_message_is_a_dead_letter_and_never_runs(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        cell = cell_of(runtime, worker)
        run = cell.spec.handlers[Run]
        late = Asked(Run(lambda: pytest.fail("it ran")), run, OUTSIDE, None, trio.current_time(), limited=True)
        cell.accept_nowait(late)
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.dead_letters.counts() == {"expired": 1}
        assert runtime.queued() == 0


async def test_an_answer_that_comes_before_the_asker_waits_is_not_lost(autojump_clock: object) -> None:
    """A sender that waited for room may run again only after its message has been handled."""
    async with open_runtime() as runtime:
        results: list[object] = []
        async with busy_worker(runtime, 1) as worker, trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(outcome_of, worker, Notes(), results)
        assert results == [["queued"]] * 5


class Failing(Exception):
    pass


@pytest.mark.parametrize(
    "error", [Failing(), ExceptionGroup("both", [Failing(), KeyError()]), trio.TooSlowError(), StopAsyncIteration()]
)
async def test_whatever_a_handler_raises_is_handler_failed(autojump_clock: object, error: Exception) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        with pytest.raises(HandlerFailed, match="worker failed on Run"):
            await worker.ask(Run(fail))
        assert await worker.ask(Notes()) == []
        assert runtime.queued() == 0


async def test_an_interrupt_ends_the_node_and_the_failure_beside_it_does_not_hide_it(autojump_clock: object) -> None:
    async def interrupted() -> None:
        await trio.lowlevel.checkpoint()
        both = [KeyboardInterrupt(), Failing()]
        raise BaseExceptionGroup("both", both)

    results: list[object] = []
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        async with open_runtime() as runtime:
            await outcome_of(runtime.spawn(Worker), Run(interrupted), results)
    assert results in ([HandlerFailed], [])
    assert runtime.queued() == 0


async def fail_when_cancelled() -> None:
    """Let a cancellation and a failure leave together, as from a nursery one of whose tasks fails in its clean-up."""
    cancelled = await outcome.acapture(trio.sleep_forever)
    assert isinstance(cancelled, outcome.Error)
    both = [cancelled.error, Failing()]
    raise BaseExceptionGroup("both", both)


async def test_a_handler_that_fails_while_the_node_is_cancelled_does_not_fail_the_node(autojump_clock: object) -> None:
    with trio.move_on_after(1) as scope:
        async with open_runtime() as runtime:
            await runtime.spawn(Worker).tell(Run(fail_when_cancelled))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert runtime.queued() == 0
    assert runtime.dead_letters.counts() == {"failed": 1}


def starting(behaviour: Callable[[int], Any]) -> tuple[type, list[int]]:
    """Return an agent class whose constructor calls the behaviour with how many there have been, and the count."""
    made: list[int] = []

    @agent
    class Fragile(Worker):
        def __attrs_post_init__(self) -> None:
            made.append(1)
            behaviour(len(made))

    return Fragile, made


def fail_from(first: int, until: float = float("inf")) -> Callable[[int], None]:
    def behaviour(number: int) -> None:
        if first <= number < until:
            raise Failing

    return behaviour


async def raises() -> None:
    await trio.lowlevel.checkpoint()
    raise Failing


async def test_a_constructor_that_fails_fails_the_spawn_and_takes_no_name(autojump_clock: object) -> None:
    fragile, _ = starting(fail_from(1, 2))
    async with open_runtime() as runtime:
        with pytest.raises(Failing):
            runtime.spawn(fragile)
        assert runtime.spawn(fragile).name == "fragile"


async def test_a_constructor_that_fails_on_restart_is_a_failure_more(autojump_clock: object) -> None:
    fragile, made = starting(fail_from(2, 4))
    async with open_runtime() as runtime:
        ref: AgentRef[Any] = runtime.spawn(fragile)
        with pytest.raises(HandlerFailed):
            await ref.ask(Run(raises))
        assert await ref.ask(Notes()) == []
        assert len(made) == 4
        assert cell_of(runtime, ref).relations.restarts == 3


async def test_a_constructor_that_goes_on_failing_is_given_up_on_and_the_queue_answered(autojump_clock: object) -> None:
    fragile, made = starting(fail_from(2))
    results: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref: AgentRef[Any] = runtime.spawn(fragile)
        cell = cell_of(runtime, ref)
        nursery.start_soon(outcome_of, ref, Run(raises), results)
        await trio.lowlevel.checkpoint()
        for _ in range(3):
            nursery.start_soon(outcome_of, ref, Notes(), results)
        await cell.wait_stopped()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(map(str, results)) == sorted(map(str, [HandlerFailed, NotDelivered, NotDelivered, NotDelivered]))
        assert len(made) == 4, "no more restarts than the intensity allows"
        assert cell.relations.fate == "gave up"
        assert runtime.queued() == 0


@pytest.mark.parametrize("waits", [False, True])
async def test_an_on_start_that_goes_on_failing_is_given_up_on(autojump_clock: object, waits: bool) -> None:
    starts: list[float] = []

    @agent
    class Broken(Worker):
        async def on_start(self, context: Context) -> None:
            starts.append(trio.current_time())
            if waits:
                await trio.sleep(0.5)
            raise Failing

        def on_stop(self, context: Context) -> None:
            pytest.fail("it never started")

    async with open_runtime() as runtime:
        broken = runtime.spawn(Broken)
        with pytest.raises(NotDelivered, match="broken is stopping"):
            await broken.ask(Notes())
        assert len(starts) == 4
        assert runtime.queued() == 0


async def test_an_on_start_that_fails_once_is_followed_by_the_queue(autojump_clock: object) -> None:
    starts: list[int] = []

    @agent
    class Late(Worker):
        def on_start(self, context: Context) -> None:
            starts.append(1)
            if len(starts) == 1:
                raise Failing
            self.notes.append("started")

    async with open_runtime() as runtime:
        assert await runtime.spawn(Late).ask(Notes()) == ["started"]


async def test_each_instance_gets_its_on_stop_a_failed_one_too(autojump_clock: object) -> None:
    events: list[str] = []
    names = itertools.count(1)

    @agent
    class Pair(Worker):
        name: int = field(factory=lambda: next(names))

        def on_stop(self, context: Context) -> None:
            events.append(f"stop {self.name}")

    async with open_runtime() as runtime:
        pair = runtime.spawn(Pair)
        with pytest.raises(HandlerFailed):
            await pair.ask(Run(raises))
        await pair.ask(Notes())
    assert events == ["stop 1", "stop 2"]


async def test_an_on_start_is_waited_for_when_the_node_drains(autojump_clock: object) -> None:
    events: list[str] = []

    @agent
    class Slow:
        async def on_start(self, context: Context) -> None:
            await trio.sleep(2)
            events.append("started")

        async def on_stop(self, context: Context) -> None:
            events.append("stopped")

    async with open_runtime(grace=5) as runtime:
        runtime.spawn(Slow)
        await trio.testing.wait_all_tasks_blocked()
    assert events == ["started", "stopped"]


async def test_an_on_start_that_hangs_holds_a_draining_node_no_longer_than_its_grace(autojump_clock: object) -> None:
    @agent
    class Hanging:
        async def on_start(self, context: Context) -> None:
            await trio.sleep_forever()

        def on_stop(self, context: Context) -> None:
            pytest.fail("it never started")

    start = trio.current_time()
    async with open_runtime(grace=5) as runtime:
        runtime.spawn(Hanging)
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() - start == pytest.approx(5)


@pytest.mark.parametrize("ending", [raises, trio.sleep_forever, fail_when_cancelled])
async def test_an_on_stop_that_fails_or_hangs_keeps_no_other_from_its_own(
    autojump_clock: object, ending: Callable[[], Any]
) -> None:
    events: list[str] = []

    @agent
    class Bad:
        async def on_stop(self, context: Context) -> None:
            await ending()

        @on(Note)
        def note(self, message: Note) -> None:
            pass

    @agent
    class Good(Bad):
        async def on_stop(self, context: Context) -> None:
            await trio.sleep(1)
            events.append("stopped")

    start = trio.current_time()
    async with open_runtime(grace=3) as runtime:
        for kind in (Good, Bad):
            await runtime.spawn(kind).tell(Note("begin"))
    assert events == ["stopped"]
    assert trio.current_time() - start <= 4


async def test_an_ask_from_one_node_to_another_in_the_same_process(autojump_clock: object) -> None:
    @frozen
    class Who(Request[str]):
        pass

    @agent
    class Mirror:
        @on(Who)
        def who(self, message: Who, context: Context) -> str:
            return context.sender.id

    @agent
    class Asker:
        mirror: AgentRef[Mirror]

        @on(Who)
        async def who(self, message: Who) -> str:
            return await self.mirror.ask(message)

    async with open_runtime() as first, open_runtime() as second:
        mirror = first.spawn(Mirror)
        assert await first.spawn(lambda: Asker(mirror)).ask(Who()) == "asker"
        # An agent of another node is no agent here.
        assert await second.spawn(lambda: Asker(mirror)).ask(Who()) == "node"


async def test_a_node_opened_by_an_agent_has_agents_of_its_own(autojump_clock: object) -> None:
    seen: list[str] = []

    @agent
    class Witness:
        @on(Note)
        def note(self, message: Note, context: Context) -> None:
            seen.append(context.sender.id)

    async def visit() -> None:
        async with open_runtime() as inner:
            witness = inner.spawn(Witness)
            await witness.tell(Note("from the visitor"))
            await inner.spawn(Worker).ask(Run(lambda: witness.tell(Note("from an agent of the inner node"))))

    async with open_runtime() as runtime:
        await runtime.spawn(Worker, "visitor").ask(Run(visit))
    assert seen == ["node", "worker"]


async def test_tells_let_others_run(autojump_clock: object) -> None:
    others: list[int] = []

    async def count() -> None:
        while True:
            others.append(1)
            await trio.lowlevel.checkpoint()

    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(10 * SENDS_PER_CHECKPOINT):
            await runtime.ref("nobody").tell(Note("x"))
        assert len(others) >= 9
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("raised", [True, False])
async def test_once_the_block_has_ended_nothing_can_be_sent_or_spawned(autojump_clock: object, raised: bool) -> None:
    with contextlib.suppress(Failing, ExceptionGroup):
        async with open_runtime() as runtime:
            worker, fresh = runtime.spawn(Worker), runtime.spawn(Worker)
            await worker.ask(Notes())
            if raised:
                raise Failing
    assert runtime.cells() == []
    for ref in (worker, fresh):
        with pytest.raises(NotDelivered, match="the node is stopping"):
            await ref.ask(Notes())
        with pytest.raises(NotDelivered, match="the node is stopping"):
            await ref.tell(Note("late"))
        with pytest.raises(NotDelivered, match="the node is stopping"):
            ref.tell_nowait(Note("late"))
    with pytest.raises(NotDelivered, match="no agent can be spawned"):
        runtime.spawn(Worker)


async def test_the_asker_of_a_handler_that_was_running_when_the_node_was_cancelled(autojump_clock: object) -> None:
    results: list[object] = []
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            async with open_runtime() as runtime:
                worker = runtime.spawn(Worker)
                nursery.start_soon(outcome_of, worker, Hold(100), results)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(outcome_of, worker, Notes(), results)
                await trio.sleep_forever()
    assert sorted(map(str, results)) == sorted(map(str, [OutcomeUnknown, NotDelivered]))
    assert runtime.dead_letters.counts() == {"stopped": 2}
    assert runtime.queued() == 0


async def test_a_node_is_emptied_when_its_last_agent_ends_and_not_when_an_earlier_one_did(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        cell_of(runtime, runtime.spawn(Worker)).stop(0)
        await runtime.wait_emptied()
        worker = runtime.spawn(Worker)
        with trio.move_on_after(1) as waiting:
            await runtime.wait_emptied()
        assert waiting.cancelled_caught
        cell_of(runtime, worker).stop(0)
        await runtime.wait_emptied()


async def test_a_reply_that_cannot_be_handed_over_leaves_nothing_unfinished(autojump_clock: object) -> None:
    class Broken:
        def answer(self, value: object) -> None:
            raise Failing

        def settle(self, result: outcome.Outcome[Any]) -> None:
            raise Failing

    async with open_runtime() as runtime:
        worker = runtime.spawn(Worker)
        cell = cell_of(runtime, worker)
        cell.accept_nowait(Asked(Notes(), cell.spec.handlers[Notes], OUTSIDE, Broken()))
        assert await worker.ask(Notes()) == []
        assert runtime.queued() == 0
