"""Registration: a relay and a node prove to each other who they are, on one connection.

    HELLO →   ← REGISTER   WELCOME →

Each signs what the other sent, and both nonces are in that, so neither signature is worth anything on another
connection. Who the relay is, is proven by WELCOME only; a node that has pinned no relay knows just that it stays one.
"""

from collections.abc import Sequence
from typing import Final

from autonomy_trio.errors import IdentityError, ProtocolError
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.key_service import KeyService
from autonomy_trio.trust.records import digest, verify
from autonomy_trio.wire.constants import SIGNATURE_BYTES, VERSION
from autonomy_trio.wire.frames import Hello, Parameters, Register, RelayLimits, Welcome, decode_frame, encode_frame

_UNSIGNED: Final = bytes(SIGNATURE_BYTES)


def make_hello(vault: KeyService, nonce: bytes, issuers: Sequence[bytes], now: float) -> bytes:
    """Make a relay's first frame.

    Args:
        vault: the relay's identity.
        nonce: 32 random bytes, new for each connection.
        issuers: the identifiers of the authorities whose credentials admit a node; none when any node may register.
        now: Unix seconds.
    """
    return encode_frame(Hello(VERSION, vault.bundle(now), nonce, RelayLimits(), tuple(issuers)))


def verify_hello(encoded: bytes, now: float) -> tuple[Hello, Bundle]:
    """Read a relay's first frame. Who it is, is proven by WELCOME only.

    Raises:
        ProtocolError: it is no HELLO, or its identity does not verify.
    """
    hello = decode_frame(encoded)
    if not isinstance(hello, Hello):
        raise ProtocolError("a relay begins with HELLO")
    return hello, _verify_bundle(hello.bundle, now)


def make_register(vault: KeyService, hello: bytes, presentations: Sequence[bytes], nonce: bytes, now: float) -> bytes:
    """Make a node's answer to HELLO.

    Args:
        vault: the node's identity.
        hello: the HELLO frame as received.
        presentations: the credentials the relay asked for.
        nonce: 32 random bytes, new for each connection.
        now: Unix seconds.
    """
    register = Register(vault.bundle(now), tuple(presentations), nonce, _UNSIGNED)
    before = encode_frame(register)[:-SIGNATURE_BYTES]
    return before + vault.sign("relay-reg", digest("h-body", hello) + before)


def verify_register(encoded: bytes, hello: bytes, now: float) -> tuple[Register, Bundle]:
    """Verify a node's answer to HELLO: whoever sent it holds the node's signing key, and saw this HELLO.

    Args:
        encoded: the REGISTER frame as received.
        hello: the HELLO frame as sent.
        now: Unix seconds.

    Raises:
        ProtocolError: it is no REGISTER, or does not verify.
    """
    register = decode_frame(encoded)
    if not isinstance(register, Register):
        raise ProtocolError("a node answers HELLO with REGISTER")
    bundle = _verify_bundle(register.bundle, now)
    signed = digest("h-body", hello) + encoded[:-SIGNATURE_BYTES]
    if not verify(bundle.signing_key, "relay-reg", signed, register.signature):
        raise ProtocolError("the registration is not signed by the node it names, or not for this connection")
    return register, bundle


def make_welcome(vault: KeyService, hello: bytes, register: bytes, parameters: Parameters) -> bytes:
    """Make a relay's answer to REGISTER.

    Args:
        vault: the relay's identity.
        hello: the HELLO frame as sent.
        register: the REGISTER frame as received.
        parameters: what the node must keep to.
    """
    before = encode_frame(Welcome(parameters, _UNSIGNED))[:-SIGNATURE_BYTES]
    return before + vault.sign("relay-welcome", _transcript(hello, register) + before)


def verify_welcome(encoded: bytes, hello: bytes, register: bytes, relay: Bundle) -> Welcome:
    """Verify a relay's answer to REGISTER: whoever sent it holds the signing key of the relay that HELLO named.

    Args:
        encoded: the WELCOME frame as received.
        hello: the HELLO frame as received.
        register: the REGISTER frame as sent.
        relay: what `verify_hello` returned.

    Raises:
        ProtocolError: it is no WELCOME, or does not verify.
    """
    welcome = decode_frame(encoded)
    if not isinstance(welcome, Welcome):
        raise ProtocolError("a relay answers REGISTER with WELCOME")
    signed = _transcript(hello, register) + encoded[:-SIGNATURE_BYTES]
    if not verify(relay.signing_key, "relay-welcome", signed, welcome.signature):
        raise ProtocolError("the welcome is not signed by the relay that HELLO named, or not for this connection")
    return welcome


def _transcript(hello: bytes, register: bytes) -> bytes:
    return digest("h-body", hello) + digest("h-body", register)


def _verify_bundle(encoded: bytes, now: float) -> Bundle:
    try:
        return verify_bundle(encoded, now)
    except IdentityError as error:
        raise ProtocolError(str(error)) from None
