"""A node in memory for a test: it fails the test when an agent fails that was not meant to."""

import traceback
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar, Final, TypeVar, final, overload

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.dead_letters import DeadLetter
from autonomy_trio.actors.interceptors import Interceptor
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.actors.supervision import Pool
from autonomy_trio.fabric.node import Node, NodeStatistics
from autonomy_trio.fabric.opening import Entry, open_node
from autonomy_trio.messages import wire_name
from autonomy_trio.testing.injections import Injection, Injections, cells_of, kill
from autonomy_trio.testing.probe import Probe, make_probe
from autonomy_trio.trust.attributes import AttributeValue

A = TypeVar("A")

Errors = type[Exception] | tuple[type[Exception], ...]

MOST_FAILURES: Final = 1_000
"""Failures that a test node keeps, the first ones."""

EPOCH: Final = 1_750_000_000.0
"""Unix seconds when trio's clock shows 0: credentials and identities age in virtual time too."""


@attrs.frozen
class Failure:
    """One failure of an agent."""

    agent: str
    """Its name."""
    message: object
    """What it was handling; None outside of a handler, as in a hook or a background task."""
    error: Exception

    def __str__(self) -> str:
        doing = "" if self.message is None else f" on {wire_name(type(self.message))}"
        return f"{self.agent} failed{doing}: {self.error!r}"


@final
@attrs.define(eq=False)
class TestNode:
    """A node in memory, and what a test wants of it; made by `open_test_node` and `TestFabric.open_node`."""

    __test__: ClassVar[bool] = False  # pytest takes a class of this name for one of tests

    node: Node
    """The node itself, for code under test that takes one."""
    failures: Sequence[Failure]
    """Every failure of an agent so far, injected and expected ones too; the first 1,000."""
    _injections: Injections

    def __repr__(self) -> str:
        return f"<TestNode {self.node.identifier}>"

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The latest 1,000 messages that reached no handler, or failed theirs: ``assert node.dead_letters == []``."""
        return list(self.node.dead_letters)

    @property
    def identifier(self) -> str:
        """See `Node.identifier`."""
        return self.node.identifier

    @overload
    def spawn(self, factory: Pool[A], name: str | None = None) -> AgentRef[A]: ...

    @overload
    def spawn(self, factory: Callable[[], A], name: str | None = None) -> AgentRef[A]: ...

    def spawn(self, factory: Callable[[], A] | Pool[A], name: str | None = None) -> AgentRef[A]:
        """See `Node.spawn`."""
        return self.node.spawn(factory, name)

    def ref(self, target: str, agent: Callable[..., A] | None = None) -> AgentRef[A]:
        """See `Node.ref`."""
        return self.node.ref(target, agent)

    def address(self, name: str) -> str:
        """See `Node.address`."""
        return self.node.address(name)

    def publish(self, topic: str, message: object) -> None:
        """See `Node.publish`."""
        self.node.publish(topic, message)

    def issue(self, subject: str, /, *, validity: int = 3600, **attributes: AttributeValue) -> str:
        """See `Node.issue`."""
        return self.node.issue(subject, validity=validity, **attributes)

    def add_credential(self, text: str) -> None:
        """See `Node.add_credential`."""
        self.node.add_credential(text)

    def statistics(self) -> NodeStatistics:
        """See `Node.statistics`."""
        return self.node.statistics()

    def probe(self, name: str | None = None, *, takes: Iterable[type] = (), allow: str | None = None) -> Probe:
        """Spawn a stand-in for an agent, which keeps what it receives and answers as it is told.

        Args:
            name: that of the agent it stands for.
            takes: the classes of messages it handles; by default every one that this node sends it.
            allow: as that of `on`: which other nodes may send it those that `takes` names.

        Raises:
            NameTaken, NotDelivered: as `Node.spawn`.
            PolicyError, DeclarationError: `allow` does not fit `takes`.
        """
        probe, factory = make_probe(takes, allow, self.node.ask_limit)
        ref = self.node.spawn(factory, name)
        self._injections.spared.add(ref.name)
        probe.spawned(Context(cells_of(ref)[0]))
        return probe

    def fail_next(self, agent: AgentRef[Any], error: Exception, *, message: type = object) -> None:
        """Have the next call of an agent's handler raise an error, in place of what the handler does.

        What is planned for one agent happens in the order of the calls to plan it. To a stream it happens when it is
        opened.

        Args:
            agent: an agent of this node, or a pool of them, which need not live yet.
            error: what is raised; a `DeliveryError` refuses the message, and fails nobody.
            message: only calls with this type of message count.

        Raises:
            UsageError: the agent is on another node.
        """
        self._injections.plan(agent, message, Injection(error=error))

    def delay_next(self, agent: AgentRef[Any], seconds: float, *, message: type = object) -> None:
        """Have the next call of an agent's handler wait first, with the message taken; see `fail_next`."""
        self._injections.plan(agent, message, Injection(delay=seconds))

    def kill_next(self, agent: AgentRef[Any], *, after: float = 0.0, message: type = object) -> None:
        """Kill an agent in the next call of its handler, `after` so many seconds in it; see `fail_next` and `kill`.

        A call that ends before is spared.
        """
        self._injections.plan(agent, message, Injection(kill_after=after))

    def kill(self, agent: AgentRef[Any]) -> None:
        """Fail an agent now, whatever it does: its handlers and streams are cancelled, and its supervisor decides.

        One that is ending, or is just being started by its supervisor, is left alone.

        Raises:
            UsageError: the agent is on another node, or there is none of that name.
        """
        for cell in cells_of(agent):
            kill(cell)

    def disturb(
        self,
        seed: int,
        *,
        fail: float = 0.0,
        kill: float = 0.0,
        delay: float = 0.0,
        agents: Iterable[AgentRef[Any]] = (),
    ) -> None:
        """From now on let handlers fail, agents be killed and messages be delayed, by chance; all at 0 ends it.

        What happens to the n-th message of an agent is the same for the same seed.

        Args:
            seed: of all that is drawn.
            fail: chance that a call raises `Injected` in place of what the handler does.
            kill: chance that the agent is killed, at a moment drawn from the call's first second.
            delay: chance that a call waits first, for up to a second.
            agents: those concerned; by default all but probes.

        Raises:
            UsageError: a chance is not from 0 to 1, or an agent is on another node.
        """
        self._injections.disturb(seed, fail, kill, delay, agents)


