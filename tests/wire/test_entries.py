import math
from collections import deque

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import MessageError, ProtocolError
from autonomy_trio.trust.records import Signed
from autonomy_trio.wire.constants import (
    BATCH_BYTES,
    BATCH_ENTRIES,
    BODY_ENTRIES,
    LARGEST_INDEX,
    LARGEST_NUMBER,
    MESSAGE_BYTES,
    PRESENTATIONS,
    PRESENTATIONS_BYTES,
)
from autonomy_trio.wire.entries import (
    Accepted,
    Ask,
    Awaited,
    Blocked,
    Cancel,
    Close,
    Credit,
    Down,
    Entry,
    Error,
    Foreseen,
    Forgotten,
    Introduce,
    Introduced,
    Item,
    Open,
    Presentations,
    Progress,
    Reply,
    Subscribe,
    Tell,
    Unwatch,
    Watch,
    check_size,
    decode_entries,
    encode_entries,
    entry_size,
    next_batch,
    shown_presentations,
)

numbers = st.integers(0, LARGEST_NUMBER)
names = st.text(max_size=255)
payloads = st.binary(max_size=500)
indices = st.integers(0, LARGEST_INDEX)
some_indices = st.lists(indices, min_size=1, max_size=20).map(tuple)
signed = st.builds(Signed, st.binary(max_size=200), st.binary(min_size=64, max_size=64))
entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Tell, names, names, payloads, indices, numbers),
    st.builds(Ask, numbers, names, names, payloads, st.none() | numbers, indices, numbers),
    st.builds(Reply, numbers, payloads),
    st.builds(Error, numbers, st.text(max_size=64), st.text(max_size=1024)),
    st.builds(Cancel, numbers),
    st.builds(Presentations, st.lists(payloads, max_size=16).map(tuple)),
    st.builds(Close, st.text(max_size=1024)),
    st.builds(
        Introduce, indices.filter(bool), signed, signed, st.booleans(), st.lists(payloads, max_size=16).map(tuple)
    ),
    st.builds(Introduced, some_indices),
    st.builds(Forgotten, some_indices),
    st.builds(Foreseen, numbers, names, payloads),
    st.builds(Open, numbers, names, names, payloads, numbers.filter(bool), indices, numbers),
    st.builds(Item, numbers, numbers, payloads),
    st.builds(Progress, numbers, numbers, st.booleans()),
    st.builds(Credit, numbers, numbers),
    st.builds(Watch, numbers, names, indices),
    st.builds(Down, numbers, st.text(max_size=64)),
    st.builds(Unwatch, numbers),
    st.builds(Awaited, st.lists(numbers, min_size=1, max_size=20).map(tuple)),
    st.builds(Accepted, names, numbers, numbers),
    st.builds(Blocked, names, numbers),
    st.builds(Subscribe, numbers, names, names, indices),
)

ONE_OF_EACH: list[Entry] = [
    Tell("agent", "Message", b"payload", 0, 0),
    Ask(1, "agent", "Message", b"payload", 2000, 7, 0),
    Reply(1, b"payload"),
    Error(1, "denied", "denied"),
    Cancel(1),
    Presentations((b"one", b"two")),
    Close("done"),
    Introduce(1, Signed(b"change", bytes(64)), Signed(b"delegate", bytes(64)), inherits=True, presentations=()),
    Introduced((1,)),
    Forgotten((1, 2)),
    Foreseen(1, "Short", b"x"),
    Open(1, "agent", "Message", b"payload", 16, 7, 0),
    Item(1, 0, b"payload"),
    Progress(1, 1, is_over=True),
    Credit(1, 32),
    Watch(1, "agent", 0),
    Down(1, "stopped"),
    Unwatch(1),
    Awaited((1, 2)),
    Accepted("agent", 1, 65_536),
    Blocked("agent", 1),
    Subscribe(1, "#topic", "agent", 0),
]


@given(st.lists(entries, max_size=20))
def test_entries_decode_as_encoded(batch: list[Entry]) -> None:
    assert decode_entries(encode_entries(batch)) == batch


@given(entries)
def test_size_is_a_bound(entry: Entry) -> None:
    assert len(encode_entries([entry])) <= entry_size(entry)


def test_kinds_are_integers_first() -> None:
    raw = msgspec.msgpack.decode(encode_entries(ONE_OF_EACH))
    assert [entry[0] for entry in raw] == list(range(1, len(ONE_OF_EACH) + 1))
    assert raw[1] == [2, 1, "agent", "Message", b"payload", 2000, 7, 0]


