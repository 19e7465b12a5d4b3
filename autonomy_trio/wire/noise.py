"""The Noise Protocol Framework, revision 34, over 25519 and ChaChaPoly: a pattern is a table, the code only walks it.

A handshake mixes keys into two running values. `h` hashes everything both sides have seen, and is the associated data
of every encrypted part, so a changed byte anywhere fails everything after it. `ck` collects every shared secret, and
each new one gives a new cipher key; so what is encrypted is as secret as all secrets agreed on so far.

Each message is written or read in two steps, its tokens and then its payload, because a payload may have to sign the
handshake hash as it stands between them. A failed read leaves the state half changed: read into a `copy()`.

Names are the specification's. Suites and patterns are rows of tables; which one is spoken is the caller's choice.
"""

import hmac
from collections.abc import Callable
from hashlib import new as new_hash
from typing import Final, Literal, Protocol, Self, TypeVar, final

from attrs import define, evolve, field, frozen
from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError

from autonomy_trio.errors import HandshakeFailed
from autonomy_trio.wire.constants import KEY_BYTES, TAG_BYTES

Agreement = Literal["ee", "es", "se", "ss"]
Token = Literal["e", "s"] | Agreement
HashName = Literal["BLAKE2s", "BLAKE2b", "SHA256", "SHA512"]
Random = Callable[[int], bytes]

_Key = TypeVar("_Key")


@frozen
class Pattern:
    """A handshake pattern (section 7): what each message carries, the initiator's first, then in turn.

    Attributes:
        name: as in the protocol name.
        messages: the tokens of each message.
        initiator_known: the initiator's public keys that the responder has beforehand (section 7.1).
        responder_known: the responder's public keys that the initiator has beforehand.
    """

    name: str
    messages: tuple[tuple[Token, ...], ...]
    initiator_known: tuple[Token, ...] = ()
    responder_known: tuple[Token, ...] = ()


XX: Final = Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
"""Both sides prove a key that the other did not know: first contact."""
N: Final = Pattern("N", (("e", "es"),), responder_known=("s",))
"""One message to a key that is known; its sender proves nothing by Noise, so what it says must be signed."""


class AgreementKey(Protocol):
    """An X25519 secret key behind a door: who holds it need not show it."""

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        ...

    def agree(self, public: bytes) -> bytes:
        """Return the 32-byte shared secret with the owner of `public`; HandshakeFailed for a low-order point."""
        ...


@final
class PrivateKey:
    """An X25519 key in memory, as every ephemeral key is; its repr shows no secret."""

    __slots__ = ("_secret", "public")

    public: bytes

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.public = crypto_scalarmult_base(secret)

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.hex()})"

    def agree(self, public: bytes) -> bytes:
        """Return the 32-byte shared secret with the owner of `public` (RFC 7748).

        Raises:
            HandshakeFailed: `public` is a low-order point, which would make the secret known to all.
        """
        try:
            return crypto_scalarmult(self._secret, public)
        except RuntimeError:
            raise HandshakeFailed("the peer sent a low-order point for a key") from None


def encrypt(key: bytes, counter: int, associated: bytes, plaintext: bytes) -> bytes:
    """Seal with ChaChaPoly (section 12.3): the 96-bit nonce is four zero bytes and a little-endian counter."""
    return crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, associated, _nonce(counter), key)


def decrypt(key: bytes, counter: int, associated: bytes, ciphertext: bytes) -> bytes | None:
    """Open what `encrypt` sealed; None when it is not that."""
    if len(ciphertext) < TAG_BYTES:
        return None
    try:
        return crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, associated, _nonce(counter), key)
    except CryptoError:
        return None


def _nonce(counter: int) -> bytes:
    return b"\x00\x00\x00\x00" + counter.to_bytes(8, "little")


