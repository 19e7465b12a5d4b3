"""What stands between the wire and the mailboxes: who the sender is, what it can prove, and whether it may.

The order is the promise: recipient, attribute part of the policy, decoding, message part of the policy, mailbox. A
message that is denied takes no mailbox slot, wakes no agent, and is decoded only where the policy asks what it says.

A sender that nothing is open to learns nothing: whatever it sends is answered with the same `Denied`.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Final, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.dead_letters import DeadLetter, Reason
from autonomy_trio.actors.delivery import Asked, Delivery, Reply
from autonomy_trio.actors.local import not_so
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.actors.spec import Handler, Spec
from autonomy_trio.errors import (
    CredentialError,
    DeliveryError,
    Denied,
    MessageError,
    NotDelivered,
    NotHandled,
    Overloaded,
)
from autonomy_trio.fabric.access.audit import AuditLog
from autonomy_trio.fabric.access.compiling import compile_policies
from autonomy_trio.fabric.access.proofs import Passage, Proof, Proofs
from autonomy_trio.fabric.identity.voices import Voice, Voices
from autonomy_trio.fabric.peers.judge import Full
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import decode_payload, wire_name
from autonomy_trio.payloads import Resolve
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.identity import Bundle, History
from autonomy_trio.trust.lists import RevocationList, Revocations
from autonomy_trio.trust.policy import Decision, Policies, Principal
from autonomy_trio.trust.schema import PRINCIPAL, SEND
from autonomy_trio.trust.whole import WholePolicy
from autonomy_trio.wire.entries import Message, Open, Spoken, Subscribe, Tell, Watch
from autonomy_trio.wire.introductions import Agent

WATCH: Final = "Watch"
"""What a watch is called where a message has its name."""

SUBSCRIBE: Final = "Subscribe"
"""The same of a subscription."""

WireTable = dict[str, tuple[type, Handler]]

_log = get_log()


@attrs.frozen
class Way:
    """How a message came, as far as policies can ask."""

    relay: str | None = None
    """The pinned relay that brought it."""
    created: int | None = None
    """Unix seconds when it was sealed; None for one that came in a session."""


_USUAL: Final = Way()


def _way(peer: Peer) -> Way:
    return _USUAL if peer.via is None else Way(peer.via)


@final
@attrs.define(eq=False)
class Admission:
    """Judges what arrives at one node."""

    runtime: Runtime
    proofs: Proofs
    """What other nodes and their agents have proven."""
    voices: Voices
    """The agents of this node."""
    whole: Sequence[WholePolicy]
    """Policies besides those of the handlers."""
    now: Callable[[], float]
    """Unix seconds."""
    name: str
    """The identifier of this node."""
    audit: AuditLog | None = None
    decoded: int = 0
    """Payloads that were decoded."""
    read_ref: Resolve | None = None
    """Makes a ref of an address in a message."""
    _tables: dict[Spec, WireTable] = attrs.field(factory=dict[Spec, WireTable])
    _added: tuple[WholePolicy, ...] = ()
    """What is open at this moment besides."""
    _policies: Policies | None = None

    @property
    def anchors(self) -> Anchors:
        """The authorities that count here."""
        return self.proofs.anchors

    @property
    def revocations(self) -> Revocations:
        """What is known of the sequences and lists of those that `anchors` names."""
        return self.proofs.revocations

    @property
    def policies(self) -> Policies:
        """The policies in force."""
        if self._policies is None:
            self._policies = compile_policies(self._tables, self.anchors, self._in_force())
        return self._policies

    def know(self, specs: Iterable[Spec]) -> None:
        """Take agent classes into the policies, before an instance lives.

        Raises:
            PolicyError, DeclarationError: as `compile_policies`; nothing has changed then.
        """
        new = {spec: spec.wire_table() for spec in specs if spec not in self._tables}
        if new or self._policies is None:
            tables = {**self._tables, **new}
            generation = 1 if self._policies is None else self._policies.generation + 1
            self._policies = compile_policies(tables, self.anchors, self._in_force(), generation)
            self._tables = tables

    def obey(self, lists: Iterable[tuple[RevocationList | None, History]]) -> None:
        """Take note of the histories and revocation lists of issuers that this node has itself."""
        for each, history in lists:
            try:
                self.revocations.learn(history, each, anchors=self.anchors, now=self.now())
            except CredentialError as error:
                _log.warning("revocation list not obeyed", why=str(error))

    def change(self, anchors: Anchors, whole: Sequence[WholePolicy]) -> None:
        """Put other anchors and policies into force, from the next message on in live sessions too.

        Raises:
            PolicyError, DeclarationError: a policy cannot be right, or opens what cannot be sent; nothing has changed
                then.
        """
        in_force = (*whole, *self._added)
        self._policies = compile_policies(self._tables, anchors, in_force, self.policies.generation + 1)
        self.proofs.anchors, self.whole = anchors, whole

    @contextmanager
    def adding(self, policies: Sequence[WholePolicy]) -> Generator[None]:
        """Let policies count for the length of a block, besides those of files.

        Raises:
            PolicyError, DeclarationError: as `change`.
        """
        self._added += tuple(policies)
        try:
            self.change(self.anchors, self.whole)
            yield
        finally:
            self._added = tuple(each for each in self._added if each not in policies)
            self.change(self.anchors, self.whole)

    def _in_force(self) -> Sequence[WholePolicy]:
        return (*self.whole, *self._added)

    @property
    def generation(self) -> int:
        """Grows with whatever a proof rests on: policies, anchors, and what is known of issuers."""
        policies = self._policies or self.policies
        return policies.generation + self.revocations.generation

    def show(self, peer: Peer, presentations: Sequence[bytes]) -> None:
        """Judge the credentials a node shows; those that do not count here leave it without their attributes."""
        self.proofs.show(peer, presentations, self.generation)

    def prove_sealed(self, sender: Bundle, presentations: Sequence[bytes], created: int) -> Proof:
        """Judge what a sealed envelope shows; see `Proofs.of_sealed`."""
        return self.proofs.of_sealed(sender, presentations, created, self.generation)

    def prove_sealed_agent(self, node: Proof, agent: Agent, created: int) -> Proof:
        """Judge an agent that speaks in a sealed envelope; see `Proofs.of_sealed_agent`."""
        return self.proofs.of_sealed_agent(node, agent, created, self.generation)

    def prepare_sealed(self, entry: Tell, proof: Proof, reply: Reply, way: Way) -> tuple[Cell | PoolCell, Asked]:
        """Judge a message of a sealed envelope.

        Args:
            entry: the message.
            proof: what its sender has proven.
            reply: what is told when the handler has ended.
            way: when it was sealed, and which relay brought it.

        Returns:
            the agent, and what it is to accept.

        Raises:
            Refusal: it may not pass.
        """
        passage, message = self._judge(entry, proof, way)
        cell, handler = passage.cell, passage.handler
        if handler.kind == "stream":
            raise Refusal("not handled", NotHandled("a stream wants a reader, and nobody waits for this message"))
        return cell, Asked(message, handler, proof.sender, reply)

    def bury(self, entry: Message, sender: str, reason: Reason, why: str = "") -> None:
        """Make a dead letter of a message of another node."""
        letter = DeadLetter(printable(entry.recipient), printable(entry.name), sender, reason, printable(why))
        self.runtime.add_dead_letter(letter)

    def leave(self, peer: Peer) -> None:
        """Take note that a node has gone."""
        self.proofs.leave(peer)

    def note(self, bundle: Bundle, presentations: Sequence[bytes]) -> None:
        """Take note of the credentials beside a node's record in a directory."""
        self.proofs.note(bundle, presentations, self.generation)

    def must_ask(self, peer: Peer, entry: Spoken) -> bool:
        """Tell whether a message may not be sent to a node by what is known of it, which it could prove otherwise."""
        if peer.proof is not None or not self.policies.restricts_sending:
            return False
        return not self._sending(peer, entry, sealed=True)[0].allowed

    @property
    def judges_sending(self) -> bool:
        """Whether a policy could forbid to send something."""
        return self.policies.restricts_sending

    def may_send(self, peer: Peer, entry: Spoken, *, sealed: bool = False) -> Denied | None:
        """Judge one message that is to leave, by what its recipient has proven: permitted unless forbidden.

        Args:
            peer: the recipient's node.
            entry: the message.
            sealed: whether it is to be sealed, for a node that may be away.

        Returns:
            what its sender is told if it may not leave.
        """
        if not self.policies.restricts_sending:
            return None
        decision, sender = self._sending(peer, entry, sealed=sealed)
        self._record(decision, sender, SEND, PRINCIPAL, peer.name)
        if decision.allowed:
            return None
        names = {Watch: WATCH, Subscribe: SUBSCRIBE}
        name = entry.name if isinstance(entry, Message) else names[type(entry)]
        recipient_name, message = printable(entry.recipient), printable(name)
        self.runtime.add_dead_letter(
            DeadLetter(recipient_name, message, sender.id, "denied", printable(decision.reason))
        )
        return Denied(f"{message} was not sent to {peer.name}/{recipient_name}: {printable(decision.reason, 500)}")

    def _sending(self, peer: Peer, entry: Spoken, *, sealed: bool) -> tuple[Decision, Principal]:
        """Decide about what leaves, and say who sends it."""
        if peer.proof is None:
            proof = self.proofs.away(peer.identifier, self.generation)
        else:
            proof = self.proofs.of(peer, self.generation)
        recipient = Principal(peer.name, peer.name) if proof is None else proof.principal
        who = entry.sender
        sender = Principal(self.voices.identifier(who) if isinstance(who, Voice) else self.name, self.name)
        relay = None if sealed or peer.carrier is None else peer.carrier.pin
        return self.policies.sending(sender, recipient, now=self.now(), relay=relay, sealed=sealed), sender

    def _record(self, decision: Decision, principal: Principal, action: str, agent: str, resource: str) -> None:
        if self.audit is not None:
            self.audit.write(decision, principal, action, agent, resource, now=self.now())

    def may_watch(self, peer: Peer, entry: Watch, agent: Agent | None) -> Cell | PoolCell | None:
        """Judge a watch: who may send an agent something may know when that has ended.

        Args:
            peer: the node it comes from.
            entry: the watch.
            agent: that node's agent that watches; None for the node itself.

        Returns:
            the agent; None where it is not there, or there is nothing that the watcher may send it, which is told
            alike.

        Raises:
            Overloaded: who watches cannot be judged just now.
        """
        proof = self.proofs.of(peer, self.generation, agent)
        cell = self.runtime.find(entry.recipient)
        reason: Reason = "unknown agent"
        if cell is not None:
            way = _way(peer)
            if any(self._may_send(proof, name, cell, way) for name in self._tables[cell.spec]):
                return cell
            reason = "denied"
        self.runtime.add_dead_letter(DeadLetter(printable(entry.recipient), WATCH, proof.sender.id, reason))
        return None

    def may_subscribe(self, peer: Peer, entry: Subscribe, agent: Agent | None) -> bool:
        """Judge a subscription to a topic of this node, by what an agent class here says of it.

        Raises:
            Overloaded: who subscribes cannot be judged just now.
        """
        proof = self.proofs.of(peer, self.generation, agent)
        opening = [spec for spec in self._tables if entry.topic in spec.topics]
        for spec in opening:
            decision = self.policies.attribute_part(proof.principal, entry.topic, spec.agent, spec.name, now=self.now())
            if decision is not None:
                self._record(decision, proof.principal, entry.topic, spec.agent, spec.name)
                if decision.allowed:
                    return True
        reason: Reason = "denied" if opening else "unknown agent"
        self.runtime.add_dead_letter(DeadLetter(printable(entry.topic), SUBSCRIBE, proof.sender.id, reason))
        return False

    def judge_guest(self, guest: Principal, recipient: str, message: object) -> None:
        """Judge a message that an agent of this node passes on for somebody outside the fabric.

        Args:
            guest: who that is to policies.
            recipient: the name of the agent it is for.
            message: what is to be sent.

        Raises:
            Denied: it may not pass, or there is no such agent.
        """
        cell, name = self.runtime.find(recipient), wire_name(type(message))
        reason: Reason = "unknown agent"
        why = ""
        if cell is not None:
            decision = self.policies.decide(guest, name, cell.spec.agent, cell.name, message, now=self.now())
            self._record(decision, guest, name, cell.spec.agent, cell.name)
            if decision.allowed:
                return
            reason, why = "denied", decision.reason
        letter = DeadLetter(printable(recipient), printable(name), guest.id, reason, printable(why))
        self.runtime.add_dead_letter(letter)
        raise Denied

    def overflow(self, peer: Peer, entry: Message) -> Overloaded:
        """Count a message that may pass, and came in spite of what its sender was granted."""
        self.bury(entry, peer.name, "overloaded", "more than was granted")
        return Overloaded(f"the mailbox of {entry.recipient} is full, and more was sent than may wait for it")

    def admit(
        self, peer: Peer, entry: Message, agent: Agent | None, reply: Reply | None, *, late: bool
    ) -> Asked | Full | DeliveryError | None:
        """Judge one message, and queue it if it may pass.

        Args:
            peer: the node it comes from.
            entry: the message.
            agent: that node's agent that speaks; None for the node itself.
            reply: where the answer goes to an ask, and the items of a stream.
            late: whether a later message of that node came before it.

        Returns:
            the delivery of what waits for its handler now and is answered; what is to wait for room in the mailbox;
            what an asker is told if the message may not pass; None for a message that asks for nothing.
        """
        try:
            proof = self.proofs.of(peer, self.generation, agent)
        except Overloaded as error:
            self.bury(entry, peer.name, "overloaded", str(error))
            return error
        try:
            return self._queue(peer, entry, proof, reply, late=late)
        except Refusal as refused:
            self.bury(entry, proof.sender.id, refused.reason, refused.why)
            return refused.error

    def _queue(
        self, peer: Peer, entry: Message, proof: Proof, reply: Reply | None, *, late: bool
    ) -> Asked | Full | None:
        if late:
            raise Refusal("late", NotDelivered("it arrived after a later message, and order is kept: nothing was run"))
        if self.runtime.draining:
            raise Refusal("stopped", NotDelivered("the node is stopping: nothing was run"))
        passage = proof.passages.get((entry.recipient, entry.name))
        if passage is None or passage.decision is None or self.runtime.find(entry.recipient) is not passage.cell:
            passage, message = self._judge(entry, proof, _way(peer))
        else:
            if self.audit is not None:
                self._settle(passage.decision, proof, entry.name, passage.cell)
            message = self._decode(entry, passage.cls)
        return self._deliver(entry, passage, message, proof, reply)

    def _judge(self, entry: Message, proof: Proof, way: Way) -> tuple[Passage, object]:
        """Find the agent, ask the policy, and decode the message in between."""
        cell, cls = self._find(entry, proof, way)
        handler = cell.spec.handler_of(cls)
        assert handler is not None  # noqa: S101 - the agent's table names it
        decision = self._attribute_part(proof, entry.name, cell, way)
        passage = Passage(cell, cls, handler, decision)
        if decision is not None:
            if decision.allowed and not self.policies.is_volatile(entry.name, cell.spec.agent):
                proof.note_passage(entry.recipient, entry.name, passage)
            self._settle(decision, proof, entry.name, cell)
        message = self._decode(entry, cls)
        if decision is None:
            decision = self.policies.decide(
                proof.principal,
                entry.name,
                cell.spec.agent,
                cell.name,
                message,
                now=self.now(),
                relay=way.relay,
                created=way.created,
            )
            self._settle(decision, proof, entry.name, cell)
        return passage, message

    def _settle(self, decision: Decision, proof: Proof, action: str, cell: Cell | PoolCell) -> None:
        self._record(decision, proof.principal, action, cell.spec.agent, cell.name)
        if not decision.allowed:
            raise Refusal("denied", Denied(), decision.reason)

    def _find(self, entry: Message, proof: Proof, way: Way) -> tuple[Cell | PoolCell, type]:
        cell = self.runtime.find(entry.recipient)
        if cell is None:
            raise Refusal("unknown agent", Denied())
        found = self._tables[cell.spec].get(entry.name)
        if found is not None:
            return cell, found[0]
        open_to_sender = sorted(name for name in self._tables[cell.spec] if self._may_send(proof, name, cell, way))
        if not open_to_sender:
            raise Refusal("not handled", Denied())
        name, takes = printable(entry.name, 50), ", ".join(open_to_sender)
        raise Refusal("not handled", NotHandled(f"{cell.name} does not handle {name}; you may send it {takes}"))

    def _may_send(self, proof: Proof, name: str, cell: Cell | PoolCell, way: Way) -> bool:
        decision = self._attribute_part(proof, name, cell, way)
        return decision is None or decision.allowed

    def _attribute_part(self, proof: Proof, name: str, cell: Cell | PoolCell, way: Way) -> Decision | None:
        return self.policies.attribute_part(
            proof.principal, name, cell.spec.agent, cell.name, now=self.now(), relay=way.relay, created=way.created
        )

    def _decode(self, entry: Message, cls: type) -> object:
        self.decoded += 1
        try:
            return decode_payload(entry.payload, cls, self.read_ref)
        except MessageError as error:
            raise Refusal("malformed", NotHandled(f"the message does not fit: {error}"), str(error)) from None
        except Exception as error:  # noqa: BLE001 - fence: a program's classes, at a stranger's values
            raise Refusal("malformed", NotHandled("the message does not fit"), type(error).__name__) from None

    def _deliver(
        self, entry: Message, passage: Passage, message: object, proof: Proof, reply: Reply | None
    ) -> Asked | Full | None:
        handler = passage.handler
        if (handler.kind == "stream") is not isinstance(entry, Open):
            raise Refusal("not handled", not_so(message, handler))
        asked = None
        if isinstance(entry, Tell):
            delivery = Delivery(message, handler, proof.sender)
        elif isinstance(entry, Open):
            delivery = asked = Asked(message, handler, proof.sender, reply)
        else:
            remaining = float("inf") if entry.remaining is None else entry.remaining / 1000
            deadline = trio.current_time() + remaining
            delivery = asked = Asked(message, handler, proof.sender, reply, deadline, limited=True)
        chosen = passage.cell.chosen()
        try:
            if not chosen.offer(delivery):
                return Full(chosen, delivery)
        except Overloaded as error:
            raise Refusal("overloaded", error) from None
        except NotDelivered as error:
            raise Refusal("stopped", error) from None
        return asked


@attrs.define
class Refusal(Exception):
    """A message may not pass: why, for the log at home, and what its asker is told."""

    reason: Reason
    error: DeliveryError
    why: str = ""
