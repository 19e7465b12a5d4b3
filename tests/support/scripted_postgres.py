"""A server that speaks PostgreSQL's protocol (version 3) and answers as a test has written down."""

import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import attrs
import trio

_TLS, _GSS, _CANCEL = 80877103, 80877104, 80877102
_TEXT: Final = 25
"""The number of the type of text."""


@attrs.frozen
class Refusal:
    """An error with its state, as the server says it, detail included."""

    state: str
    text: str
    detail: str = "Key (id)=(hunter2) exists."


HANG: Final = "hang"
"""An answer that does not come before the statement is cancelled."""

LEAVE: Final = "leave"
"""The server closes the connection in place of an answer."""

Rows = list[tuple[str | None, ...]]
Answer = Rows | Refusal | str
"""Rows of texts in columns ``a``, ``b``…; or the tag of a command, as ``INSERT 0 1``."""


@attrs.define(eq=False)
class ScriptedPostgres:
    """What it answers, by statement, and what it has seen."""

    port: int = 0
    answers: dict[str, Answer] = attrs.field(factory=dict[str, Answer])
    said: list[str] = attrs.field(factory=list[str])
    connections: int = 0
    open: int = 0
    heeds_cancel: bool = True
    _cancelled: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"postgresql://me:hunter2@127.0.0.1:{self.port}/shop"

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, _Left):
            async with stream:
                await _Conversation(self, stream).hold()

    def cancel(self) -> None:
        if self.heeds_cancel:
            self._cancelled.set()

    async def wait_cancelled(self) -> None:
        await self._cancelled.wait()
        self._cancelled = trio.Event()


class _Left(Exception):
    """The conversation is over."""


@attrs.define(eq=False)
class _Conversation:
    server: ScriptedPostgres
    stream: trio.SocketStream
    status: bytes = b"I"
    statement: str = ""
    _buffer: bytearray = attrs.field(factory=bytearray)

    async def hold(self) -> None:
        code = 0
        while code != 196608:
            (length,) = struct.unpack("!i", await self._read(4))
            body = await self._read(length - 4)
            (code,) = struct.unpack_from("!i", body)
            if code in (_TLS, _GSS):
                await self.stream.send_all(b"N")
            elif code == _CANCEL:
                self.server.cancel()
                return
        self.server.connections += 1
        self.server.open += 1
        try:
            await self._send((b"R", struct.pack("!i", 0)), (b"S", b"client_encoding\0UTF8\0"))
            await self._send((b"K", struct.pack("!ii", 1, 1)), self._ready())
            while True:
                kind = await self._read(1)
                (length,) = struct.unpack("!i", await self._read(4))
                await self._take(kind, await self._read(length - 4))
        finally:
            self.server.open -= 1

    async def _take(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            self.statement = body[:-1].decode()
            await self._answer()
            await self._send(self._ready())
        elif kind == b"P":
            self.statement = body.split(b"\0")[1].decode()
            await self._send((b"1", b""))
        elif kind == b"B":
            await self._send((b"2", b""))
        elif kind == b"E":
            await self._answer()
        elif kind == b"S":
            await self._send(self._ready())
        elif kind == b"X":
            raise _Left

    async def _answer(self) -> None:
        server, statement = self.server, self.statement
        server.said.append(statement)
        answer: Answer = server.answers.get(statement, statement)
        if statement == "BEGIN":
            self.status = b"T"
        elif statement in ("COMMIT", "ROLLBACK"):
            answer = "ROLLBACK" if self.status == b"E" and answer == "COMMIT" else answer
            self.status = b"I"
        if answer == HANG:
            await server.wait_cancelled()
            answer = Refusal("57014", "canceling statement due to user request")
        if answer == LEAVE:
            raise _Left
        if isinstance(answer, Refusal):
            self.status = b"E" if self.status != b"I" else b"I"
            parts = {"S": "ERROR", "V": "ERROR", "C": answer.state, "M": answer.text, "D": answer.detail}
            await self._send((b"E", b"".join(f"{name}{text}\0".encode() for name, text in parts.items()) + b"\0"))
        elif isinstance(answer, str):
            await self._send((b"C", answer.encode() + b"\0"))
        else:
            await self._send_rows(answer)

    async def _send_rows(self, rows: Rows) -> None:
        names = [chr(ord("a") + number) for number in range(len(rows[0]))] if rows else ["a"]
        columns = b"".join(name.encode() + b"\0" + struct.pack("!ihihih", 0, 0, _TEXT, -1, -1, 0) for name in names)
        await self._send((b"T", struct.pack("!h", len(names)) + columns))
        for row in rows:
            values = [struct.pack("!i", -1) if each is None else _sized(each.encode()) for each in row]
            await self._send((b"D", struct.pack("!h", len(row)) + b"".join(values)))
        await self._send((b"C", f"SELECT {len(rows)}\0".encode()))

    def _ready(self) -> tuple[bytes, bytes]:
        return b"Z", self.status

    async def _send(self, *messages: tuple[bytes, bytes]) -> None:
        await self.stream.send_all(b"".join(kind + struct.pack("!i", len(body) + 4) + body for kind, body in messages))

    async def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self.stream.receive_some()
            if not data:
                raise _Left
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _sized(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data


@asynccontextmanager
async def scripted_postgres() -> AsyncGenerator[ScriptedPostgres]:
    server = ScriptedPostgres()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), server.serve, 0)
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()
