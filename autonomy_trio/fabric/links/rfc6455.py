"""The frames of a websocket after its handshake (RFC 6455, section 5), without I/O: binary messages, both ways.

    frame = fin u1 | reserved 000 | opcode u4 | mask u1 | length u7, 126 and u16, or 127 and u64 | key[4] | payload

A client masks what it sends, a server does not; whoever does otherwise breaks the rules. Nothing is kept of a message
but its bytes: at most `most` of them, and of a frame that is not whole yet no more than that and its head.
"""

import secrets
import struct
from typing import Final, final

from attrs import frozen

try:
    from websockets.speedups import apply_mask
except ImportError:  # where nothing can be compiled: some hundred times slower
    from websockets.utils import apply_mask

from autonomy_trio.errors import ProtocolError

CONTINUATION: Final = 0x0
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

MOST_EMPTY: Final = 16
"""Fragments without content in a row that one message may have."""

_FIN: Final = 0x80
_MASKED: Final = 0x80
_OPCODE: Final = 0x0F
_CONTROL: Final = 0x08
_WHOLE: Final = _FIN | BINARY
_LENGTH: Final = 0x7F
_SHORT: Final = 125
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_KEY_BYTES: Final = 4
_MOST_SHORT: Final = 0xFFFF


@frozen
class Ping:
    """The peer asks for a pong with the same payload."""

    payload: bytes


@frozen
class Close:
    """The peer sends nothing more."""


@frozen
class Noise:
    """A frame that asks for nothing: a pong, or a part of a message."""


Event = bytes | Ping | Close | Noise
_CLOSE: Final = Close()
_NOISE: Final = Noise()


def encode(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """Make a frame that is a whole message, or a control frame.

    Args:
        opcode: what it is.
        payload: what it holds; of a control frame at most 125 bytes.
        masked: whether a client sends it.
    """
    first, bit, size = _FIN | opcode, _MASKED if masked else 0, len(payload)
    if size <= _SHORT:
        head = bytes((first, bit | size))
    elif size <= _MOST_SHORT:
        head = struct.pack(">BBH", first, bit | _TWO_BYTES, size)
    else:
        head = struct.pack(">BBQ", first, bit | _EIGHT_BYTES, size)
    if not masked:
        return head + payload
    key = secrets.token_bytes(_KEY_BYTES)
    return b"".join((head, key, apply_mask(payload, key)))


@final
class Reader:
    """Makes messages of the bytes that came; one that has raised must not be asked again.

    Args:
        masked: whether the peer is a client.
        most: bytes that one message may have.
    """

    __slots__ = ("_buffer", "_empty", "_masked", "_most", "_needed", "_part", "_start")

    def __init__(self, *, masked: bool, most: int) -> None:
        self._masked = _MASKED if masked else 0
        self._most = most
        self._buffer: bytes | bytearray = b""
        self._start = 0
        """Where in the buffer the next frame begins."""
        self._needed = 2
        """Bytes from there on without which nothing more can be said."""
        self._part: bytearray | None = None
        """What has come of a message in fragments."""
        self._empty = 0

    def take(self, data: bytes) -> None:
        """Add what came, once `next` has returned None."""
        if self._start < len(self._buffer):
            # A frame that comes in many reads is added up in place.
            if isinstance(self._buffer, bytes) or self._start:
                self._buffer = bytearray(memoryview(self._buffer)[self._start :])
            self._buffer += data
        else:
            self._buffer = data
        self._start = 0

    def next(self) -> Event | None:
        """Return what the next frame says; None when more bytes have to come first.

        Raises:
            ProtocolError: the peer breaks the rules.
        """
        found = self._frame()
        if found is None:
            return None
        first, payload = found
        if first == _WHOLE and self._part is None:
            return payload
        return self._control(first, payload) if first & _CONTROL else self._fragment(first, payload)

    def _frame(self) -> tuple[int, bytes] | None:
        """Take the next frame off the buffer: its first byte, and its payload without the mask."""
        buffer, start = self._buffer, self._start
        have = len(buffer) - start
        if have < self._needed:
            return None
        first, second = buffer[start], buffer[start + 1]
        size, head = second & _LENGTH, 2
        if size == _TWO_BYTES:
            head = 4
        elif size == _EIGHT_BYTES:
            head = 10
        if have < head:
            self._needed = head
            return None
        if head > 2:  # noqa: PLR2004 - the two bytes that each frame has
            size = int.from_bytes(buffer[start + 2 : start + head], "big")
            if size <= (_SHORT if head == 4 else _MOST_SHORT):  # noqa: PLR2004 - the head with two bytes of length
                raise ProtocolError("a frame of a websocket tells its length in the shortest form")
        self._check(first, second, size)
        end = head + size + (_KEY_BYTES if self._masked else 0)
        if have < end:
            self._needed = end
            return None
        self._start, self._needed = start + end, 2
        if not self._masked:
            return first, bytes(memoryview(buffer)[start + head : start + end])
        at = start + head + _KEY_BYTES
        return first, apply_mask(memoryview(buffer)[at : start + end], bytes(buffer[at - _KEY_BYTES : at]))

    def _check(self, first: int, second: int, size: int) -> None:
        """Refuse a frame by its head, before its payload has come."""
        if second & _MASKED != self._masked:
            raise ProtocolError("a websocket's client masks its frames and a server does not")
        if first & _CONTROL:
            if first & ~_OPCODE != _FIN or first & _OPCODE > PONG or size > _SHORT:
                raise ProtocolError("a control frame of a websocket is whole, short and of a known kind")
        elif first & ~_FIN not in (CONTINUATION, BINARY):
            raise ProtocolError("a message of a websocket here is binary, and has no extension")
        elif size + len(self._part or b"") > self._most:
            raise ProtocolError(f"a message of a websocket here has at most {self._most} bytes")

    @staticmethod
    def _control(first: int, payload: bytes) -> Event:
        opcode = first & _OPCODE
        if opcode == PING:
            return Ping(payload)
        return _CLOSE if opcode == CLOSE else _NOISE

    def _fragment(self, first: int, payload: bytes) -> Event:
        if (first & _OPCODE == CONTINUATION) is (self._part is None):
            raise ProtocolError("a message of a websocket goes on before it has begun, or begins before it has ended")
        if self._part is None:
            self._part = bytearray()
        self._part += payload
        if first & _FIN:
            message, self._part, self._empty = bytes(self._part), None, 0
            return message
        self._empty = 0 if payload else self._empty + 1
        if self._empty > MOST_EMPTY:
            raise ProtocolError("a message of a websocket comes in too many fragments without content")
        return _NOISE