@define
class CipherState:
    """A key and the count of what it has sealed or opened (section 5.1); without a key everything passes unsealed."""

    key: bytes | None = field(default=None, repr=False)
    nonce: int = 0

    def encrypt_with_ad(self, associated: bytes, plaintext: bytes) -> bytes:
        """Seal and count."""
        if self.key is None:
            return plaintext
        ciphertext = encrypt(self.key, self.nonce, associated, plaintext)
        self.nonce += 1
        return ciphertext

    def decrypt_with_ad(self, associated: bytes, ciphertext: bytes) -> bytes:
        """Open and count; a failure counts nothing.

        Raises:
            HandshakeFailed: the bytes are not what the peer sealed.
        """
        if self.key is None:
            return ciphertext
        plaintext = decrypt(self.key, self.nonce, associated, ciphertext)
        if plaintext is None:
            raise HandshakeFailed("a part of the handshake does not decrypt: it was changed, or meant for another node")
        self.nonce += 1
        return plaintext


@define
class SymmetricState:
    """The running values of a handshake (section 5.2).

    Attributes:
        hash_name: the hash function as the protocol name writes it; Python's name is the same in lower case.
        h: the handshake hash so far.
        ck: the chaining key, a secret.
        cipher: what encrypts at this point.
    """

    hash_name: HashName
    h: bytes
    ck: bytes = field(repr=False)
    cipher: CipherState

    @classmethod
    def start(cls, protocol_name: bytes, hash_name: HashName) -> Self:
        """Begin with the protocol's name, hashed when it is longer than a hash."""
        size = new_hash(hash_name.lower()).digest_size
        h = protocol_name.ljust(size, b"\x00")
        if len(h) > size:
            h = new_hash(hash_name.lower(), protocol_name).digest()
        return cls(hash_name, h, h, CipherState())

    def mix_hash(self, data: bytes) -> None:
        """Add what both sides see."""
        self.h = new_hash(self.hash_name.lower(), self.h + data).digest()

    def mix_key(self, secret: bytes) -> None:
        """Add a secret both sides share, and encrypt under it from here on."""
        self.ck, key = self._derive_two(secret)
        self.cipher = CipherState(key[:KEY_BYTES])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal a part under all secrets so far, with all that was seen as associated data."""
        ciphertext = self.cipher.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Open what `encrypt_and_hash` sealed.

        Raises:
            HandshakeFailed: it was not sealed in this handshake at this point.
        """
        plaintext = self.cipher.decrypt_with_ad(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two 32-byte keys of the session: for what the initiator sends, for what the responder sends."""
        first, second = self._derive_two(b"")
        return first[:KEY_BYTES], second[:KEY_BYTES]

    def copy(self) -> Self:
        """Return a state that can go on without changing this one."""
        return evolve(self, cipher=evolve(self.cipher))

    def _derive_two(self, secret: bytes) -> tuple[bytes, bytes]:
        """HKDF (RFC 5869) with two outputs, each as long as a hash."""
        name = self.hash_name.lower()
        extracted = hmac.digest(self.ck, secret, name)
        first = hmac.digest(extracted, b"\x01", name)
        return first, hmac.digest(extracted, first + b"\x02", name)


@final
@define
class HandshakeState:
    """One side of a handshake (section 5.3); messages are written and read in the pattern's order.

    Attributes:
        static: this side's long-term key.
        ephemeral: this side's key for this handshake alone.
        remote_static: the peer's long-term public key, once known.
        remote_ephemeral: the peer's ephemeral public key, once known.
    """

    _pattern: Pattern
    _is_initiator: bool
    _random: Random = field(repr=False)
    _symmetric: SymmetricState
    static: AgreementKey | None
    remote_static: bytes | None
    ephemeral: AgreementKey | None = None
    remote_ephemeral: bytes | None = None
    _next: int = 0

    @classmethod
    def start(  # noqa: PLR0913  these are what Initialize() of section 5.3 takes
        cls,
        pattern: Pattern,
        *,
        is_initiator: bool,
        prologue: bytes,
        random: Random,
        static: AgreementKey | None = None,
        remote_static: bytes | None = None,
        hash_name: HashName = "BLAKE2s",
    ) -> Self:
        """Begin a handshake.

        Args:
            pattern: the row of the table to walk.
            is_initiator: which side this is.
            prologue: what both sides must agree on beforehand.
            random: a source of secret bytes, for the ephemeral key.
            static: this side's long-term key, where the pattern has one.
            remote_static: the peer's long-term public key, where the pattern has it known.
            hash_name: which hash.
        """
        name = f"Noise_{pattern.name}_25519_ChaChaPoly_{hash_name}"
        symmetric = SymmetricState.start(name.encode(), hash_name)
        symmetric.mix_hash(prologue)
        own = static.public if static is not None else None
        initiator, responder = (own, remote_static) if is_initiator else (remote_static, own)
        for known, key in ((pattern.initiator_known, initiator), (pattern.responder_known, responder)):
            if known:
                symmetric.mix_hash(_present(key))
        return cls(pattern, is_initiator, random, symmetric, static, remote_static)

    @property
    def hash(self) -> bytes:
        """The handshake hash as it stands; after the last message it names the session and no other."""
        return self._symmetric.h

    def write_tokens(self) -> bytes:
        """Begin the next message: its keys; `write_payload` ends it."""
        written = b""
        for token in self._take_tokens():
            match token:
                case "e":
                    self.ephemeral = PrivateKey(self._random(KEY_BYTES))
                    written += self.ephemeral.public
                    self._symmetric.mix_hash(self.ephemeral.public)
                case "s":
                    written += self._symmetric.encrypt_and_hash(_present(self.static).public)
                case _:
                    self._mix_agreement(token)
        return written

    def read_tokens(self, message: bytes) -> bytes:
        """Read the keys of the peer's next message and return the rest of it, which `read_payload` opens.

        Raises:
            HandshakeFailed: it is too short, does not decrypt, or holds a low-order point.
        """
        for token in self._take_tokens():
            match token:
                case "e":
                    self.remote_ephemeral, message = _cut(message, KEY_BYTES)
                    self._symmetric.mix_hash(self.remote_ephemeral)
                case "s":
                    length = KEY_BYTES if self._symmetric.cipher.key is None else KEY_BYTES + TAG_BYTES
                    sealed, message = _cut(message, length)
                    self.remote_static = self._symmetric.decrypt_and_hash(sealed)
                case _:
                    self._mix_agreement(token)
        return message

    def write_payload(self, payload: bytes) -> bytes:
        """End a message: its payload under all secrets so far."""
        return self._symmetric.encrypt_and_hash(payload)

    def read_payload(self, sealed: bytes) -> bytes:
        """Open the payload of the peer's message.

        Raises:
            HandshakeFailed: it does not decrypt.
        """
        return self._symmetric.decrypt_and_hash(sealed)

    def split(self) -> tuple[bytes, bytes]:
        """End the handshake: the keys for what this side sends and for what it receives."""
        first, second = self._symmetric.split()
        return (first, second) if self._is_initiator else (second, first)

    def copy(self) -> Self:
        """Return a state that can go on without changing this one."""
        return evolve(self, symmetric=self._symmetric.copy())

    def _take_tokens(self) -> tuple[Token, ...]:
        tokens = self._pattern.messages[self._next]
        self._next += 1
        return tokens

    def _mix_agreement(self, token: Agreement) -> None:
        # The first letter is the initiator's key and the second the responder's.
        initiator, responder = token[0], token[1]
        own, other = (initiator, responder) if self._is_initiator else (responder, initiator)
        key = self.ephemeral if own == "e" else self.static
        public = self.remote_ephemeral if other == "e" else self.remote_static
        self._symmetric.mix_key(_present(key).agree(_present(public)))


def _cut(message: bytes, length: int) -> tuple[bytes, bytes]:
    if len(message) < length:
        raise HandshakeFailed("a handshake message is too short for its keys")
    return message[:length], message[length:]


def _present(key: _Key | None) -> _Key:
    """Return a key that the pattern says is there by now."""
    if key is None:
        raise ValueError("the pattern uses a key that was not given")
    return key
