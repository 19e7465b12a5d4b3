"""Messages that reached no handler, or failed theirs: counted, the latest kept, a sample logged."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import attrs

from autonomy_trio.logs import get_log

Reason = Literal[
    "unknown agent",
    "not handled",
    "stopped",
    "expired",
    "failed",
    "overloaded",
    "denied",
    "late",
    "malformed",
    "lost",
]

TOPIC: Final = "#dead_letters"
"""The topic on which a node publishes its dead letters."""

MOST_KEPT: Final = 1_000
"""Dead letters that can still be looked at; older ones are only counted."""

_log = get_log()


@attrs.frozen
class DeadLetter:
    """One message that was not handled to its end."""

    recipient: str
    message: str
    """The wire name of the message; what it says is not kept."""
    sender: str
    reason: Reason
    why: str = ""
    """What decided, in words, where the reason leaves it open: for a denied message, the clause of the policy."""


@attrs.define(eq=False)
class DeadLetters:
    """A node's dead letters: iterate over the latest, read the counts of all."""

    _latest: deque[DeadLetter] = attrs.field(factory=lambda: deque[DeadLetter](maxlen=MOST_KEPT))
    _counts: Counter[Reason] = attrs.field(factory=Counter[Reason])

    def add(self, letter: DeadLetter) -> None:
        """Count a dead letter; the 1st, 2nd, 4th, 8th … of a reason is logged: a flood is seen and fills no log."""
        self._latest.append(letter)
        self._counts[letter.reason] += 1
        count = self._counts[letter.reason]
        if count & (count - 1) == 0:
            fields = attrs.asdict(letter, filter=lambda _, value: value != "")
            _log.warning("dead letter", **fields, **({"so_far": count} if count > 1 else {}))

    def latest(self) -> DeadLetter:
        """Return the latest one; IndexError where there was none."""
        return self._latest[-1]

    def counts(self) -> Mapping[Reason, int]:
        """Return how many there were of each reason."""
        return dict(self._counts)

    def __len__(self) -> int:
        return self._counts.total()

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._latest))
