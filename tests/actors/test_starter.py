"""A flood of agents that begin or end at once: others get their turn in between, and none is left behind."""

import itertools

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import Context, Request, agent, on
from autonomy_trio.actors.runtime import open_runtime

MANY = 3_000
LOG: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


@frozen
class Spawn(Request[None]):
    kind: type
    count: int


@frozen
class Ping(Request[int]):
    pass


@agent
class Parent:
    @on(Spawn)
    async def spawn(self, message: Spawn, context: Context) -> None:
        for _ in range(message.count):
            context.spawn(message.kind)


@agent
class Sibling:
    @on(Ping)
    async def ping(self, message: Ping) -> int:
        return len(LOG)


@agent
class Child:
    notes: list[str] = field(factory=list[str])

    def on_start(self, context: Context) -> None:
        LOG.append(context.self.name)

    @on(Ping)
    async def ping(self, message: Ping) -> int:
        return len(LOG)


@agent
class Stubborn(Child):
    async def on_stop(self, context: Context) -> None:
        await trio.sleep(100)


async def test_a_flood_of_children_that_start_lets_a_sibling_answer_in_between(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        sibling, parent = runtime.spawn(Sibling), runtime.spawn(Parent)
        await parent.ask(Spawn(Child, MANY))
        seen = [0]
        while seen[-1] < MANY:
            seen.append(await sibling.ask(Ping()))
        assert max(after - before for before, after in itertools.pairwise(seen)) <= MANY / 10


async def test_a_flood_of_children_that_stop_lets_a_sibling_answer_in_between(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        sibling, parent = runtime.spawn(Sibling), runtime.spawn(Parent)
        await parent.ask(Spawn(Sibling, MANY))
        parent.stop()
        left = [runtime.count()]
        while left[-1] > 1:
            await sibling.ask(Ping())
            left.append(runtime.count())
        assert max(before - after for before, after in itertools.pairwise(left)) <= MANY / 5


async def test_a_message_begins_its_agent_before_its_turn(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        await runtime.spawn(Parent).ask(Spawn(Child, MANY))
        assert await runtime.ref(f"child_{MANY}").ask(Ping()) < MANY
        await trio.testing.wait_all_tasks_blocked()
        assert len(LOG) == len(set(LOG)) == MANY


async def test_one_that_is_stopped_before_its_turn_never_begins(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        runtime.spawn(Child).stop()
        await trio.testing.wait_all_tasks_blocked()
        assert (LOG, runtime.count()) == ([], 0)


async def test_what_was_spawned_before_a_node_stops_still_begins(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        for _ in range(100):
            runtime.spawn(Child)
    assert len(LOG) == 100


async def test_children_that_outlast_the_grace_of_their_parents_end_are_stopped_all_the_same(
    autojump_clock: object,
) -> None:
    async with open_runtime(grace=2) as runtime:
        parent = runtime.spawn(Parent)
        await parent.ask(Spawn(Stubborn, 5))
        await trio.testing.wait_all_tasks_blocked()
        parent.stop()
        await parent.stopped()
        await trio.sleep(10)
        assert runtime.count() == 0
