"""Watches between nodes: the end that wants to be told, here, and the end where the watched agent lives.

A watch is repeated while it lasts, and so is the answer until it was taken, so that neither can be lost for good; the
receiver knows both by their number and takes each once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, final

import attrs

from autonomy_trio.wire.entries import Down, Standing, Unwatch

if TYPE_CHECKING:
    from autonomy_trio.fabric.peers.peer import Peer

MOST_WATCHES: Final = 1024
"""Watches of agents here that one node may have, with those whose end it was told and has not acknowledged."""

REASONS: Final = ("stopped", "failed", "gave up", "unknown agent", "node lost")
"""How a watched agent can have ended."""


class Tie(Protocol):
    """What binds an agent here to one of another node."""

    def begin(self) -> None:
        """Let it be told."""
        ...

    def end(self) -> None:
        """Let it be told no more."""
        ...


@final
@attrs.define(eq=False, repr=False)
class Watching:
    """A watch of an agent on another node, or a subscription to a topic of that."""

    entry: Standing
    told: Callable[[str], None]
    """Called once with how the agent ended."""
    sent_at: float | None = None
    """On trio's clock; None while it waits to leave."""


@final
@attrs.define(eq=False, repr=False)
class Watched:
    """A watch that another node has on an agent here, or its subscription to a topic."""

    request: int
    _peer: "Peer"
    heard_at: float
    """When the other node last said so, on trio's clock."""
    _tie: Tie | None = None
    _reason: str | None = None

    @property
    def is_told(self) -> bool:
        """Whether it has ended, and the other node was told."""
        return self._reason is not None

    def begin(self, tie: Tie) -> None:
        """Watch the agent, or take what is published."""
        self._tie = tie
        tie.begin()

    def repeat(self, now: float) -> None:
        """Hear the watch once more, and tell again how the agent ended, if it did."""
        self.heard_at = now
        if self._reason is not None:
            self._peer.post(Down(self.request, self._reason))

    def tell(self, reason: str) -> None:
        """Tell how the agent ended, or that nothing is published for it any more."""
        self._tie, self._reason = None, reason
        self._peer.post(Down(self.request, reason))

    def end(self) -> None:
        """Watch no more."""
        if self._tie is not None:
            self._tie.end()


def take_down(peer: "Peer", entry: Down) -> None:
    """Take the word of a node that an agent of its has ended, and acknowledge it, known or not."""
    watching = peer.watching.pop(entry.request, None)
    peer.post(Unwatch(entry.request))
    if watching is not None:
        watching.told(entry.reason if entry.reason in REASONS else "stopped")
