"""What other nodes and their agents have proven, as policies and handlers see it; judged again as often as it must be.

An agent of another node has proven what its own credentials say, which are about the agent itself, and what its node
has proven besides, unless it was introduced as one that inherits nothing.
"""

import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.delivery import Sender
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.spec import Handler
from autonomy_trio.errors import CredentialError, Overloaded
from autonomy_trio.fabric.links.buckets import TokenBucket
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.logs import get_log
from autonomy_trio.trust.anchors import Anchors, proven_attributes
from autonomy_trio.trust.credentials import Credential, judge, verify_presentations
from autonomy_trio.trust.delegates import AGENT_SEQ
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.lists import Revocations
from autonomy_trio.trust.policy import Decision, Principal
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.wire.constants import INTRODUCTIONS, INTRODUCTIONS_BYTES
from autonomy_trio.wire.introductions import Agent

AGENT_SHOWS: Final = (16.0, 256.0)
"""Credentials a second of one node's agents that are looked at, and at once: each costs signature checks."""

MOST_PASSAGES: Final = 1024
"""Pairs of an agent and a message for which one node's proof remembers what was decided."""

MOST_AGENT_PASSAGES: Final = 32
"""The same, for one of its agents."""

MOST_AWAY: Final = 1024
"""Nodes that have gone of which it is remembered what they had proven."""

_log = get_log()


@attrs.frozen
class Passage:
    """Where a message goes, and what was decided of it before it was decoded."""

    cell: Cell | PoolCell
    cls: type
    handler: Handler
    decision: Decision | None
    """None where it depends on what the message says."""


@attrs.frozen
class Proof:
    """What a node or an agent has proven."""

    credentials: Sequence[Credential]
    """Its own, of those it showed: they counted when it was judged."""
    principal: Principal
    sender: Sender
    generation: int
    """Of the policies, the anchors and what was known of revocations when it was judged."""
    base: "Proof | None" = None
    """What an agent's node had proven then; None of a node, and of an agent that inherits nothing."""
    passages: dict[tuple[str, str], Passage] = attrs.field(factory=dict[tuple[str, str], Passage], repr=False)
    """Where its sender was let through before, by recipient and message: they hold as long as this does."""

    def note_passage(self, recipient: str, message: str, passage: Passage) -> None:
        """Remember where its sender was let through."""
        most = MOST_PASSAGES if self.sender.id == self.sender.node else MOST_AGENT_PASSAGES
        if len(self.passages) >= most:
            self.passages.clear()
        self.passages[recipient, message] = passage


def _prove(name: str, node: str, credentials: Sequence[Credential], generation: int, base: Proof | None) -> Proof:
    """Return what credentials prove together, until the first of them counts no more."""
    inherited = () if base is None else base.credentials
    attributes, dropped = proven_attributes(credentials, inherited)
    if dropped:
        _log.warning("attributes dropped: credentials contradict each other", sender=name, names=sorted(dropped))
    counting = (*credentials, *inherited)
    principal = Principal(
        id=name,
        node=node,
        attributes=attributes,
        credentials=frozenset(credential.id for credential in counting),
        expires=min((credential.counts_until for credential in counting), default=float("inf")),
    )
    # Read-only: a handler sees the attributes that policies read.
    sender = Sender(name, node, types.MappingProxyType(attributes), is_local=False)
    return Proof(credentials, principal, sender, generation, base)


@final
@attrs.define(eq=False)
class _Shown:
    """What a peer has proven, and its agents that spoke last: 1,024 and 1 MiB at most."""

    node: Proof
    agents: OrderedDict[bytes, tuple[Agent, Proof]] = attrs.field(factory=OrderedDict[bytes, "tuple[Agent, Proof]"])
    size: int = 0
    """Bytes of the agents."""
    shows: TokenBucket = attrs.field(factory=lambda: TokenBucket(*AGENT_SHOWS))

    def put(self, agent: Agent, proof: Proof) -> None:
        """Remember an agent, and let go those that spoke longest ago where there is no room."""
        known, _ = self.agents.pop(agent.identifier, (None, None))
        self.agents[agent.identifier] = agent, proof
        self.size += agent.size - (0 if known is None else known.size)
        while len(self.agents) > INTRODUCTIONS or self.size > INTRODUCTIONS_BYTES:
            _, (oldest, _) = self.agents.popitem(last=False)
            self.size -= oldest.size


