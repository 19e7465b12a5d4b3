"""What one MCP client may have missed, to be read again when it reconnects: bounded, the oldest goes first."""

import secrets
from collections import OrderedDict
from typing import Final, final

import attrs
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage
from typing_extensions import override

MOST_EVENTS: Final = 256
"""Events that are kept for one client."""

MOST_EVENT_BYTES: Final = 4 * 1024 * 1024
"""Bytes of them, about; the newest is kept whatever its size."""


@attrs.frozen
class _Event:
    stream: str
    message: JSONRPCMessage | None
    size: int


@final
@attrs.define(eq=False)
class Events(EventStore):
    """The newest events of one client's session, which no other session can read."""

    _kept: OrderedDict[str, _Event] = attrs.field(factory=OrderedDict[str, _Event])
    _size: int = 0

    @property
    def count(self) -> int:
        """How many events are kept; it has no length, for the SDK takes an empty store for none."""
        return len(self._kept)

    @override
    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep an event; return what it is called."""
        size = 0 if message is None else len(message.model_dump_json())
        identifier = secrets.token_hex(16)
        self._kept[identifier] = _Event(stream_id, message, size)
        self._size += size
        while len(self._kept) > MOST_EVENTS or (self._size > MOST_EVENT_BYTES and len(self._kept) > 1):
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.size
        return identifier

    @override
    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came after an event in its stream; return the stream, or None where the event is not known."""
        last = self._kept.get(last_event_id)
        if last is None:
            return None
        after = list(self._kept.items())
        start = next(index for index, (identifier, _) in enumerate(after) if identifier == last_event_id)
        for identifier, event in after[start + 1 :]:
            if event.stream == last.stream and event.message is not None:
                await send_callback(EventMessage(event.message, identifier))
        return last.stream
