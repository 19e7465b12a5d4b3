"""What an endpoint tells its fabric: bytes to send, peers that came and went, and what they said."""

from collections.abc import Hashable, Mapping

from attrs import field, frozen

from autonomy_trio.trust.identity import Bundle
from autonomy_trio.wire.entries import Entry
from autonomy_trio.wire.introductions import Agent


@frozen
class Transmit:
    """Send a packet.

    Attributes:
        path: where to; None means on every path there is, because it is not known which leads to the peer.
        peer: the identifier of the node to reach; None when only the path is known.
        packet: the bytes.
    """

    path: Hashable | None
    peer: bytes | None
    packet: bytes = field(repr=False)


@frozen
class Established:
    """A session stands that can be sent on: the first one with a peer, or one that renews it.

    Attributes:
        peer: the peer's identifier.
        bundle: its verified identity and keys.
        boot: 16 bytes that change when its process does.
        presentations: all credentials it shows, in place of earlier ones; not yet judged.
        restarted: its boot is another than that of the session before, so what was open with it has ended.
        clock_difference: its clock minus ours, in seconds, as it said.
    """

    peer: bytes
    bundle: Bundle
    boot: bytes
    presentations: tuple[bytes, ...]
    restarted: bool
    clock_difference: float


@frozen
class Received:
    """A peer said something.

    Attributes:
        peer: the peer's identifier.
        entries: one envelope's, at least one. `Presentations` are new ones; `Close` and what concerns introductions
            are never among them.
        late: an envelope that the peer sent after this one came before it.
        senders: the agents that entries name, by index. One that is missing was never introduced, was forgotten, or
            may not be spoken for any more: nobody speaks in such an entry, not even the node.
    """

    peer: bytes
    entries: tuple[Entry, ...]
    late: bool
    senders: Mapping[int, Agent] = field(factory=dict[int, Agent])


@frozen
class PeerGone:
    """No session with a peer stands any more. Every peer that was established goes once, or is closed here.

    Attributes:
        peer: the peer's identifier.
        reason: in words, for the log at home.
    """

    peer: bytes
    reason: str


@frozen
class GaveUp:
    """The handshake that `Endpoint.connect` began, or found running, failed: whoever waits for it waits in vain.

    Attributes:
        peer: the peer's identifier.
        reason: in words, for the log at home.
    """

    peer: bytes
    reason: str


@frozen
class Refused:
    """Something was refused and changed nothing; for the log at home.

    Attributes:
        path: where it came from; None for something of this node's own.
        reason: in words.
    """

    path: Hashable | None
    reason: str


Event = Transmit | Established | Received | PeerGone | GaveUp | Refused
