"""One connection to a Redis or Valkey server: how it is made, and bytes to answers. hiredis parses, and does no I/O."""

import importlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import unquote

import attrs
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.links.listening import first_cause, system_reason
from autonomy_trio.logs import printable

if TYPE_CHECKING:
    import hiredis

CONNECT_LIMIT: Final = 5.0
"""Seconds a server may take to let this process in."""

ANSWER_LIMIT: Final = 5.0
"""Seconds of silence after which a connection is given up, while it is asked once a `PING_EVERY`."""

PING_EVERY: Final = 1.0
"""Seconds between two questions whether the server is there."""

MOST_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Bytes of one answer."""

_ADDRESS: Final = re.compile(
    r"(?P<scheme>rediss?)://(?:(?P<user>[^:@/\s]*)(?::(?P<password>[^@/\s]*))?@)?"
    r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<host>[\w.-]+))(?::(?P<port>[0-9]{1,5}))?(?:/(?P<database>[0-9]{1,4})?)?"
)
_PORT: Final = 6379
_NOTHING: Final = object()

Command = tuple[str | bytes | int | float, ...]


@attrs.frozen
class RedisAddress:
    """Where a server is, and how it lets in: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``; ``rediss://`` is TLS."""

    host: str
    port: int = _PORT
    database: int = 0
    secure: bool = False
    user: str = ""
    password: str = attrs.field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> "RedisAddress":
        """Read an address.

        Raises:
            ConfigurationError: it is none; the text shows nothing of it, for there may be a password in it.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not 0 < int(match["port"] or _PORT) < 2**16:
            msg = "this is no Redis server's address: write redis://HOST:PORT/DB, or rediss:// for TLS"
            raise ConfigurationError(msg)
        user, password = (unquote(match[part] or "") for part in ("user", "password"))
        return cls(
            match["bracketed"] or match["host"],
            int(match["port"] or _PORT),
            int(match["database"] or 0),
            match["scheme"] == "rediss",
            user,
            password,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' if self.secure else ''}://{host}:{self.port}/{self.database}"


class RedisRefused(Exception):
    """The server's word that it did not do one command."""


class RedisLost(Exception):
    """A connection has ended, or none can be made; the text says why."""


@final
@attrs.define(eq=False)
class Wire:
    """One connection that was let in; made by `connect`."""

    _stream: trio.abc.Stream
    _reader: "hiredis.Reader"
    _pack: Callable[[Command], bytes]
    _unfinished: int = 0
    """Bytes of the answer that is not whole yet."""
    heard_at: float = attrs.field(factory=trio.current_time)

    def pack(self, commands: Sequence[Command]) -> bytes:
        """Return commands as they travel."""
        return b"".join(map(self._pack, commands))

    async def send(self, data: bytes) -> None:
        """Send what `pack` returned; one task alone may.

        Raises:
            RedisLost: the connection has ended.
        """
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise RedisLost(f"the connection was lost: {error.__cause__ or error}") from None

    async def receive(self) -> list[Any]:
        """Return the next answers, at least one.

        Raises:
            RedisLost: the connection has ended, or what came is no answer or too long.
        """
        import hiredis  # noqa: PLC0415 - an extra, and it is there

        while True:
            try:
                data = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise RedisLost(f"the connection was lost: {error.__cause__ or error}") from None
            if not data:
                raise RedisLost("it closed the connection")
            self.heard_at = trio.current_time()
            self._unfinished += len(data)
            if self._unfinished > MOST_ANSWER_BYTES:
                raise RedisLost(f"it answered with more than {MOST_ANSWER_BYTES} bytes")
            try:
                self._reader.feed(bytes(data))
                answers = list(iter(self._reader.gets, _NOTHING))
            except hiredis.HiredisError as error:
                raise RedisLost(f"what it says is no Redis: {printable(str(error))}") from None
            if answers:
                self._unfinished = 0
                return answers

    async def watch(self, ask: Callable[[], None]) -> None:
        """Have `ask` ask for a sign of life again and again.

        Raises:
            RedisLost: there was none for `ANSWER_LIMIT` seconds.
        """
        while True:
            await trio.sleep(PING_EVERY)
            if trio.current_time() - self.heard_at >= ANSWER_LIMIT:
                raise RedisLost(f"it was silent for {ANSWER_LIMIT:g} s")
            ask()

    async def aclose(self) -> None:
        """End the connection, without a word."""
        await trio.aclose_forcefully(self._stream)


async def connect(address: RedisAddress, open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None) -> Wire:
    """Connect to a server, and have it let this process in.

    Args:
        address: where it is, and how it lets in.
        open_stream: another way there than TCP.

    Raises:
        RedisLost: there is none, or it does not.
    """
    try:
        with trio.fail_after(CONNECT_LIMIT):
            return await _connect(address, open_stream or partial(trio.open_tcp_stream, address.host, address.port))
    except trio.TooSlowError:
        why = f"it did not answer in {CONNECT_LIMIT:g} s"
    except trio.BrokenResourceError as error:
        why = f"TLS was not agreed on: {printable(str(first_cause(error)))}"
    except socket.gaierror:
        why = "nothing has that name"
    except OSError as error:
        why = system_reason(error)
    raise RedisLost(why)


async def _connect(address: RedisAddress, open_stream: Callable[[], Awaitable[trio.abc.Stream]]) -> Wire:
    module = hiredis_module()
    stream = await open_stream()
    try:
        if address.secure:
            stream = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=address.host)
            await stream.do_handshake()
        wire = Wire(stream, module.Reader(replyError=RedisRefused, notEnoughData=_NOTHING), module.pack_command)
        await _be_let_in(wire, address)
    except BaseException:
        with trio.CancelScope(shield=True):  # it closes at once
            await trio.aclose_forcefully(stream)
        raise
    return wire


async def _be_let_in(wire: Wire, address: RedisAddress) -> None:
    commands: list[Command] = []
    if address.password:
        commands.append(("AUTH", *filter(None, (address.user,)), address.password))
    commands += [("SELECT", address.database), ("PING",)]
    await wire.send(wire.pack(commands))
    answers: list[Any] = []
    while len(answers) < len(commands):
        answers += await wire.receive()
    for answer in answers:
        if isinstance(answer, RedisRefused):
            raise RedisLost(f"it refused: {printable(str(answer))}")


def hiredis_module() -> Any:  # noqa: ANN401 - a module
    """Return the module that reads answers.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module("hiredis")
    except ImportError:
        msg = 'a redis:// address needs hiredis, which is not installed: pip install "autonomy-trio[redis]"'
        raise ConfigurationError(msg) from None


async def converse(
    wire: Wire, take: Callable[[object], None], ask: Callable[[], None], write: Callable[[Wire], Any]
) -> str:
    """Read and write until a connection has ended, and return why.

    Args:
        wire: it; closed when this returns.
        take: takes an answer, and raises `RedisLost` where it cannot be one.
        ask: has something sent that is answered.
        write: sends what is to be sent, until cancelled.
    """
    reasons: list[str] = []

    async def until_lost(do: Callable[[], Any]) -> None:
        try:
            await do()
        except RedisLost as error:
            reasons.append(str(error))
            nursery.cancel_scope.cancel()

    async def read() -> None:
        while True:
            for answer in await wire.receive():
                take(answer)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_lost, lambda: write(wire))
            nursery.start_soon(until_lost, lambda: wire.watch(ask))
            nursery.start_soon(until_lost, read)
    finally:
        with suppress(trio.Cancelled):  # it closes at once, and who was cancelled is so at the next checkpoint
            await wire.aclose()
    return reasons[0]
