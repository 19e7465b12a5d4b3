"""What of an envelope is for the fabric; what is for the session itself is tested with the endpoint."""

from typing import Any, cast

from autonomy_trio.wire.entries import (
    Ask,
    Awaited,
    Cancel,
    Credit,
    Down,
    Entry,
    Error,
    Foreseen,
    Item,
    Progress,
    Reply,
    Tell,
    Unwatch,
    Watch,
)
from autonomy_trio.wire.hearing import Moment, hear
from autonomy_trio.wire.peers import Channel, Peer


def test_what_is_for_the_fabric_is_handed_on_in_its_order() -> None:
    said: list[Entry] = [
        Down(1, "stopped"), Tell("a", "M", b"", 0, 1), Foreseen(2, "Short", b""), Ask(3, "a", "M", b"", None, 0, 2),
        Reply(4, b""), Error(5, "denied", ""), Unwatch(6), Item(7, 0, b""), Progress(7, 1, is_over=True), Awaited((8,)),
        Watch(9, "a", 0), Cancel(10), Credit(11, 16),
    ]  # fmt: skip
    channel = Channel(cast("Any", None), None, 0.0, 0.0)
    heard = hear(Peer(bytes(32)), channel, said, Moment(0.0, 0.0, is_late=False))
    assert heard.entries == said
    assert heard.is_owed
    assert heard.answers() == []
