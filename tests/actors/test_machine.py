"""Agents against a small model: spawned, told, asked, cancelled, failed, stopped, watched, put to sleep and woken.

The rules write a program; at its end it is run, in virtual time, and after each step the agents are compared with the
model. So a failure shrinks to the shortest program that shows it.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from attrs import field, frozen
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from autonomy_trio import AgentRef, Context, Down, Request, agent, on
from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import HandlerFailed, NameTaken, NotDelivered

MAX_RESTARTS, WITHIN = 3, 5.0
"""What OTP's supervisor allows, and ours where nothing else was declared."""
IDLE_AFTER = 60.0
SLACK = 3.0
"""Seconds by which an agent may come to rest too late: idle ones are looked for once a second."""


@frozen
class Add(Request[int]):
    amount: int


@frozen
class Slow(Request[int]):
    seconds: float


@frozen
class Fail(Request[int]):
    pass


@frozen
class Watch(Request[None]):
    ref: AgentRef[Any]


@agent
class Account:
    total: int = 0
    downs: list[tuple[str, str]] = field(factory=list[tuple[str, str]])

    @on(Add)
    async def add(self, message: Add) -> int:
        self.total += message.amount
        return self.total

    @on(Slow)
    async def add_slowly(self, message: Slow) -> int:
        self.total += 1
        await trio.sleep(message.seconds)
        self.total += 1000
        return self.total

    @on(Fail)
    async def fail(self, message: Fail) -> int:
        raise ValueError

    @on(Watch)
    async def watch(self, message: Watch, context: Context) -> None:
        context.watch(message.ref)

    @on(Down)
    async def down(self, message: Down) -> None:
        self.downs.append((message.ref.name, message.reason))


@attrs.define
class Modelled:
    """What an agent is expected to be."""

    total: int = 0
    downs: list[tuple[str, str]] = field(factory=list[tuple[str, str]])
    watching: set[str] = field(factory=set[str])
    restarts: list[float] = field(factory=list[float])
    handled_at: float | None = None
    """When it last handled a message; None before the first."""
    touched_at: float = 0.0
    """When anything last happened to it."""


