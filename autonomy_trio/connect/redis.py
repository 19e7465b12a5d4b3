"""`Redis`: a Redis or Valkey server for agents: any command, transactions, and what is published there."""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, final

import attrs
import trio

from autonomy_trio.connect.pools import Pool
from autonomy_trio.errors import (
    DatastoreLost,
    DatastoreRefused,
    DatastoreTooSlow,
    DatastoreUnreachable,
    DeliveryError,
    UsageError,
)
from autonomy_trio.fabric.node import current_node
from autonomy_trio.fabric.stores.redis_wire import (
    ANSWER_LIMIT,
    Command,
    RedisAddress,
    RedisLost,
    RedisRefused,
    Wire,
    connect,
    hiredis_module,
)
from autonomy_trio.logs import printable

UNUSED_FOR: Final = 1.0
"""Seconds without use after which a connection is asked whether the server is there, before it is used again."""

LISTEN_FOR: Final = 10.0
"""Seconds of silence after which a subscription asks whether the server is there."""


@attrs.frozen
class Published:
    """What was published on a channel."""

    channel: str
    data: bytes


@final
@attrs.define(eq=False)
class _Connection:
    """One connection: one task at a time says something and reads what is answered."""

    _name: str
    wire: Wire
    _way: AsyncExitStack
    """What led to it."""
    answered: bool = True
    """Whether all that was said is answered, and nothing else can come."""
    used_at: float = attrs.field(factory=trio.current_time)

    async def ask(self, commands: tuple[Command, ...], limit: float) -> list[Any]:
        """Have commands carried out, one after the other.

        Raises:
            DatastoreLost: the connection was lost before all was answered.
            DatastoreTooSlow: it took too long.
        """
        self.answered = False
        answers: list[Any] = []
        with trio.move_on_after(limit) as within:
            try:
                await self.wire.send(self.wire.pack(commands))
                while len(answers) < len(commands):
                    answers += await self.wire.receive()
            except RedisLost as error:
                msg = f"{self._name} was lost before it answered {_name(commands[0])}, which it may have done ({error})"
                raise DatastoreLost(msg) from None
        if within.cancelled_caught:
            msg = f"{self._name} did not answer {_name(commands[0])} in {limit:g} s; it may have done it, or still do"
            raise DatastoreTooSlow(msg)
        self.answered, self.used_at = len(answers) == len(commands), trio.current_time()
        return answers

    def is_fit(self) -> bool:
        """Tell whether another task can use it."""
        return self.answered

    async def still_stands(self) -> bool:
        """Ask the server, where it was unused for a while."""
        if trio.current_time() < self.used_at + UNUSED_FOR:
            await trio.lowlevel.checkpoint()
            return True
        try:
            return await self.ask((("PING",),), ANSWER_LIMIT) == [b"PONG"]
        except (DatastoreLost, DatastoreTooSlow):
            return False

    async def aclose(self) -> None:
        """End it, without a word."""
        with trio.CancelScope(shield=True):  # it closes at once
            await self.wire.aclose()
            await self._way.aclose()


