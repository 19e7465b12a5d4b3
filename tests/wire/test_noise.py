import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nacl.bindings import crypto_scalarmult_base
from noise.connection import Keypair, NoiseConnection

from autonomy_trio.errors import HandshakeFailed
from autonomy_trio.wire.noise import XX, CipherState, HandshakeState, N, Pattern, PrivateKey, SymmetricState

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "noise-cacophony-25519-chachapoly.json"

# The table's other rows, to show that the code walks a table and knows no pattern.
PATTERNS = {
    "XX": XX,
    "N": N,
    "NN": Pattern("NN", (("e",), ("e", "ee"))),
    "KK": Pattern("KK", (("e", "es", "ss"), ("e", "ee", "se")), ("s",), ("s",)),
    "IK": Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), responder_known=("s",)),
}

LOW_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


Vector = dict[str, Any]


def load_vectors() -> list[Vector]:
    if not VECTORS.exists():
        return []
    return json.loads(VECTORS.read_text())["vectors"]


def fixed(secret: bytes) -> Callable[[int], bytes]:
    return lambda count: secret


def make_side(vector: Vector, side: str, *, is_initiator: bool) -> HandshakeState:
    _, name, _, _, hash_name = vector["protocol_name"].split("_")
    static = vector.get(f"{side}_static")
    remote = vector.get(f"{side}_remote_static")
    return HandshakeState.start(
        PATTERNS[name],
        is_initiator=is_initiator,
        prologue=bytes.fromhex(vector[f"{side}_prologue"]),
        random=fixed(bytes.fromhex(vector.get(f"{side}_ephemeral", ""))),
        static=PrivateKey(bytes.fromhex(static)) if static else None,
        remote_static=bytes.fromhex(remote) if remote else None,
        hash_name=hash_name,
    )


def write(state: HandshakeState, payload: bytes = b"") -> bytes:
    return state.write_tokens() + state.write_payload(payload)


def read(state: HandshakeState, message: bytes) -> bytes:
    return state.read_payload(state.read_tokens(message))


def make_pair() -> tuple[HandshakeState, HandshakeState]:
    initiator = HandshakeState.start(
        XX, is_initiator=True, prologue=b"p", random=os.urandom, static=PrivateKey(os.urandom(32))
    )
    responder = HandshakeState.start(
        XX, is_initiator=False, prologue=b"p", random=os.urandom, static=PrivateKey(os.urandom(32))
    )
    return initiator, responder


def test_vectors_are_there() -> None:
    if not VECTORS.exists():
        assert not os.environ.get("CI"), f"the published vectors are missing: {VECTORS}"
        pytest.skip(f"the published Noise vectors are not in {VECTORS.parent}")
    names = {vector["protocol_name"] for vector in load_vectors()}
    hashes = ("BLAKE2s", "BLAKE2b", "SHA256", "SHA512")
    assert {f"Noise_{pattern}_25519_ChaChaPoly_{name}" for pattern in ("N", "XX") for name in hashes} <= names


@pytest.mark.parametrize("vector", load_vectors(), ids=lambda vector: vector["protocol_name"])
def test_published_vector_passes_on_both_sides(vector: Vector) -> None:
    initiator = make_side(vector, "init", is_initiator=True)
    responder = make_side(vector, "resp", is_initiator=False)
    handshake_messages = len(PATTERNS[vector["protocol_name"].split("_")[1]].messages)
    for number, message in enumerate(vector["messages"][:handshake_messages]):
        payload, ciphertext = bytes.fromhex(message["payload"]), bytes.fromhex(message["ciphertext"])
        sender, receiver = (initiator, responder) if number % 2 == 0 else (responder, initiator)
        assert write(sender, payload) == ciphertext
        assert read(receiver, ciphertext) == payload
    assert initiator.hash == responder.hash == bytes.fromhex(vector["handshake_hash"])
    sending, receiving = initiator.split()
    assert responder.split() == (receiving, sending)
    ciphers = CipherState(sending), CipherState(receiving)
    for number, message in enumerate(vector["messages"][handshake_messages:], handshake_messages):
        # A one-way pattern has only the initiator speak.
        cipher = ciphers[number % 2 if handshake_messages > 1 else 0]
        payload = bytes.fromhex(message["payload"])
        assert cipher.encrypt_with_ad(b"", payload) == bytes.fromhex(message["ciphertext"])


@pytest.mark.parametrize("we_begin", [True, False])
def test_handshake_and_traffic_with_an_independent_implementation(we_begin: bool) -> None:
    ours, theirs = PrivateKey(os.urandom(32)), os.urandom(32)
    peer = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_BLAKE2s")
    peer.set_prologue(b"prologue")
    peer.set_keypair_from_private_bytes(Keypair.STATIC, theirs)
    if we_begin:
        peer.set_as_responder()
    else:
        peer.set_as_initiator()
    peer.start_handshake()
    state = HandshakeState.start(XX, is_initiator=we_begin, prologue=b"prologue", random=os.urandom, static=ours)
    for number in range(3):
        payload = b"payload %d" % number
        if (number % 2 == 0) == we_begin:
            assert peer.read_message(write(state, payload)) == payload
        else:
            assert read(state, bytes(peer.write_message(payload))) == payload
    assert state.remote_static == crypto_scalarmult_base(theirs)
    assert state.hash == peer.get_handshake_hash()
    sending, receiving = map(CipherState, state.split())
    for number in range(5):
        text = b"traffic %d" % number
        assert peer.decrypt(sending.encrypt_with_ad(b"", text)) == text
        assert receiving.decrypt_with_ad(b"", bytes(peer.encrypt(text))) == text


