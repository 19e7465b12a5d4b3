"""This node's agents as they speak to other nodes: each under its own identity, which is made when it first does.

An agent that never speaks to another node costs nothing here: its key is a pure function of the vault's secret and its
name, and is derived when an entry of its is to leave.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Self, final

import attrs

from autonomy_trio.actors.cell import Cell
from autonomy_trio.errors import NotDelivered, VaultError
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.links.buckets import TokenBucket
from autonomy_trio.logs import get_log
from autonomy_trio.trust.delegates import DELEGATE_LIFE, Introduction
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import (
    CHECKS_BURST,
    CHECKS_PER_INTRODUCTION,
    CHECKS_PER_SECOND,
    INTRODUCTIONS,
    LARGEST_INDEX,
)
from autonomy_trio.wire.entries import shown_presentations
from autonomy_trio.wire.introductions import Speaker

MOST_VOICES: Final = 4 * INTRODUCTIONS
"""Agents whose identities are kept ready; that of another one is derived again, in 0.2 ms."""

PACE: Final = 0.9
"""How much of what a receiver verifies is asked of it, so that nothing is refused for a clock that runs faster."""

INTRODUCE_PAUSE: Final = 0.02
"""Seconds before an agent that may not be introduced yet is tried again."""

_log = get_log()


@final
class Voice(int):
    """Who speaks in an entry that waits to leave: it stands where the session in which it leaves puts an index.

    As a number it is one that no session gives, so were it ever to leave as it is, nobody would speak.
    """

    name: str
    inherits: bool
    made: "_Made | None"

    def __new__(cls, name: str, *, inherits: bool) -> Self:
        """Make the voice of an agent, without its keys.

        Args:
            name: the agent's, on this node.
            inherits: whether it speaks with what its node has proven besides its own.
        """
        voice = super().__new__(cls, LARGEST_INDEX)
        voice.name, voice.inherits, voice.made = name, inherits, None
        return voice


@attrs.frozen
class _Made:
    """What an agent is introduced by, and what it rests on."""

    speaker: Speaker
    since: float
    """Unix seconds of its delegate."""
    seq: int
    """Of the node's identity."""
    changes: int
    """Of the wallet."""
    until: float
    """Unix seconds when it is to be made again, for its delegate or a credential."""


@final
@attrs.define(eq=False)
class Voices:
    """The voices of a node's agents."""

    _vault: Vault
    _wallet: Wallet
    _now: Callable[[], float]
    _kept: OrderedDict[tuple[str, bool], Voice] = attrs.field(factory=OrderedDict[tuple[str, bool], Voice])

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, cell: Cell | None) -> int:
        """Return what stands in an entry for who sends it: an agent's voice, or 0 for the node."""
        if cell is None:
            return 0
        # The agents of a pool are called POOL/0, POOL/1 …, and speak as the pool that others know.
        key = cell.name.partition("/")[0], cell.spec.inherit
        voice = self._kept.get(key)
        if voice is None:
            voice = self._kept[key] = Voice(key[0], inherits=cell.spec.inherit)
            if len(self._kept) > MOST_VOICES:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return voice

    def speaker(self, voice: Voice) -> Speaker:
        """Return what introduces an agent; the same object for as long as nothing has changed.

        Raises:
            NotDelivered: this node cannot vouch for its agents any more.
        """
        made, now = voice.made, self._now()
        if (
            made is not None
            and made.since <= now < made.until
            and made.seq == self._vault.seq
            and made.changes == self._wallet.changes
        ):
            return made.speaker
        try:
            made = voice.made = self._make(voice, made, now)
        except VaultError as error:
            raise NotDelivered(f"{voice.name} cannot speak to other nodes: {error}") from None
        return made.speaker

    def identifier(self, voice: Voice) -> str:
        """Return who an agent is to other nodes.

        Raises:
            NotDelivered: as `speaker`.
        """
        return format_identifier(self.speaker(voice).introduction.agent)

    def _make(self, voice: Voice, known: _Made | None, now: float) -> _Made:
        seq = self._vault.seq
        is_fresh = known is not None and known.seq == seq and known.since <= now < known.since + DELEGATE_LIFE / 2
        if known is not None and is_fresh:
            introduction, since = known.speaker.introduction, known.since
        else:
            introduction, since = self._vault.introduce(voice.name, now), now
        self._wallet.know_agent(introduction.agent, voice.name)
        presentations = self._shown(voice.name, introduction, now)
        if known is not None and known.speaker.introduction is introduction:
            speaker = known.speaker if known.speaker.presentations == presentations else None
        else:
            speaker = None
        until = min(since + DELEGATE_LIFE / 2, self._wallet.until(now, introduction.agent))
        speaker = speaker or Speaker(introduction, voice.inherits, presentations)
        return _Made(speaker, since, seq, self._wallet.changes, until)

    def _shown(self, name: str, introduction: Introduction, now: float) -> tuple[bytes, ...]:
        held = self._wallet.shown(now, subject=introduction.agent)
        shown = shown_presentations(held).presentations
        if len(shown) < len(held):
            _log.warning("credentials not shown: too many, or too large", agent=name, left=len(held) - len(shown))
        return shown


@final
@attrs.define(eq=False)
class Pace:
    """How fast agents are introduced to one node, which verifies no more than so many a second."""

    _known: OrderedDict[Speaker, None] = attrs.field(factory=OrderedDict[Speaker, None])
    """Those it has verified: introducing them again, in another session, costs it nothing."""
    _bucket: TokenBucket = attrs.field(
        factory=lambda: TokenBucket(
            PACE * CHECKS_PER_SECOND / CHECKS_PER_INTRODUCTION, PACE * CHECKS_BURST / CHECKS_PER_INTRODUCTION
        )
    )

    def may_speak(self, speaker: Speaker, ticks: float) -> bool:
        """Tell whether an agent may speak now; else it waits for a while."""
        if speaker in self._known:
            self._known.move_to_end(speaker)
            return True
        if not self._bucket.try_take(1, ticks):
            return False
        self._known[speaker] = None
        if len(self._known) > INTRODUCTIONS:
            self._known.popitem(last=False)
        return True

    def forget(self) -> None:
        """Begin anew with a process that knows none of them."""
        self._known.clear()
