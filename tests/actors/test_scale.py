"""A million agents in a process and a hundred thousand awake: what they cost, that each is told, that they end."""

import pytest

from tests.support.scale import AWAKE, RESIDENT, measure

pytestmark = pytest.mark.scale

MOST_EACH = 400
MOST_BYTES = 2**29
MOST_OF_RAW = 6
"""CPU time of a drain beside that of trio for cancelling as many tasks, in the same process: no machine is too slow or
too busy for a ratio. Trio needs about 3 s, a drain 6 s where 10 are promised."""


def test_a_million_agents_are_resident_within_budget_and_each_told_once_is_counted() -> None:
    facts = measure("resident")
    print(facts)  # noqa: T201 - the numbers, for whoever runs this with -rP
    assert (facts["living"], facts["names"]) == (RESIDENT, RESIDENT)
    assert facts["told"] == [RESIDENT, RESIDENT]
    assert (facts["handled"], facts["dead"]) == (RESIDENT, 0)
    assert facts["bytes each"] <= MOST_EACH
    assert facts["bytes each once told"] <= MOST_EACH
    assert facts["bytes"] <= MOST_BYTES
    assert facts["tasks left"] == 0


def test_a_hundred_thousand_agents_are_awake_at_once_and_a_drain_ends_them_soon_and_leaves_no_task() -> None:
    facts = measure("awake")
    print(facts)  # noqa: T201 - as above
    assert facts["awake"] == AWAKE
    assert facts["tasks"] >= AWAKE
    assert facts["told"] == [AWAKE, AWAKE]
    assert (facts["handled"], facts["queued"]) == (AWAKE // 2, AWAKE // 2)
    assert facts["dead"] == {"stopped": AWAKE // 2}
    assert (facts["names"], facts["tasks left"]) == (0, 0)
    assert facts["drain seconds"] / facts["raw seconds"] <= MOST_OF_RAW
