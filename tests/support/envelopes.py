"""Envelopes to keep, of which a store opens none."""

from typing import Final

from autonomy_trio.fabric.stores.store import Envelope
from autonomy_trio.wire.mailbox import stored_id
from tests.support.neighbours import NOW

ALICE: Final = bytes([1]) * 32
BOB: Final = bytes([2]) * 32
CAROL: Final = bytes([3]) * 32


def envelope(text: str, *, to: bytes = BOB, by: bytes = ALICE, life: int = 60) -> Envelope:
    packet = text.encode()
    return Envelope(stored_id(packet), to, by, int(NOW) + life, packet)
