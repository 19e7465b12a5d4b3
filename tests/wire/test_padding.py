import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.wire.padding import padded_length


@pytest.mark.parametrize(
    ("length", "padded"),
    [
        (0, 64),
        (1, 64),
        (63, 64),
        (64, 64),
        (65, 72),
        (68, 72),
        (72, 72),
        (73, 80),
        (127, 128),
        (128, 128),
        (129, 144),
        (255, 256),
        (256, 256),
        (257, 272),
        (1000, 1024),
        (1025, 1088),
        (65_535, 65_536),
        (65_536, 65_536),
        (65_537, 67_584),
        (131_073, 135_168),
        (1_048_577, 1_081_344),
    ],
)
def test_padme_table(length: int, padded: int) -> None:
    assert padded_length(length) == padded


@given(st.integers(64, 2**30))
def test_padding_costs_at_most_12_percent_and_settles(length: int) -> None:
    padded = padded_length(length)
    assert length <= padded <= length * 1.12
    assert padded_length(padded) == padded


def test_few_lengths_are_left() -> None:
    assert len({padded_length(length) for length in range(160 * 1024)}) < 200