@final
@attrs.define(eq=False)
class Proofs:
    """Judges what is shown to one node."""

    anchors: Anchors
    revocations: Revocations
    """What is known of the sequences and lists of those that `anchors` names."""
    remember: Callable[[bytes], None]
    """Has the sequence of a subject with credentials remembered for good."""
    now: Callable[[], float]
    """Unix seconds."""
    unproven: int = 0
    """Credentials that did not count here."""
    _away: OrderedDict[bytes, tuple[int, Proof]] = attrs.field(factory=OrderedDict[bytes, tuple[int, Proof]])
    """What nodes had proven that are away, with the sequence they were at."""

    def show(self, peer: Peer, presentations: Sequence[bytes], generation: int) -> None:
        """Judge the credentials a node shows; those that do not count here leave it without their attributes."""
        assert peer.bundle is not None  # noqa: S101 - a session came first
        credentials = self._read(presentations, peer.identifier, peer.bundle.seq, self.now())
        if credentials:
            self.remember(peer.identifier)
        proof = _prove(peer.name, peer.name, credentials, generation, None)
        if isinstance(peer.proof, _Shown):
            peer.proof.node = proof
        else:
            peer.proof = _Shown(proof)

    def leave(self, peer: Peer) -> None:
        """Remember what a node had proven that has gone, for what is sealed for it."""
        if peer.bundle is not None and isinstance(peer.proof, _Shown):
            self._remember_away(peer.bundle, peer.proof.node)

    def note(self, bundle: Bundle, presentations: Sequence[bytes], generation: int) -> None:
        """Judge the credentials beside a node's record in a directory."""
        name = format_identifier(bundle.identifier)
        credentials = self._read(presentations, bundle.identifier, bundle.seq, self.now())
        self._remember_away(bundle, _prove(name, name, credentials, generation, None))

    def away(self, node: bytes, generation: int) -> Proof | None:
        """Return what a node had proven that is away, judged as of now; None where nothing is known."""
        seq, proof = self._away.get(node, (0, None))
        if proof is None or _holds(proof, generation, self.now()):
            return proof
        name = format_identifier(node)
        proof = _prove(name, name, self._judge(proof.credentials, node, seq), generation, None)
        self._away[node] = seq, proof
        return proof

    def _remember_away(self, bundle: Bundle, proof: Proof) -> None:
        self._away[bundle.identifier] = bundle.seq, attrs.evolve(proof, passages={})
        self._away.move_to_end(bundle.identifier)
        if len(self._away) > MOST_AWAY:
            self._away.popitem(last=False)

    def of(self, peer: Peer, generation: int, agent: Agent | None = None) -> Proof:
        """Return what a node has proven, or one of its agents that speaks.

        It is judged anew where a credential has expired or what it rests on has changed.

        Raises:
            Overloaded: the node's agents show more credentials than are looked at in this time.
        """
        shown = peer.proof
        assert isinstance(shown, _Shown)  # noqa: S101 - show() came first
        now = self.now()
        if not _holds(shown.node, generation, now):
            assert peer.bundle is not None  # noqa: S101 - a session came first
            credentials = self._judge(shown.node.credentials, peer.identifier, peer.bundle.seq)
            shown.node = _prove(peer.name, peer.name, credentials, generation, None)
        return shown.node if agent is None else self._of_agent(peer, shown, generation, agent, now)

    def of_sealed(self, sender: Bundle, presentations: Sequence[bytes], created: int, generation: int) -> Proof:
        """Judge what a sealed envelope shows: its credentials as of when it was written, by the lists of now.

        Args:
            sender: the node that wrote it.
            presentations: what the node shows.
            created: Unix seconds when it was written.
            generation: as in `Proof`.
        """
        credentials = self._read(presentations, sender.identifier, sender.seq, created)
        if credentials:
            self.remember(sender.identifier)
        node = format_identifier(sender.identifier)
        return _lasting(_prove(node, node, credentials, generation, None))

    def of_sealed_agent(self, node: Proof, agent: Agent, created: int, generation: int) -> Proof:
        """Judge an agent that speaks in a sealed envelope, as `of_sealed` its node."""
        own = self._read(agent.presentations, agent.identifier, AGENT_SEQ, created)
        base = node if agent.inherits else None
        return _lasting(_prove(format_identifier(agent.identifier), node.sender.node, own, generation, base))

    def _of_agent(self, peer: Peer, shown: _Shown, generation: int, agent: Agent, now: float) -> Proof:
        base = shown.node if agent.inherits else None
        known, proof = shown.agents.get(agent.identifier, (None, None))
        if proof is not None and known is agent and proof.base is base and _holds(proof, generation, now):
            shown.agents.move_to_end(agent.identifier)
            return proof
        if proof is None or known != agent:
            if agent.presentations and not shown.shows.try_take(len(agent.presentations), trio.current_time()):
                raise Overloaded("the agents of a node show more credentials than are looked at: try it later")
            own = self._read(agent.presentations, agent.identifier, AGENT_SEQ, now)
            proof = _prove(format_identifier(agent.identifier), peer.name, own, generation, base)
        elif proof.base is not base or not _holds(proof, generation, now):
            own = self._judge(proof.credentials, agent.identifier, AGENT_SEQ)
            proof = _prove(proof.principal.id, peer.name, own, generation, base)
        shown.put(agent, proof)
        return proof

    def _read(self, presentations: Sequence[bytes], subject: bytes, seq: int, now: float) -> Sequence[Credential]:
        if not presentations:
            return ()
        credentials, refused = verify_presentations(
            presentations,
            subject=subject,
            subject_seq=seq,
            anchors=self.anchors,
            revocations=self.revocations,
            now=now,
        )
        for error in refused:
            self._refuse(subject, error)
        return credentials

    def _judge(self, credentials: Sequence[Credential], subject: bytes, seq: int) -> Sequence[Credential]:
        """Judge again what was read before."""
        counting: list[Credential] = []
        for credential in credentials:
            try:
                counting.append(
                    judge(
                        credential,
                        subject=subject,
                        subject_seq=seq,
                        anchors=self.anchors,
                        revocations=self.revocations,
                        now=self.now(),
                    )
                )
            except CredentialError as error:
                self._refuse(subject, error)
        return counting

    def _refuse(self, subject: bytes, error: CredentialError) -> None:
        self.unproven += 1
        if self.unproven & (self.unproven - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood fills no log
            _log.warning(
                "credential not accepted", node=format_identifier(subject), why=str(error), so_far=self.unproven
            )


def _lasting(proof: Proof) -> Proof:
    """Return a proof of what was so at a time: it does not end."""
    return attrs.evolve(proof, principal=attrs.evolve(proof.principal, expires=float("inf")))


def _holds(proof: Proof, generation: int, now: float) -> bool:
    return now < proof.principal.expires and proof.generation == generation
