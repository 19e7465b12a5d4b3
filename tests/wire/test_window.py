import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.wire.constants import LARGEST_COUNTER, WINDOW_COUNTERS
from autonomy_trio.wire.window import ReplayWindow

SIZE = WINDOW_COUNTERS


def receive(window: ReplayWindow, counter: int) -> bool:
    fresh = window.is_fresh(counter)
    if fresh:
        window.mark(counter)
    return fresh


def test_window_has_8192_counters() -> None:
    assert SIZE == 8192


# Each row goes on where the row before it ended: counter, accepted. After wireguard-go's replay_test.go.
TRUTH = [
    (0, True),
    (1, True),
    (1, False),
    (9, True),
    (8, True),
    (7, True),
    (7, False),
    (SIZE, True),
    (SIZE - 1, True),
    (SIZE - 1, False),
    (SIZE - 2, True),
    (2, True),
    (2, False),
    (SIZE + 16, True),
    (16, False),
    (17, True),
    (17, False),
    (SIZE + 16, False),
    (SIZE * 4, True),
    (SIZE * 4 - (SIZE - 1), True),
    (10, False),
    (SIZE * 4 - SIZE, False),
    (SIZE * 4 - (SIZE + 1), False),
    (SIZE * 4 - (SIZE - 2), True),
    (SIZE * 4 + 1 - SIZE, False),
    (0, False),
    (LARGEST_COUNTER + 1, False),
    (LARGEST_COUNTER, True),
    (LARGEST_COUNTER, False),
    (LARGEST_COUNTER - 1, True),
    (LARGEST_COUNTER - 1, False),
    (LARGEST_COUNTER - (SIZE - 1), True),
    (LARGEST_COUNTER - SIZE, False),
]


def test_truth_table() -> None:
    window = ReplayWindow()
    for number, (counter, accepted) in enumerate(TRUTH):
        assert receive(window, counter) is accepted, f"row {number}: {counter}"


@pytest.mark.parametrize("lost", [31, 8191, 8192, 200_000])
def test_loss_of_any_length_is_recovered_from(lost: int) -> None:
    window = ReplayWindow()
    assert all(receive(window, counter) for counter in range(100))
    after = 100 + lost
    assert receive(window, after)
    assert not receive(window, after)
    oldest = max(after - SIZE + 1, 0)
    for counter in range(oldest, after):
        assert receive(window, counter) is (counter >= 100)
    assert not receive(window, after - SIZE)
    assert receive(window, after + 1)


@pytest.mark.parametrize("start", [0, 5 << 32, 63, 64, 65])
def test_every_counter_is_accepted_once_in_either_order(start: int) -> None:
    rising, falling = ReplayWindow(), ReplayWindow()
    counters = range(start, start + SIZE)
    for window, order in ((rising, counters), (falling, reversed(counters))):
        assert all(receive(window, counter) for counter in order)
        assert not any(window.is_fresh(counter) for counter in counters)


def test_looking_changes_nothing() -> None:
    window = ReplayWindow()
    assert window.is_fresh(LARGEST_COUNTER)
    assert window.highest == -1
    window.mark(3)
    assert window.is_fresh(LARGEST_COUNTER)
    assert window.is_fresh(2)
    assert window.highest == 3


@given(st.lists(st.integers(0, 3 * SIZE) | st.integers(0, 200) | st.integers(0, LARGEST_COUNTER), max_size=300))
def test_window_agrees_with_a_set(counters: list[int]) -> None:
    window, highest = ReplayWindow(), -1
    seen: set[int] = set()
    for counter in counters:
        expected = counter not in seen and counter > highest - SIZE
        assert receive(window, counter) is expected
        if expected:
            seen.add(counter)
            highest = max(highest, counter)
        assert window.highest == highest
