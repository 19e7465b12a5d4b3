"""What is sealed for nodes that may be away, and stored for them at a relay."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, final

import attrs
import msgspec
import trio

from autonomy_trio.errors import NotDelivered, NotStored
from autonomy_trio.fabric.access.admission import Admission
from autonomy_trio.fabric.identity.voices import Voice, Voices
from autonomy_trio.fabric.memories import Known, Memories
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import MESSAGE_ID_BYTES, SEALED_LIFE
from autonomy_trio.wire.entries import Tell, shown_presentations
from autonomy_trio.wire.sealed import SealedEntry, Stamp, seal

STORE_LIMIT: Final = 20.0
"""Seconds in which some relay must have said STORED."""

STORE_PAUSE: Final = 0.25
"""Seconds before relays that were away are tried again."""

_log = get_log()


class Depot(Protocol):
    """A relay that stores envelopes: a node's attachment to it."""

    @property
    def is_attached(self) -> bool:
        """Whether the relay is there now."""
        ...

    @property
    def pin(self) -> str | None:
        """Which relay it is, where that is pinned."""
        ...

    async def store(self, destination: bytes, packet: bytes, time_to_live: int) -> str | None:
        """Have an envelope stored; None when it is on the disk there, else why it is not, in a word."""
        ...

    def acknowledge(self, identifier: bytes) -> None:
        """Have an envelope forgotten that was taken; without a connection it comes again."""
        ...

    def fetch(self) -> None:
        """Have all that is stored for this node handed over, from the beginning."""
        ...


@final
@attrs.define(eq=False)
class Sealing:
    """Seals what one node tells to those that may be away, and knows what it can seal it with."""

    _vault: Vault
    _admission: Admission
    _voices: Voices
    _memories: Memories
    _shown: Callable[[], Sequence[bytes]]
    """The credentials this node shows."""
    _now: Callable[[], float]
    _find: Callable[[bytes], Awaitable[Known | None]]
    """Looks a node up at the relays."""

    async def tell(self, bundle: Bundle, entry: Tell, depots: Callable[[], Sequence[Depot]], address: str) -> None:
        """Have a message stored for a node.

        Args:
            bundle: of the node.
            entry: the message.
            depots: where it may be stored, the best place first; asked anew after each attempt.
            address: whom it is for, in words.

        Raises:
            NotStored: no relay has said that it is on the disk.
            MessageError: it is too large.

        On cancellation it may have been stored.
        """
        created = int(self._now())
        stamp = Stamp(secrets.token_bytes(MESSAGE_ID_BYTES), created, created + SEALED_LIFE)
        try:
            entries = self._addressed(entry)
            packet = seal(self._vault, bundle, entries, stamp, secrets.token_bytes)
        except NotDelivered as error:
            raise NotStored(f"{entry.name} was not stored for {address}: {error}") from None
        why = away = "no relay is there"
        with trio.move_on_after(STORE_LIMIT):
            while True:
                places, refusals = depots(), list[str]()
                for depot in places:
                    if not depot.is_attached:
                        continue
                    refusal = await depot.store(bundle.identifier, packet, SEALED_LIFE)
                    if refusal is None:
                        return
                    refusals.append(refusal)
                why = ", ".join(refusals) or away
                if places and len(refusals) == len(places) and "connection lost" not in refusals:
                    break
                await trio.sleep(STORE_PAUSE)
        raise NotStored(f"{entry.name} was not stored for {address} ({why}): have its relay run with --store, or retry")

    def _addressed(self, entry: Tell) -> list[SealedEntry]:
        """Return what is sealed: a message, and before it what proves who sends it.

        Raises:
            NotDelivered: as `Voices.speaker`.
        """
        speaker = self._voices.speaker(entry.sender) if isinstance(entry.sender, Voice) else None
        entries: list[SealedEntry] = []
        if speaker is None or speaker.inherits:
            shown = shown_presentations(self._shown())
            entries += (shown,) if shown.presentations else ()
        if speaker is not None:
            entries.append(speaker.entry(1))
            entry = msgspec.structs.replace(entry, sender=1)
        return [*entries, entry]

    async def meet(self, bundle: Bundle) -> None:
        """Keep the bundle of a node, to seal for it once it is away."""
        try:
            await self._memories.meet(bundle)
        except StoreFailed as error:
            _log.warning("a bundle is not kept", node=format_identifier(bundle.identifier), why=str(error))

    async def look_up(self, node: bytes) -> Bundle | None:
        """Return the bundle of a node that the relays know, and note what it shows besides."""
        known = await self._find(node)
        if known is None:
            return None
        self._admission.note(known.bundle, known.presentations)
        await self.meet(known.bundle)
        return self.bundle(node)

    def bundle(self, node: bytes) -> Bundle | None:
        """Return the bundle of a node that was met."""
        return self._memories.bundle(node, self._now())
