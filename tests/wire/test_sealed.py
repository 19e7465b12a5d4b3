"""A sealed envelope is opened by whom it is for, says who wrote it, and counts once."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import nacl.utils
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import MessageError, NotDelivered, ProtocolError
from autonomy_trio.trust.identity import Bundle, Prekey, verify_bundle
from autonomy_trio.trust.records import SignatureContext, digest
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import MESSAGE_BYTES, PACKET_BYTES, PROLOGUE, SEALED_LIFE
from autonomy_trio.wire.endpoint import Endpoint
from autonomy_trio.wire.entries import Cancel, Presentations, Tell, encode_entries
from autonomy_trio.wire.events import Refused
from autonomy_trio.wire.noise import HandshakeState, N, encrypt
from autonomy_trio.wire.packets import SealedPacket, read_sealed
from autonomy_trio.wire.padding import frame
from autonomy_trio.wire.remembered import Remembered
from autonomy_trio.wire.sealed import Sealed, SealedEntry, SealedHeader, Stamp, open_sealed, seal

NOW = 1_800_000_000
DAY = 86_400
ENTRIES: list[SealedEntry] = [Presentations((b"credential",)), Tell("agent", "Message", b"payload", 0, 0)]
STAMP = Stamp(b"i" * 16, NOW, NOW + DAY)


class Recipient:
    """A node that attests a prekey, and has an older one."""

    def __init__(self) -> None:
        self.vault = Vault.in_memory()
        self.vault.renew(NOW - DAY - 60)
        self.older: Bundle = verify_bundle(self.vault.bundle(NOW - DAY - 60), NOW - DAY)
        self.vault.renew(NOW - 60)
        self.bundle: Bundle = verify_bundle(self.vault.bundle(NOW), NOW)

    def open(self, packet: bytes, now: float = NOW) -> Sealed:
        return open_sealed(read_sealed(packet), self.vault, now)


BOB = Recipient()


@pytest.fixture
def bob() -> Recipient:
    return BOB


@pytest.fixture(scope="module")
def alice() -> Vault:
    return Vault.in_memory()


def sealed_for(bob: Recipient, alice: Vault, entries: list[SealedEntry] | None = None, stamp: Stamp = STAMP) -> bytes:
    return seal(alice, bob.bundle, ENTRIES if entries is None else entries, stamp, nacl.utils.random)


def test_the_recipient_alone_opens_it_and_knows_who_wrote_it(bob: Recipient, alice: Vault) -> None:
    packet = sealed_for(bob, alice)
    opened = bob.open(packet)
    assert opened.sender.identifier == alice.identifier
    assert (opened.stamp, list(opened.entries)) == (STAMP, ENTRIES)
    assert read_sealed(packet).prekey == bob.bundle.prekeys[-1].id
    thief = Recipient()
    number = thief.bundle.prekeys[-1].id
    with pytest.raises(ProtocolError, match="does not decrypt"):
        thief.open(evolve(read_sealed(packet), prekey=number).encode())


def test_it_is_opened_by_any_prekey_that_is_kept_and_by_none_that_is_not(bob: Recipient, alice: Vault) -> None:
    assert bob.older.prekeys[-1] != bob.bundle.prekeys[-1]
    packet = seal(alice, bob.older, ENTRIES, STAMP, nacl.utils.random)
    assert list(bob.open(packet).entries) == ENTRIES
    unknown = evolve(read_sealed(packet), prekey=2**32 - 1).encode()
    with pytest.raises(ProtocolError, match="does not have, or has no more"):
        bob.open(unknown)


def test_the_same_words_make_another_packet_and_its_size_tells_padme_lengths_only(bob: Recipient, alice: Vault) -> None:
    assert sealed_for(bob, alice) != sealed_for(bob, alice)
    sizes = {len(sealed_for(bob, alice, [Tell("a", "M", bytes(size), 0, 0)])) for size in range(300, 364)}
    assert len(sizes) == 5


def test_who_is_away_for_longer_than_its_attestation_cannot_be_sent_to(bob: Recipient, alice: Vault) -> None:
    late = Stamp(STAMP.id, bob.bundle.expires, bob.bundle.expires + DAY)
    with pytest.raises(NotDelivered, match="no key that is valid now"):
        sealed_for(bob, alice, stamp=late)
    with pytest.raises(NotDelivered, match="no key that is valid now"):
        seal(alice, evolve(bob.bundle, prekeys=()), ENTRIES, STAMP, nacl.utils.random)


@pytest.mark.parametrize(
    "stamp",
    [
        Stamp(b"i" * 15, NOW, NOW + 1),
        Stamp(b"i" * 16, NOW, NOW),
        Stamp(b"i" * 16, NOW, NOW + SEALED_LIFE + 1),
    ],
)
def test_a_stamp_that_nobody_would_take_is_refused(bob: Recipient, alice: Vault, stamp: Stamp) -> None:
    with pytest.raises(ValueError, match="an id of 16 bytes"):
        sealed_for(bob, alice, stamp=stamp)


def test_the_largest_message_fits_and_more_does_not(bob: Recipient, alice: Vault) -> None:
    largest = Tell("a", "M", bytes(MESSAGE_BYTES - 100), 0, 0)
    assert list(bob.open(sealed_for(bob, alice, [largest])).entries) == [largest]
    with pytest.raises(MessageError, match="send less"):
        sealed_for(bob, alice, [largest, largest])


# Times are judged by the recipient's clock: 60 s of leeway at the start, none at the end.
@pytest.mark.parametrize(
    ("arrives", "why"),
    [
        (-59.0, None),
        (-60.0, None),
        (-61.0, "was written in 61 s"),
        (DAY - 0.1, None),
        (DAY, "expired 0 s ago"),
        (DAY + 10, "expired 10 s ago"),
    ],
)
def test_it_counts_from_its_making_until_it_expires(
    bob: Recipient, alice: Vault, arrives: float, why: str | None
) -> None:
    packet = sealed_for(bob, alice)
    if why is None:
        assert list(bob.open(packet, NOW + arrives).entries) == ENTRIES
        return
    with pytest.raises(ProtocolError, match=why):
        bob.open(packet, NOW + arrives)


def test_the_senders_attestation_is_judged_as_of_when_it_was_written(bob: Recipient, alice: Vault) -> None:
    bundle = alice.bundle(NOW - 3 * DAY)
    packet = forge(bob, alice, bundle=bundle, created=NOW, expires=NOW + 7 * DAY)
    # The attestation ends after 4 days; what was written before that counts until it expires itself.
    assert bob.open(packet, NOW + 6 * DAY).sender.expires == NOW + 4 * DAY
    backdated = forge(bob, alice, bundle=bundle, created=NOW - 3 * DAY - 61, expires=NOW + DAY)
    with pytest.raises(ProtocolError, match="begins in 61 s"):
        bob.open(backdated)
    expired = forge(bob, alice, bundle=bundle, created=NOW + 4 * DAY, expires=NOW + 5 * DAY)
    with pytest.raises(ProtocolError, match="expired 0 s ago"):
        bob.open(expired, NOW + 4 * DAY)


@pytest.mark.parametrize("life", [-1, 0, SEALED_LIFE + 1])
def test_a_life_that_is_none_or_too_long_is_refused(bob: Recipient, alice: Vault, life: int) -> None:
    with pytest.raises(ProtocolError, match="valid for 1 to 604800 s"):
        bob.open(forge(bob, alice, created=NOW, expires=NOW + life))


def forge(
    bob: Recipient,
    signer: Vault,
    *,
    bundle: bytes | None = None,
    created: int = NOW,
    expires: int = NOW + DAY,
    context: SignatureContext = "sealed",
    body: bytes | None = None,
    signed: dict[str, bytes] | None = None,
    encode: Callable[[bytes], bytes] = lambda header: header,
) -> bytes:
    """Seal as anybody could who reads the protocol, and sign over whatever lies."""
    prekey = bob.bundle.prekeys[-1]
    state = HandshakeState.start(
        N,
        is_initiator=True,
        prologue=PROLOGUE + b"\x01" + bob.vault.identifier,
        random=nacl.utils.random,
        remote_static=prekey.key,
    )
    message = state.write_tokens()
    body = encode_entries(ENTRIES) if body is None else body
    bundle = signer.bundle(NOW) if bundle is None else bundle
    covered = {
        "id": STAMP.id,
        "sender": signer.identifier,
        "recipient": bob.vault.identifier,
        "prekey": prekey.key,
        "ephemeral": message,
        "created": created.to_bytes(8, "big"),
        "expires": max(expires, 0).to_bytes(8, "big"),
        "bundle": digest("h-bundle", bundle),
        "body": digest("h-body", body),
    }
    signature = signer.sign(context, b"".join((covered | (signed or {})).values()))
    header = msgspec.msgpack.encode(SealedHeader(STAMP.id, created, expires, bundle, signature))
    message += state.write_payload(encode(header))
    key, _ = state.split()
    associated = SealedPacket(prekey.id, message, b"").header
    return associated + message + encrypt(key, 0, associated, frame(body))


def test_the_forger_that_does_not_lie_is_believed(bob: Recipient, alice: Vault) -> None:
    assert list(bob.open(forge(bob, alice)).entries) == ENTRIES


@pytest.mark.parametrize(
    "field", ["id", "sender", "recipient", "prekey", "ephemeral", "created", "expires", "bundle", "body"]
)
def test_a_signature_over_anything_else_is_refused(bob: Recipient, alice: Vault, field: str) -> None:
    size = {"id": 16, "created": 8, "expires": 8}.get(field, 32)
    with pytest.raises(ProtocolError, match="not signed by the node"):
        bob.open(forge(bob, alice, signed={field: bytes(size)}))


@pytest.mark.parametrize("context", ["env", "hs", "relay-ack"])
def test_a_signature_for_another_purpose_is_refused(bob: Recipient, alice: Vault, context: SignatureContext) -> None:
    with pytest.raises(ProtocolError, match="not signed by the node"):
        bob.open(forge(bob, alice, context=context))


def test_a_bundle_of_another_is_refused(bob: Recipient, alice: Vault) -> None:
    with pytest.raises(ProtocolError, match="not signed by the node"):
        bob.open(forge(bob, alice, bundle=Vault.in_memory().bundle(NOW)))
    with pytest.raises(ProtocolError, match="not an identity's bundle"):
        bob.open(forge(bob, alice, bundle=b"junk"))


@pytest.mark.parametrize("header", [b"", b"\x95", b"\xc1", b"\x95\xc4\xff\xff"])
def test_a_header_that_is_none_is_refused(bob: Recipient, alice: Vault, header: bytes) -> None:
    with pytest.raises(ProtocolError, match="not of this version"):
        bob.open(forge(bob, alice, encode=lambda encoded: header))
    with pytest.raises(ProtocolError, match="not of this version"):
        bob.open(forge(bob, alice, encode=lambda encoded: encoded + b"\x00"))


def test_what_only_a_session_can_say_is_refused(bob: Recipient, alice: Vault) -> None:
    with pytest.raises(ProtocolError, match="only a session can"):
        bob.open(forge(bob, alice, body=encode_entries([Cancel(1)])))
    with pytest.raises(ProtocolError, match="no list of entries"):
        bob.open(forge(bob, alice, body=b"\xc1"))


def test_parts_of_two_envelopes_make_none(bob: Recipient, alice: Vault) -> None:
    one, other = (read_sealed(sealed_for(bob, alice)) for _ in range(2))
    with pytest.raises(ProtocolError, match="does not belong"):
        bob.open(evolve(one, body=other.body).encode())
    with pytest.raises(ProtocolError, match="does not decrypt"):
        bob.open(evolve(one, message=one.message[:32] + other.message[32:]).encode())
    with pytest.raises(ProtocolError, match="does not decrypt"):
        bob.open(evolve(one, prekey=bob.older.prekeys[-1].id).encode())


def test_low_order_ephemeral_keys_are_refused(bob: Recipient, alice: Vault) -> None:
    packet = read_sealed(sealed_for(bob, alice))
    for point in (bytes(32), bytes([1]) + bytes(31)):
        with pytest.raises(ProtocolError, match="low-order"):
            bob.open(evolve(packet, message=point + packet.message[32:]).encode())
    zero = evolve(bob.bundle, prekeys=(Prekey(1, bytes(32)),))
    with pytest.raises(NotDelivered, match="low-order"):
        seal(alice, zero, ENTRIES, STAMP, nacl.utils.random)


def test_every_changed_bit_and_every_other_length_is_refused(bob: Recipient, alice: Vault) -> None:
    packet = sealed_for(bob, alice)
    for position in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            bob.open(bytes(changed))
    for other in [packet[:length] for length in range(len(packet))] + [packet + b"\x00", packet + packet]:
        with pytest.raises(ProtocolError):
            bob.open(other)
    assert list(bob.open(packet).entries) == ENTRIES


@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_any_bytes_are_refused(rest: bytes, length: int) -> None:
    number = BOB.bundle.prekeys[-1].id.to_bytes(4, "big")
    packet = b"\x01\x40\x01\x00" + number + length.to_bytes(4, "big") + rest
    for data in (rest, packet):
        with pytest.raises(ProtocolError):
            BOB.open(data)


def test_a_packet_of_another_kind_or_too_long_is_none() -> None:
    with pytest.raises(ProtocolError, match="no sealed envelope"):
        read_sealed(b"\x01\x30\x01\x00" + bytes(300))
    with pytest.raises(ProtocolError, match="does not have"):
        read_sealed(bytes(PACKET_BYTES + 1))


def test_a_session_does_not_take_it(bob: Recipient, alice: Vault) -> None:
    endpoint = Endpoint(bob.vault, boot=bytes(16), presentations=list)
    endpoint.receive(sealed_for(bob, alice), "path", NOW, 0.0)
    (event,) = endpoint.take()
    assert isinstance(event, Refused)
    assert "opened by itself" in event.reason


def test_its_repr_shows_nothing_it_says(bob: Recipient, alice: Vault) -> None:
    assert "payload" not in repr(bob.open(sealed_for(bob, alice)))


def test_what_waited_through_a_restart_is_opened_once(alice: Vault, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Vault.open(home) as vault:
        vault.renew(NOW)
        bundle = verify_bundle(vault.bundle(NOW), NOW)
    packet = seal(alice, bundle, ENTRIES, STAMP, nacl.utils.random)
    stored = Remembered().encode()
    taken = []
    for _ in range(3):
        with Vault.open(home) as vault:
            vault.renew(NOW + DAY - 1)
            memory = Remembered.decode(stored)
            opened = open_sealed(read_sealed(packet), vault, NOW + DAY - 1)
            key = (opened.sender.identifier, opened.stamp.id)
            if key not in memory:
                taken.append(opened.entries)
                memory.remember(*key, opened.stamp.expires)
            stored = memory.encode()
    assert taken == [tuple(ENTRIES)]
