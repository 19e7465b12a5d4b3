"""Messages kept for later: they come back in order, over a restart too, and their askers go on waiting."""

from typing import Any

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, agent, on
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import HandlerFailed, NotDelivered, OutcomeUnknown, UsageError


@frozen
class Say(Request[str]):
    text: str


@frozen
class Open(Request[None]):
    """Let in what was stashed, and fail if told so."""

    fails: bool = False


@frozen
class Hang(Request[None]):
    stubborn: bool = False


@agent
class Careful:
    """Catches whatever goes wrong in its handler, and once the stash is all it meets."""

    said: list[str] = field(factory=list[str])

    @on(Say)
    async def say(self, message: Say, context: Context) -> str:
        try:
            if not self.said:
                self.said.append("stashed")
                context.stash()
        except Exception:  # noqa: BLE001 - what is tested
            self.said.append("swallowed")
        return " ".join(self.said)

    @on(Open)
    async def open(self, message: Open, context: Context) -> None:
        context.unstash_all()


async def test_a_handler_that_catches_every_exception_does_not_swallow_the_stash(autojump_clock: object) -> None:
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(Careful)

        async def ask() -> None:
            assert await ref.ask(Say("a")) == "stashed"

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await ref.ask(Open())


@agent(mailbox=Mailbox(4))
class Door:
    is_open: bool = False
    said: list[str] = field(factory=list[str])

    @on(Say)
    async def say(self, message: Say, context: Context) -> str:
        if not self.is_open:
            context.stash()
        self.said.append(message.text)
        return " ".join(self.said)

    @on(Open)
    async def open(self, message: Open, context: Context) -> None:
        self.is_open = True
        context.unstash_all()
        if message.fails:
            raise ValueError

    @on(Hang)
    async def hang(self, message: Hang) -> None:
        with trio.CancelScope(shield=message.stubborn):
            await trio.sleep(100)


def fresh_door() -> type[Door]:
    """Return a class whose first instance is shut, and whose next ones are open."""
    numbers = iter(range(10))

    @agent(mailbox=Mailbox(4))
    class Fresh(Door):
        def __attrs_post_init__(self) -> None:
            self.is_open = next(numbers) > 0

    return Fresh


async def ask(ref: AgentRef[Any], message: Request[Any], answers: list[object]) -> None:
    try:
        answers.append(await ref.ask(message))
    except Exception as error:  # noqa: BLE001 - what the asker gets is what is tested
        answers.append(type(error))


async def ask_in_order(nursery: trio.Nursery, ref: AgentRef[Any], texts: str, answers: list[object]) -> None:
    for text in texts:
        nursery.start_soon(ask, ref, Say(text), answers)
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("unstashed", [False, True])
async def test_what_was_stashed_before_a_failure_is_handled_first_by_the_next_instance(
    autojump_clock: object, unstashed: bool
) -> None:
    """Whether the one that failed had put it back itself or not."""
    answers: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(fresh_door())
        await ask_in_order(nursery, ref, "ab", answers)
        assert answers == []
        if unstashed:
            nursery.start_soon(ask, ref, Open(fails=True), answers)
        else:
            nursery.start_soon(ask, ref, Hang(), answers)
            await trio.testing.wait_all_tasks_blocked()
            cell = runtime.find(ref.name)
            assert cell is not None
            cell.failed(ValueError(), None)
        nursery.start_soon(ask, ref, Say("c"), answers)
    assert answers.count(HandlerFailed) == 1
    assert sorted(answer for answer in answers if isinstance(answer, str)) == ["a", "a b", "a b c"]


async def test_what_was_put_back_comes_before_what_was_sent_since(autojump_clock: object) -> None:
    answers: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(Door)
        await ask_in_order(nursery, ref, "ab", answers)
        ref.tell_nowait(Open())
        ref.tell_nowait(Say("c"))
        await trio.testing.wait_all_tasks_blocked()
        assert set(answers) == {"a", "a b"}
        assert await ref.ask(Say("d")) == "a b c d"


async def test_a_full_stash_fails_the_agent_that_puts_one_more_into_it(autojump_clock: object) -> None:
    answers: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(fresh_door())
        await ask_in_order(nursery, ref, "abcde", answers)
        assert sorted(map(str, answers)) == sorted(map(str, [HandlerFailed, "a", "a b", "a b c", "a b c d"]))


async def test_an_asker_that_leaves_takes_its_message_out_of_the_stash(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Door)
        with trio.move_on_after(1):
            await ref.ask(Say("gone"))
        await ref.ask(Open())
        assert await ref.ask(Say("here")) == "here"
        assert runtime.queued() == 0


