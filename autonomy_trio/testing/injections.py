"""Failures that a test asks for: an interceptor, so that a node outside of tests pays nothing for it."""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.interceptors import Intercepted
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.errors import UsageError

MOST_SECONDS: Final = 1.0
"""Seconds after which a drawn delay is over, and a drawn kill has come, at the latest."""


class Injected(Exception):
    """What an agent fails with that `TestNode.kill`, `kill_next` or `disturb` made fail."""


@attrs.frozen
class Injection:
    """What happens to one call of a handler."""

    error: Exception | None = None
    """Raised in place of the call."""
    delay: float = 0.0
    """Seconds before the call."""
    kill_after: float | None = None
    """Seconds from the call's beginning until its agent is killed."""


@attrs.frozen
class Disturbance:
    """Chances, each from 0 to 1, of what may happen to any call of a handler."""

    seed: int
    fail: float
    kill: float
    delay: float
    agents: frozenset[str]
    """The names of those concerned; none for all."""

    def __attrs_post_init__(self) -> None:
        for name, chance in (("fail", self.fail), ("kill", self.kill), ("delay", self.delay)):
            check_chance(name, chance)

    def draw(self, agent: str, number: int) -> Injection:
        """Return what happens to an agent's call of that number: the same for a seed, in whatever order agents run."""
        chance = random.Random(f"{self.seed} {agent} {number}")  # noqa: S311 - a test wants the same draw again
        failing, killing, delaying, delay, after = (chance.random() for _ in range(5))
        return Injection(
            error=Injected(f"{agent} failed by chance, at its message {number}") if failing < self.fail else None,
            delay=delay * MOST_SECONDS if delaying < self.delay else 0.0,
            kill_after=after * MOST_SECONDS if killing < self.kill else None,
        )


@final
@attrs.define(eq=False)
class Injections:
    """What is to happen to the agents of one node; an interceptor."""

    spared: set[str] = attrs.field(factory=set[str])
    """The names of agents that no disturbance concerns."""
    runtime: Runtime | None = None
    _planned: list[tuple[str, type, Injection]] = attrs.field(factory=list[tuple[str, type, Injection]])
    _disturbance: Disturbance | None = None
    _calls: Counter[str] = attrs.field(factory=Counter[str])
    _raised: list[Exception] = attrs.field(factory=list[Exception])

    def plan(self, agent: AgentRef[Any], message: type, injection: Injection) -> None:
        """Have something happen to the next call that fits; what is planned for one agent happens in its order."""
        self._planned.append((_found(agent).name, message, injection))
        if injection.error is not None:
            self._raised.append(injection.error)

    def disturb(self, seed: int, fail: float, kill: float, delay: float, agents: Iterable[AgentRef[Any]]) -> None:
        """Have things happen by chance, in place of what was said before."""
        names = frozenset(_found(agent).name for agent in agents)
        self._disturbance = Disturbance(seed, fail, kill, delay, names)
        self._calls.clear()

    def has_raised(self, error: Exception) -> bool:
        """Tell whether an error comes from here."""
        return isinstance(error, Injected) or any(error is each for each in self._raised)

    async def __call__(self, delivery: Intercepted, proceed: Callable[[], Awaitable[Any]], /) -> Any:  # noqa: ANN401
        """Let a handler be called, or have happen to it what was planned or drawn."""
        injection = self._next(delivery)
        if injection.delay:
            await trio.sleep(injection.delay)
        if injection.error is not None:
            raise injection.error
        if injection.kill_after is None:
            return await proceed()
        assert self.runtime is not None  # noqa: S101 - it is set before an agent runs
        cell = self.runtime.find(delivery.recipient)
        assert isinstance(cell, Cell)  # noqa: S101 - it handles the message
        if not injection.kill_after:
            kill(cell)
            await trio.lowlevel.checkpoint()
        killing = trio.CancelScope()
        self.runtime.start_soon(_kill_later, cell, injection.kill_after, killing)
        try:
            return await proceed()
        finally:
            killing.cancel()

    def _next(self, delivery: Intercepted) -> Injection:
        name = delivery.recipient.partition("/")[0]  # that of the pool, for an agent of a pool
        for index, (agent, message, injection) in enumerate(self._planned):
            if agent in (delivery.recipient, name) and isinstance(delivery.message, message):
                del self._planned[index]
                return injection
        disturbance = self._disturbance
        if disturbance is None or name in self.spared or (disturbance.agents and name not in disturbance.agents):
            return Injection()
        self._calls[delivery.recipient] += 1
        return disturbance.draw(delivery.recipient, self._calls[delivery.recipient])


def kill(cell: Cell) -> None:
    """Fail an agent from outside, whatever it does now; one that is ending is left alone."""
    if cell.state in ("resting", "running"):
        cell.failed(Injected(f"{cell.name} was killed"), None)


def cells_of(agent: AgentRef[Any]) -> list[Cell]:
    """Return the agent that a ref reaches, or the agents of a pool.

    Raises:
        UsageError: it is on another node, or there is none of that name.
    """
    found = _found(agent).find_any()
    if found is None:
        msg = f"{agent.name} cannot be killed: this node has no agent of that name"
        raise UsageError(msg)
    return [found] if isinstance(found, Cell) else list(found.members)


def check_chance(name: str, chance: float) -> None:
    """Refuse what is no probability.

    Raises:
        UsageError: it is not from 0 to 1.
    """
    if not 0 <= chance <= 1:
        msg = f"{name}={chance!r} is no chance: give a number from 0 to 1"
        raise UsageError(msg)


def _found(agent: AgentRef[Any]) -> LocalRef:
    if not isinstance(agent, LocalRef):
        msg = f"{agent.address} is on another node: inject failures through that node"
        raise UsageError(msg)
    return agent


async def _kill_later(cell: Cell, seconds: float, scope: trio.CancelScope) -> None:
    with scope:
        await trio.sleep(seconds)
        kill(cell)
