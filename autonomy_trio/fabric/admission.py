"""What stands between the wire and the mailboxes: who the sender is, what it can prove, and whether it may.

The order is the promise: recipient, attribute part of the policy, decoding, message part of the policy, mailbox. A
message that is denied takes no mailbox slot, wakes no agent, and is decoded only where the policy asks what it says.

A sender that nothing is open to learns nothing: whatever it sends is answered with the same `Denied`.
"""

import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import attrs
import outcome
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.dead_letters import DeadLetter, Reason
from autonomy_trio.actors.delivery import Delivery, Sender
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
from autonomy_trio.fabric.peer import Answer, Peer
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import decode_payload
from autonomy_trio.trust.anchors import Anchors, proven_attributes
from autonomy_trio.trust.credentials import Credential, verify_presentation
from autonomy_trio.trust.policy import Decision, Grant, Policies, Principal
from autonomy_trio.wire.entries import Ask, Tell

WireTable = dict[str, tuple[type, Handler]]

_log = get_log()


def compile_policies(specs: Iterable[Spec], anchors: Anchors, generation: int = 1) -> Policies:
    """Compile what the handlers of agent classes declare.

    Raises:
        PolicyError, DeclarationError: an ``allow=`` cannot be right; one sentence names handler, place and mend.
    """
    grants: list[Grant] = []
    for spec in specs:
        taken: dict[str, list[tuple[str, type]]] = {}
        handlers: dict[str, Handler] = {}
        for name, (cls, handler) in spec.wire_table().items():
            key = f"{handler.method} {handler.message.__qualname__}"
            handlers[key] = handler
            taken.setdefault(key, []).append((name, cls))
        for key, handler in handlers.items():
            actions, classes = zip(*taken[key], strict=True)
            grants.append(Grant(spec.agent, handler.method, actions, classes, handler.allow))
    return Policies.compile(grants, anchors, generation=generation)


@attrs.frozen
class Proof:
    """What another node has proven, as policies and handlers see it."""

    credentials: Sequence[Credential]
    principal: Principal
    sender: Sender


def _prove(name: str, credentials: Sequence[Credential]) -> Proof:
    """Return what credentials prove together, until the first of them expires."""
    attributes, dropped = proven_attributes(credentials)
    if dropped:
        _log.warning("attributes dropped: credentials contradict each other", node=name, names=sorted(dropped))
    principal = Principal(
        id=name,
        node=name,
        attributes=attributes,
        credentials=frozenset(credential.id for credential in credentials),
        expires=min((float(credential.expires) for credential in credentials), default=float("inf")),
    )
    # Read-only: a handler sees the attributes that policies read.
    return Proof(credentials, principal, Sender(name, name, types.MappingProxyType(attributes), is_local=False))


