"""The node: what users hold. Agents of this process, and refs to agents anywhere, under one identity and one policy."""

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    closing,
    nullcontext,
)
from pathlib import Path
from typing import Any, Final, TypeVar, cast, final, overload

import attrs
import trio

from autonomy_trio.actors.crew import speaker
from autonomy_trio.actors.dead_letters import DeadLetters, Reason
from autonomy_trio.actors.interceptors import Interceptor
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.actors.spec import Spec, declared, spec_of
from autonomy_trio.actors.supervision import Pool, Supervise, taken_twice
from autonomy_trio.actors.supervision import factories as factories_of
from autonomy_trio.errors import AddressError, GaveUp, UsageError, VaultError
from autonomy_trio.fabric.addresses import Address, ListenAddress, RelayAddress, is_address
from autonomy_trio.fabric.admission import Admission, compile_policies
from autonomy_trio.fabric.attachment import Connect
from autonomy_trio.fabric.attachments import Attachments
from autonomy_trio.fabric.audit import AuditLog
from autonomy_trio.fabric.credentials import Wallet
from autonomy_trio.fabric.durable import Durable
from autonomy_trio.fabric.enrolment import AGENT as AUTHORITY
from autonomy_trio.fabric.enrolment import Enrolled, Enrolment
from autonomy_trio.fabric.finding import Finding, FoundAgent
from autonomy_trio.fabric.histories import Histories
from autonomy_trio.fabric.memories import open_memories
from autonomy_trio.fabric.peers import Peers
from autonomy_trio.fabric.relay import Relay
from autonomy_trio.fabric.routes import RemoteRef
from autonomy_trio.fabric.store import Store
from autonomy_trio.fabric.stores import open_store
from autonomy_trio.fabric.websocket import connect as websocket_connect
from autonomy_trio.fabric.websocket import listen as websocket_listen
from autonomy_trio.groups import single_error
from autonomy_trio.logs import get_log
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.authority import open_authority, read_ledger
from autonomy_trio.trust.credentials import issue, to_text
from autonomy_trio.trust.lists import Revocations, verify_list
from autonomy_trio.trust.policy import Policies
from autonomy_trio.trust.records import format_identifier, parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Watcher
from autonomy_trio.trust.whole import WholePolicy, evadable, load_policies
from autonomy_trio.wire.constants import BOOT_BYTES, RECORD_AGENTS
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import shown_presentations

A = TypeVar("A")

RENEW_EVERY: Final = 3600.0
"""Seconds between two looks at what the vault is to renew."""

_log = get_log()

ANCHORS_FILE: Final = "anchors.toml"
"""The file of a home that lists the authorities it trusts."""

MOST_ADDRESS: Final = 600
"""Characters of an address in a message: a relay's host has at most 253, an agent's name 255."""

_log = get_log()


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
    """Agents that fail again and again, hang, are full or have very many children, with a word on it; at most 100."""
    dead_letters: Mapping[Reason, int]
    """Messages that reached no handler or failed theirs, by reason."""
    decoded: int
    """Payloads from other nodes that were decoded; one that the attributes of its sender deny is not."""
    peers: int
    """Other nodes that something is under way with."""
    lost: int
    """Messages to other nodes that could not be sent, and what nodes asked that take no answers."""
    dropped: int
    """Packets that no relay took."""
    relays: int
    """Relays this node is attached to now."""


def _stay(relay: RelayAddress) -> None:
    """Attach to no relay that only a stranger's address names."""


