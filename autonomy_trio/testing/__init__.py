"""What tests of agents need: a node in memory, probes, injected failures, and nodes joined by a network that errs.

Nothing here needs pytest or any other test runner. A test in virtual time, where a minute of waiting takes no time, is
``trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))``; with pytest-trio, a test with the parameter
``autojump_clock``.
"""

from autonomy_trio.testing.fabric import Faults, TestFabric, open_test_fabric
from autonomy_trio.testing.injections import Injected
from autonomy_trio.testing.node import Failure, TestNode, open_test_node
from autonomy_trio.testing.probe import Probe, Script

__all__ = [
    "Failure",
    "Faults",
    "Injected",
    "Probe",
    "Script",
    "TestFabric",
    "TestNode",
    "open_test_fabric",
    "open_test_node",
]