def virtual_now() -> float:
    """Return Unix seconds as trio's clock has them."""
    return EPOCH + trio.current_time()


@asynccontextmanager
async def open_test_node(
    agents: Iterable[Entry] = (),
    *,
    expected: Errors = (),
    ask_limit: float = 30.0,
    grace: float = 5.0,
    interceptors: Sequence[Interceptor] = (),
) -> AsyncGenerator[TestNode]:
    """Host agents in memory for the length of a block: no home, no socket, no relay.

    Agents run as on any node, but for plain ``def`` handlers, which never run in the asker's own task here. In virtual
    time (``trio.run(…, clock=trio.testing.MockClock(autojump_threshold=0))``, or pytest-trio's ``autojump_clock``) the
    dates of credentials and identities pass with trio's clock too.

    Args:
        agents: what to spawn, as for `open_node`.
        expected: the classes of errors that agents may fail with; any other failure fails the test, but those that the
            test injects. ``Exception`` for all.
        ask_limit: seconds an ask may take that has no deadline of its own, and `Probe.receive` too.
        grace: seconds agents get to finish what they have when the block ends.
        interceptors: as for `open_node`.

    Raises:
        ExceptionGroup: when the block has ended, what agents failed with that was not expected. Where the block raises
            something itself, that goes on with a note of each such failure in place of it.

    When the block ends the node is drained, as that of `open_node`. Nothing is left running.
    """
    injections = Injections()
    opening = open_node(
        agents, ask_limit=ask_limit, grace=grace, interceptors=(*interceptors, injections), now=virtual_now
    )
    async with watch(opening, injections, expected) as node:
        yield node


@asynccontextmanager
async def watch(
    opening: AbstractAsyncContextManager[Node], injections: Injections, expected: Errors
) -> AsyncGenerator[TestNode]:
    """Open a node that has `injections` for an interceptor, and fail the block for what its agents fail with."""
    failures: list[Failure] = []
    unexpected: list[Failure] = []

    def failed(agent: str, message: object, error: Exception) -> None:
        failure = Failure(agent, message, error)
        if len(failures) < MOST_FAILURES:
            failures.append(failure)
        is_expected = injections.has_raised(error) or isinstance(error, expected)
        if len(unexpected) < MOST_FAILURES and not is_expected:
            unexpected.append(failure)

    try:
        async with opening as node:
            runtime = injections.runtime = _runtime_of(node)
            runtime.on_failure = failed
            yield TestNode(node, failures, injections)
    except BaseException as error:
        if not isinstance(error, trio.Cancelled):
            for failure in unexpected:
                error.add_note(_told(failure))
        raise
    if unexpected:
        msg = "agents failed, and no expected= says that they may: " + "; ".join(map(str, unexpected))
        raise ExceptionGroup(msg, [failure.error for failure in unexpected])


def _runtime_of(node: Node) -> Runtime:
    ref: AgentRef[Any] = node.ref("node")
    assert isinstance(ref, LocalRef)  # noqa: S101 - a name is one of this process
    return ref.runtime


def _told(failure: Failure) -> str:
    return f"{failure}\n{''.join(traceback.format_exception(failure.error))}"
