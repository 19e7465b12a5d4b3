"""The rules of a restart, one by one; and who is restarted with whom, with agents in place of the pure decision."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, get_args

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Request, Stream, agent, on, supervise
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.actors.spec import Restart
from autonomy_trio.actors.supervision import Strategy
from autonomy_trio.errors import HandlerFailed, NotDelivered, OutcomeUnknown


@frozen
class Run(Request[object]):
    what: Callable[[Any, Context], Awaitable[object]]


@frozen
class Note:
    text: str


@frozen
class Count(Stream[int]):
    pass


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
        for number in range(1_000):
            yield number

    @on(Down)
    async def down(self, message: Down) -> None:
        self.notes.append(f"{message.ref.name} {message.reason}")


async def fail(_: First, __: Context) -> None:
    raise ValueError


async def instance(agent: First, _: Context) -> First:
    return agent


async def notes(agent: First, _: Context) -> list[str]:
    return list(agent.notes)


async def restart(ref: AgentRef[First]) -> None:
    before = await ref.ask(Run(instance))
    with pytest.raises(HandlerFailed):
        await ref.ask(Run(fail))
    await trio.testing.wait_all_tasks_blocked()
    assert await ref.ask(Run(instance)) is not before


async def test_rule_1_the_new_instance_is_built_by_the_same_callable(autojump_clock: object) -> None:
    built: list[First] = []

    def build() -> First:
        built.append(First([f"built {len(built)}"]))
        return built[-1]

    async with open_runtime() as runtime:
        ref = runtime.spawn(build)
        await restart(ref)
        assert await ref.ask(Run(instance)) is built[1]
        assert await ref.ask(Run(notes)) == ["built 1"]


async def test_rule_2_the_mailbox_and_the_asks_in_it_are_kept_in_their_order(autojump_clock: object) -> None:
    answers: list[object] = []

    async def ask(ref: AgentRef[First]) -> None:
        answers.append(await ref.ask(Run(notes)))

    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        ref.tell_nowait(Run(fail))
        ref.tell_nowait(Note("before"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ref)
            await trio.testing.wait_all_tasks_blocked()
        ref.tell_nowait(Note("behind"))
        assert answers == [["before"]]
        assert await ref.ask(Run(notes)) == ["before", "behind"]


async def test_rule_3_the_ref_and_the_name_stay(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(First, "name")
        await restart(ref)
        assert [cell.name for cell in runtime.cells()] == ["name"]
        assert await runtime.ref("name").ask(Run(instance)) is await ref.ask(Run(instance))


async def test_rule_4_its_watchers_go_on_watching_and_are_told_of_its_end_alone(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        watcher, watched = runtime.spawn(First, "watcher"), runtime.spawn(First, "watched")

        async def watch(_: First, context: Context) -> None:
            context.watch(watched)

        await watcher.ask(Run(watch))
        await restart(watched)
        assert await watcher.ask(Run(notes)) == []
        watched.stop()
        await watched.stopped()
        assert await watcher.ask(Run(notes)) == ["watched stopped"]


async def test_rule_5_its_timers_are_cancelled(autojump_clock: object) -> None:
    async def settle(_: First, context: Context) -> None:
        context.after(1, Note("after"))
        context.every(1, Note("every"))

    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        await ref.ask(Run(settle))
        await restart(ref)
        await trio.sleep(10)
        assert await ref.ask(Run(notes)) == []


async def test_rule_6_its_background_tasks_are_cancelled_and_over_before_the_next_instance(
    autojump_clock: object,
) -> None:
    events: list[str] = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            events.append("task over")

    async def begin(_: First, context: Context) -> None:
        context.start_soon(background)

    def build() -> First:
        events.append("built")
        return First()

    async with open_runtime() as runtime:
        ref = runtime.spawn(build)
        await ref.ask(Run(begin))
        await restart_later(ref)
        assert events == ["built", "task over", "built"]


async def restart_later(ref: AgentRef[First]) -> None:
    with pytest.raises(HandlerFailed):
        await ref.ask(Run(fail))
    await ref.ask(Run(instance))


async def test_rule_7_its_streams_end_with_an_unknown_outcome(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        async with ref.stream(Count()) as numbers:
            assert await anext(numbers) == 0
            await restart(ref)
            with pytest.raises(OutcomeUnknown):
                _ = [number async for number in numbers]


async def test_rule_8_its_own_watches_end(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        watcher, watched = runtime.spawn(First, "watcher"), runtime.spawn(First, "watched")

        async def watch(_: First, context: Context) -> None:
            context.watch(watched)

        await watcher.ask(Run(watch))
        await restart(watcher)
        watched.stop()
        await watched.stopped()
        await trio.testing.wait_all_tasks_blocked()
        assert await watcher.ask(Run(notes)) == []


async def test_rule_9_its_children_are_stopped(autojump_clock: object) -> None:
    async def settle(_: First, context: Context) -> None:
        child = context.spawn(First, "child")
        await child.ask(Run(grandchild))

    async def grandchild(_: First, context: Context) -> None:
        context.spawn(First, "grandchild")

    async with open_runtime() as runtime:
        ref = runtime.spawn(First, "parent")
        await ref.ask(Run(settle))
        assert runtime.count() == 3
        await restart(ref)
        assert [cell.name for cell in runtime.cells()] == ["parent"]


async def test_rule_10_the_stash_comes_back_in_front_in_its_order(autojump_clock: object) -> None:
    order: list[str] = []
    failed: list[bool] = []

    def stashed(text: str) -> Callable[[First, Context], Awaitable[object]]:
        async def run(_: First, context: Context) -> None:
            if not failed:
                context.stash()
            order.append(text)

        return run

    async def fails(_: First, __: Context) -> None:
        failed.append(True)
        raise ValueError

    async with open_runtime() as runtime:
        ref = runtime.spawn(First)
        for what in (stashed("first"), stashed("second"), fails, stashed("queued")):
            ref.tell_nowait(Run(what))
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["first", "second", "queued"]


async def test_a_sibling_restarted_in_the_middle_of_a_handler_fails_its_asker_and_makes_a_dead_letter(
    autojump_clock: object,
) -> None:
    @agent
    class Second(First):
        pass

    async def hold(_: First, __: Context) -> None:
        await trio.sleep_forever()

    async def ask_in_vain(ref: AgentRef[First]) -> None:
        with pytest.raises(HandlerFailed, match="restarted while it handled Run"):
            await ref.ask(Run(hold))

    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, strategy="one_for_all"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_in_vain, runtime.ref("second"))
            await trio.testing.wait_all_tasks_blocked()
            await restart(runtime.ref("first"))
        assert [letter.recipient for letter in runtime.dead_letters] == ["first", "second"]
        assert runtime.dead_letters.counts() == {"failed": 2}


@pytest.mark.parametrize("declared", get_args(Restart))
async def test_stop_never_restarts(autojump_clock: object, declared: Restart) -> None:
    @agent(restart=declared)
    class Second(First):
        pass

    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, strategy="one_for_all"))
        before = await runtime.ref("first").ask(Run(instance))
        runtime.ref("second").stop()
        await runtime.ref("second").stopped()
        await trio.sleep(10)
        assert [cell.name for cell in runtime.cells()] == ["first"]
        assert await runtime.ref("first").ask(Run(instance)) is before


GROUP = ("ann", "bob", "cid")


def group(declared: Restart) -> Sequence[type[First]]:
    return [agent(restart=declared)(type(name.capitalize(), (First,), {})) for name in GROUP]


async def instances(runtime: Runtime) -> dict[str, object]:
    """Return who handles messages under each name of the group that is not gone."""
    found: dict[str, object] = {}
    for name in GROUP:
        try:
            found[name] = await runtime.ref(name).ask(Run(instance))
        except NotDelivered:
            continue
    return found


@pytest.mark.parametrize("strategy", get_args(Strategy))
@pytest.mark.parametrize("declared", get_args(Restart))
@pytest.mark.parametrize("who", range(3))
@pytest.mark.parametrize("max_restarts", [0, 1])
async def test_the_truth_table_of_otp_with_agents(
    autojump_clock: object, strategy: Strategy, declared: Restart, who: int, max_restarts: int
) -> None:
    """One failure, within the intensity and past it; an agent outside of the group never notices."""
    async with open_runtime() as runtime:
        runtime.start(supervise(*group(declared), strategy=strategy, max_restarts=max_restarts))
        bystander = runtime.spawn(First, "bystander")
        untouched, before = await bystander.ask(Run(instance)), await instances(runtime)
        with pytest.raises(HandlerFailed):
            await runtime.ref(GROUP[who]).ask(Run(fail))
        await trio.sleep(1)
        after = await instances(runtime)
        if declared == "temporary":  # it ends, and that is nobody else's business
            gone, restarted = {GROUP[who]}, set[str]()
        elif max_restarts == 0:
            gone, restarted = set(GROUP), set[str]()
        else:
            affected = {"one_for_one": GROUP[who : who + 1], "one_for_all": GROUP, "rest_for_one": GROUP[who:]}
            gone, restarted = set[str](), set(affected[strategy])
        assert set(before) - set(after) == gone
        assert {name for name in after if after[name] is not before[name]} == restarted
        assert await bystander.ask(Run(instance)) is untouched