@final
@attrs.define(eq=False)
class Admission:
    """Judges what arrives at one node."""

    runtime: Runtime
    anchors: Anchors
    now: Callable[[], float]
    """Unix seconds."""
    decoded: int = 0
    """Payloads that were decoded."""
    unproven: int = 0
    """Credentials that did not count here."""
    _tables: dict[Spec, WireTable] = attrs.field(factory=dict[Spec, WireTable])
    _policies: Policies | None = None

    @property
    def policies(self) -> Policies:
        """The policies in force."""
        if self._policies is None:
            self._policies = compile_policies(self._tables, self.anchors)
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
            self._policies = compile_policies(tables, self.anchors, generation)
            self._tables = tables

    def show(self, peer: Peer, presentations: Sequence[bytes]) -> None:
        """Judge the credentials a node shows; those that do not count here leave it without their attributes."""
        assert peer.bundle is not None  # noqa: S101 - a session came first
        credentials: list[Credential] = []
        for encoded in presentations:
            try:
                credentials.append(
                    verify_presentation(
                        encoded,
                        subject=peer.identifier,
                        subject_seq=peer.bundle.seq,
                        anchors=self.anchors,
                        now=self.now(),
                    )
                )
            except CredentialError as error:
                self.unproven += 1
                if self.unproven & (self.unproven - 1) == 0:  # the 1st, 2nd, 4th, 8th …: a flood fills no log
                    _log.warning("credential not accepted", node=peer.name, why=str(error), so_far=self.unproven)
        peer.proof = _prove(peer.name, credentials)

    def admit(self, peer: Peer, entry: Tell | Ask, answer: Answer, *, late: bool) -> Delivery | DeliveryError | None:
        """Judge one message, and queue it if it may pass.

        Args:
            peer: the node it comes from.
            entry: the message.
            answer: takes the outcome of an ask that was queued.
            late: whether a later message of that node came before it.

        Returns:
            the delivery of an ask that waits for its handler now; what an asker is told if the message may not pass;
            None for a message that asks for nothing.
        """
        proof = peer.proof
        assert isinstance(proof, Proof)  # noqa: S101 - show() came first
        if self.now() >= proof.principal.expires:
            proof = peer.proof = _prove(peer.name, [each for each in proof.credentials if each.expires > self.now()])
        try:
            return self._queue(entry, proof, answer, late=late)
        except _Refused as refused:
            recipient, message = printable(entry.recipient), printable(entry.name)
            letter = DeadLetter(recipient, message, peer.name, refused.reason, printable(refused.why))
            self.runtime.add_dead_letter(letter)
            return refused.error

    def _queue(self, entry: Tell | Ask, proof: Proof, answer: Answer, *, late: bool) -> Delivery | None:
        if late:
            raise _Refused("late", NotDelivered("it arrived after a later message, and order is kept: nothing was run"))
        if self.runtime.draining:
            raise _Refused("stopped", NotDelivered("the node is stopping: nothing was run"))
        cell, cls = self._find(entry, proof)
        decision = self._attribute_part(proof, entry.name, cell)
        if decision is not None and not decision.allowed:
            raise _Refused("denied", Denied(), decision.reason)
        message = self._decode(entry, cls)
        if decision is None:
            decision = self.policies.decide(
                proof.principal, entry.name, cell.spec.agent, cell.name, message, now=self.now()
            )
            if not decision.allowed:
                raise _Refused("denied", Denied(), decision.reason)
        return self._deliver(entry, cell, message, proof, answer)

    def _find(self, entry: Tell | Ask, proof: Proof) -> tuple[Cell | PoolCell, type]:
        cell = self.runtime.find(entry.recipient)
        if cell is None:
            raise _Refused("unknown agent", Denied())
        found = self._tables[cell.spec].get(entry.name)
        if found is not None:
            return cell, found[0]
        open_to_sender = sorted(name for name in self._tables[cell.spec] if self._may_send(proof, name, cell))
        if not open_to_sender:
            raise _Refused("not handled", Denied())
        name, takes = printable(entry.name, 50), ", ".join(open_to_sender)
        raise _Refused("not handled", NotHandled(f"{cell.name} does not handle {name}; you may send it {takes}"))

    def _may_send(self, proof: Proof, name: str, cell: Cell | PoolCell) -> bool:
        decision = self._attribute_part(proof, name, cell)
        return decision is None or decision.allowed

    def _attribute_part(self, proof: Proof, name: str, cell: Cell | PoolCell) -> Decision | None:
        return self.policies.attribute_part(proof.principal, name, cell.spec.agent, cell.name, now=self.now())

    def _decode(self, entry: Tell | Ask, cls: type) -> object:
        self.decoded += 1
        try:
            return decode_payload(entry.payload, cls)
        except MessageError as error:
            raise _Refused("malformed", NotHandled(f"the message does not fit: {error}"), str(error)) from None
        except Exception as error:  # noqa: BLE001 - fence: a program's classes, at a stranger's values
            raise _Refused("malformed", NotHandled("the message does not fit"), type(error).__name__) from None

    def _deliver(
        self, entry: Tell | Ask, cell: Cell | PoolCell, message: object, proof: Proof, answer: Answer
    ) -> Delivery | None:
        handler = cell.spec.handler_of(type(message))
        assert handler is not None  # noqa: S101 - the agent's table names it
        if isinstance(entry, Ask):
            remaining = float("inf") if entry.remaining is None else entry.remaining / 1000
            deadline = trio.current_time() + remaining
            delivery = Delivery(message, handler, proof.sender, RemoteReply(answer), deadline, limited=True)
        else:
            delivery = Delivery(message, handler, proof.sender)
        try:
            cell.accept_nowait(delivery)
        except Overloaded as error:
            raise _Refused("overloaded", error) from None
        except NotDelivered as error:
            raise _Refused("stopped", error) from None
        return delivery if isinstance(entry, Ask) else None


@final
@attrs.frozen(eq=False)
class RemoteReply:
    """Where the reply to another node's ask goes."""

    _answer: Callable[[outcome.Outcome[Any]], None]

    def settle(self, result: outcome.Outcome[Any]) -> None:
        """Send it."""
        self._answer(result)


@attrs.define
class _Refused(Exception):
    reason: Reason
    error: DeliveryError
    why: str = ""
