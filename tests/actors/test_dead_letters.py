"""Dead letters: every one counted, the latest kept, a sample logged."""

import pytest
from structlog.testing import capture_logs

from autonomy_trio.actors.dead_letters import MOST_KEPT, DeadLetter, DeadLetters


def letter(number: int = 0) -> DeadLetter:
    return DeadLetter("counter", f"Add{number}", "node", "denied")


def test_there_are_none_at_first() -> None:
    letters = DeadLetters()
    assert len(letters) == 0
    assert list(letters) == []
    assert letters.counts() == {}
    with pytest.raises(IndexError):
        letters.latest()


def test_all_are_counted_by_reason_and_only_the_latest_kept() -> None:
    letters = DeadLetters()
    for number in range(MOST_KEPT + 10):
        letters.add(letter(number))
    letters.add(DeadLetter("counter", "Add", "node", "expired"))
    assert len(letters) == MOST_KEPT + 11
    assert letters.counts() == {"denied": MOST_KEPT + 10, "expired": 1}
    kept = list(letters)
    assert len(kept) == MOST_KEPT
    assert kept[0] == letter(11)
    assert kept[-1] == letters.latest() == DeadLetter("counter", "Add", "node", "expired")


def test_they_can_be_looked_at_while_more_arrive() -> None:
    letters = DeadLetters()
    letters.add(letter())
    for _ in letters:
        letters.add(letter())
    assert len(letters) == 2


def test_a_flood_fills_no_log_and_a_new_reason_is_seen_at_once() -> None:
    letters = DeadLetters()
    with capture_logs() as lines:
        for _ in range(1000):
            letters.add(letter())
        letters.add(DeadLetter("counter", "Add", "node", "expired", "late"))
    counts = [line.get("so_far", 1) for line in lines if line["reason"] == "denied"]
    assert counts == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert lines[-1]["reason"] == "expired"
    assert lines[-1]["why"] == "late"
    assert "why" not in lines[0]
