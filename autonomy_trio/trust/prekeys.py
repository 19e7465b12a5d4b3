"""Prekeys: the keys that sealed envelopes are made for, a new one each day, with their secret halves."""

from typing import Final

import msgspec

from autonomy_trio.trust.identity import ATTESTATION_LIFE_LIMIT, PREKEYS_LIMIT, PrekeyNumber
from autonomy_trio.trust.protection import Random
from autonomy_trio.trust.records import KEY_BYTES, Key, Seconds

PREKEY_LIFE: Final = 24 * 3600
"""Seconds for which a prekey is the newest."""
PREKEY_KEPT: Final = ATTESTATION_LIFE_LIMIT + 3600
"""Seconds for which a prekey's secret is kept after it was attested last: until nobody may use it, and an hour."""


class SecretPrekey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The secret half of a prekey.

    Attributes:
        id: its number.
        secret: the X25519 secret key.
        made: Unix seconds at which it was made.
        attested: Unix seconds of the last attestation that names it.
    """

    id: PrekeyNumber
    secret: Key
    made: Seconds
    attested: Seconds

    def __repr__(self) -> str:
        return f"SecretPrekey({self.id})"


def renewed(prekeys: tuple[SecretPrekey, ...], now: float, random: Random) -> tuple[SecretPrekey, ...]:
    """Add a prekey when the newest is a day old, or from the future, and drop those that nobody may use any more.

    Args:
        prekeys: all there are, the newest last.
        now: Unix seconds.
        random: the system's random source, unless a test replaces it.
    """
    if not prekeys or not prekeys[-1].made <= now < prekeys[-1].made + PREKEY_LIFE:
        prekeys = with_new(prekeys, now, random)
    return (*(prekey for prekey in prekeys[:-1] if now <= prekey.attested + PREKEY_KEPT), prekeys[-1])


def with_new(prekeys: tuple[SecretPrekey, ...], now: float, random: Random) -> tuple[SecretPrekey, ...]:
    """Add a prekey made now, with the next number; of too many the oldest goes."""
    number = prekeys[-1].id + 1 if prekeys else 1
    return (*prekeys[1 - PREKEYS_LIMIT :], SecretPrekey(number, random(KEY_BYTES), int(now), int(now)))


def attested(prekeys: tuple[SecretPrekey, ...], now: float) -> tuple[SecretPrekey, ...]:
    """Note that the newest prekey is attested now."""
    return (*prekeys[:-1], *(msgspec.structs.replace(newest, attested=int(now)) for newest in prekeys[-1:]))
