"""What the two sides of a local workload share: the messages and the sizes."""

import math
import random
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from autonomy_trio import Request
from benchmarks.measure import WrongResultError

CAPACITY: Final = 64
"""Places in a raw channel, as in a mailbox."""

RING: Final = 100
"""Agents that a token goes round."""

BIG: Final = 120
"""Agents that ping each other."""

TIMERS: Final = 10
"""Timers beside a flood."""

PERIOD: Final = 0.01
"""Seconds from one timer to the next."""


@frozen
class Total:
    """A sum so far."""

    value: int


@frozen
class More:
    """Add to a sum."""

    amount: int


@frozen
class Add(Request[Total]):
    """Add to a sum, and ask for it."""

    amount: int


@frozen
class Read(Request[Total]):
    """Ask for a sum."""


@frozen
class Token:
    """What goes round a ring."""

    hops: int
    """How often it is still to be passed on."""


@frozen
class Start:
    """Send the first ping."""


@frozen
class Ping:
    """Ask for a pong."""

    sender: int


@frozen
class Pong:
    """Answer a ping."""


@frozen
class Tick:
    """What a timer sends."""

    due: float
    """When, on trio's clock."""


ONE: Final = More(1)
"""What is told; made once, so that what is measured is sending it."""

ASK: Final = Add(1)
"""What is asked; made once too."""


def peers_of(index: int, pings: int) -> Sequence[int]:
    """Return whom one of `big` pings, in turn: any of the others, the same in each run."""
    others = [each for each in range(BIG) if each != index]
    return random.Random(index).choices(others, k=pings)  # noqa: S311 - a workload, no secret


def p99(lateness: Sequence[float]) -> float:
    """Return what one timer in a hundred exceeds, in milliseconds.

    Raises:
        WrongResultError: no timer went off.
    """
    if not lateness:
        raise WrongResultError("no timer went off")
    return 1000 * sorted(lateness)[math.ceil(0.99 * len(lateness)) - 1]
