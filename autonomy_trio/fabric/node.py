"""The node: what users hold. Agents of this process, and refs to agents anywhere, under one identity and one policy."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar, final, overload

import attrs
import trio

from autonomy_trio.actors.dead_letters import DeadLetters, Reason
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.actors.spec import Spec, declared, spec_of
from autonomy_trio.actors.supervision import Pool
from autonomy_trio.actors.voices import speaker
from autonomy_trio.errors import AddressError, GaveUp, UsageError
from autonomy_trio.fabric.access.admission import Admission
from autonomy_trio.fabric.access.authority import AGENT as AUTHORITY
from autonomy_trio.fabric.access.enrolment import Enrolled, Enrolment
from autonomy_trio.fabric.attachments import Attachments
from autonomy_trio.fabric.durable import Durable
from autonomy_trio.fabric.finding import Finding, FoundAgent
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.links.addresses import Address, RelayAddress, is_address
from autonomy_trio.fabric.peers.peers import Peers
from autonomy_trio.fabric.portals.connecting import Outlet as OutletAgent
from autonomy_trio.fabric.portals.connecting import policies_of
from autonomy_trio.fabric.portals.inlets import Inlet, open_inlet
from autonomy_trio.fabric.portals.outlets import Outlet, open_outlet
from autonomy_trio.fabric.portals.portals import MOST_WITH_ONE, Portals
from autonomy_trio.fabric.portals.streams import PortalStream
from autonomy_trio.fabric.routes import RemoteRef
from autonomy_trio.fabric.sealing import Sealing
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.authority import open_authority
from autonomy_trio.trust.credentials import issue, to_text
from autonomy_trio.trust.policy import Policies, Principal
from autonomy_trio.trust.records import format_identifier, parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Watcher
from autonomy_trio.trust.whole import WholePolicy

A = TypeVar("A")

Trust = tuple[Anchors, tuple[WholePolicy, ...]]
"""What the files say about whose word counts, and who may what."""

MOST_ADDRESS: Final = 600
"""Characters of an address in a message: a relay's host has at most 253, an agent's name 255."""


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
    speakers: int
    """Agents whose identities are kept ready, since they spoke to other nodes; at most 4,096."""
    unproven: int
    """Credentials that others showed and that did not count here."""
    given_up: int
    """Durable messages whose handler failed too often, or whose agent never was there."""
    lost: int
    """Messages to other nodes that could not be sent, and what nodes asked that take no answers."""
    missing: int
    """Messages of other nodes that were lost on the way, as far as those after them show."""
    waiting: int
    """Bytes of messages of other nodes that wait for room in mailboxes here; at most 128 MiB."""
    dropped: int
    """Packets that no relay took."""
    relays: int
    """Relays this node is attached to now."""
    portals: int
    """Ends of portals' streams that are open here; at most 2,048, and 1,024 with one other node."""
    resent: int
    """How often a portal's stream was sent again from where it had arrived, since something was lost on the way."""


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
    _sealing: Sealing
    _wallet: Wallet
    _now: Callable[[], float]
    _read_trust: Callable[[], Trust]
    _enrolment: Enrolment
    _finding: Finding
    _watcher: Watcher
    _portals: Portals

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
            self._sealing,
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

    def agent_identifier(self, name: str) -> str:
        """Return who an agent of this node is to other nodes: ``I`` and 64 hex digits, fixed for ever.

        It is a function of the node's keys and the name, so the agent need not be there.

        Args:
            name: the agent's; those of a pool have one identity, the pool's.
        """
        return format_identifier(self._vault.agent_identifier(name))

    def add_credential(self, text: str, agent: str | None = None) -> None:
        """Show a credential from the next message on, and keep it in the home where there is one.

        Args:
            text: of the credential, as `issue` or ``authority issue`` made it.
            agent: the name of the agent of this node that it is about, and that alone shows it; by default it is about
                the node.

        Raises:
            CredentialError: it is not about this node, or that agent, has expired, or is none.
            VaultError: the home cannot be written.
        """
        if agent is None:
            self._wallet.add(text, self._now())
            self._enrolment.show()
        else:
            identifier = self._vault.agent_identifier(agent)
            self._wallet.add(text, self._now(), identifier)
            self._wallet.know_agent(identifier, agent)

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

    def judge(self, through: str, attributes: Mapping[str, AttributeValue], recipient: str, message: object) -> None:
        """Judge a message that an agent passes on for somebody outside, as policies judge what other nodes send.

        For what connects others to agents of this node: inside the process no policy is asked, so it asks here first.
        The decision stands in the audit log, and a denial among the dead letters.

        Args:
            through: the name of the agent that speaks for them, who they are to policies.
            attributes: what is true of them.
            recipient: the name of the agent it is for.
            message: what is to be sent.

        Raises:
            Denied: it may not pass, or there is no such agent.
        """
        guest = Principal(self.agent_identifier(through), self.identifier, attributes)
        self._admission.judge_guest(guest, recipient, message)

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
            peers=len(self._peers.sessions.peers),
            speakers=len(self._peers.sessions.voices),
            unproven=self._admission.proofs.unproven,
            given_up=self._durable.given_up,
            lost=self._peers.sessions.lost + self._peers.sessions.reception.lost,
            missing=self._peers.sessions.reception.missing,
            waiting=self._peers.sessions.reception.held_bytes,
            dropped=self._peers.sessions.dropped,
            relays=self._attachments.count_attached(),
            portals=len(self._portals),
            resent=self._portals.resent,
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
            await self._peers.sessions.wait_sent()
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

    def outlet(
        self, name: str, target: str, *, allow: str | None = None, most_streams: int = MOST_WITH_ONE
    ) -> AbstractAsyncContextManager[Outlet]:
        """Let other nodes reach what listens at an address that this node reaches, for the length of a block.

        An outlet is an agent: to open a stream is to ask it `Connect`, judged as any message is, and what is denied
        opens no connection. What goes through an open stream is judged by nobody here, and a stream that is open stays
        open when its opener may not open another one any more.

        Args:
            name: the agent's, unique on this node.
            target: ``HOST:PORT`` or ``unix:PATH``; connected to for each stream, within 5 s.
            allow: a Cedar condition on who may open a stream from another node, as in `on`. Without one, only a policy
                file can let anybody in.
            most_streams: streams at once; one more is `Overloaded` for who opens it.

        Returns:
            a context manager that gives the `Outlet`, whose ``address`` is what an inlet is given. When the block ends
            nobody is let in any more, what was read from either side is delivered within the node's grace, and then
            the streams are reset; at once where the block raised, or was cancelled.

        Raises:
            AddressError: `target` is nothing to connect to.
            PolicyError: `allow` does not parse.
            NameTaken: the name is another agent's.
        """
        if most_streams < 1:
            raise UsageError(f"most_streams={most_streams}: an outlet lets at least 1 stream through")
        self._admission.know([spec_of(OutletAgent)])
        policies = self._admission.adding(policies_of(name, allow))
        return open_outlet(
            name, target, policies, most_streams, self._portals.accept, self.spawn, self.address, self._runtime.grace
        )

    def inlet(self, listen: str, to: str, *, most_streams: int = MOST_WITH_ONE) -> AbstractAsyncContextManager[Inlet]:
        """Let clients on this machine, or whoever reaches the address, use an outlet, for the length of a block.

        Whoever connects speaks with what this node, or the agent that opens the inlet, has proven: an address past
        this machine lends that to its network. A client whose stream cannot be opened sees its connection reset, and
        the log says why.

        Args:
            listen: ``HOST:PORT``, port 0 for a free one, or ``unix:PATH``, which its user alone may connect to.
            to: the outlet's address, or its name on this node.
            most_streams: clients at once; others wait until one has left.

        Returns:
            a context manager that gives the `Inlet`, whose ``address`` is where it listens. It ends as an outlet does.

        Raises:
            AddressError: `listen` is nothing to listen on, or `to` no address.
            ConfigurationError: `listen` cannot be listened on.
            UsageError: `to` names no relay, and this node has none.
        """
        if most_streams < 1:
            raise UsageError(f"most_streams={most_streams}: an inlet lets at least 1 client in")
        self.ref(to)
        return open_inlet(listen, to, most_streams, lambda: self._portals.open(to), self._runtime.grace)

    @asynccontextmanager
    async def connect(self, to: str) -> AsyncGenerator[PortalStream]:
        """Open a stream through an outlet for the length of a block.

        In an agent's code the stream is opened as that agent, elsewhere as the node.

        Args:
            to: the outlet's address, or its name on this node.

        Raises:
            AddressError: `to` is neither.
            Denied: the outlet's policy does not let this sender in, or there is no such outlet.
            NotDelivered, OutcomeUnknown: its node cannot be reached, or was lost.
            Overloaded: there are too many streams, here, there, or through the outlet.
            TargetUnreachable: what the outlet leads to does not answer.
            trio.TooSlowError: no answer came within `ask_limit` seconds, or the deadline around the call.

        Leaving the block closes the stream; what was sent still arrives. An exception or cancellation resets it.
        """
        stream = PortalStream(await self._portals.open(to))
        try:
            yield stream
        except BaseException:
            stream.reset()
            raise
        await stream.aclose()

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