@attrs.define
class World:
    """The agents and their model; a step does the same to both."""

    runtime: Runtime
    model: dict[str, Modelled] = field(factory=dict[str, Modelled])
    dead: Counter[str] = field(factory=Counter[str])
    handled: int = 0
    failures: int = 0
    withdrawn: int = 0

    def ref(self, name: str) -> AgentRef[Account]:
        return self.runtime.ref(name)

    async def spawn(self, name: str) -> None:
        if name in self.model:
            with pytest.raises(NameTaken):
                self.runtime.spawn(Account, name)
        else:
            self.runtime.spawn(Account, name)
            self.model[name] = Modelled(touched_at=trio.current_time())

    async def tell(self, name: str, amount: int) -> None:
        await self.ref(name).tell(Add(amount))
        if name not in self.model:
            self.dead["unknown agent"] += 1
            return
        self.count(name)
        self.model[name].total += amount

    async def ask(self, name: str, amount: int) -> None:
        with self.expect_end(name):
            reply = await self.ref(name).ask(Add(amount))
            self.count(name)
            self.model[name].total += amount
            assert reply == self.model[name].total

    async def cancel_running(self, name: str) -> None:
        with self.expect_end(name), trio.move_on_after(1):
            await self.ref(name).ask(Slow(100))
        if name in self.model:
            self.withdrawn += 1
            self.model[name].total += 1
            self.model[name].touched_at = trio.current_time()

    async def cancel_queued(self, name: str) -> None:
        if name not in self.model:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.ref(name).ask, Slow(2))
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1):
                await self.ref(name).ask(Add(1_000_000))
        self.withdrawn += 1
        self.count(name)
        self.model[name].total += 1001

    async def fail(self, name: str) -> None:
        with pytest.raises(HandlerFailed if name in self.model else NotDelivered):
            await self.ref(name).ask(Fail())
        if name in self.model:
            self.failures += 1
            self.dead["failed"] += 1
            self.restart_or_give_up(name)

    async def fail_with_queue(self, name: str, amount: int) -> None:
        for message in (Fail(), Add(amount)):
            self.ref(name).tell_nowait(message)
        if name not in self.model:
            self.dead["unknown agent"] += 2
            return
        self.failures += 1
        self.dead["failed"] += 1
        self.restart_or_give_up(name)
        if name in self.model:
            self.count(name)
            self.model[name].total += amount
        else:
            self.dead["stopped"] += 1

    async def stop(self, name: str) -> None:
        self.ref(name).stop()
        await self.ref(name).stopped()
        if name in self.model:
            self.end(name, "stopped")

    async def watch(self, name: str, other: str) -> None:
        with self.expect_end(name):
            await self.ref(name).ask(Watch(self.ref(other)))
            self.count(name)
            if other in self.model:
                self.model[name].watching.add(other)
            else:
                self.tell_down(name, other, "unknown agent")

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    # The model

    def restart_or_give_up(self, name: str) -> None:
        now, model = trio.current_time(), self.model[name]
        recent = [moment for moment in model.restarts if now - moment <= WITHIN]
        if len(recent) == MAX_RESTARTS:
            self.end(name, "gave up")
        else:
            self.model[name] = Modelled(restarts=[*recent, now], handled_at=model.handled_at, touched_at=now)

    def end(self, name: str, reason: str) -> None:
        del self.model[name]
        for watcher, model in self.model.items():
            if name in model.watching:
                model.watching.remove(name)
                self.tell_down(watcher, name, reason)

    def tell_down(self, name: str, other: str, reason: str) -> None:
        self.count(name)
        self.model[name].downs.append((other, reason))

    def count(self, name: str) -> None:
        self.handled += 1
        self.model[name].handled_at = self.model[name].touched_at = trio.current_time()

    @contextmanager
    def expect_end(self, name: str) -> Generator[None]:
        if name in self.model:
            yield
        else:
            with pytest.raises(NotDelivered):
                yield

    async def compare(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        runtime, now = self.runtime, trio.current_time()
        assert {cell.name for cell in runtime.cells()} == set(self.model)
        for name, model in self.model.items():
            cell = runtime.find(name)
            assert isinstance(cell, Cell)
            assert (cell.instance.total, cell.instance.downs) == (model.total, model.downs)
            if model.handled_at is not None and now - model.handled_at < IDLE_AFTER:
                assert cell.crew is not None, f"{name} rests too soon"
            if now - model.touched_at > IDLE_AFTER + SLACK:
                assert (cell.crew is None) == (not model.watching), f"{name} rests though it watches, or does not"
        assert dict(runtime.dead_letters.counts()) == dict(self.dead)
        assert (runtime.handled_so_far(), runtime.withdrawn) == (self.handled, self.withdrawn)
        assert (runtime.failures, runtime.queued()) == (self.failures, 0)


NAMES = st.sampled_from(["a", "b", "c"])
AMOUNTS = st.integers(1, 9)


class Agents(RuleBasedStateMachine):
    """Writes a program, and runs it at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.program: list[tuple[Any, ...]] = []

    @initialize(names=st.permutations(["a", "b", "c"]), number=st.integers(0, 3))
    def begin(self, names: list[str], number: int) -> None:
        self.program.extend((World.spawn, name) for name in names[:number])

    @rule(name=NAMES)
    def spawn(self, name: str) -> None:
        self.program.append((World.spawn, name))

    @rule(name=NAMES, amount=AMOUNTS)
    def tell(self, name: str, amount: int) -> None:
        self.program.append((World.tell, name, amount))

    @rule(name=NAMES, amount=AMOUNTS)
    def ask(self, name: str, amount: int) -> None:
        self.program.append((World.ask, name, amount))

    @rule(name=NAMES)
    def cancel_running(self, name: str) -> None:
        self.program.append((World.cancel_running, name))

    @rule(name=NAMES)
    def cancel_queued(self, name: str) -> None:
        self.program.append((World.cancel_queued, name))

    @rule(name=NAMES)
    def fail(self, name: str) -> None:
        self.program.append((World.fail, name))

    @rule(name=NAMES, amount=AMOUNTS)
    def fail_with_queue(self, name: str, amount: int) -> None:
        self.program.append((World.fail_with_queue, name, amount))

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        self.program.append((World.stop, name))

    @rule(name=NAMES, other=NAMES)
    def watch(self, name: str, other: str) -> None:
        self.program.append((World.watch, name, other))

    @rule(seconds=st.sampled_from([1.5, 4.5, 30.0, 70.0]))
    def sleep(self, seconds: float) -> None:
        """Long enough to forget a restart, or to come to rest; the next message wakes."""
        self.program.append((World.sleep, seconds))

    def teardown(self) -> None:
        trio.run(self.run_program, clock=trio.testing.MockClock(autojump_threshold=0))

    async def run_program(self) -> None:
        async with open_runtime() as runtime:
            world = World(runtime)
            for step, *arguments in self.program:
                await step(world, *arguments)
                await world.compare()
        assert (runtime.count(), runtime.queued(), dict(runtime.dead_letters.counts())) == (0, 0, dict(world.dead))


TestAgents = Agents.TestCase


async def test_an_agent_that_gets_a_former_crew_back_after_a_restart_handles_with_its_new_instance(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        first, second = (runtime.spawn(Account, name) for name in ("first", "second"))
        for ref in (first, second):
            await ref.ask(Add(1))
        await trio.sleep(2 * IDLE_AFTER)
        # Two crews are free. One after the other, each agent has each of them.
        for failing in (first, second):
            with pytest.raises(HandlerFailed):
                await failing.ask(Fail())
            await trio.sleep(2 * IDLE_AFTER)
            for order in ((first, second), (second, first)):
                for ref in order:
                    await ref.ask(Add(1))
                for ref in order:
                    cell = runtime.find(ref.name)
                    assert isinstance(cell, Cell)
                    before = cell.instance.total
                    assert await ref.ask(Add(1)) == before + 1
                await trio.sleep(2 * IDLE_AFTER)
