from collections.abc import Callable

import nacl.utils
import pytest

from autonomy_trio.errors import MessageError, ProtocolError
from autonomy_trio.trust.records import SignatureContext, digest
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import INITIATOR, MESSAGE_BYTES, RESPONDER
from autonomy_trio.wire.entries import Entry, Presentations, Tell, encode_entries, entry_size
from autonomy_trio.wire.handshake import Initiator, Own, Responder
from autonomy_trio.wire.noise import encrypt
from autonomy_trio.wire.packets import DataHeader, make_data_header, read_data_header, read_handshake
from autonomy_trio.wire.padding import padded_length
from autonomy_trio.wire.session import Session

NOW = 1_800_000_000.0


def open_session(near: Vault, far: Vault) -> tuple[Session, Session]:
    alice, bob = (Own(vault, bytes(16), nacl.utils.random) for vault in (near, far))
    initiator = Initiator(alice, far.identifier, 9)
    responder = Responder(bob, read_handshake(initiator.packet), 5, NOW)
    session, third = initiator.finish(read_handshake(responder.packet), (), NOW)
    return session, responder.finish(read_handshake(third), NOW)


def receive(session: Session, packet: bytes) -> list[Entry]:
    header = read_data_header(packet)
    return session.accept(header, session.decrypt(header, packet))


@pytest.fixture
def vaults() -> tuple[Vault, Vault]:
    return Vault.in_memory(), Vault.in_memory()


@pytest.fixture
def pair(vaults: tuple[Vault, Vault]) -> tuple[Session, Session]:
    return open_session(*vaults)


def tell(payload: bytes) -> Tell:
    return Tell("agent", "Message", payload, 0, 0)


def test_envelopes_go_both_ways_and_may_be_empty(pair: tuple[Session, Session]) -> None:
    near, far = pair
    assert receive(far, near.seal([tell(b"one"), tell(b"two")])) == [tell(b"one"), tell(b"two")]
    assert receive(near, far.seal([tell(b"three")])) == [tell(b"three")]
    assert receive(far, near.seal([])) == []


def test_the_size_of_a_packet_tells_padme_lengths_only(pair: tuple[Session, Session]) -> None:
    near, _ = pair
    assert len(near.seal([])) == 16 + 72 + 16
    sizes = {len(near.seal([tell(bytes(size))])) - 16 - 16 for size in range(300, 364)}
    assert sizes == {400, 416, 432, 448, 464}


def test_counters_rise_from_the_number_of_the_session(pair: tuple[Session, Session]) -> None:
    near, far = pair
    near.begin(3)
    assert [read_data_header(near.seal([])).counter for _ in range(3)] == [3 << 32, (3 << 32) + 1, (3 << 32) + 2]
    assert near.has_sent(3 << 32)
    assert near.has_sent((3 << 32) + 2)
    assert not near.has_sent((3 << 32) + 3)
    assert not near.has_sent((3 << 32) - 1)
    assert receive(far, near.seal([])) == []
    assert far.highest == (3 << 32) + 3


def test_the_largest_message_with_all_credentials_fits_a_packet(pair: tuple[Session, Session]) -> None:
    near, far = pair
    message = tell(bytes(MESSAGE_BYTES - entry_size(tell(b""))))
    credentials = Presentations((bytes(23 * 1024),))
    assert receive(far, near.seal([credentials, message])) == [credentials, message]


def test_an_envelope_too_large_is_refused_and_uses_no_counter(pair: tuple[Session, Session]) -> None:
    near, _ = pair
    with pytest.raises(MessageError, match="does not fit"):
        near.seal([tell(bytes(100_000)), tell(bytes(100_000))])
    assert not near.has_sent(0)


def test_the_last_counter_belongs_to_noise(pair: tuple[Session, Session]) -> None:
    near, far = pair
    near.begin(2**32 - 1)
    near._next = 2**64 - 2
    assert receive(far, near.seal([])) == []
    with pytest.raises(MessageError, match="all its counters"):
        near.seal([])
    header = make_data_header(5, 2**64 - 1)
    sealed = encrypt(near._keys.sending, header.counter, header.encoded, bytes(72))
    with pytest.raises(ProtocolError):
        far.decrypt(header, header.encoded + sealed)


def test_every_changed_bit_is_refused_and_changes_nothing(pair: tuple[Session, Session]) -> None:
    near, far = pair
    packet = near.seal([tell(b"genuine")])
    for position in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            receive(far, bytes(changed))
    assert far.highest == -1
    assert receive(far, packet) == [tell(b"genuine")]


def test_every_length_but_the_true_one_is_refused(pair: tuple[Session, Session]) -> None:
    near, far = pair
    packet = near.seal([tell(b"genuine")])
    for other in [packet[:length] for length in range(len(packet))] + [packet + bytes(1), packet + packet]:
        with pytest.raises(ProtocolError):
            receive(far, other)
    assert receive(far, packet) == [tell(b"genuine")]


def test_a_packet_counts_once(pair: tuple[Session, Session]) -> None:
    near, far = pair
    first, second = near.seal([tell(b"1")]), near.seal([tell(b"2")])
    assert receive(far, second) == [tell(b"2")]
    assert receive(far, first) == [tell(b"1")]
    for packet in (first, second):
        with pytest.raises(ProtocolError, match="came again"):
            receive(far, packet)


