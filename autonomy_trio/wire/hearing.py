"""What an authentic envelope says: sorted into what is for the fabric and what is for the session itself."""

from collections.abc import Sequence
from typing import Final, cast, final

from attrs import define, field, frozen

from autonomy_trio.errors import ProtocolError
from autonomy_trio.wire.constants import CONFIRM_SPACING
from autonomy_trio.wire.entries import (
    Ask,
    Cancel,
    Close,
    Credit,
    Entry,
    Error,
    Forgotten,
    Introduce,
    Introduced,
    Item,
    Open,
    Presentations,
    Progress,
    Reply,
    Subscribe,
    Tell,
    Watch,
)
from autonomy_trio.wire.introductions import Agent
from autonomy_trio.wire.peers import Channel, Peer


@frozen
class Moment:
    """When an envelope came.

    Attributes:
        now: Unix seconds.
        ticks: monotonic seconds.
        is_late: an envelope that was sent after it came before it.
    """

    now: float
    ticks: float
    is_late: bool


@final
@define
class Heard:
    """What an envelope said.

    Attributes:
        entries: what the fabric is told.
        senders: the agents that speak in them, by index.
        introduced: the indices of introductions to acknowledge.
        unknown: the indices that named nobody.
        refused: what was wrong with single entries, in words.
        closing: the peer's last word.
        is_owed: the peer waits for some sign that it was heard.
    """

    entries: list[Entry] = field(factory=list[Entry])
    senders: dict[int, Agent] = field(factory=dict[int, Agent])
    introduced: list[int] = field(factory=list[int])
    unknown: dict[int, None] = field(factory=dict[int, None])
    refused: list[str] = field(factory=list[str])
    closing: Close | None = None
    is_owed: bool = False

    def answers(self) -> list[Entry]:
        """Return what the session itself answers."""
        answers: list[Entry] = [Introduced(tuple(self.introduced))] if self.introduced else []
        if self.unknown:
            answers.append(Forgotten(tuple(self.unknown)))
        return answers


_PLAIN: Final = frozenset({Reply, Error, Cancel, Item, Progress, Credit})
_SPOKEN: Final = frozenset({Tell, Ask})
"""The kinds of which an envelope may have hundreds, and which are for the fabric alone where the node speaks."""


def hear(peer: Peer, channel: Channel, entries: Sequence[Entry], moment: Moment) -> Heard:
    """Sort an envelope's entries, and take in those that are for the session itself.

    Args:
        peer: who sent it.
        channel: the session it came through.
        entries: what it carries.
        moment: when it came.
    """
    heard = Heard()
    for entry in entries:
        if type(entry) in _PLAIN or (type(entry) in _SPOKEN and not cast("Tell", entry).sender):
            heard.entries.append(entry)
            heard.is_owed = True
            continue
        match entry:
            case Introduced(indices=indices):
                channel.introducing.acknowledge(indices)
                continue
            case Forgotten(indices=indices):
                channel.introducing.forget(indices)
                continue
            case Introduce():
                _introduce(heard, peer, channel, entry, moment)
            case (
                Tell(sender=index)
                | Ask(sender=index)
                | Open(sender=index)
                | Watch(sender=index)
                | Subscribe(sender=index)
            ):
                if index and index not in heard.senders:
                    _find(heard, channel, index, moment.now)
                heard.entries.append(entry)
            case Presentations():
                _show(heard, peer, entry, is_late=moment.is_late)
            case Close():
                heard.closing = entry
                heard.is_owed = True
                break
            case _:
                heard.entries.append(entry)
        heard.is_owed = True
    return heard


def _find(heard: Heard, channel: Channel, index: int, now: float) -> None:
    agent = channel.introduced.find(index, now)
    if agent is None:
        heard.unknown[index] = None
    else:
        heard.senders[index] = agent


def _show(heard: Heard, peer: Peer, entry: Presentations, *, is_late: bool) -> None:
    # Old credentials must not come back in place of newer ones, nor the same be judged again.
    if not is_late and entry.presentations != peer.presentations:
        peer.presentations = entry.presentations
        heard.entries.append(entry)


def _introduce(heard: Heard, peer: Peer, channel: Channel, entry: Introduce, moment: Moment) -> None:
    try:
        agent = peer.agents.verify(entry, channel.session.remote.bundle, moment.now, moment.ticks)
        is_new = channel.introduced.add(entry.index, agent)
    except ProtocolError as error:
        heard.refused.append(str(error))
        return
    # One that rides again has met its acknowledgement on the way, unless that was lost: then it rides for longer.
    if is_new or moment.ticks >= channel.acknowledged + CONFIRM_SPACING:
        channel.acknowledged = moment.ticks
        heard.introduced.append(entry.index)
