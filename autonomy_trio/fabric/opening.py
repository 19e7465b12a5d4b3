"""Open a node: its home and its files are read, its parts made and started, and all of it ended with the block."""

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
from typing import Any, Final, cast

import attrs
import trio

from autonomy_trio.actors.interceptors import Interceptor
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.actors.spec import Spec, spec_of
from autonomy_trio.actors.supervision import Pool, Supervise, taken_twice
from autonomy_trio.actors.supervision import factories as factories_of
from autonomy_trio.errors import UsageError, VaultError
from autonomy_trio.fabric.access.admission import Admission
from autonomy_trio.fabric.access.audit import AuditLog
from autonomy_trio.fabric.access.compiling import compile_policies
from autonomy_trio.fabric.access.enrolment import Enrolment
from autonomy_trio.fabric.access.proofs import Proofs
from autonomy_trio.fabric.attachment import Connect
from autonomy_trio.fabric.attachments import Attachments
from autonomy_trio.fabric.durable import Durable
from autonomy_trio.fabric.finding import Finding
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.fabric.identity.voices import Voices
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.linking import connect as connect_link
from autonomy_trio.fabric.links.linking import listen as listen_for_links
from autonomy_trio.fabric.memories import Memories, open_memories
from autonomy_trio.fabric.node import Node, Trust
from autonomy_trio.fabric.peers.peers import Peers
from autonomy_trio.fabric.peers.sessions import Sessions
from autonomy_trio.fabric.portals.connecting import Outlet
from autonomy_trio.fabric.portals.portals import Portals
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.fabric.relays.stores import Keeping, open_store
from autonomy_trio.fabric.sealing import Sealing
from autonomy_trio.fabric.topics import Subscriptions
from autonomy_trio.groups import single_error
from autonomy_trio.logs import get_log
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.authority import read_ledger
from autonomy_trio.trust.lists import Revocations, verify_list
from autonomy_trio.trust.policy import Policies
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Watcher
from autonomy_trio.trust.whole import WholePolicy, evadable, load_policies
from autonomy_trio.wire.constants import BOOT_BYTES, RECORD_AGENTS
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import shown_presentations

RENEW_EVERY: Final = 3600.0
"""Seconds between two looks at what the vault is to renew."""

ANCHORS_FILE: Final = "anchors.toml"
"""The file of a home that lists the authorities it trusts."""

_log = get_log()

