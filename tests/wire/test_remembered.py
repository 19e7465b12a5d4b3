"""A sealed envelope counts once, through restarts, and nothing is forgotten before its time."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import Overloaded, ProtocolError
from autonomy_trio.wire import remembered as module
from autonomy_trio.wire.remembered import Remembered

ALICE, CAROL = b"a" * 32, b"c" * 32
NOW = 1_800_000_000


def message(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_what_came_is_known_until_it_expires_and_is_anothers_to_use() -> None:
    memory = Remembered()
    memory.remember(ALICE, message(1), NOW + 10)
    memory.remember(ALICE, message(1), NOW + 10)
    assert (ALICE, message(1)) in memory
    assert (CAROL, message(1)) not in memory
    assert (ALICE, message(2)) not in memory
    assert len(memory) == 1
    memory.expire(NOW + 9.9)
    assert (ALICE, message(1)) in memory
    memory.expire(NOW + 10)
    assert (ALICE, message(1)) not in memory
    assert len(memory) == 0


def test_a_restart_forgets_nothing() -> None:
    memory = Remembered()
    for number in range(100):
        memory.remember(ALICE if number % 2 else CAROL, message(number), NOW + number)
    again = Remembered.decode(memory.encode())
    assert len(again) == 100
    assert all((ALICE if number % 2 else CAROL, message(number)) in again for number in range(100))
    again.expire(NOW + 50)
    assert len(again) == 49
    assert (ALICE, message(49)) not in again


def test_a_full_memory_refuses_and_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEALED_PER_SENDER", 3)
    monkeypatch.setattr(module, "SEALED_REMEMBERED", 5)
    memory = Remembered()
    for number in range(3):
        memory.remember(ALICE, message(number), NOW + 10)
    with pytest.raises(Overloaded, match="left where it is"):
        memory.remember(ALICE, message(3), NOW + 10)
    memory.remember(ALICE, message(0), NOW + 10)
    for number in range(2):
        memory.remember(CAROL, message(number), NOW + 20)
    with pytest.raises(Overloaded):
        memory.check_room(CAROL)
    assert all((ALICE, message(number)) in memory for number in range(3))
    memory.expire(NOW + 10)
    memory.check_room(CAROL)
    memory.check_room(ALICE)
    assert len(memory) == 2


def test_there_is_room_for_100_000_of_one_sender() -> None:
    memory = Remembered()
    for number in range(100_000):
        memory.remember(ALICE, message(number), NOW)
    with pytest.raises(Overloaded):
        memory.check_room(ALICE)
    memory.check_room(CAROL)
    assert len(Remembered.decode(memory.encode())) == 100_000


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode([2, {}]),
        msgspec.msgpack.encode([1, {bytes(31): {}}]),
        msgspec.msgpack.encode([1, {bytes(32): {bytes(15): 1}}]),
        msgspec.msgpack.encode([1, {bytes(32): {bytes(16): -1}}]),
        msgspec.msgpack.encode([1, {}]) + b"\x00",
    ],
)
def test_a_damaged_memory_is_no_empty_one(stored: bytes) -> None:
    with pytest.raises(ProtocolError, match="no memory of sealed envelopes"):
        Remembered.decode(stored)


def test_a_sender_of_whom_nothing_is_remembered_takes_no_room() -> None:
    memory = Remembered.decode(msgspec.msgpack.encode([1, {ALICE: {}}]))
    assert len(memory) == 0
    assert memory.encode() == Remembered().encode()


@given(st.lists(st.tuples(st.sampled_from([ALICE, CAROL]), st.integers(0, 9), st.integers(0, 20)), max_size=60))
def test_it_agrees_with_a_dict(steps: list[tuple[bytes, int, int]]) -> None:
    memory, model = Remembered(), dict[tuple[bytes, bytes], int]()
    for clock, (sender, number, life) in enumerate(steps):
        memory.expire(clock)
        model = {key: expires for key, expires in model.items() if expires > clock}
        memory.remember(sender, message(number), clock + life)
        model.setdefault((sender, message(number)), clock + life)
        memory = Remembered.decode(memory.encode())
        assert len(memory) == len(model)
        assert all(key in memory for key in model)