@final
@attrs.define(eq=False)
class Node:
    """One node; made by `open_node`."""

    _runtime: Runtime
    _vault: Vault
    _admission: Admission
    _peers: Peers
    _attachments: Attachments
    _durable: Durable
    _wallet: Wallet
    _now: Callable[[], float]
    _read_trust: "Callable[[], Trust]"
    _enrolment: Enrolment
    _finding: Finding
    _watcher: Watcher

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

        It takes a few microseconds, in which nothing else runs: put a checkpoint into a loop over many thousands. What
        ``on_start`` does comes later: agents that were spawned together begin few at a time, so that others run too.

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

    @overload
    def ref(self, target: str, agent: None = None) -> AgentRef[Any]: ...

    @overload
    def ref(self, target: str, agent: Callable[..., A]) -> AgentRef[A]: ...

    def ref(self, target: str, agent: Callable[..., Any] | None = None) -> AgentRef[Any]:
        """Return a ref to an agent, here or on another node. Nothing is sent, and the agent need not be there.

        Args:
            target: the name of an agent of this node, or an address, ``I<node>/<agent>`` or with its relay in front.
            agent: the agent's class, for type checkers; from another node too, the protocol errors that its handlers
                list in ``raises=`` are then raised as what they are, else as a plain `ReplyError`.

        Raises:
            AddressError: `target` is neither.
        """
        if not is_address(target):
            return self._runtime.ref(target)
        return self._ref(target, self._attachments.attach_soon, agent)

    def _ref(
        self, target: str, attach: Callable[[RelayAddress], None], agent: Callable[..., Any] | None = None
    ) -> AgentRef[Any]:
        address = Address.parse(target)
        if address.node == self._vault.identifier:
            return self._runtime.ref(address.agent)
        if address.relay is None and not self._attachments.relays():
            msg = f"{target} names no relay, and this node has none: put ws://HOST:PORT/ in front of it"
            raise UsageError(msg)
        return RemoteRef(
            address,
            self._peers,
            self._runtime,
            attach,
            self._durable,
            self._attachments.depots,
            declared(agent),
        )

    def read_ref(self, address: str) -> AgentRef[Any]:
        """Return the ref that a message has in it as an address; a stranger's text, so nothing is done with it yet.

        What is sent by it leaves by the relays that this node has: a stranger names none to attach to. A program that
        trusts an address more than that makes a ref of it itself, with `ref`.

        Raises:
            AddressError: it is no address.
            UsageError: it names no relay, and this node has none.
        """
        if not address.isprintable() or len(address) > MOST_ADDRESS or not is_address(address):
            msg = "this is no agent's address"
            raise AddressError(msg)
        return self._ref(address, _stay)

    def address(self, name: str) -> str:
        """Return what an agent of this node is called elsewhere, with a relay in front where this node has one."""
        return str(Address(self._vault.identifier, name, next(iter(self._attachments.relays()), None)))

    def issue(self, subject: str, /, *, validity: int = 3600, **attributes: AttributeValue) -> str:
        """Issue a credential: this node says, as an authority, what is true of another identity.

        Where the node has a home, it is written down there, for ``authority list`` and ``authority revoke``.

        Args:
            subject: whom it is about, ``I…``.
            validity: seconds it holds.
            **attributes: what is true of it, say ``team="payments"``.

        Returns:
            the text to hand to the subject; of no use to anybody else.

        Raises:
            CredentialError: a name, a value or the validity cannot stand in a credential.
            VaultError: it cannot be written down.
        """
        whom, now, home = parse_identifier(subject), self._now(), self._wallet.home
        if home is None:
            return to_text(issue(self._vault, subject=whom, attributes=attributes, now=now, validity=validity))
        with open_authority(self._vault, home) as authority:
            return to_text(authority.issue(subject=whom, attributes=attributes, now=now, validity=validity))

    def add_credential(self, text: str) -> None:
        """Show a credential from the next message on, and keep it in the home where there is one.

        Raises:
            CredentialError: it is not about this node, has expired, or is none.
            VaultError: the home cannot be written.
        """
        self._wallet.add(text, self._now())
        self._enrolment.show()

    def serve_authority(self, *, next_update: int = 24 * 3600) -> AgentRef[Any]:
        """Answer, as the agent ``authority``, those who redeem this node's tickets, renew and fetch its revocations.

        The ledger is held for each answer alone, so ``authority revoke`` and its like work in the same home meanwhile.

        Args:
            next_update: seconds in which each revocation list promises the next; it is signed anew at half of them.

        Raises:
            UsageError: the node has no home to write down what it issues.
            NameTaken: it is served already.
        """
        agent = self._enrolment.agent(next_update)
        return self.spawn(lambda: self._enrolment.agent(agent.next_update), AUTHORITY)

    def ticket(self, *, relay: str | None = None, **attributes: AttributeValue) -> str:
        """Make a ticket: whoever redeems it first, within ten minutes, gets a credential of this node.

        Args:
            relay: where this node is reached; by default its first relay.
            **attributes: what the credential says, say ``team="payments"``.

        Returns:
            one line of text, to be carried to the other machine as a password is.

        Raises:
            CredentialError: a name or a value cannot stand in a credential.
            UsageError: the node has no relay.
        """
        if relay is None and not self.relays:
            msg = (
                "a ticket says where its authority is reached, and this node has no relay: give it relay=ws://HOST:PORT"
            )
            raise UsageError(msg)
        return self._enrolment.ticket(relay or self.relays[0], attributes)

    async def enroll(self, ticket: str) -> Enrolled:
        """Redeem a ticket: get the credential it promises, and have it renewed from then on.

        Where the node has a home without an anchors file, which was never an authority itself, that home trusts the
        ticket's authority from then on, for the attributes of the ticket, in place of itself.

        Args:
            ticket: as `ticket` or ``authority ticket`` made it. Redeeming it twice on one node does no harm.

        Raises:
            CredentialError: it is damaged or forged, has expired, or another has redeemed it.
            UsageError: it is this node's own.
            RelayUnreachable, RelayRefused: the relay it names is not there, or refused.
            NotDelivered: the authority did not answer.
            VaultError, ConfigurationError: the home cannot be written.
        """
        enrolled = await self._enrolment.enrol(ticket)
        if enrolled.trusts:
            self.reload_policies()
        return enrolled

    @property
    def policies(self) -> Policies:
        """Return the policies in force, which list what other nodes can reach."""
        return self._admission.policies

    def reload_policies(self) -> None:
        """Read the files of anchors and policies again; what they say counts from the next message on.

        Raises:
            ConfigurationError, PolicyError: a file cannot be right; what was in force stays.
            DeclarationError: a policy opens a message that cannot be sent; what was in force stays.
            VaultError: what was seen of an authority that is an anchor now cannot be written down; it counts all the
                same until the node ends.
        """
        trusted, whole = self._read_trust()
        self._admission.change(trusted, whole)
        self._watcher.set_anchors(trusted.by_identifier)

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
            lost=self._peers.lost + self._peers.reception.lost,
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

    async def find(
        self,
        *,
        name: str | None = None,
        message: type | str | None = None,
        anyone: bool = False,
        **attributes: AttributeValue,
    ) -> list[FoundAgent]:
        """Find agents that other nodes have published at the relays this node is attached to.

        A relay learns the name and the message that are looked for, and no attribute. It may leave agents out, and
        cannot make one up: each record is signed by its node, and what the node proves is judged by the anchors here.

        Args:
            name: what the agent goes by; anyone can take any name.
            message: a message that it takes from other nodes, or its wire name.
            anyone: whether a node that has proven nothing will do.
            **attributes: what its node must prove, say ``team="payments"``; of a set, that it has this string.

        Returns:
            those that fit, in no order; at most 64 nodes of each relay. Whether they are there still is not known.

        Raises:
            UsageError: neither an attribute nor `anyone` is given.
            RelayUnreachable: no relay is there, or none has answered in 5 s.
        """
        return await self._finding.find(name, message, anyone, attributes)

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
Trust = tuple[Anchors, tuple[WholePolicy, ...]]
"""What the files say about whose word counts, and who may what."""

