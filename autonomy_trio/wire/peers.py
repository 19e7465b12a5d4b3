"""What an endpoint knows of one peer, and when it must act on it: every timer is a plain comparison with `ticks`.

Times are monotonic seconds; `NEVER` stands for what is not due at all.
"""

from collections.abc import Hashable
from math import inf
from typing import Final, final

from attrs import define, field

from autonomy_trio.wire.constants import (
    CLOCK_TOLERANCE,
    GONE_AFTER,
    HANDSHAKE_AFTER,
    HANDSHAKE_LIFE,
    HANDSHAKE_REPEAT,
    HANDSHAKE_SPACING,
    INITIATOR_RENEWS,
    KEEPALIVE_AFTER,
    RESPONDER_RENEWS,
    SENDING_LIFE,
    SESSION_LIFE,
)
from autonomy_trio.wire.handshake import Initiator
from autonomy_trio.wire.introductions import IntroducedAgents, Introducing, KnownAgents
from autonomy_trio.wire.session import Session

NEVER: Final = inf


@final
@define(eq=False)
class Channel:
    """A session, and what its endpoint keeps beside it.

    Attributes:
        session: the session.
        path: where packets to the peer go: where its highest counter came from.
        born: when the handshake made it.
        began: when the peer's process was surely alive: XX1 had come from it, or XX2.
        third: the hash of the XX3 that made it, where the peer began, until the peer is known to have its answer.
        answered: when XX3 was answered last.
        introducing: this node's agents that speak in it.
        introduced: the peer's agents that speak in it.
        acknowledged: when introductions that came again were acknowledged last.
    """

    session: Session
    path: Hashable
    born: float
    began: float
    third: bytes | None = None
    answered: float = -inf
    introducing: Introducing = field(factory=Introducing)
    introduced: IntroducedAgents = field(factory=IntroducedAgents)
    acknowledged: float = -inf

    @property
    def stops_sending_at(self) -> float:
        """When nothing more is sent on it."""
        return self.born + SENDING_LIFE

    @property
    def ends_at(self) -> float:
        """When nothing more is received on it."""
        return self.born + SESSION_LIFE


@final
@define(eq=False)
class Opening:
    """A handshake that this node began.

    Attributes:
        handshake: it, until XX2 has come.
        index: the index it asked for.
        started: when.
        packet: what is repeated until something answers it: XX1, then XX3.
        repeats_at: when next.
        path: where to; None for every path.
        second: the XX2 that was taken; the same one again is answered, another is refused.
        channel: the session it has become, from XX2 until the responder confirms it.
        trouble: why it will have failed if it does.
    """

    handshake: Initiator
    index: int
    started: float
    packet: bytes
    repeats_at: float
    path: Hashable | None = None
    second: bytes | None = None
    channel: Channel | None = None
    trouble: str = f"no answer in {HANDSHAKE_LIFE:.0f} s"

    @property
    def gives_up_at(self) -> float:
        """When it has failed."""
        return self.started + HANDSHAKE_LIFE

    def become(self, channel: Channel, second: bytes, third: bytes) -> Channel:
        """Wait for the responder to confirm what XX2 made, and repeat XX3 until then."""
        self.channel = channel
        self.second = second
        self.packet = third
        self.path = channel.path
        self.repeats_at = channel.born + HANDSHAKE_REPEAT
        difference = abs(channel.session.remote.clock_difference)
        clocks = f"; clocks differ by {difference:,.0f} s" if difference > CLOCK_TOLERANCE else ""
        self.trouble = f"the peer answered and did not confirm in {HANDSHAKE_LIFE:.0f} s{clocks}"
        return channel


@final
@define(eq=False)
class Peer:
    """A peer with a session or a handshake.

    Attributes:
        identifier: who.
        opening: the handshake that this node runs with it.
        channels: the confirmed sessions, in the order they were confirmed.
        current: the one to send on: the last confirmed, until it stops sending.
        boot: the boot that the sessions are with; None while there are none.
        began: the latest `Channel.began` of its sessions.
        presentations: the credentials it showed last.
        agents: its agents that were verified.
        highest: the highest counter received since its boot, over all sessions.
        heard: when it was heard last.
        sent: when it was sent something last.
        owed_since: since when something of its waits for any packet of ours.
        unanswered_since: since when something of ours waits for any packet of its.
        expected_since: since when the fabric expects something between the two nodes.
        reopened: when this node last began a handshake of its own accord.
        is_awaited: the fabric has asked for a session, and is owed `Established` or `GaveUp`; a handshake runs.
        is_used: messages were sent or received since the current session was confirmed.
        scheduled: the time its earliest timer is set for.
    """

    identifier: bytes
    opening: Opening | None = None
    channels: list[Channel] = field(factory=list[Channel])
    current: Channel | None = None
    boot: bytes | None = None
    began: float = -inf
    presentations: tuple[bytes, ...] = ()
    agents: KnownAgents = field(factory=KnownAgents)
    highest: int = -1
    heard: float = -inf
    sent: float = -inf
    owed_since: float = NEVER
    unanswered_since: float = NEVER
    expected_since: float = NEVER
    reopened: float = -inf
    is_awaited: bool = False
    is_used: bool = False
    scheduled: float = NEVER

    def usable(self, now: float, ticks: float) -> Channel | None:
        """Return the session to send messages on, unless it or the peer's attestation is over.

        None too when the peer was not heard for so long that it may have forgotten the session: then it is asked first,
        by a handshake. Empty packets need not ask.
        """
        channel = self.current
        if channel is None or ticks >= channel.stops_sending_at or now >= channel.session.remote.bundle.expires:
            return None
        return channel if ticks < self.heard + HANDSHAKE_AFTER else None

    def keepalive_at(self) -> float:
        """When an empty packet is due: something is owed or expected, and nothing was said for a while."""
        if self.current is None:
            return NEVER
        expected = max(self.expected_since, self.sent)
        return min(self.owed_since, expected) + KEEPALIVE_AFTER

    def reopens_at(self) -> float:
        """When a handshake is due: to renew a session that is used, or to ask a peer that has become silent."""
        if not self.channels:
            return NEVER
        due = self._silent_since() + HANDSHAKE_AFTER
        if self.current is not None and (self.is_used or self.expected_since != NEVER):
            age = INITIATOR_RENEWS if self.current.session.is_initiator else RESPONDER_RENEWS
            due = min(due, self.current.born + age)
        return max(due, self.may_reopen_at())

    def may_reopen_at(self) -> float:
        """When this node may begin a handshake of its own accord: none runs, and the last was long enough ago."""
        return NEVER if self.opening is not None else self.reopened + HANDSHAKE_SPACING

    def gone_at(self) -> float:
        """When a silent peer counts as gone."""
        return self._silent_since() + GONE_AFTER if self.channels else NEVER

    def deadline(self) -> float:
        """When the earliest of all that can be due for this peer is."""
        due = min(self.keepalive_at(), self.reopens_at(), self.gone_at())
        if self.opening is not None:
            due = min(due, self.opening.repeats_at, self.opening.gives_up_at)
        if self.current is not None:
            due = min(due, self.current.stops_sending_at)
        return min((due, *(channel.ends_at for channel in self.channels)))

    def _silent_since(self) -> float:
        return min(self.unanswered_since, max(self.expected_since, self.heard))