Entry = Callable[[], Any] | Pool[Any] | Supervise
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
async def open_node(  # noqa: PLR0913 - each has a default that is right for most
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
    connect: Connect = connect_link,
) -> AsyncGenerator[Node]:
    """Host agents, and reach those of other nodes, for the length of a block.

    Without `relay` and `listen` no socket is opened until a ref with a relay in its address is used.

    Args:
        agents: what to spawn: classes, callables that build an agent, pools, and `supervise` of these.
        relay: URLs of relays to attach to, ``ws://HOST:PORT``, ``wss://…`` or ``tcp://…``, with ``#I…`` to pin the
            relay's identity.
        listen: ``HOST:PORT`` for a relay of this process's own, attached to first; ``tcp://HOST:PORT`` for links over
            plain TCP in place of websockets.
        store: where that relay keeps what is sent with ``durable=True`` to nodes that are away: ``sqlite:PATH``, or
            ``redis://HOST:PORT/DB``, where all relays on one database are one cluster.
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
    ``on_stop`` hooks run, what was sent on closed streams of portals arrives within as many, and other nodes are told.
    An exception or cancellation ends everything at once. Nothing is left running.
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
            own_relay = None if listen is None else Relay(vault, now=now, store=kept.store, cluster=kept.cluster)
            trust = _TrustFiles(vault.identifier, home, anchors, policy)
            ground = _Ground(vault, wallet, memories, audit_log, trust, network, connect, now)
            with ExitStack() as ending:
                async with open_runtime(ask_limit=ask_limit, grace=grace, interceptors=interceptors) as runtime:
                    parts = _assemble(ground, runtime, entries, published)
                    ending.callback(parts.sessions.close)  # however the block ends: whoever waits outside it is told
                    _start(parts, ground)
                    if own_relay is not None and listen is not None:
                        listener = await listen_for_links(ListenAddress.parse_link(listen))
                        network.start_soon(own_relay.serve, listener)
                        await parts.node.attach(listener.address.url)
                    for url in relays:
                        await parts.node.attach(url)
                    for entry in entries:
                        runtime.start(entry)
                    parts.attachments.fetch()  # not before: what it is for must be there
                    network.start_soon(parts.enrolment.run)
                    network.start_soon(parts.finding.publish)
                    try:
                        yield parts.node
                    finally:
                        parts.enrolment.stop()
                with trio.move_on_after(grace):
                    await parts.sessions.lanes.wait_closed()
            await parts.durable.close()
            await parts.attachments.close()
            if own_relay is not None:
                await own_relay.drain(vault.identifier)
            network.cancel_scope.cancel()


@attrs.frozen
class _TrustFiles:
    """Where a node reads whose word counts, and who may what."""

    identifier: bytes
    home: Path | None
    anchors: str | Path | None
    policy: str | Path | None

    def read(self) -> Trust:
        """Read them, as often as a reload asks for it."""
        return self._anchors(), _warned(_whole(self.policy))

    def anchors_of_home(self) -> Path | None:
        """Return the file that says what a home trusts; None where the node reads another one, or has no home."""
        return None if self.home is None or self.anchors is not None else self.home / ANCHORS_FILE

    def _anchors(self) -> Anchors:
        if self.anchors is not None:
            return Anchors.load(Path(self.anchors))
        file = self.anchors_of_home()
        return Anchors.of_self(self.identifier) if file is None or not file.exists() else Anchors.load(file)


@attrs.frozen
class _Ground:
    """What the parts of a node stand on."""

    vault: Vault
    wallet: Wallet
    memories: Memories
    audit: AuditLog | None
    trust: _TrustFiles
    network: trio.Nursery
    connect: Connect
    now: Callable[[], float]


@attrs.frozen
class _Parts:
    """A node, and those of its parts that are started and ended one by one."""

    node: Node
    sessions: Sessions
    durable: Durable
    attachments: Attachments
    enrolment: Enrolment
    finding: Finding


def _assemble(ground: _Ground, runtime: Runtime, entries: Iterable[Entry], published: Sequence[str]) -> _Parts:
    """Make the parts of a node and let them know of each other; nothing is started."""
    vault, wallet, now = ground.vault, ground.wallet, ground.now
    trusted, whole = ground.trust.read()
    histories = Histories(vault, Watcher(trusted.by_identifier, vault.marks, remember=vault.remember))
    voices = Voices(vault, wallet, now)
    proofs = Proofs(trusted, Revocations(histories), histories.watcher.keep, now)
    admission = Admission(runtime, proofs, voices, whole, now, format_identifier(vault.identifier), ground.audit)
    admission.obey([(None, vault.history), *wallet.lists])
    built = _spec_of if ground.trust.policy is None else _built_spec
    # A policy may name the agents of outlets, which are no app's.
    outlets = [] if ground.trust.policy is None else [spec_of(Outlet)]
    admission.know([*filter(None, map(built, factories_of(list(entries)))), *outlets])
    sessions = Sessions(_endpoint(vault, wallet, histories, now), admission, voices, ground.network, now)
    peers = Peers(sessions)
    durable = Durable(
        vault,
        histories,
        admission,
        runtime,
        ground.memories,
        ground.network,
        now,
    )
    attachments = Attachments(
        vault,
        histories,
        sessions,
        ground.network,
        ground.connect,
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
        ground.trust.anchors_of_home(),
        attachments.show,
    )
    finding = Finding(vault, runtime, admission, wallet, histories, attachments, now, published)
    sealing = Sealing(vault, admission, voices, ground.memories, lambda: wallet.shown(now()), now, finding.look_up)
    node = Node(
        runtime,
        vault,
        admission,
        peers,
        attachments,
        durable,
        sealing,
        wallet,
        now,
        ground.trust.read,
        enrolment,
        finding,
        histories.watcher,
        Portals(peers, vault.identifier, lambda target, agent: node.ref(target, agent)),  # noqa: PLW0108 - as above
    )
    subscriptions = Subscriptions(runtime, admission, peers, voices, ground.network, attachments.attach_soon)
    runtime.topics.elsewhere = subscriptions.subscribe
    sessions.reception.subscriber = subscriptions.subscriber
    sessions.met = lambda bundle: ground.network.start_soon(sealing.meet, bundle)
    attachments.on_records = finding.take
    runtime.address_of, runtime.resolver = node.address, cast("Any", node.ref)
    runtime.know = lambda spec: admission.know([spec])
    runtime.owner = node
    admission.read_ref = sessions.read_ref = node.read_ref
    return _Parts(node, sessions, durable, attachments, enrolment, finding)


def _start(parts: _Parts, ground: _Ground) -> None:
    """Start what runs for as long as the node does."""
    ground.network.start_soon(parts.sessions.run_timers)
    ground.network.start_soon(parts.sessions.run_repeats)
    ground.network.start_soon(parts.sessions.lanes.run)
    ground.network.start_soon(_renew, ground.vault, ground.now)
    ground.network.start_soon(parts.durable.run)


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


def _open_audit(file: str | Path | None) -> AbstractContextManager[AuditLog | None]:
    return nullcontext() if file is None else closing(AuditLog.open(Path(file)))


def _open_store(
    store: str | None, listen: str | None, now: Callable[[], float]
) -> AbstractAsyncContextManager[Keeping]:
    if store is None:
        return nullcontext(Keeping())
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
