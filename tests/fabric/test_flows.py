"""The table of what one other node sends to agents here, as far as the tests between nodes do not see it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.fabric.peers import flows
from autonomy_trio.fabric.peers.flows import Inflows
from autonomy_trio.wire.constants import FLOW_BITS, WINDOW_BYTES
from autonomy_trio.wire.entries import Tell

MOST = 4
STEPS = st.lists(st.one_of(st.integers(0, 20), st.just("told"), st.just("cut off")), max_size=100)


@given(steps=STEPS)
def test_what_was_not_told_is_the_sum_over_the_flows_that_are_remembered(steps: list[int | str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(flows, "MOST_FLOWS", MOST)
        inflows = Inflows()
        for number, step in enumerate(steps, 1):
            if step == "told":
                inflows.words(WINDOW_BYTES)
            elif step == "cut off":
                inflows.drop_words()
            else:
                tell = Tell(f"agent_{step}", "Note", b"", 0, number << FLOW_BITS | 1)
                flow = inflows.arrive(tell, late=False)
                if flow is not None:
                    inflows.dispose(flow, tell, WINDOW_BYTES // 3)
            assert inflows._uncredited == sum(flow.uncredited for flow in inflows._flows.values())
