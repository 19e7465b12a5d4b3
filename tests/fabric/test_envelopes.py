"""What leaves for one node in its turns: messages, and beside them bytes of portals."""

import pytest

from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.wire.constants import BATCH_ENTRIES, MESSAGE_BYTES
from autonomy_trio.wire.entries import FRAMING_BYTES, Piece, Tell
from autonomy_trio.wire.lanes import LEAST_FLIGHT, Lane

SMALL = Tell("counter", "Add", b"", 0, 0)
LARGE = Tell("counter", "Add", bytes(MESSAGE_BYTES - FRAMING_BYTES - 100), 0, 0)


@pytest.mark.parametrize("messages", [[SMALL] * (4 * BATCH_ENTRIES), [LARGE] * 4], ids=["many", "large"])
def test_messages_that_fill_envelope_after_envelope_keep_no_stream_from_leaving(messages: list[Tell]) -> None:
    peer = Peer(bytes(32))
    peer.lane = Lane(lambda: None, lambda: None)
    stream = peer.lane.open(1)
    stream.write(bytes(LEAST_FLIGHT))
    for message in messages:
        peer.post(message)
    said = 0
    pieces: list[Piece] = []
    for _ in range(4):
        batch = peer.take_batch(0)
        said += len(batch)
        pieces += [each for each in peer.take_pieces(batch, 0.0) if isinstance(each, Piece)]
    assert 0 < said < len(messages)
    assert sum(len(each.payload) for each in pieces) == LEAST_FLIGHT
    for _ in range(4):
        said += len(batch := peer.take_batch(0))
        peer.take_pieces(batch, 0.0)
    assert said == len(messages)
