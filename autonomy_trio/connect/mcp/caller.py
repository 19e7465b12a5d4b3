"""What a handler can do with the MCP client that waits for it: tell of progress, log, ask its model or its person."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, Protocol, TypeVar, final, get_args, overload

import attrs

from autonomy_trio.connect.values import from_json
from autonomy_trio.errors import MessageError, ReplyError
from autonomy_trio.messages import message_schema

T = TypeVar("T")

Level = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
"""How grave a log message is, in the words of RFC 5424."""

LEVELS: Final[tuple[Level, ...]] = get_args(Level)


@attrs.frozen
class Unsupported(ReplyError):
    """There is no MCP client, or it cannot do what the handler wants of it; list it in the handler's ``raises=``."""

    what: str


class Channel(Protocol):
    """The way to the client of one call."""

    async def progress(self, done: float, total: float | None, text: str | None) -> None:
        """Tell how far the call has come."""
        ...

    async def log(self, level: Level, data: Any, name: str) -> None:  # noqa: ANN401 - what JSON has
        """Send a log message."""
        ...

    async def sample(self, text: str, most_tokens: int, system: str | None) -> str:
        """Have the client's model go on from a text."""
        ...

    async def elicit(self, text: str, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Have the client's person fill a form; None where that is refused."""
        ...

    async def hang_up(self) -> None:
        """Close the client's connection; it comes back for the answer."""
        ...


@final
@attrs.define(eq=False)
class Caller:
    """The MCP client that waits for a handler, from `caller_of`; of use while the handler runs.

    Where a message came by another way there is nobody to tell: then `progress` and `log` do nothing.
    """

    _channel: Channel | None
    _name: str

    async def progress(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Tell how far the handler has come; nothing is sent where the client did not ask to be told.

        Args:
            done: grows with each call, in whatever unit.
            total: what it grows to, in the same; None where nobody knows.
            text: what is being done.

        On cancellation it may have been sent. A slow client makes it wait.
        """
        if self._channel is not None:
            await self._channel.progress(done, total, text)

    async def log(self, level: Level, data: object) -> None:
        """Send a log message to the client, unless it has asked for graver ones alone.

        Args:
            level: how grave it is.
            data: text, or anything that JSON has; the client shows it, so no secret.

        On cancellation it may have been sent. A slow client makes it wait.
        """
        if self._channel is not None:
            await self._channel.log(level, data, self._name)

    async def sample(self, text: str, *, most_tokens: int = 1000, system: str | None = None) -> str:
        """Have the client's model answer a text; its person may be asked, and may change or refuse it.

        Args:
            text: what the model reads, as said by the user.
            most_tokens: of its answer.
            system: what it is told before.

        Raises:
            Unsupported: there is no client, or it lends no model, or has refused.

        On cancellation the client is told.
        """
        if self._channel is None:
            raise Unsupported("there is no MCP client to lend a model")
        return await self._channel.sample(text, most_tokens, system)

    @overload
    async def elicit(self, text: str, form: type[T]) -> T | None: ...

    @overload
    async def elicit(self, text: str, form: Mapping[str, Any]) -> Mapping[str, Any] | None: ...

    async def elicit(self, text: str, form: type[Any] | Mapping[str, Any]) -> Any:
        """Have the client's person fill a form; never ask for a secret.

        Args:
            text: what is asked for, and why.
            form: a frozen attrs class, whose fields are strings, numbers, flags or choices of strings; or the JSON
                schema of such an object.

        Returns:
            an object of the class, or what JSON has of the schema; None where the person refuses.

        Raises:
            Unsupported: there is no client, or it has no person to ask, or what came does not fit the class.

        On cancellation the client is told.
        """
        if self._channel is None:
            raise Unsupported("there is no MCP client to ask a person")
        if isinstance(form, Mapping):
            return await self._channel.elicit(text, form)
        filled = await self._channel.elicit(text, _flat(message_schema(form)))
        try:
            return None if filled is None else from_json(dict(filled), form)
        except MessageError as error:
            raise Unsupported(f"what was filled in does not fit: {error}") from None

    async def hang_up(self) -> None:
        """Close the connection that the client waits on, where it can come back for the answer: for long work.

        Over HTTP a client of protocol 2025-11-25 or later reconnects and misses nothing; for any other it does nothing.
        """
        if self._channel is not None:
            await self._channel.hang_up()


_channels: Final[dict[int, Channel]] = {}
"""By the message that is being handled; as many as there are calls under way."""


def caller_of(message: object) -> Caller:
    """Return the MCP client that a handler answers.

    Args:
        message: the handler's, the very object.
    """
    return Caller(_channels.get(id(message)), type(message).__name__)


@contextmanager
def calling(message: object, channel: Channel) -> Generator[None]:
    """Let `caller_of` find the way to the client of a message in the block."""
    _channels[id(message)] = channel
    try:
        yield
    finally:
        del _channels[id(message)]


def _flat(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a form as clients read it: nothing but fields, and a choice of strings is a string."""
    fields = {name: _field(each) for name, each in schema["properties"].items()}
    return {"type": "object", "properties": fields, "required": schema["required"]}


def _field(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "enum" in schema and all(isinstance(each, str) for each in schema["enum"]):
        return {"type": "string", **schema}
    if schema.get("type") == "array":
        return {**schema, "items": _field(schema["items"])}
    return {key: value for key, value in schema.items() if key not in {"minimum", "maximum"}}
