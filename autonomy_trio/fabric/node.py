"""The node: what users hold. Agents of this process, and refs to agents anywhere, under one identity and one policy."""

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast, final, overload

import attrs
import trio

from autonomy_trio.actors.crew import speaker
from autonomy_trio.actors.dead_letters import DeadLetters, Reason
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.runtime import Interceptor, Runtime, open_runtime
from autonomy_trio.actors.spec import Spec, spec_of
from autonomy_trio.actors.supervision import Pool, Supervise
from autonomy_trio.actors.supervision import factories as factories_of
from autonomy_trio.errors import AutonomyError, UsageError
from autonomy_trio.fabric.addresses import Address, ListenAddress, RelayAddress, is_address
from autonomy_trio.fabric.admission import Admission, compile_policies
from autonomy_trio.fabric.attachment import Connect
from autonomy_trio.fabric.attachments import Attachments
from autonomy_trio.fabric.credentials import Wallet
from autonomy_trio.fabric.peers import Peers
from autonomy_trio.fabric.relay import Relay
from autonomy_trio.fabric.routes import RemoteRef
from autonomy_trio.fabric.websocket import connect as websocket_connect
from autonomy_trio.fabric.websocket import listen as websocket_listen
from autonomy_trio.groups import single_error
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.credentials import issue, to_text
from autonomy_trio.trust.policy import Policies
from autonomy_trio.trust.records import format_identifier, parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import BOOT_BYTES
from autonomy_trio.wire.endpoint import Endpoint

A = TypeVar("A")

ANCHORS_FILE: Final = "anchors.toml"
"""The file of a home that lists the authorities it trusts."""


class GaveUp(AutonomyError):
    """Every agent of the node has ended, the last one by failing too often."""


@attrs.frozen
class NodeStatistics:
    """What a node holds and has counted; nothing here is unbounded."""

    agents: int
    """Agents that live, dormant ones among them."""
    awake: int
    """Agents that have a task and a channel now."""
    handled: int
    """Messages that agents have handled to their end."""
    queued: int
    """Messages accepted by agents and not handled to their end."""
    withdrawn: int
    """Messages whose asker had gone before they were handled to their end."""
    failures: int
    """Failures of agents."""
    troubled: Mapping[str, str]
    """Agents that are full, hang in a handler or have very many children, with a word on it; at most 100."""
    dead_letters: Mapping[Reason, int]
    """Messages that reached no handler or failed theirs, by reason."""
    decoded: int
    """Payloads from other nodes that were decoded; one that the attributes of its sender deny is not."""
    peers: int
    """Other nodes that something is under way with."""
    lost: int
    """Messages to other nodes that could not be sent."""
    dropped: int
    """Packets that no relay took."""
    relays: int
    """Relays this node is attached to now."""