async def test_what_is_in_the_stash_when_its_agent_stops_is_not_delivered(autojump_clock: object) -> None:
    answers: list[object] = []
    async with trio.open_nursery() as nursery, open_runtime() as runtime:
        await ask_in_order(nursery, runtime.spawn(Door), "ab", answers)
    assert answers == [NotDelivered, NotDelivered]
    assert runtime.dead_letters.counts() == {"stopped": 2}


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_handler_that_hangs_holds_a_draining_node_for_its_grace(autojump_clock: object, stubborn: bool) -> None:
    """Its outcome is unknown then. One that is shielded holds it for as long as it takes: nobody can cancel it."""
    answers: list[object] = []
    async with trio.open_nursery() as nursery, open_runtime(grace=5, ask_limit=1_000) as runtime:
        hanging, quiet = runtime.spawn(Door), runtime.spawn(Door)
        await quiet.ask(Open())
        nursery.start_soon(ask, hanging, Hang(stubborn), answers)
        await trio.testing.wait_all_tasks_blocked()
        await ask_in_order(nursery, hanging, "a", answers)
        start = trio.current_time()
    assert trio.current_time() - start == pytest.approx(100 if stubborn else 5)
    assert set(answers) == {NotDelivered, None if stubborn else OutcomeUnknown}
    assert runtime.count() == 0


@agent(concurrency=3)
class Table:
    """Where three have to meet."""

    is_open: bool = False
    here: int = 0
    met: trio.Event = field(factory=trio.Event)

    @on(Say)
    async def say(self, message: Say, context: Context) -> str:
        if not self.is_open:
            context.stash()
        self.here += 1
        if self.here == 3:
            self.met.set()
        await self.met.wait()
        return message.text

    @on(Open)
    async def open(self, message: Open, context: Context) -> None:
        self.is_open = True
        context.unstash_all()


async def test_what_comes_back_from_the_stash_is_handled_by_as_many_workers_as_there_are(
    autojump_clock: object,
) -> None:
    answers: list[object] = []
    with trio.fail_after(5):
        async with open_runtime() as runtime, trio.open_nursery() as nursery:
            table = runtime.spawn(Table)
            await ask_in_order(nursery, table, "abc", answers)
            await table.ask(Open())
    assert {*answers} == {"a", "b", "c"}


async def test_messages_whose_askers_have_gone_take_no_room_in_a_full_stash(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Door)
        for _ in range(6):
            with trio.move_on_after(1):
                await ref.ask(Say("gone"))
        assert runtime.failures == 0
        await ref.ask(Open())
        assert await ref.ask(Say("here")) == "here"
        assert (runtime.withdrawn, runtime.queued()) == (6, 0)


@frozen
class Keep(Request[None]):
    """Keep the context of this message."""


@frozen
class Misuse(Request[str]):
    """Stash with a context that is not this message's."""

    kept: Context | None = None


@agent
class Hoarder:
    kept: Context | None = None

    @on(Keep)
    async def keep(self, message: Keep, context: Context) -> None:
        self.kept = context

    @on(Misuse)
    async def misuse(self, message: Misuse, context: Context) -> str:
        kept = message.kept or self.kept
        assert kept is not None
        kept.stash()


@agent
class PlainHoarder:
    kept: Context | None = None

    @on(Keep)
    def keep(self, message: Keep, context: Context) -> None:
        self.kept = context

    @on(Misuse)
    def misuse(self, message: Misuse) -> str:
        kept = message.kept or self.kept
        assert kept is not None
        kept.stash()


@agent
class Lender:
    other: AgentRef[PlainHoarder]

    @on(Keep)
    async def lend(self, message: Keep, context: Context) -> None:
        await self.other.ask(Misuse(context))


@agent(concurrency=2)
class Pair(Hoarder):
    @on(Keep)
    async def keep(self, message: Keep, context: Context) -> None:
        self.kept = context
        await trio.sleep(10)


@agent
class Nested:
    @on(Keep)
    async def keep(self, message: Keep, context: Context) -> None:
        async def stash() -> None:
            context.stash()

        context.start_soon(stash)
        await trio.sleep(10)


@pytest.mark.parametrize("cls", [Hoarder, PlainHoarder])
async def test_a_context_that_was_kept_stashes_neither_its_message_nor_the_one_handled_now(
    autojump_clock: object, cls: type[Any]
) -> None:
    failures: list[Exception] = []
    async with open_runtime() as runtime:
        runtime.on_failure = lambda _, __, error: failures.append(error)
        ref = runtime.spawn(cls)
        await ref.ask(Keep())
        with trio.fail_after(1), pytest.raises(HandlerFailed):
            await ref.ask(Misuse())
        assert runtime.queued() == 0
    assert [type(each) for each in failures] == [UsageError]
    assert "stashes a Keep that it does not handle now" in str(failures[0])


async def test_one_worker_does_not_stash_the_message_of_another(autojump_clock: object) -> None:
    answers: list[object] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(Pair)
        nursery.start_soon(ask, ref, Keep(), answers)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, ref, Misuse(), answers)
    assert answers == [HandlerFailed, HandlerFailed]  # the first is cut off by the restart


async def test_a_plain_handler_in_its_askers_task_does_not_stash_its_askers_message(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        other = runtime.spawn(PlainHoarder)
        with trio.fail_after(1), pytest.raises(HandlerFailed):
            await runtime.spawn(lambda: Lender(other)).ask(Keep())
        assert runtime.queued() == 0


async def test_a_background_task_stashes_no_message(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(Nested)
        with trio.fail_after(1), pytest.raises(HandlerFailed):
            await ref.ask(Keep())
        assert runtime.queued() == 0