App = Sequence[Entry]
"""The agents of an app, as `open_node` takes them.

mypy takes a list of classes and supervisors for one of objects, unless it is told:
``agents: App = [Counter, supervise(Buyer, Seller)]``.
"""


def check_agents(
    agents: Iterable[Entry], anchors: Path | None, policy: Path | None = None
) -> tuple[Mapping[str, Spec], Policies]:
    """Check what agents declare as the start of a node would, without starting anything.

    Raises:
        DeclarationError, PolicyError, ConfigurationError, NameTaken: what is wrong, in one sentence.
    """
    built = factories_of(list(agents))
    specs = [_built_spec(factory) for factory in built]
    by_name: dict[str, Spec] = {}
    for spec in specs:
        if spec.name in by_name:
            raise taken_twice("the app", spec.name, spec.agent)
        by_name[spec.name] = spec
    trusted = Anchors.of_self(bytes(32)) if anchors is None else Anchors.load(anchors)
    return by_name, compile_policies(specs, trusted, _whole(policy))


@asynccontextmanager
async def open_node(  # noqa: PLR0913, PLR0915 - each has a default that is right for most
    agents: Iterable[Entry] = (),
    *,
    relay: str | Sequence[str] = (),
    listen: str | None = None,
    store: str | None = None,
    home: str | Path | None = None,
    passphrase: str | None = None,
    anchors: str | Path | None = None,
    policy: str | Path | None = None,
    audit: str | Path | None = None,
    credentials: Iterable[str | Path] = (),
    publish: Iterable[str] = (),
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
        store: where that relay keeps what is sent with ``durable=True`` to nodes that are away, ``sqlite:PATH``.
        home: the folder that keeps the node's keys; without one they live in memory and end with the block.
        passphrase: what the home's secrets are encrypted with; given to a home without, it has it from then on.
        anchors: a file of the authorities to trust, in place of ``anchors.toml`` in the home; without either the node
            trusts itself alone.
        policy: a file of whole policies, in Cedar, besides what the handlers allow. To name agents it needs their
            classes here; a callable in `agents` is called once more to learn of its class.
        audit: a file to append a line of JSON to for each decision about what other nodes send, created for this user
            alone; a line that cannot be written is logged once and counted in the next one that can.
        credentials: files to show to other nodes, besides those in the home's folder ``credentials``.
        publish: names of agents that others may find with `Node.find`: their names, the messages they take from other
            nodes, and this node's credentials are shown to its relays and to whoever is registered there. By default
            nothing is. What was published counts for an hour at most.
        ask_limit: seconds an ask may take that has no deadline of its own.
        grace: seconds agents get to finish what they have when the block ends.
        interceptors: what wraps the handling of each message, and the opening of each stream, the first one outermost:
            called with the message and ``proceed``, it returns what ``await proceed()`` returns, or raises a
            `DeliveryError` in place of it, which refuses the message: a dead letter, whose asker gets that error.
        now: Unix seconds, for tests.
        connect: opens a link to a relay, for tests.

    Raises:
        VaultError: the home cannot be used.
        ConfigurationError: the anchors file, the audit log, the listening address or the store is wrong.
        CredentialError: a credential that was asked for cannot be shown by this node.
        PolicyError, DeclarationError: what an agent declares, or a policy, cannot be right.
        NameTaken: two agents of the list are of one class: an app's agents go by their classes' names.
        UsageError: `ask_limit` or `grace` is no time that can be right, there is a store and no relay of its own, or
            `publish` names more than 64 agents.
        RelayUnreachable, RelayRefused: a relay is not there, is another than pinned, or refused.

    When the block ends, senders from outside are refused, agents finish what they have within `grace` seconds,
    ``on_stop`` hooks run, and other nodes are told. An exception or cancellation ends everything at once. Nothing is
    left running.
    """
    home = None if home is None else Path(home)
    relays = [relay] if isinstance(relay, str) else list(relay)
    entries, published = list(agents), _published(publish)
    with single_error(), await _open_vault(home, passphrase, now()) as vault, _open_audit(audit) as audit_log:
        wallet = _open_wallet(vault, home, map(Path, credentials), now())
        async with (
            _open_store(store, listen, now) as kept,
            open_memories(home, now()) as memories,
            trio.open_nursery() as network,
        ):
            own_relay = None if listen is None else Relay(vault, now=now, store=kept)
            with ExitStack() as ending:
                async with open_runtime(ask_limit=ask_limit, grace=grace, interceptors=interceptors) as runtime:

                    def read_trust() -> Trust:
                        return _anchors(vault, home, anchors), _warned(_whole(policy))

                    trusted, whole = read_trust()
                    histories = Histories(vault, Watcher(trusted.by_identifier, vault.marks, remember=vault.remember))
                    revocations = Revocations(histories)
                    name = format_identifier(vault.identifier)
                    admission = Admission(
                        runtime, trusted, whole, now, name, revocations, histories.watcher.keep, audit_log
                    )
                    admission.obey([(None, vault.history), *wallet.lists])
                    admission.know(
                        filter(None, map(_spec_of if policy is None else _built_spec, factories_of(entries)))
                    )
                    peers = Peers(_endpoint(vault, wallet, histories, now), admission, network, now)
                    ending.callback(peers.close)  # however the block ends: whoever waits outside it is told
                    network.start_soon(peers.run_timers)
                    network.start_soon(peers.run_repeats)
                    network.start_soon(_renew, vault, now)
                    durable = Durable(
                        vault, histories, admission, runtime, memories, network, lambda: wallet.shown(now()), now
                    )
                    peers.met = lambda bundle: network.start_soon(durable.meet, bundle)
                    network.start_soon(durable.run)
                    attachments = Attachments(
                        vault,
                        histories,
                        peers,
                        network,
                        connect,
                        now,
                        durable,
                        lambda issuers: shown_presentations(wallet.shown(now(), issuers)).presentations,
                    )
                    enrolment = Enrolment(
                        vault,
                        wallet,
                        admission,
                        peers,
                        histories,
                        now,
                        lambda address: node.ref(address),  # noqa: PLW0108 - it is made from this
                        lambda relay: node.attach(relay),  # noqa: PLW0108 - as well
                        None if home is None or anchors is not None else home / ANCHORS_FILE,
                    )
                    finding = Finding(vault, runtime, admission, wallet, histories, attachments, now, published)
                    attachments.on_records = finding.take
                    node = Node(
                        runtime,
                        vault,
                        admission,
                        peers,
                        attachments,
                        durable,
                        wallet,
                        now,
                        read_trust,
                        enrolment,
                        finding,
                        histories.watcher,
                    )
                    runtime.address_of, runtime.resolver = node.address, cast("Any", node.ref)
                    runtime.know = lambda spec: admission.know([spec])
                    runtime.owner = node
                    admission.read_ref = peers.read_ref = node.read_ref
                    if own_relay is not None and listen is not None:
                        listener = await websocket_listen(ListenAddress.parse(listen))
                        network.start_soon(own_relay.serve, listener)
                        await node.attach(listener.address.url)
                    for url in relays:
                        await node.attach(url)
                    for entry in entries:
                        runtime.start(entry)
                    attachments.fetch()  # not before: what it is for must be there
                    network.start_soon(enrolment.run)
                    network.start_soon(finding.publish)
                    try:
                        yield node
                    finally:
                        enrolment.stop()
            await durable.close()
            await attachments.close()
            if own_relay is not None:
                await own_relay.drain(vault.identifier)
            network.cancel_scope.cancel()


async def _open_vault(home: Path | None, passphrase: str | None, now: float) -> Vault:
    if home is not None:
        return await trio.to_thread.run_sync(_open_home, home, passphrase, now)
    await trio.lowlevel.checkpoint()
    vault = Vault.in_memory()
    vault.renew(now)
    return vault


def _open_home(home: Path, passphrase: str | None, now: float) -> Vault:
    vault = Vault.open(home, passphrase=passphrase)
    try:
        vault.renew(now)
    except BaseException:
        vault.close()
        raise
    return vault


def _published(names: Iterable[str]) -> Sequence[str]:
    """Refuse more agents than a record has room for."""
    published = [names] if isinstance(names, str) else list(names)
    if len(published) > RECORD_AGENTS:
        msg = f"publish= names {len(published)} agents, and a node lets at most {RECORD_AGENTS} be found"
        raise UsageError(msg)
    return published


def _open_wallet(vault: Vault, home: Path | None, files: Iterable[Path], now: float) -> Wallet:
    wallet = Wallet(vault.identifier, home)
    wallet.load(files, now)
    own_list = None if home is None else read_ledger(vault, home).newest_list
    if own_list is not None:
        wallet.learn(verify_list(own_list, vault.history), vault.history)
    return wallet


async def _renew(vault: Vault, now: Callable[[], float]) -> None:
    """Keep a vault's attestation and prekeys fresh; where the disk refuses, the ones there are go on."""
    while True:
        await trio.sleep(RENEW_EVERY)
        try:
            vault.renew(now())
        except VaultError as error:
            _log.warning("the vault cannot be renewed", why=str(error))


def _anchors(vault: Vault, home: Path | None, file: str | Path | None) -> Anchors:
    if file is not None:
        return Anchors.load(Path(file))
    if home is not None and (home / ANCHORS_FILE).exists():
        return Anchors.load(home / ANCHORS_FILE)
    return Anchors.of_self(vault.identifier)


def _open_audit(file: str | Path | None) -> AbstractContextManager[AuditLog | None]:
    return nullcontext() if file is None else closing(AuditLog.open(Path(file)))


def _open_store(
    store: str | None, listen: str | None, now: Callable[[], float]
) -> AbstractAsyncContextManager[Store | None]:
    if store is None:
        return nullcontext()
    if listen is None:
        msg = f"store={store!r} is for a relay of this process's own: say where it listens too"
        raise UsageError(msg)
    return open_store(store, now=now)


def _whole(file: str | Path | None) -> tuple[WholePolicy, ...]:
    return () if file is None else load_policies(Path(file))


def _warned(policies: tuple[WholePolicy, ...]) -> tuple[WholePolicy, ...]:
    for each in policies:
        if names := evadable(each):
            _log.warning("policy can be evaded", policy=each.place, by_hiding=list(names))
    return policies


def _endpoint(vault: Vault, wallet: Wallet, histories: Histories, now: Callable[[], float]) -> Endpoint:
    return Endpoint(
        vault, boot=secrets.token_bytes(BOOT_BYTES), presentations=lambda: wallet.shown(now()), see=histories.see
    )


def _spec_of(factory: Callable[[], Any]) -> Spec | None:
    """Return what a class declares; None for a callable that builds an agent, whose class shows when it is called."""
    return spec_of(factory) if isinstance(factory, type) else None


def _built_spec(factory: Callable[[], Any]) -> Spec:
    """Return what a class declares, or that of what a callable builds: whole policies may name it before it lives."""
    return _spec_of(factory) or spec_of(type(cast("object", factory())))