@final
@attrs.define(eq=False)
class Node:
    """One node; made by `open_node`."""

    _runtime: Runtime
    _vault: Vault
    _admission: Admission
    _peers: Peers
    _attachments: Attachments
    _wallet: Wallet
    _now: Callable[[], float]

    def __repr__(self) -> str:
        return f"<Node {self.identifier}>"

    @property
    def identifier(self) -> str:
        """Who this node is: ``I`` and 64 hex digits, fixed for ever."""
        return format_identifier(self._vault.identifier)

    @property
    def ask_limit(self) -> float:
        """Seconds an ask may take that has no deadline of its own."""
        return self._runtime.ask_limit

    @property
    def dead_letters(self) -> DeadLetters:
        """Messages that reached no handler, or failed theirs."""
        return self._runtime.dead_letters

    @property
    def relays(self) -> Sequence[str]:
        """The URLs of the relays this node attaches to, the first one first."""
        return [relay.url for relay in self._attachments.relays()]

    @overload
    def spawn(self, factory: Pool[A], name: str | None = None) -> AgentRef[A]: ...

    @overload
    def spawn(self, factory: Callable[[], A], name: str | None = None) -> AgentRef[A]: ...

    def spawn(self, factory: Callable[[], A] | Pool[A], name: str | None = None) -> AgentRef[A]:
        """Start an agent: cheap, and without waiting.

        Args:
            factory: its class, or a callable that builds one, which a restart calls again; or a `pool` of them.
            name: unique on this node; by default its class in snake_case, with a number where that is taken.

        Raises:
            NameTaken: the name is another agent's.
            DeclarationError: what `factory` builds is no agent.
            PolicyError: an ``allow=`` of its class does not fit what this node's anchors assert.
            NotDelivered: the node is stopping.
        """
        return self._runtime.spawn(factory, name)

    def publish(self, topic: str, message: object) -> None:
        """Send a message to a topic's subscribers; see `Context.publish`."""
        self._runtime.publish(topic, message)

    def ref(self, target: str, agent: Callable[..., A] | None = None) -> AgentRef[A]:
        """Return a ref to an agent, here or on another node. Nothing is sent, and the agent need not be there.

        Args:
            target: the name of an agent of this node, or an address, ``I<node>/<agent>`` or with its relay in front.
            agent: the agent's class, for type checkers.

        Raises:
            AddressError: `target` is neither.
        """
        del agent
        if not is_address(target):
            return self._runtime.ref(target)
        address = Address.parse(target)
        if address.node == self._vault.identifier:
            return self._runtime.ref(address.agent)
        if address.relay is None and not self._attachments.relays():
            msg = f"{target} names no relay, and this node has none: put ws://HOST:PORT/ in front of it"
            raise UsageError(msg)
        return RemoteRef(address, self._peers, self._runtime, self._attachments.attach_soon)

    def address(self, name: str) -> str:
        """Return what an agent of this node is called elsewhere, with a relay in front where this node has one."""
        return str(Address(self._vault.identifier, name, next(iter(self._attachments.relays()), None)))

    def issue(self, subject: str, /, *, validity: int = 3600, **attributes: AttributeValue) -> str:
        """Issue a credential: this node says, as an authority, what is true of another identity.

        Args:
            subject: whom it is about, ``I…``.
            validity: seconds it holds.
            **attributes: what is true of it, say ``team="payments"``.

        Returns:
            the text to hand to the subject; of no use to anybody else.
        """
        encoded = issue(
            self._vault, subject=parse_identifier(subject), attributes=attributes, now=self._now(), validity=validity
        )
        return to_text(encoded)

    def add_credential(self, text: str) -> None:
        """Show a credential from the next session on, and keep it in the home where there is one.

        Raises:
            CredentialError: it is not about this node, has expired, or is none.
        """
        self._wallet.add(text, self._now())

    @property
    def policies(self) -> Policies:
        """Return the policies in force, which list what other nodes can reach."""
        return self._admission.policies

    def agents(self) -> Mapping[str, Spec]:
        """Return what each living agent declares, by name, in the order they were spawned."""
        return self._runtime.specs()

    def statistics(self) -> NodeStatistics:
        """Return what this node holds and has counted."""
        return NodeStatistics(
            agents=self._runtime.count(),
            awake=len(self._runtime.awake),
            handled=self._runtime.handled_so_far(),
            queued=self._runtime.queued(),
            withdrawn=self._runtime.withdrawn,
            failures=self._runtime.failures,
            troubled=dict(self._runtime.keeper.troubled),
            dead_letters=self.dead_letters.counts(),
            decoded=self._admission.decoded,
            peers=len(self._peers),
            lost=self._peers.lost,
            dropped=self._peers.dropped,
            relays=self._attachments.count_attached(),
        )

    async def serve_forever(self) -> None:
        """Wait until cancelled.

        Raises:
            GaveUp: no agent is left.
        """
        await self._runtime.wait_emptied()
        msg = "no agent is left: each has ended, the last one by failing too often; the log says why"
        raise GaveUp(msg)

    async def flush(self) -> None:
        """Wait until what was sent to other nodes has left, or was lost; at most the grace of the node."""
        with trio.move_on_after(self._runtime.grace):
            await self._peers.wait_sent()
            await self._attachments.flush()

    async def attach(self, relay: str) -> None:
        """Register with a relay, besides those this node has.

        Raises:
            AddressError: `relay` is no relay's URL.
            RelayUnreachable, RelayRefused: it is not there, or not the pinned one, or refused.
        """
        await self._attachments.attach(RelayAddress.parse(relay))


def current_node() -> Node:
    """Return the node of the agent whose code is running.

    Raises:
        UsageError: no agent's code is.
    """
    speaking = speaker.get()
    if speaking is None or not isinstance(speaking.cell.runtime.owner, Node):
        msg = "current_node() is for code that runs in an agent; elsewhere use what open_node() gave you"
        raise UsageError(msg)
    return speaking.cell.runtime.owner


Entry = Callable[[], Any] | Pool[Any] | Supervise


def check_agents(agents: Iterable[Entry], anchors: Path | None) -> tuple[Mapping[str, Spec], Policies]:
    """Check what agents declare as the start of a node would, without starting anything.

    Raises:
        DeclarationError, PolicyError, ConfigurationError: what is wrong, in one sentence.
    """
    built = factories_of(list(agents))
    specs = [_spec_of(factory) or spec_of(type(cast("object", factory()))) for factory in built]
    trusted = Anchors.of_self(bytes(32)) if anchors is None else Anchors.load(anchors)
    return {spec.name: spec for spec in specs}, compile_policies(specs, trusted)


