"""A record of the directory is its node's own words, and recent ones."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from autonomy_trio.errors import ProtocolError, UsageError
from autonomy_trio.trust.records import Signed
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import RECORD_BYTES, RECORD_LIFE
from autonomy_trio.wire.directory import Found, ListedAgent, ListedMessage, Record, make_listing, verify_listing
from autonomy_trio.wire.frames import Listing, Publish, decode_frame, encode_frame

NOW = 1_800_000_000
DAY = 86_400
AGENTS = (ListedAgent("counter", "It counts.", (ListedMessage("Add", b"{}"), ListedMessage("Reset", b""))),)
VAULT = Vault.in_memory()
VAULT.renew(NOW - DAY)


def record(**fields: object) -> Record:
    values = {
        "version": 1,
        "node": VAULT.identifier,
        "seq": 0,
        "serial": 1,
        "created": NOW,
        "expires": NOW + RECORD_LIFE,
        "relays": ("ws://relay.example.com:4000",),
        "agents": AGENTS,
    }
    return Record(**(values | fields))


def listing(vault: Vault = VAULT, **fields: object) -> Listing:
    return make_listing(vault, record(**fields), [b"credential"])


def test_a_record_is_found_as_it_was_written_with_the_credentials_beside_it() -> None:
    found = verify_listing(listing(), NOW)
    assert found.record == record()
    assert found.bundle.identifier == VAULT.identifier
    assert found.presentations == (b"credential",)
    assert "credential" not in repr(found)


def test_a_record_travels_in_a_frame() -> None:
    sent = listing()
    published = decode_frame(encode_frame(Publish(sent)))
    assert isinstance(published, Publish)
    assert published.listing == sent


@pytest.mark.parametrize(
    ("now", "taken"), [(-61, False), (-60, True), (0, True), (RECORD_LIFE - 1, True), (RECORD_LIFE, False)]
)
def test_a_record_counts_for_an_hour(now: int, taken: bool) -> None:
    if taken:
        assert verify_listing(listing(), NOW + now).record == record()
        return
    with pytest.raises(ProtocolError, match="out of its time"):
        verify_listing(listing(), NOW + now)


@pytest.mark.parametrize("life", [-1, 0, RECORD_LIFE + 1])
def test_a_life_that_is_none_or_too_long_is_refused(life: int) -> None:
    with pytest.raises(ProtocolError, match="valid for 1 to 3600 s"):
        verify_listing(listing(expires=NOW + life), NOW)


@pytest.mark.parametrize("fields", [{"node": bytes(32)}, {"seq": 1}])
def test_a_record_of_another_node_or_of_its_past_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError, match="of another node"):
        verify_listing(listing(**fields), NOW)
    with pytest.raises(ProtocolError, match="of another node"):
        verify_listing(listing(Vault.in_memory()), NOW)


def test_a_record_signed_by_another_or_for_another_purpose_is_refused() -> None:
    honest = listing()
    for signature in (
        Vault.in_memory().sign("record", honest.record.body),
        VAULT.sign("env", honest.record.body),
        VAULT.sign_as_identity("record", honest.record.body),
    ):
        with pytest.raises(ProtocolError, match="not signed by the node"):
            verify_listing(replace(honest, record=Signed(honest.record.body, signature)), NOW)


def test_an_expired_node_is_not_found() -> None:
    honest = listing()
    with pytest.raises(ProtocolError, match="expired"):
        verify_listing(honest, NOW + 8 * DAY)


def test_the_highest_serial_of_the_highest_sequence_stays() -> None:
    first, second = (verify_listing(listing(serial=serial), NOW) for serial in (1, 2))
    assert second.replaces(first)
    assert not first.replaces(second)
    assert not first.replaces(first)
    rotated = Found(record(seq=1, serial=0), first.bundle, ())
    assert rotated.replaces(second)
    assert not second.replaces(rotated)


def test_a_record_past_24_kib_is_neither_written_nor_read() -> None:
    large = tuple(ListedAgent("a" * 255, "d" * 1024, ()) for _ in range(20))
    with pytest.raises(UsageError, match="list fewer agents"):
        listing(agents=large)
    body = msgspec.msgpack.encode(record(agents=large))
    signed = Signed(body, VAULT.sign("record", body))
    with pytest.raises(ProtocolError, match=f"may have {RECORD_BYTES} bytes"):
        verify_listing(replace(listing(), record=signed), NOW)


OUT_OF_SHAPE: list[Callable[[list[object]], object]] = [
    lambda raw: [2, *raw[1:]],
    lambda raw: [*raw, None],
    lambda raw: raw[:-1],
    lambda raw: [*raw[:6], ["u"] * 9, raw[7]],
    lambda raw: [*raw[:6], ["u" * 256], raw[7]],
    lambda raw: [*raw[:7], [["n", "d", []]] * 65],
    lambda raw: [*raw[:7], [["n", "d" * 1025, []]]],
    lambda raw: [*raw[:7], [["n", "d", [["m", b""]] * 65]]],
    lambda raw: [raw[0], raw[1], 64, *raw[3:]],
    lambda raw: [*raw[:3], -1, *raw[4:]],
    lambda raw: None,
]


@pytest.mark.parametrize("bend", OUT_OF_SHAPE, ids=range(len(OUT_OF_SHAPE)))
def test_what_the_types_do_not_say_is_refused(bend: Callable[[list[object]], object]) -> None:
    body = msgspec.msgpack.encode(bend(msgspec.msgpack.decode(listing().record.body)))
    signed = Signed(body, VAULT.sign("record", body))
    with pytest.raises(ProtocolError, match="not a record of the directory"):
        verify_listing(replace(listing(), record=signed), NOW)


def test_every_changed_bit_and_every_other_length_is_refused() -> None:
    honest = listing()
    for part in ("bundle", "record"):
        whole = getattr(honest, part)
        data = whole if part == "bundle" else whole.body
        for position in range(len(data) * 8):
            changed = bytearray(data)
            changed[position // 8] ^= 1 << position % 8
            refuse(honest, part, bytes(changed))
        for other in [data[:length] for length in range(len(data))] + [data + b"\x00"]:
            refuse(honest, part, other)


def refuse(honest: Listing, part: str, data: bytes) -> None:
    changed = data if part == "bundle" else Signed(data, honest.record.signature)
    with pytest.raises(ProtocolError):
        verify_listing(replace(honest, **{part: changed}), NOW)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_refused(bundle: bytes, body: bytes) -> None:
    for bad in (
        Listing(bundle, Signed(body, bytes(64)), ()),
        replace(listing(), record=Signed(body, VAULT.sign("record", body))),
    ):
        with pytest.raises(ProtocolError):
            verify_listing(bad, NOW)
