"""Asks between nodes: the end that waits for its answer, here, and the end that an agent here answers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import attrs

from autonomy_trio.actors.delivery import PendingReply
from autonomy_trio.errors import MessageError, OutcomeUnknown
from autonomy_trio.fabric.peers.outcomes import Expected, error_entry, read_error, read_value, reply_entry
from autonomy_trio.payloads import Resolve
from autonomy_trio.wire.entries import Answer, Ask, Error, Foreseen, Reply

if TYPE_CHECKING:
    from autonomy_trio.fabric.peers.peer import Peer

MOST_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Bytes waiting to leave for one node, from which on there are errors in place of replies."""

NO_ROOM: Final = "its answer found no room to wait in: the node that asked takes too little of what is sent to it"


@attrs.define(eq=False)
class OpenAsk:
    """An ask of ours that has no answer yet."""

    entry: Ask
    reply: PendingReply
    expected: Expected
    deadline: float
    """Until when it is waited for, on trio's clock."""
    sent_at: float | None = None
    """On trio's clock; None while it waits to leave."""

    def take(self, entry: Reply | Error | Foreseen, resolve: Resolve | None) -> None:
        """Hand the asker what came for it."""
        if not isinstance(entry, Reply):
            self.reply.fail(read_error(entry, self.expected, resolve))
            return
        try:
            value = read_value(entry.payload, self.expected, resolve, "reply")
        except MessageError as error:
            self.reply.fail(error)
        else:
            self.reply.answer(value)


@final
@attrs.define(eq=False)
class Answering:
    """An ask of another node's that has no answer yet: where its reply goes."""

    request: int
    _peer: "Peer"
    _ended: "Callable[[Peer], None]"
    """Called once it is answered, and none other of its node's is open."""
    withdraw: Callable[[], None] | None = None
    """Takes its message back."""

    def answer(self, value: object) -> None:
        """Send the reply; an ask whose asker has gone, or was told already, is not open any more."""
        if self._close():
            has_room = self._peer.waiting_bytes < MOST_ANSWER_BYTES
            self._say(reply_entry(self.request, value) if has_room else self._no_room())

    def fail(self, error: BaseException) -> None:
        """Send the error, as for a reply."""
        if self._close():
            self._say(error_entry(self.request, error))

    def _no_room(self) -> Answer:
        return error_entry(self.request, OutcomeUnknown(NO_ROOM))

    def _say(self, entry: Answer) -> None:
        self._peer.put(entry)
        self._peer.send_now(self._peer)
        if not self._peer.served:
            self._ended(self._peer)

    def _close(self) -> bool:
        is_open = self._peer.served.get(self.request) is self
        if is_open:
            del self._peer.served[self.request]
        return is_open

    def cancel(self) -> None:
        """Withdraw it: its asker has gone."""
        self._peer.served.pop(self.request, None)
        if self.withdraw is not None:
            self.withdraw()