@pytest.mark.parametrize(
    "raw",
    [
        {},
        None,
        [[11]],
        [[99]],
        [[12, 1, "a", "b", b"", 0, 0, 0]],
        [[13, 1, -1, b""]],
        [[14, 1, 1, 1]],
        [[15, 1, -1]],
        [[16, 1, "a" * 256, 0]],
        [[17, 1, "r" * 65]],
        [[18, None]],
        [[19, []]],
        [[19, [1] * 1025]],
        [[20, "a", 1, -1]],
        [[20, "a" * 256, 1, 1]],
        [[21, "a", 2**63]],
        [[22, 1, "#a", "b" * 256, 0]],
        [[22, 1, "#a", "b", -1]],
        [[0, "a", "b", b"", 0, 0]],
        [["1", "a", "b", b"", 0, 0]],
        [[True, "a", "b", b"", 0, 0]],
        [[1, "a", "b", b""]],
        [[1, "a", "b", b"", 0]],
        [[1, "a", "b", b"", 0, None]],
        [[1, "a", "b", b"", 0, -1]],
        [[1, "a", "b", b"", 0, 2**63]],
        [[1, "a", "b", b"", 0, 0, 0]],
        [[1, "a", "b", b"", None, 0]],
        [[1, "a", "b", b"", -1, 0]],
        [[1, "a", "b", b"", 2**32, 0]],
        [[1, b"a", "b", b"", 0, 0]],
        [[1, "a", "b", "text", 0, 0]],
        [[1, "a" * 256, "b", b"", 0, 0]],
        [[1, "a", "b" * 256, b"", 0, 0]],
        [[1, "a", "b", bytes(MESSAGE_BYTES + 1), 0, 0]],
        [[2, -1, "a", "b", b"", None, 0, 0]],
        [[2, 2**63, "a", "b", b"", None, 0, 0]],
        [[2, "5", "a", "b", b"", None, 0, 0]],
        [[2, True, "a", "b", b"", None, 0, 0]],
        [[2, 5.0, "a", "b", b"", None, 0, 0]],
        [[2, math.nan, "a", "b", b"", None, 0, 0]],
        [[2, 5, "a", "b", b"", -1, 0, 0]],
        [[8, 0, [b"", bytes(64)], [b"", bytes(64)], []]],
        [[8, 1, [b"", bytes(63)], [b"", bytes(64)], []]],
        [[8, 1, [b"", bytes(64)], [b"", bytes(64)], [b""] * 17]],
        [[9, []]],
        [[9, [1] * (BODY_ENTRIES + 1)]],
        [[10, [-1]]],
        [[4, 1, "c" * 65, "text"]],
        [[4, 1, "code", "t" * 1025]],
        [[5, None]],
        [[6, [b""] * 17]],
        [[6, [bytes(PRESENTATIONS_BYTES + 1)]]],
        [[7, "r" * 1025]],
        [[5, 1]] * (BODY_ENTRIES + 1),
    ],
)
def test_what_the_types_do_not_say_is_refused(raw: object) -> None:
    with pytest.raises(ProtocolError):
        decode_entries(msgspec.msgpack.encode(raw))


@pytest.mark.parametrize(
    "body",
    [b"", b"\x90\x90", b"\x91\x92\x07\xa1\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 100_000, b"\x91\x92\x05\xc1"],
)
def test_malformed_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_entries(body)


@given(st.binary(max_size=300))
def test_random_bytes_are_entries_or_refused(body: bytes) -> None:
    try:
        decode_entries(body)
    except ProtocolError:
        return


@given(st.lists(entries, min_size=1, max_size=4), st.data())
def test_damaged_entries_are_entries_or_refused(batch: list[Entry], data: st.DataObject) -> None:
    body = bytearray(encode_entries(batch))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_entries(bytes(body))
    except ProtocolError:
        return


def test_a_batch_has_at_most_256_entries() -> None:
    waiting: deque[Entry] = deque(Cancel(number) for number in range(300))
    assert next_batch(waiting) == [Cancel(number) for number in range(256)]
    assert next_batch(waiting) == [Cancel(number) for number in range(256, 300)]
    assert next_batch(waiting) == []


def test_a_batch_has_at_most_64_kib_and_a_large_message_travels_alone() -> None:
    small, large = Tell("a", "M", bytes(20_000), 0, 0), Tell("a", "M", bytes(120_000), 0, 0)
    waiting: deque[Entry] = deque([small, small, small, small, large, small])
    assert next_batch(waiting) == [small, small, small]
    assert next_batch(waiting) == [small]
    assert next_batch(waiting) == [large]
    assert next_batch(waiting) == [small]


@given(st.lists(st.integers(0, 70_000), max_size=30))
def test_batches_keep_order_and_bounds(sizes: list[int]) -> None:
    sent: list[Entry] = [Reply(number, bytes(size)) for number, size in enumerate(sizes)]
    waiting, received = deque(sent), list[Entry]()
    while waiting:
        batch = next_batch(waiting)
        assert 1 <= len(batch) <= BATCH_ENTRIES
        assert len(batch) == 1 or len(encode_entries(batch)) <= BATCH_BYTES
        received += batch
    assert received == sent


def test_an_entry_that_no_envelope_can_carry_is_refused_and_stays() -> None:
    waiting: deque[Entry] = deque([Tell("a", "M", bytes(MESSAGE_BYTES), 0, 0)])
    with pytest.raises(MessageError, match="a tell of 131"):
        next_batch(waiting)
    assert len(waiting) == 1
    check_size(Tell("a", "M", bytes(MESSAGE_BYTES - 100), 0, 0))


def test_credentials_that_fit_are_shown_in_their_order() -> None:
    assert shown_presentations([b"a", b"b"]) == Presentations((b"a", b"b"))
    assert len(shown_presentations([b"x"] * 20).presentations) == PRESENTATIONS
    large = bytes(PRESENTATIONS_BYTES)
    assert shown_presentations([b"first", large, b"third"]) == Presentations((b"first", b"third"))
    assert shown_presentations([large]) == Presentations((large,))


def test_all_that_waits_is_taken_at_once_where_it_is_known_to_fit() -> None:
    sent: list[Entry] = [Tell("a", "M", bytes(1000), 0, number) for number in range(70)]
    waiting = deque(sent[:40])
    assert next_batch(waiting, sum(map(entry_size, waiting))) == sent[:40]
    assert not waiting
    waiting = deque(sent)
    batch = next_batch(waiting, sum(map(entry_size, waiting)))
    assert batch == sent[: len(batch)]
    assert len(encode_entries(batch)) <= BATCH_BYTES
    waiting = deque[Entry](Cancel(number) for number in range(300))
    assert len(next_batch(waiting, 1)) == BATCH_ENTRIES


def test_an_entry_that_no_envelope_can_carry_is_refused_while_its_sender_is_there() -> None:
    with pytest.raises(MessageError, match="send it in parts"):
        check_size(Tell("a", "M", bytes(MESSAGE_BYTES), 0, 0))