@pytest.mark.parametrize("we_begin", [True, False])
def test_a_sealed_message_and_traffic_with_an_independent_implementation(we_begin: bool) -> None:
    secret = os.urandom(32)
    public = crypto_scalarmult_base(secret)
    peer = NoiseConnection.from_name(b"Noise_N_25519_ChaChaPoly_BLAKE2s")
    peer.set_prologue(b"prologue")
    if we_begin:
        peer.set_as_responder()
        peer.set_keypair_from_private_bytes(Keypair.STATIC, secret)
        state = HandshakeState.start(
            N, is_initiator=True, prologue=b"prologue", random=os.urandom, remote_static=public
        )
    else:
        peer.set_as_initiator()
        peer.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public)
        state = HandshakeState.start(
            N, is_initiator=False, prologue=b"prologue", random=os.urandom, static=PrivateKey(secret)
        )
    peer.start_handshake()
    if we_begin:
        assert peer.read_message(write(state, b"payload")) == b"payload"
    else:
        assert read(state, bytes(peer.write_message(b"payload"))) == b"payload"
    assert state.hash == peer.get_handshake_hash()
    sending, receiving = map(CipherState, state.split())
    # A one-way pattern: what the responder could send is nobody's to read.
    for number in range(5):
        text = b"traffic %d" % number
        if we_begin:
            assert peer.decrypt(sending.encrypt_with_ad(b"", text)) == text
        else:
            assert receiving.decrypt_with_ad(b"", bytes(peer.encrypt(text))) == text


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_low_order_ephemeral_is_a_failed_handshake(point: bytes) -> None:
    _, responder = make_pair()
    read(responder, point)
    with pytest.raises(HandshakeFailed) as caught:
        responder.write_tokens()
    assert "low-order" in caught.value.why


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_low_order_static_key_is_a_failed_handshake(point: bytes) -> None:
    class LowOrderKey:
        public = point

        def agree(self, public: bytes) -> bytes:
            return bytes(32)

    initiator, _ = make_pair()
    responder = HandshakeState.start(XX, is_initiator=False, prologue=b"p", random=os.urandom, static=LowOrderKey())
    read(responder, write(initiator))
    with pytest.raises(HandshakeFailed) as caught:
        read(initiator, write(responder))
    assert "low-order" in caught.value.why


@pytest.mark.parametrize("length", [0, 1, 31, 32, 79, 80, 95])
def test_short_message_is_a_failed_handshake(length: int) -> None:
    initiator, responder = make_pair()
    read(responder, write(initiator))
    message = write(responder)
    with pytest.raises(HandshakeFailed):
        read(initiator, message[:length])


def test_short_first_message_is_a_failed_handshake() -> None:
    _, responder = make_pair()
    with pytest.raises(HandshakeFailed):
        responder.read_tokens(bytes(31))


def test_failed_read_into_a_copy_leaves_the_handshake_as_it_was() -> None:
    initiator, responder = make_pair()
    read(responder, write(initiator))
    message = write(responder, b"genuine")
    for position in range(0, len(message), 7):
        forged = bytearray(message)
        forged[position] ^= 1
        with pytest.raises(HandshakeFailed):
            read(initiator.copy(), bytes(forged))
    assert read(initiator, message) == b"genuine"
    assert read(responder, write(initiator, b"third")) == b"third"
    assert initiator.hash == responder.hash


def test_another_prologue_is_a_failed_handshake() -> None:
    initiator, _ = make_pair()
    responder = HandshakeState.start(
        XX, is_initiator=False, prologue=b"q", random=os.urandom, static=PrivateKey(os.urandom(32))
    )
    read(responder, write(initiator))
    with pytest.raises(HandshakeFailed):
        read(initiator, write(responder))


def test_failed_decryption_counts_nothing() -> None:
    key = os.urandom(32)
    sealed = CipherState(key).encrypt_with_ad(b"ad", b"text")
    cipher = CipherState(key)
    with pytest.raises(HandshakeFailed):
        cipher.decrypt_with_ad(b"another", sealed)
    assert cipher.decrypt_with_ad(b"ad", sealed) == b"text"


def test_pattern_that_uses_a_key_not_given_is_an_error_of_the_program() -> None:
    with pytest.raises(ValueError, match="key that was not given"):
        HandshakeState.start(PATTERNS["N"], is_initiator=True, prologue=b"", random=os.urandom)


def test_short_protocol_name_is_padded_and_not_hashed() -> None:
    assert SymmetricState.start(b"Noise", "SHA256").h == b"Noise".ljust(32, b"\x00")


def test_no_secret_is_shown() -> None:
    secret = os.urandom(32)
    initiator, responder = make_pair()
    read(responder, write(initiator))
    key = PrivateKey(secret)
    shown = repr(initiator) + repr(responder) + repr(key) + repr(CipherState(secret))
    assert repr(secret) not in shown
    assert secret.hex() not in shown
    assert repr(initiator._symmetric.ck) not in repr(initiator).replace(f"h={initiator.hash!r}", "")
    assert "public=" in repr(key)
