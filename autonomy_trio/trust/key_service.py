"""What the rest of the program asks of whoever keeps a node's keys."""

from typing import Protocol

from autonomy_trio.trust.delegates import Introduction
from autonomy_trio.trust.records import SignatureContext


class KeyService(Protocol):
    """What the rest of the program asks of a vault, so that a key service may keep the keys in its place."""

    @property
    def identifier(self) -> bytes:
        """The 32 bytes of the identity."""
        ...

    @property
    def session_public(self) -> bytes:
        """The attested X25519 public key, 32 bytes."""
        ...

    def bundle(self, now: float) -> bytes:
        """Return the encoded bundle to show at `now`, in Unix seconds."""
        ...

    def prekey(self, number: int) -> bytes | None:
        """Return the public half of a prekey; None when there is none of that number any more."""
        ...

    def agree(self, public: bytes, prekey: int | None = None) -> bytes:
        """Agree on 32 secret bytes with the owner of an X25519 public key, by the session key or a prekey."""
        ...

    def sign(self, context: SignatureContext, data: bytes) -> bytes:
        """Sign with the attested signing key."""
        ...

    def introduce(self, name: str, now: float) -> Introduction:
        """Make what a node shows of one of its agents."""
        ...