@pytest.mark.parametrize("lost", [31, 8191, 8192, 200_000])
def test_a_gap_of_any_size_is_recovered_from(pair: tuple[Session, Session], lost: int) -> None:
    near, far = pair
    assert receive(far, near.seal([tell(b"before")])) == [tell(b"before")]
    near._next += lost
    assert receive(far, near.seal([tell(b"after")])) == [tell(b"after")]
    assert receive(far, near.seal([tell(b"and on")])) == [tell(b"and on")]


def test_packets_of_another_session_or_direction_are_refused(vaults: tuple[Vault, Vault]) -> None:
    _near, far = open_session(*vaults)
    other_near, _ = open_session(*vaults)
    for sender in (other_near, far):
        packet = sender.seal([tell(b"spliced in")])
        header = DataHeader(far.index, 0, packet[:16])
        with pytest.raises(ProtocolError, match="not sealed"):
            far.decrypt(header, packet)


Splice = Callable[[Session, Session, Vault, Vault], bytes]


def seal_as_thief(
    session: Session, vault: Vault, body: bytes, lies: dict[str, bytes] | None = None, context: SignatureContext = "env"
) -> bytes:
    """Seal with a session's keys, and sign with whatever vault, over whatever lies."""
    header = make_data_header(session.remote.index, session._next)
    honest = {
        "session": session._keys.id,
        "sender": session._vault.identifier,
        "recipient": session.remote.bundle.identifier,
        "direction": bytes((INITIATOR if session.is_initiator else RESPONDER,)),
        "header": header.encoded,
        "body": digest("h-body", body),
    }
    signature = vault.sign(context, b"".join((honest | (lies or {})).values()))
    return seal_plaintext(session, signature + len(body).to_bytes(4, "big") + body)


def seal_plaintext(session: Session, plaintext: bytes, length: int | None = None) -> bytes:
    header = make_data_header(session.remote.index, session._next)
    padded = plaintext.ljust(padded_length(len(plaintext)) if length is None else length, b"\x00")
    return header.encoded + encrypt(session._keys.sending, header.counter, header.encoded, padded)


BODY = encode_entries([tell(b"spliced in")])


def test_the_thief_that_does_not_lie_would_be_believed(
    vaults: tuple[Vault, Vault], pair: tuple[Session, Session]
) -> None:
    near, far = pair
    assert receive(far, seal_as_thief(near, vaults[0], BODY)) == [tell(b"spliced in")]


@pytest.mark.parametrize(
    "lies",
    [
        {"session": bytes(32)},
        {"sender": bytes(32)},
        {"recipient": bytes(32)},
        {"direction": bytes((RESPONDER,))},
        {"header": make_data_header(5, 1).encoded},
        {"body": digest("h-body", b"")},
    ],
    ids=lambda lies: next(iter(lies)),
)
def test_a_signature_over_anything_else_is_refused(
    vaults: tuple[Vault, Vault], pair: tuple[Session, Session], lies: dict[str, bytes]
) -> None:
    near, far = pair
    packet = seal_as_thief(near, vaults[0], BODY, lies)
    with pytest.raises(ProtocolError, match="not signed"):
        receive(far, packet)


@pytest.mark.parametrize("context", ["hs", "sealed", "relay-ack", "record"])
def test_a_signature_for_another_purpose_is_refused(
    vaults: tuple[Vault, Vault], pair: tuple[Session, Session], context: SignatureContext
) -> None:
    near, far = pair
    with pytest.raises(ProtocolError, match="not signed"):
        receive(far, seal_as_thief(near, vaults[0], BODY, context=context))


def test_stolen_session_keys_do_not_speak_for_a_node(pair: tuple[Session, Session]) -> None:
    near, far = pair
    with pytest.raises(ProtocolError, match="not signed"):
        receive(far, seal_as_thief(near, Vault.in_memory(), BODY))


def test_a_signature_of_an_earlier_envelope_is_refused(pair: tuple[Session, Session]) -> None:
    near, far = pair
    packet = near.seal([tell(b"one")])
    header = read_data_header(packet)
    plaintext = far.decrypt(header, packet)
    far.accept(header, plaintext)
    with pytest.raises(ProtocolError, match="not signed"):
        receive(far, seal_plaintext(near, plaintext.rstrip(b"\x00")))


def test_padding_must_be_zero_and_of_the_one_right_length(
    vaults: tuple[Vault, Vault], pair: tuple[Session, Session]
) -> None:
    near, far = pair
    packet = seal_as_thief(near, vaults[0], BODY)
    plaintext = far.decrypt(read_data_header(packet), packet)
    longer = seal_plaintext(near, plaintext, len(plaintext) + 8)
    dirty = seal_plaintext(near, plaintext[:-1] + b"\x01")
    overlong = seal_plaintext(near, plaintext[:64] + b"\xff\xff\xff\xff" + plaintext[68:])
    cut = seal_plaintext(near, plaintext[:64], 64)
    for bad in (longer, dirty, overlong, cut):
        with pytest.raises(ProtocolError, match="framed and padded"):
            receive(far, bad)
    assert receive(far, packet) == [tell(b"spliced in")]


def test_a_signed_body_that_is_no_list_of_entries_is_refused(
    vaults: tuple[Vault, Vault], pair: tuple[Session, Session]
) -> None:
    near, far = pair
    with pytest.raises(ProtocolError, match="no list of entries"):
        receive(far, seal_as_thief(near, vaults[0], b"\xc1"))


def test_no_key_is_shown(pair: tuple[Session, Session]) -> None:
    near, _ = pair
    shown = repr(near) + repr(near._keys)
    assert repr(near._keys.sending) not in shown
    assert repr(near._keys.receiving) not in shown