@final
@attrs.define(eq=False)
class Subscription:
    """What is published on some channels, to be iterated over; made by `Redis.subscribe`, and over with its block."""

    _name: str
    _wire: Wire
    _came: deque[Published] = attrs.field(factory=deque[Published])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Published:
        """Return the next.

        Raises:
            DatastoreLost: the connection was lost; what is published from then on is not heard.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            while not self._came:
                self._take(await self._hear())
        except RedisLost as error:
            raise DatastoreLost(f"{self._name}: the subscription was lost ({error}): subscribe anew") from None
        return self._came.popleft()

    async def _hear(self) -> list[Any]:
        with trio.move_on_after(LISTEN_FOR):
            return await self._wire.receive()
        await self._wire.send(self._wire.pack((("PING",),)))
        with trio.move_on_after(ANSWER_LIMIT):
            return await self._wire.receive()
        raise RedisLost(f"it was silent for {LISTEN_FOR + ANSWER_LIMIT:g} s")

    def _take(self, answers: list[Any]) -> None:
        for answer in answers:
            if isinstance(answer, RedisRefused):
                raise _refusal(self._name, answer)
            if answer[0] == b"message":
                self._came.append(Published(answer[1].decode(errors="replace"), answer[2]))


@final
class Redis:
    """A Redis or Valkey server that agents use: a few connections, each of one task at a time.

    It connects when it is first used, and anew after the server was away; nothing is sent twice. It is used while it
    is open: ``async with redis:``, or ``await context.start(redis.serve)`` for as long as an agent lives. Several may
    keep it open at once. It needs the extra ``redis``.

    Args:
        server: ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]``; ``rediss://`` is TLS.
        connections: at most so many; each subscription holds one; who wants one more waits.
        limit: seconds that a command may take, one that blocks too, and the wait for a connection.
        through: the address of an outlet that leads to the server, in place of the host and port of its address. It is
            then opened by an agent, by one at a time, and the outlet's policy judges that agent.

    Raises:
        ConfigurationError: the address or a number is of no use; the text shows no password.
    """

    def __init__(self, server: str, *, connections: int = 8, limit: float = 30.0, through: str | None = None) -> None:
        self._address = RedisAddress.parse(server)
        self._through = through
        self._name = str(self._address) if through is None else f"{self._address} through {through}"
        self._limit = limit
        self._pool = Pool(self._name, connections, limit, self._connect)

    def __repr__(self) -> str:
        return f"<Redis {self._name}>"

    async def __aenter__(self) -> Self:
        hiredis_module()
        if self._through is not None:
            self._pool.check_alone()
            current_node()  # or it says that there is none
        self._pool.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep it open until cancelled; for ``await context.start(redis.serve)`` in ``on_start`` of an agent.

        Raises:
            ConfigurationError: hiredis is not installed.
        """
        async with self:
            task_status.started()
            await trio.sleep_forever()

    async def command(self, *words: str | bytes | float) -> Any:  # noqa: ANN401 - as Redis answers
        """Have a command carried out, ``await redis.command("SET", "name", b"value")``, and return the answer.

        Args:
            words: its name and its arguments.

        Returns:
            bytes, an int, None, or a list of such.

        Raises:
            DatastoreRefused: the server refused it. It was not carried out.
            DatastoreUnreachable: no connection can be made. It was not sent.
            DatastoreLost, DatastoreTooSlow: the connection was lost, or took too long; it may have been carried out.
            UsageError: it is not open, or the command is one that changes its connection, as ``SUBSCRIBE``.

        On cancellation its connection is closed; it may have been carried out.
        """
        _check_shared(words)
        (answer,) = await self._ask(words)
        return _checked(self._name, answer)

    async def transaction(self, *commands: tuple[str | bytes | float, ...]) -> list[Any]:
        """Have commands carried out as one, ``MULTI`` to ``EXEC``, and return their answers.

        Args:
            commands: each with its name and arguments.

        Raises:
            DatastoreRefused: a command is none, and nothing was carried out; or it failed, as on another type of value,
                which ends no transaction of Redis: the others were.
            DatastoreUnreachable, DatastoreLost, DatastoreTooSlow, UsageError: as `command`.
        """
        for words in commands:
            _check_shared(words)
        queued = await self._ask(("MULTI",), *commands, ("EXEC",))
        for answer in queued:
            if isinstance(answer, RedisRefused) and not str(answer).startswith("EXECABORT"):
                raise _refusal(self._name, answer)
        return [_checked(self._name, answer) for answer in queued[-1]]

    @asynccontextmanager
    async def subscribe(self, *channels: str) -> AsyncGenerator[Subscription]:
        """Hear what is published on channels, ``async for published in subscription``, for the length of a block.

        It is subscribed when the block begins. What is published while it is not, nobody hears: a subscription that is
        lost says so and is not made anew.

        Raises:
            DatastoreRefused: the server does not let this process hear one of them.
            DatastoreUnreachable, DatastoreLost, DatastoreTooSlow, UsageError: as `command`.
        """
        async with self._pool.connection() as connection:
            for answer in await connection.ask(tuple(("SUBSCRIBE", each) for each in channels), self._limit):
                _checked(self._name, answer)
            connection.answered = False  # from now on something may come at any time
            yield Subscription(self._name, connection.wire)

    async def _ask(self, *commands: Command) -> list[Any]:
        for words in commands:
            if not words:
                msg = "a command of Redis has a name at least"
                raise UsageError(msg)
        async with self._pool.connection() as connection:
            return await connection.ask(commands, self._limit)

    async def _connect(self) -> _Connection:
        way = AsyncExitStack()
        try:
            return _Connection(self._name, await self._open(way), way)
        except BaseException:
            with trio.CancelScope(shield=True):  # a stream closes at once
                await way.aclose()
            raise

    async def _open(self, way: AsyncExitStack) -> Wire:
        through = self._through
        try:
            if through is None:
                return await connect(self._address)
            return await connect(self._address, lambda: way.enter_async_context(current_node().connect(through)))
        except (RedisLost, DeliveryError) as error:
            raise DatastoreUnreachable(f"{self._name} cannot be used ({error}): is it running there?") from None


_OF_A_CONNECTION: Final = frozenset(
    ("AUTH", "CLIENT", "DISCARD", "EXEC", "HELLO", "MONITOR", "MULTI", "PSUBSCRIBE", "PUNSUBSCRIBE", "QUIT", "RESET")
) | {"SELECT", "SSUBSCRIBE", "SUBSCRIBE", "SUNSUBSCRIBE", "SYNC", "PSYNC", "UNSUBSCRIBE", "UNWATCH", "WATCH"}
"""Commands that change the connection they are said on, for whoever uses it next."""


def _check_shared(words: Command) -> None:
    if _name(words) in _OF_A_CONNECTION:
        msg = f"{_name(words)} would change a connection that others use too: there are transaction and subscribe"
        raise UsageError(msg)


def _name(words: Command) -> str:
    first = words[0] if words else ""
    return printable(first.decode(errors="replace") if isinstance(first, bytes) else str(first)).upper()


def _checked(name: str, answer: object) -> object:
    if isinstance(answer, RedisRefused):
        raise _refusal(name, answer)
    return answer


def _refusal(name: str, answer: RedisRefused) -> DatastoreRefused:
    # Of a command it does not know, Redis repeats the arguments.
    text = str(answer).partition(", with args beginning with")[0]
    return DatastoreRefused(f"{name} refused: {printable(text)}", text.partition(" ")[0])
