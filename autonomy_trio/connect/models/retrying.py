"""When a request to a vendor is tried again: pure functions of what came back and of the time."""

import math
from email.utils import parsedate_to_datetime
from typing import Final

MOST_TRIES: Final = 4
"""Times that one request is sent."""
FIRST_PAUSE: Final = 0.5
"""Seconds before the second try; the pause doubles with each try."""
MOST_PAUSE: Final = 60.0
"""Seconds that a pause takes at most, whatever the vendor asks for in ``Retry-After``."""


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for; None where it says nothing that can be read.

    Args:
        header: seconds, or an HTTP date (RFC 9110, section 10.2.3).
        now: Unix seconds.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def pause(tries: int, after: float | None, chance: float) -> float:
    """Return the seconds before the next try.

    Args:
        tries: how often it has been sent.
        after: the seconds that the vendor asks for.
        chance: a random number from 0 to 1, so that who failed together does not come back together.
    """
    backoff = min(MOST_PAUSE, FIRST_PAUSE * 2.0 ** (tries - 1)) * (0.5 + chance / 2)
    return backoff if after is None else min(MOST_PAUSE, after + FIRST_PAUSE * chance)