@asynccontextmanager
async def open_node(  # noqa: PLR0913 - each has a default that is right for most
    agents: Iterable[Entry] = (),
    *,
    relay: str | Sequence[str] = (),
    listen: str | None = None,
    home: str | Path | None = None,
    anchors: str | Path | None = None,
    credentials: Iterable[str | Path] = (),
    ask_limit: float = 30.0,
    grace: float = 5.0,
    interceptors: Sequence[Interceptor] = (),
    now: Callable[[], float] = time.time,
    connect: Connect = websocket_connect,
) -> AsyncGenerator[Node]:
    """Host agents, and reach those of other nodes, for the length of a block.

    Without `relay` and `listen` no socket is opened until a ref with a relay in its address is used.

    Args:
        agents: what to spawn: classes, callables that build an agent, pools, and `supervise` of these.
        relay: URLs of relays to attach to, ``ws://HOST:PORT``, with ``#I…`` to pin the relay's identity.
        listen: ``HOST:PORT`` for a relay of this process's own, attached to first.
        home: the folder that keeps the node's keys; without one they live in memory and end with the block.
        anchors: a file of the authorities to trust, in place of ``anchors.toml`` in the home; without either the node
            trusts itself alone.
        credentials: files to show to other nodes, besides those in the home's folder ``credentials``.
        ask_limit: seconds an ask may take that has no deadline of its own.
        grace: seconds agents get to finish what they have when the block ends.
        interceptors: what wraps the handling of each message but streams, the first one outermost: called with the
            message and ``proceed``, it returns what ``await proceed()`` returns.
        now: Unix seconds, for tests.
        connect: opens a link to a relay, for tests.

    Raises:
        VaultError: the home cannot be used.
        ConfigurationError: the anchors file or the listening address is wrong.
        CredentialError: a credential that was asked for cannot be shown by this node.
        PolicyError, DeclarationError: what an agent declares cannot be right.
        RelayUnreachable, RelayRefused: a relay is not there, is another than pinned, or refused.

    When the block ends, senders from outside are refused, agents finish what they have within `grace` seconds,
    ``on_stop`` hooks run, and other nodes are told. An exception or cancellation ends everything at once. Nothing is
    left running.
    """
    home = None if home is None else Path(home)
    relays = [relay] if isinstance(relay, str) else list(relay)
    entries = list(agents)
    with single_error(), await _open_vault(home) as vault:
        wallet = Wallet(vault.identifier, home)
        wallet.load(map(Path, credentials), now())
        own_relay = None if listen is None else Relay(vault, now=now)
        async with trio.open_nursery() as network:
            with ExitStack() as ending:
                async with open_runtime(ask_limit=ask_limit, grace=grace, interceptors=interceptors) as runtime:
                    admission = Admission(runtime, _anchors(vault, home, anchors), now)
                    admission.know(filter(None, map(_spec_of, factories_of(entries))))
                    peers = Peers(_endpoint(vault, wallet, now), admission, network, now)
                    ending.callback(peers.close)  # however the block ends: whoever waits outside it is told
                    network.start_soon(peers.run_timers)
                    attachments = Attachments(vault, peers, network, connect, now)
                    node = Node(runtime, vault, admission, peers, attachments, wallet, now)
                    runtime.address_of, runtime.resolver = node.address, node.ref
                    runtime.know = lambda spec: admission.know([spec])
                    runtime.owner = node
                    if own_relay is not None and listen is not None:
                        listener = await websocket_listen(ListenAddress.parse(listen))
                        network.start_soon(own_relay.serve, listener)
                        await node.attach(listener.address.url)
                    for url in relays:
                        await node.attach(url)
                    for entry in entries:
                        runtime.start(entry)
                    yield node
            await attachments.close()
            if own_relay is not None:
                await own_relay.drain(vault.identifier)
            network.cancel_scope.cancel()


async def _open_vault(home: Path | None) -> Vault:
    if home is None:
        await trio.lowlevel.checkpoint()
        return Vault.in_memory()
    return await trio.to_thread.run_sync(Vault.open, home)


def _anchors(vault: Vault, home: Path | None, file: str | Path | None) -> Anchors:
    if file is not None:
        return Anchors.load(Path(file))
    if home is not None and (home / ANCHORS_FILE).exists():
        return Anchors.load(home / ANCHORS_FILE)
    return Anchors.of_self(vault.identifier)


def _endpoint(vault: Vault, wallet: Wallet, now: Callable[[], float]) -> Endpoint:
    return Endpoint(vault, boot=secrets.token_bytes(BOOT_BYTES), presentations=lambda: wallet.shown(now()))


def _spec_of(factory: Callable[[], Any]) -> Spec | None:
    """Return what a class declares; None for a callable that builds an agent, whose class shows when it is called."""
    return spec_of(factory) if isinstance(factory, type) else None
