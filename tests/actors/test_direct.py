"""A plain handler of an idle agent runs in its asker's task, and its context means the same there."""

from collections.abc import Callable

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Request, agent, on
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import HandlerFailed, NotDelivered


@frozen
class Do(Request[object]):
    what: Callable[["Plain", Context], object]


@frozen
class Note:
    text: str


@frozen
class Notes(Request[list[str]]):
    pass


@agent
class Plain:
    notes: list[str] = field(factory=list[str])

    @on(Do)
    def do(self, message: Do, context: Context) -> object:
        return message.what(self, context)

    @on(Note)
    async def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @on(Notes)
    async def all(self, message: Notes) -> list[str]:
        return list(self.notes)

    @on(Down)
    async def down(self, message: Down) -> None:
        self.notes.append(message.reason)


@agent(restart="permanent")
class Lasting(Plain):
    pass


@agent
class Asker:
    other: AgentRef[Plain]

    @on(Do)
    async def do(self, message: Do) -> object:
        with trio.fail_after(7):
            return await self.other.ask(message)


def task(_: Plain, __: Context) -> object:
    return trio.lowlevel.current_task()


async def settle(ref: AgentRef[Plain], awake: bool) -> None:
    """Bring an agent that has just been spawned where its next plain handler runs in this task."""
    if awake:
        await ref.ask(Notes())
        await trio.testing.wait_all_tasks_blocked()
    assert await ref.ask(Do(task)) is trio.lowlevel.current_task()


either = pytest.mark.parametrize("awake", [False, True])


@either
async def test_its_context_knows_sender_deadline_and_self(autojump_clock: object, awake: bool) -> None:
    def look(_: Plain, context: Context) -> object:
        return context.sender.id, context.deadline - trio.current_time(), context.self.name

    async with open_runtime(ask_limit=30) as runtime:
        ref = runtime.spawn(Plain)
        await settle(ref, awake)
        assert await ref.ask(Do(look)) == ("node", pytest.approx(30), "plain")
        assert await runtime.spawn(lambda: Asker(ref)).ask(Do(look)) == ("asker", pytest.approx(7), "plain")


@either
async def test_what_it_makes_belongs_to_the_agent(autojump_clock: object, awake: bool) -> None:
    async def background() -> None:
        await context_of[0].self.tell(Note("background"))

    context_of: list[Context] = []

    def make(_: Plain, context: Context) -> object:
        context_of.append(context)
        context.after(1, Note("tick"))
        context.start_soon(background)
        context.watch(context.spawn(Plain, "child"))
        context.subscribe("#news")
        context.publish("#news", Note("news"))
        return None

    async with open_runtime() as runtime:
        ref = runtime.spawn(Plain)
        await settle(ref, awake)
        await ref.ask(Do(make))
        await trio.sleep(2)
        runtime.ref("child").stop()
        await trio.sleep(1)
        assert sorted(await ref.ask(Notes())) == ["background", "news", "stopped", "tick"]


@either
async def test_a_message_that_it_stashes_is_answered_later(autojump_clock: object, awake: bool) -> None:
    def stash_once(plain: Plain, context: Context) -> object:
        if not plain.notes:
            context.stash()
        return "at last"

    def let_in(plain: Plain, context: Context) -> object:
        plain.notes.append("open")
        context.unstash_all()
        return "opened"

    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(Plain)
        await settle(ref, awake)
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await ref.ask(Do(stash_once)))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.TooSlowError), trio.fail_after(1):
            await ref.ask(Do(stash_once))
        assert answers == []
        assert await ref.ask(Do(let_in)) == "opened"
        await trio.testing.wait_all_tasks_blocked()
        assert answers == ["at last"]
        assert runtime.queued() == 0


@either
@pytest.mark.parametrize("kind", [Plain, Lasting])
async def test_it_can_stop_its_agent(autojump_clock: object, awake: bool, kind: type[Plain]) -> None:
    def stop(plain: Plain, context: Context) -> object:
        plain.notes.append("old")
        context.stop()
        return "stopping"

    async with open_runtime() as runtime:
        ref = runtime.spawn(kind)
        await settle(ref, awake)
        assert await ref.ask(Do(stop)) == "stopping"
        await trio.testing.wait_all_tasks_blocked()
        if kind is Lasting:
            assert await ref.ask(Notes()) == []
        else:
            with pytest.raises(NotDelivered):
                await ref.ask(Notes())


@either
async def test_its_failure_is_the_agents(autojump_clock: object, awake: bool) -> None:
    def fail(plain: Plain, context: Context) -> object:
        plain.notes.append("old")
        context.after(1, Note("tick of the old one"))
        raise ValueError

    async with open_runtime() as runtime:
        ref = runtime.spawn(Plain)
        await settle(ref, awake)
        with pytest.raises(HandlerFailed):
            await ref.ask(Do(fail))
        await trio.sleep(5)
        assert await ref.ask(Notes()) == []
        assert runtime.dead_letters.counts() == {"failed": 1}
