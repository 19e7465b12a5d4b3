"""Messages that waited while this node was away: fetched from a relay, opened, handled, and only then forgotten.

A message is acknowledged when its handler has ended and the node has written down that it came. So it is handled at
least once, and once unless the node dies between the two.
"""

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, final

import attrs
import trio

from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.delivery import Asked, PendingReply
from autonomy_trio.actors.pools import PoolCell
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.errors import (
    DeliveryError,
    Denied,
    HandlerFailed,
    NotHandled,
    Overloaded,
    ProtocolError,
    ReplyError,
    TrustError,
    VaultError,
)
from autonomy_trio.fabric.access.admission import Admission, Refusal, Way
from autonomy_trio.fabric.access.proofs import Proof
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.fabric.memories import Memories
from autonomy_trio.fabric.sealing import Depot
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.logs import get_log, printable
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import UNACKNOWLEDGED
from autonomy_trio.wire.entries import Introduce, Presentations, Tell
from autonomy_trio.wire.introductions import verify_agent
from autonomy_trio.wire.mailbox import stored_id
from autonomy_trio.wire.packets import read_sealed
from autonomy_trio.wire.sealed import Sealed, Stamp, open_sealed

MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of envelopes that wait to be opened, or are being handled; one more is left at its relay."""

MOST_TAKEN: Final = 16 * UNACKNOWLEDGED
"""Envelopes that wait to be opened, or are being handled: what 16 honest relays hand over."""

MOST_COPIES: Final = 16
"""Relays that wait for one envelope to be acknowledged."""

FETCH_EVERY: Final = 60.0
"""Seconds before what was left at a relay is fetched again."""

MOST_FAILURES: Final = 3
"""Failures of a handler on one message, after which it is given up: it would fail for ever."""

FAILURE_PAUSE: Final = 1.0
"""Seconds before a message whose handler failed is handled again; each further pause is twice as long."""

MOST_SPEAKERS: Final = 8
"""Agents that speak in one envelope."""

AGENT_LIMIT: Final = 30.0
"""Seconds in which the agent must be there that a message is for."""

AGENT_PAUSE: Final = 1.0
"""Seconds before an agent that is not there, or is full, is tried again."""

CLOSE_LIMIT: Final = 1.0
"""Seconds in which what was handled is written down when the node closes."""

EXPIRE_EVERY: Final = 3600.0
"""Seconds between two looks for what need not be remembered any more."""

_log = get_log()


@final
@attrs.define(eq=False)
class Durable:
    """The durable messages that come to one node."""

    _vault: Vault
    _histories: Histories
    _admission: Admission
    _runtime: Runtime
    _memories: Memories
    _nursery: trio.Nursery
    _now: Callable[[], float]
    given_up: int = 0
    """Messages whose handler failed too often, or whose agent never was there."""
    _arrived: deque[tuple[Depot, bytes]] = attrs.field(factory=deque[tuple[Depot, bytes]])
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _left: set[Depot] = attrs.field(factory=set[Depot])
    """Relays at which something was left."""
    _bytes: int = 0
    """Of what waits to be opened, or is being handled."""
    _open: dict[tuple[bytes, bytes], list[tuple[Depot, bytes]]] = attrs.field(
        factory=dict[tuple[bytes, bytes], list[tuple[Depot, bytes]]]
    )
    """What is being handled, by sender and id, with the relays that wait for it to be acknowledged."""
    _suspects: trio.Lock = attrs.field(factory=trio.Lock)
    """Held by the one message that runs of those that were running when a process before this one ended."""
    _closing: trio.Event = attrs.field(factory=trio.Event)
    _ended: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def receive(self, depot: Depot, packet: bytes) -> None:
        """Take an envelope from a relay; never waits."""
        too_many = len(self._arrived) + len(self._open) >= MOST_TAKEN
        if too_many or self._bytes + len(packet) > MOST_BYTES:
            self._left.add(depot)
            return
        self._bytes += len(packet)
        self._arrived.append((depot, packet))
        self._came.unpark_all()

    async def run(self) -> None:
        """Open what arrives, until cancelled."""
        self._nursery.start_soon(self._expire)
        self._nursery.start_soon(self._keep_fetching)
        while True:
            while not self._arrived:
                await self._came.park()
            depot, packet = self._arrived.popleft()
            if not self._take(depot, packet):
                self._bytes -= len(packet)
            await trio.lowlevel.checkpoint()  # opening one takes a millisecond in which nothing else runs

    async def close(self) -> None:
        """Return when what was handled is written down, or `CLOSE_LIMIT` has passed; the rest comes again."""
        self._closing.set()
        with trio.move_on_after(CLOSE_LIMIT):
            while self._open:
                await self._ended.park()

    def _take(self, depot: Depot, packet: bytes) -> bool:
        """Open an envelope; tell whether it is being handled from now on."""
        identifier = stored_id(packet)
        try:
            sealed = open_sealed(read_sealed(packet), self._vault, self._now())
            self._histories.see(sealed.sender.history)
        except VaultError as error:
            # The fault is this node's, whose disk is full say: it is stored, and comes again.
            _log.warning("sealed envelope left at its relay", why=str(error))
            self._left.add(depot)
            return False
        except (ProtocolError, TrustError) as error:
            _log.warning("sealed envelope refused", why=str(error))
            depot.acknowledge(identifier)
            return False
        key = sealed.sender.identifier, sealed.stamp.id
        place = depot, identifier
        if self._memories.has(*key):
            depot.acknowledge(identifier)
            return False
        if key in self._open:
            if place not in self._open[key] and len(self._open[key]) < MOST_COPIES:
                self._open[key].append(place)
            return False
        try:
            self._memories.check_room(sealed.sender.identifier)
        except Overloaded as error:
            _log.warning("sealed envelope left at its relay", why=str(error))
            self._left.add(depot)
            return False
        self._open[key] = [place]
        self._nursery.start_soon(self._handle, sealed, depot, len(packet))
        return True

    async def _handle(self, sealed: Sealed, depot: Depot, size: int) -> None:
        key = sealed.sender.identifier, sealed.stamp.id
        finished = False
        try:
            taken = await self._deliver(sealed, depot)
            # What policy refuses is refused again, so a stranger's envelopes take no room in the memory.
            if taken:
                await self._memories.remember(*key, sealed.stamp.expires)
            finished = taken is not None
        except (Overloaded, StoreFailed) as error:
            _log.warning("sealed envelope not acknowledged", why=str(error))
        finally:
            places = self._open.pop(key)
            self._bytes -= size
            self._ended.unpark_all()
        for place, identifier in places:
            if finished:
                place.acknowledge(identifier)
            else:
                self._left.add(place)

    async def _deliver(self, sealed: Sealed, depot: Depot) -> bool | None:
        """Have what an envelope says handled; False where policy refused all of it, None where it is to come again."""
        taken = False
        shown = [each for entry in sealed.entries if isinstance(entry, Presentations) for each in entry.presentations]
        created = sealed.stamp.created
        proofs = {0: self._admission.prove_sealed(sealed.sender, shown, created)}
        way = Way(depot.pin, created)
        tells = [entry for entry in sealed.entries if isinstance(entry, Tell)]
        for entry in tells:
            try:
                proof = proofs.get(entry.sender) or self._prove_agent(sealed, entry.sender, proofs)
            except ProtocolError as error:
                self._admission.bury(entry, proofs[0].sender.node, "denied", str(error))
                continue
            handled = await self._tell(entry, proof, way, sealed.stamp, sealed.sender.identifier)
            if handled is None:
                return None
            taken = taken or handled
            if entry is not tells[-1]:
                await self._untry((sealed.sender.identifier, sealed.stamp.id))  # what follows begins anew
        return taken

    def _prove_agent(self, sealed: Sealed, sender: int, proofs: dict[int, Proof]) -> Proof:
        """Judge an agent that speaks in an envelope, as of when it was written, and remember that.

        Raises:
            ProtocolError: it is none that its node may speak for, or one too many: each costs signature checks.
        """
        introduced = [each for each in sealed.entries if isinstance(each, Introduce) and each.index == sender]
        if len(introduced) != 1 or len(proofs) > MOST_SPEAKERS:
            raise ProtocolError(f"the agent that sent it was not introduced, or is one of more than {MOST_SPEAKERS}")
        created = sealed.stamp.created
        agent = verify_agent(introduced[0], sealed.sender, created)
        proofs[sender] = self._admission.prove_sealed_agent(proofs[0], agent, created)
        return proofs[sender]

    async def _tell(self, entry: Tell, proof: Proof, way: Way, stamp: Stamp, sender: bytes) -> bool | None:
        """Have one message handled, however often that takes; False: it was refused, None: it is to come again."""
        key, agent_until = (sender, stamp.id), trio.current_time() + AGENT_LIMIT
        # What was tried by a process that did not live to say how it ended may have ended that: one after another.
        turn = self._suspects if self._memories.tries(*key) else nullcontext()
        while not (self._runtime.draining or self._closing.is_set()):
            if self._now() >= stamp.expires:
                self._admission.bury(entry, proof.sender.id, "expired")
                return True
            if self._memories.tries(*key) >= MOST_FAILURES:
                self._give_up(entry)
                why = f"{MOST_FAILURES} times its handler failed, or its process ended meanwhile"
                self._admission.bury(entry, proof.sender.id, "failed", why)
                return True
            reply = PendingReply()
            try:
                cell, delivery = self._admission.prepare_sealed(entry, proof, reply, way)
                async with turn:
                    pause = await self._try(entry, key, stamp.expires, cell, delivery, reply)
            except Refusal as refusal:
                if refusal.reason != "unknown agent" or trio.current_time() >= agent_until:
                    self._admission.bury(entry, proof.sender.id, refusal.reason, refusal.why)
                    self.given_up += refusal.reason == "unknown agent"
                    return False
                pause = AGENT_PAUSE
            if pause is None:
                return True
            with trio.move_on_after(pause):
                await self._closing.wait()
        return None

    async def _try(  # noqa: PLR0913, PLR0917 - one message, and where it goes
        self,
        entry: Tell,
        key: tuple[bytes, bytes],
        expires: int,
        cell: Cell | PoolCell,
        delivery: Asked,
        reply: PendingReply,
    ) -> float | None:
        """Have a message handled once; that it was tried is on the disk before its handler runs.

        Returns:
            the seconds before it is tried again; None where it is handled, or given up.
        """
        try:
            await self._memories.begin(*key, expires)
        except StoreFailed as error:
            _log.warning("a durable message is tried and not counted", why=str(error))
        try:
            await cell.accept(delivery, None)
            await reply.wait(delivery.cancel)
        except HandlerFailed:
            failures = self._memories.tries(*key)
            if failures < MOST_FAILURES:
                return float(FAILURE_PAUSE * 2 ** max(0, failures - 1))
            self._give_up(entry)
        except (Denied, NotHandled, ReplyError):
            pass  # an interceptor or the handler has answered: it is handled
        except (DeliveryError, trio.TooSlowError) as error:
            await self._untry(key)
            _log.debug("durable message waits", agent=cell.name, why=str(error))
            return AGENT_PAUSE
        return None

    async def _untry(self, key: tuple[bytes, bytes]) -> None:
        try:
            await self._memories.take_back(*key)
        except StoreFailed as error:
            _log.warning("a try of a durable message counts though it was none", why=str(error))

    def _give_up(self, entry: Tell) -> None:
        self.given_up += 1
        name, agent = printable(entry.name), printable(entry.recipient)
        _log.error("durable message given up", agent=agent, message=name, failures=MOST_FAILURES)

    async def _keep_fetching(self) -> None:
        while True:
            await trio.sleep(FETCH_EVERY)
            left, self._left = self._left, set()
            for depot in left:
                depot.fetch()

    async def _expire(self) -> None:
        while True:
            await trio.sleep(EXPIRE_EVERY)
            try:
                await self._memories.expire(self._now())
            except StoreFailed as error:
                _log.warning("what has expired is still remembered", why=str(error))
