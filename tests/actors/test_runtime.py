"""What the local runtime promises: delivery, order, one at a time, deadlines, restarts, draining."""

import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, agent, on, pool, supervise
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import (
    DeclarationError,
    HandlerFailed,
    MailboxFull,
    NameTaken,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    UsageError,
)


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Fail(Request[None]):
    text: str = "boom"


@frozen
class Hold(Request[str]):
    seconds: float


@frozen
class Note:
    text: str


@frozen
class LoudNote(Note):
    pass


@frozen
class Unheard:
    pass


@agent
class Counter:
    total: int = 0
    notes: list[str] = field(factory=list[str])
    inside: int = 0

    @on(Add)
    async def add(self, message: Add) -> Total:
        self.total += message.amount
        return Total(self.total)

    @on(Fail)
    async def fail(self, message: Fail) -> None:
        raise ValueError(message.text)

    @on(Hold)
    async def hold(self, message: Hold) -> str:
        self.inside += 1
        assert self.inside == 1, "two messages at a time"
        try:
            await trio.sleep(message.seconds)
        finally:
            self.inside -= 1
        return "held"

    @on(Note)
    def note(self, message: Note) -> None:
        self.notes.append(message.text)


@frozen
class NotesSoFar(Request[list[str]]):
    pass


@agent
class Notebook(Counter):
    @on(NotesSoFar)
    def so_far(self, message: NotesSoFar) -> list[str]:
        return list(self.notes)


async def test_ask_returns_the_typed_reply(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        assert await counter.ask(Add(3)) == Total(3)
        assert await counter.ask(Add(4)) == Total(7)


async def test_tells_arrive_in_the_order_they_were_sent(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        notebook = runtime.spawn(Notebook)
        for number in range(500):
            await notebook.tell(Note(str(number)))
        assert await notebook.ask(NotesSoFar()) == [str(number) for number in range(500)]


async def test_one_message_at_a_time(autojump_clock: object) -> None:
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        counter = runtime.spawn(Counter)
        for _ in range(20):
            nursery.start_soon(counter.ask, Hold(0.1))


async def test_a_tell_waits_while_the_mailbox_is_full(autojump_clock: object) -> None:
    @agent(mailbox=Mailbox(2))
    class Narrow(Notebook):
        pass

    async with open_runtime() as runtime:
        narrow = runtime.spawn(Narrow)
        with trio.CancelScope() as holding:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(narrow.ask, Hold(10))
                await trio.testing.wait_all_tasks_blocked()
                await narrow.tell(Note("1"))
                await narrow.tell(Note("2"))
                with pytest.raises(MailboxFull, match="narrow is full"):
                    narrow.tell_nowait(Note("3"))
                with trio.move_on_after(5) as waiting:
                    await narrow.tell(Note("4"))
                assert waiting.cancelled_caught, "it did not wait"
                await narrow.tell(Note("5"))  # room comes when the held message is done
                holding.cancel()
        assert await narrow.ask(NotesSoFar()) == ["1", "2", "5"]


async def test_a_subclass_of_a_message_reaches_its_bases_handler(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        notebook = runtime.spawn(Notebook)
        await notebook.tell(LoudNote("HEY"))
        assert await notebook.ask(NotesSoFar()) == ["HEY"]


async def test_a_message_nobody_handles_is_refused_to_an_asker_and_a_dead_letter_to_a_teller(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        counter: AgentRef[Any] = runtime.spawn(Counter)
        with pytest.raises(NotHandled, match="counter does not handle NotesSoFar; it handles Add, Fail, Hold, Note"):
            await counter.ask(NotesSoFar())
        await counter.tell(Unheard())
        await runtime.ref("nobody").tell(Unheard())
        with pytest.raises(NotDelivered, match="no agent is called 'nobody'"):
            await runtime.ref("nobody").ask(NotesSoFar())
        assert runtime.dead_letters.counts() == {"not handled": 1, "unknown agent": 1}


async def test_the_deadline_of_the_asker_is_the_handlers(autojump_clock: object) -> None:
    seen: list[float] = []

    @agent
    class Clock:
        @on(Hold)
        async def hold(self, message: Hold, context: Context) -> str:
            seen.append(context.deadline - trio.current_time())
            await trio.sleep(message.seconds)
            return "held"

    async with open_runtime(ask_limit=7) as runtime:
        clock = runtime.spawn(Clock)
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            await clock.ask(Hold(60))
        with pytest.raises(trio.TooSlowError):
            await clock.ask(Hold(60))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == pytest.approx([2, 7])
        assert runtime.queued() == 0


async def test_move_on_after_around_an_ask_moves_on(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counter.ask, Hold(3))
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(3) as scope:
                await counter.ask(Hold(1))
        assert scope.cancelled_caught


async def test_a_cancelled_asker_cancels_the_running_handler_and_the_state_stays(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        await counter.ask(Add(5))
        with trio.move_on_after(1):
            await counter.ask(Hold(1000))
        before = trio.current_time()
        assert await counter.ask(Add(0)) == Total(5)
        assert trio.current_time() - before < 1
        assert runtime.find("counter").relations.restarts == 0


async def test_a_cancelled_asker_in_the_queue_leaves_a_tombstone(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counter.ask, Hold(10))
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1):
                await counter.ask(Add(100))
        assert await counter.ask(Add(1)) == Total(1)


async def test_a_handler_cancelled_by_its_deadline_leaves_no_cancellation_to_the_next(autojump_clock: object) -> None:
    @agent
    class Stubborn:
        @on(Hold)
        async def hold(self, message: Hold) -> str:
            with trio.CancelScope(shield=True):
                await trio.sleep(message.seconds)
            return "done all the same"

        @on(Add)
        async def add(self, message: Add) -> Total:
            await trio.sleep(0.5)
            return Total(message.amount)

    async with open_runtime() as runtime:
        stubborn = runtime.spawn(Stubborn)
        with trio.move_on_after(1):
            await stubborn.ask(Hold(2))
        assert await stubborn.ask(Add(9)) == Total(9)


async def test_a_failing_handler_restarts_its_agent_with_mailbox_and_queued_asks(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        await counter.ask(Add(5))
        results: list[object] = []

        async def ask(message: Request[Any]) -> None:
            try:
                results.append(await counter.ask(message))
            except HandlerFailed as error:
                results.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, Hold(1))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, Fail())
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, Add(1))
        assert set(results) == {"held", "counter failed on Fail: the log of its node says why", Total(1)}
        assert runtime.dead_letters.counts() == {"failed": 1}
        cell = runtime.find("counter")
        assert cell is not None
        assert cell.relations.restarts == 1


async def test_past_its_intensity_an_agent_is_stopped_and_its_siblings_live_on(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter, sibling = runtime.spawn(Counter), runtime.spawn(Counter, "sibling")
        for _ in range(4):
            with pytest.raises(HandlerFailed):
                await counter.ask(Fail())
        with pytest.raises(NotDelivered):
            await counter.ask(Add(1))
        assert await sibling.ask(Add(1)) == Total(1)


async def test_failures_further_apart_than_the_period_are_restarted_for_ever(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        for _ in range(20):
            with pytest.raises(HandlerFailed):
                await counter.ask(Fail())
            await trio.sleep(2)
        assert await counter.ask(Add(1)) == Total(1)


async def test_a_temporary_agent_is_not_restarted(autojump_clock: object) -> None:
    @agent(restart="temporary")
    class Once(Counter):
        pass

    async with open_runtime() as runtime:
        once = runtime.spawn(Once)
        with pytest.raises(HandlerFailed):
            await once.ask(Fail())
        with pytest.raises(NotDelivered):
            await once.ask(Add(1))


async def test_a_group_of_exceptions_with_a_cancellation_inside_fails_the_agent_and_not_the_node(
    autojump_clock: object,
) -> None:
    @agent
    class Grouped:
        @on(Hold)
        async def hold(self, message: Hold) -> str:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail_when_cancelled)
                await trio.sleep(message.seconds)
            return "held"

        async def fail_when_cancelled(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                msg = "in the middle of a cancellation"
                raise ValueError(msg)

        @on(Add)
        async def add(self, message: Add) -> Total:
            return Total(message.amount)

    async with open_runtime() as runtime:
        grouped = runtime.spawn(Grouped)
        with trio.move_on_after(1):
            await grouped.ask(Hold(5))
        assert await grouped.ask(Add(1)) == Total(1)
        assert runtime.find("grouped").relations.restarts == 1


async def test_a_reply_of_another_type_is_the_handlers_failure(autojump_clock: object) -> None:
    @agent
    class Liar:
        @on(Add)
        async def add(self, message: Add):  # noqa: ANN202 - the missing annotation is the point
            return message.amount

    async with open_runtime() as runtime:
        liar = runtime.spawn(Liar)
        with pytest.raises(HandlerFailed):
            await liar.ask(Add(1))


@frozen
class Loose(Request[object]):
    pass


@frozen
class Remark:
    pass


async def pass_through(_: object, proceed: Callable[[], Awaitable[Any]]) -> object:
    return await proceed()


@pytest.mark.parametrize("interceptors", [(), (pass_through,)])
@pytest.mark.parametrize("takes_context", [False, True])
@pytest.mark.parametrize("way", ["tell", "ask", "typed ask"])
async def test_a_handler_that_returns_a_coroutine_fails(
    autojump_clock: object, way: str, takes_context: bool, interceptors: tuple[Any, ...]
) -> None:
    async def forgotten() -> int:
        pytest.fail("it ran")

    def plain(_: object, __: object) -> object:
        return forgotten()

    def with_context(_: object, __: object, ___: Context) -> object:
        return forgotten()

    async def waiting(_: object, __: object) -> object:
        return forgotten()

    message = {"tell": Remark(), "ask": Loose(), "typed ask": Add(1)}[way]
    failures: list[Exception] = []
    async with open_runtime(interceptors=interceptors) as runtime:
        runtime.on_failure = lambda _, __, error: failures.append(error)
        for function in (with_context if takes_context else plain, waiting):
            del function.__annotations__["return"]
            ref = runtime.spawn(agent(type("Forgetful", (), {"answer": on(type(message))(function)})))
            if isinstance(message, Request):
                with pytest.raises(HandlerFailed):
                    await ref.ask(message)
            else:
                await ref.tell(message)
                await trio.testing.wait_all_tasks_blocked()
    sentence = "answer returned a coroutine, which nobody would run: make it async def and await it there"
    assert [str(each) for each in failures] == [sentence] * 2


async def test_names(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        assert [runtime.spawn(Counter).name for _ in range(3)] == ["counter", "counter_2", "counter_3"]
        with pytest.raises(NameTaken, match="'counter' is the name of a Counter on this node"):
            runtime.spawn(Counter, "counter")
        for name in ("", " ", "two words", "a/b", "a/5", "#a", "line\nbreak", "a" * 256):
            with pytest.raises(UsageError, match="cannot be an agent's name"):
                runtime.spawn(Counter, name)
        with pytest.raises(DeclarationError, match="int is not an agent: decorate the class with @agent"):
            runtime.spawn(int)
        instance: Any = Counter()
        with pytest.raises(DeclarationError, match="an object of type Counter was spawned: give an agent class, a"):
            runtime.spawn(instance)


async def test_an_agent_whose_state_is_not_given_is_refused_with_how_to_give_it(autojump_clock: object) -> None:
    @agent
    class Till:
        total: int
        place: str = field(kw_only=True)
        note: str = ""

        def __attrs_post_init__(self) -> None:
            len(self.total)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    unfinished: Any = Till
    async with open_runtime() as runtime:
        for factory in (unfinished, pool(unfinished, 2)):
            with pytest.raises(DeclarationError) as refused:
                runtime.spawn(factory)
            sentence = "Till needs total, place: spawn(functools.partial(Till, total=…, place=…))"
            assert str(refused.value) == sentence
        with pytest.raises(DeclarationError, match="Till needs place"):
            runtime.spawn(functools.partial(unfinished, total=3))
        with pytest.raises(TypeError, match="has no len"):
            runtime.spawn(functools.partial(unfinished, 3, place="here"))
        assert runtime.count() == 0


@pytest.mark.parametrize(
    "second",
    [Counter, lambda: Counter(), pool(Counter, 2), supervise(Notebook, supervise(Counter))],  # noqa: PLW0108
)
async def test_an_app_that_lists_two_agents_of_one_name_is_refused(
    autojump_clock: object, second: Callable[[], object]
) -> None:
    sentence = r"the app lists two agents called 'counter': keep one, rename a class, or list pool\(Counter, 2\)"
    async with open_runtime() as runtime:
        runtime.start(Counter)
        with pytest.raises(NameTaken, match=sentence):
            runtime.start(second)


async def test_a_pool_whose_constructor_fails_leaves_no_agent(autojump_clock: object) -> None:
    made: list[int] = []

    @agent
    class Fragile:
        def __attrs_post_init__(self) -> None:
            made.append(1)
            if len(made) == 3:
                raise KeyError

    async with open_runtime() as runtime:
        with pytest.raises(KeyError):
            runtime.spawn(pool(Fragile, 4))
        assert runtime.count() == 0


async def test_the_sender_is_the_agent_whose_handler_runs_and_else_the_node(autojump_clock: object) -> None:
    @frozen
    class WhoAmI(Request[str]):
        pass

    @agent
    class Mirror:
        @on(WhoAmI)
        async def who(self, message: WhoAmI, context: Context) -> str:
            assert context.sender.is_local
            assert context.self.name == "mirror"
            return context.sender.id

    @agent
    class Asker:
        mirror: AgentRef[Mirror]

        @on(WhoAmI)
        async def who(self, message: WhoAmI) -> str:
            return await self.mirror.ask(message)

    async with open_runtime() as runtime:
        mirror = runtime.spawn(Mirror)
        asker = runtime.spawn(lambda: Asker(mirror))
        assert await mirror.ask(WhoAmI()) == "node"
        assert await asker.ask(WhoAmI()) == "asker"


async def test_hooks_run_at_both_ends_later_agents_stop_first(autojump_clock: object) -> None:
    events: list[str] = []

    @agent
    class Hooked:
        async def on_start(self, context: Context) -> None:
            events.append(f"start {context.self.name}")

        async def on_stop(self, context: Context) -> None:
            await trio.sleep(0.1)
            events.append(f"stop {context.self.name}")

    async with open_runtime() as runtime:
        runtime.spawn(Hooked, "first")
        await trio.testing.wait_all_tasks_blocked()
        runtime.spawn(Hooked, "second")
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["start first", "start second"]
    assert events[2:] == ["stop second", "stop first"]


async def test_draining_lets_agents_finish_what_they_have(autojump_clock: object) -> None:
    notebook: list[str] = []

    @agent
    class Slow:
        @on(Note)
        async def note(self, message: Note) -> None:
            await trio.sleep(0.1)
            notebook.append(message.text)

    async with open_runtime(grace=5) as runtime:
        slow = runtime.spawn(Slow)
        for number in range(10):
            await slow.tell(Note(str(number)))
    assert notebook == [str(number) for number in range(10)]


async def test_past_the_grace_running_asks_are_of_unknown_outcome_and_queued_ones_not_delivered(
    autojump_clock: object,
) -> None:
    outcomes: list[type] = []

    async def ask(ref: AgentRef[Counter], message: Request[Any]) -> None:
        try:
            await ref.ask(message)
        except (OutcomeUnknown, NotDelivered) as error:
            outcomes.append(type(error))

    async with trio.open_nursery() as nursery:
        async with open_runtime(grace=2) as runtime:
            counter = runtime.spawn(Counter)
            nursery.start_soon(ask, counter, Hold(100))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, counter, Add(1))
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
        assert trio.current_time() - start == pytest.approx(2)
    assert sorted(each.__name__ for each in outcomes) == ["NotDelivered", "OutcomeUnknown"]


async def test_a_stopping_node_refuses_outside_senders_and_new_agents(autojump_clock: object) -> None:
    refusals: list[str] = []

    async def late(runtime: Runtime, counter: AgentRef[Counter]) -> None:
        await trio.sleep(1)
        for attempt in (lambda: counter.ask(Add(1)), lambda: counter.tell(Note("late"))):
            try:
                await attempt()
            except NotDelivered as error:
                refusals.append(str(error))
        with pytest.raises(NotDelivered, match="no agent can be spawned"):
            runtime.spawn(Counter)

    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        runtime.nursery.start_soon(late, runtime, counter)
        runtime.nursery.start_soon(counter.ask, Hold(3))
        await trio.testing.wait_all_tasks_blocked()
    assert refusals == ["the node is stopping: nothing was sent"] * 2


async def test_an_exception_in_the_block_ends_agents_at_once_and_leaves_nothing(autojump_clock: object) -> None:
    with pytest.RaisesGroup(KeyError):
        async with open_runtime() as runtime:
            counter = runtime.spawn(Counter)
            runtime.nursery.start_soon(_ignore, counter.ask, Hold(1000))
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError
    assert runtime.queued() == 0
    assert runtime.cells() == []


async def _ignore(function: Callable[..., Awaitable[object]], *args: object) -> None:
    with contextlib.suppress(OutcomeUnknown):
        await function(*args)


@pytest.mark.parametrize("step", range(40))
async def test_cancelled_at_any_checkpoint_an_ask_loses_no_slot(autojump_clock: object, step: int) -> None:
    """Cancel the asker after each number of scheduler steps: nothing stays unfinished, the next ask is answered."""
    async with open_runtime() as runtime:
        counter = runtime.spawn(Counter)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(counter.ask, Add(1))
            for _ in range(step):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.queued() == 0
        await counter.ask(Add(0))


async def test_an_agent_that_floods_itself_lets_others_run(autojump_clock: object) -> None:
    @frozen
    class Again:
        pass

    @agent
    class Flooder:
        @on(Again)
        def again(self, message: Again, context: Context) -> None:
            context.self.tell_nowait(message)

    async with open_runtime(grace=0.1) as runtime:
        flooder, counter = runtime.spawn(Flooder), runtime.spawn(Counter)
        await flooder.tell(Again())
        assert await counter.ask(Add(2)) == Total(2)
        runtime.find("flooder").stop(0)


async def test_a_factory_that_cannot_be_hashed_builds_agents_too(autojump_clock: object) -> None:
    @define
    class Maker:
        def __call__(self) -> Counter:
            return Counter()

    async with open_runtime() as runtime:
        assert runtime.spawn(Maker()).name == "counter"
