"""Handlers as tools: what an agent can be asked, with a name, a description and a JSON schema, called with JSON.

A tool is for a caller that knows no Python: an MCP client, or a model. Its arguments are a stranger's and are read
strictly; what it is told of a failure says what it can mend, and nothing else of this process.
"""

import inspect
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import GenericAlias
from typing import Any, Final, final

import attrs
import trio

from autonomy_trio.actors.declare import snake_case
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import Handler, Spec, spec_of
from autonomy_trio.annotations import MAPS, origin
from autonomy_trio.connect.values import from_json, to_json
from autonomy_trio.errors import (
    AutonomyError,
    CallFailed,
    Denied,
    HandlerFailed,
    MessageError,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    Overloaded,
    ReplyError,
)
from autonomy_trio.groups import single_error
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import item_type, message_schema, reply_type, wire_name
from autonomy_trio.payloads import Resolve

MOST_NAME: Final = 64
"""Characters of a tool's name, as models' vendors allow."""

MOST_ITEMS: Final = 1000
"""Items of a stream that one call returns."""

MOST_RESULT: Final = 4 * 1024 * 1024
"""Bytes of the items that one call returns, about: the item that passes it is the last one."""

STREAM_LIMIT: Final = 30.0
"""Seconds for which a call reads a stream."""

MOST_WORDS: Final = 500
"""Characters that a caller is told of a failure."""

_UNSAFE: Final = re.compile("[^a-zA-Z0-9_-]+")

_COARSE: Final[Mapping[type[Exception], str]] = {
    Denied: "the policy of {agent} does not allow it",
    Overloaded: "{agent} is busy: try again later",
    NotDelivered: "{agent} is not there now: nothing was done",
    HandlerFailed: "{agent} failed: it may have done a part of it, and its log says why",
    OutcomeUnknown: "{agent} was lost meanwhile: it may or may not have done it",
    trio.TooSlowError: "{agent} did not answer in time: it may or may not have done it",
}

_log = get_log()

Included = Callable[[Spec, type], bool]
"""Tells of an agent's declaration and a message whether that is to be a tool."""

Told = Callable[[Any], Awaitable[None]]
"""Called with each item of a stream, as it comes."""


@final
@attrs.frozen(eq=False)
class Tool:
    """A message that an agent handles, as something to be called with JSON; made by `tools_of`."""

    name: str
    """Unique among those made together; letters, digits, ``_`` and ``-``, at most 64."""
    description: str
    """The handler's docstring, else the message's; may be empty."""
    input_schema: Mapping[str, Any]
    """JSON schema, draft 2020-12, of an object; complete in itself."""
    output_schema: Mapping[str, Any] | None
    """That of what a call returns, where it is always an object."""
    streams: bool
    """Whether a call returns the items of a stream, ``{"items": […], "complete": …}``."""
    message: type
    handler: Handler
    spec: Spec
    """What the agent declares."""
    agent: AgentRef[Any] = attrs.field(repr=False)
    _resolve: Resolve | None = attrs.field(default=None, repr=False, alias="resolve")

    def read(self, arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a message
        """Make the message of arguments.

        Raises:
            MessageError: they do not fit the message exactly; the text says where, for the caller to mend it.
        """
        return from_json(dict(arguments), self.message, self._resolve)

    async def call(self, arguments: Mapping[str, Any], told: Told | None = None) -> Any:  # noqa: ANN401 - what JSON has
        """Ask the agent, and return its reply as what `json.dumps` takes.

        The deadline is trio's; without one the node's ``ask_limit`` applies, and `STREAM_LIMIT` to a stream.

        Args:
            arguments: the fields of the message, as `input_schema` describes them.
            told: called with each item of a stream, as JSON, before the next is read.

        Returns:
            the reply; of a stream an object with its ``items``, and whether they are all, ``complete``, of which
            `MOST_ITEMS` are the most.

        Raises:
            MessageError: the arguments do not fit; the text says where, for the caller to mend it.
            CallFailed: there is no result; the text says why.

        On cancellation the message is withdrawn, and a running handler cancelled.
        """
        message = self.read(arguments)
        if not self.streams:
            return self.written(await self.ask(message))

        async def tell(item: object) -> None:
            if told is not None:
                await told(self.written(item))

        items, complete = await self.collect(message, tell)
        return {"items": [self.written(item) for item in items], "complete": complete}

    async def ask(self, message: Any) -> Any:  # noqa: ANN401 - a request, and its reply
        """Ask the agent with a message that is there already, and return the reply as it is.

        Raises:
            CallFailed: as `call`.

        On cancellation as `call`.
        """
        async with self._explained():
            return await self.agent.ask(message)

    async def collect(self, message: Any, told: Told) -> tuple[list[Any], bool]:  # noqa: ANN401 - a stream, and its items
        """Open a stream with a message that is there already; return its items, and whether they are all.

        Args:
            message: the stream's.
            told: called with each item before the next is read.

        Raises:
            CallFailed: as `call`.

        On cancellation as `call`.
        """
        items: list[Any] = []
        size = 0
        async with self._explained():
            with trio.move_on_after(STREAM_LIMIT):
                async with self.agent.stream(message) as stream:
                    async for item in stream:
                        items.append(item)
                        size += _size(item)
                        await told(item)
                        if len(items) == MOST_ITEMS or size > MOST_RESULT:
                            return items, False
                return items, True
        return items, False

    def written(self, reply: object) -> Any:  # noqa: ANN401 - what JSON has
        """Return a reply, or an item, as JSON.

        Raises:
            CallFailed: it cannot be written.
        """
        try:
            return to_json(reply)
        except MessageError as error:
            _log.warning("a tool's reply cannot be written as JSON", tool=self.name, why=str(error))
            raise CallFailed(f"the answer of {self.agent.name} cannot be written as JSON") from None

    @asynccontextmanager
    async def _explained(self) -> AsyncGenerator[None]:
        """Say in words for the caller why there is no answer, and in the log what exactly it was."""
        try:
            with single_error():
                yield
        except CallFailed:
            raise
        except ReplyError as error:
            raise CallFailed(_foreseen(error)) from None
        except NotHandled as error:
            raise CallFailed(printable(str(error), MOST_WORDS)) from None
        except (AutonomyError, trio.TooSlowError) as error:
            _log.info("a tool's call has no result", tool=self.name, why=type(error).__name__, detail=str(error))
            sentence = next((words for kind, words in _COARSE.items() if isinstance(error, kind)), None)
            raise CallFailed((sentence or "{agent} cannot do it").format(agent=self.agent.name)) from None


def tools_of(
    agents: Iterable[tuple[AgentRef[Any], type | Spec]],
    *,
    include: Included | None = None,
    resolve: Resolve | None = None,
) -> list[Tool]:
    """Return what agents can be asked, each message a tool.

    A tool goes by its message's wire name in snake_case, and by the agent's name in front where there are several.

    Args:
        agents: refs, to agents here or on other nodes, each with the agent's class or what that declares.
        include: tells which messages are tools; by default all, save the runtime's own, `Down`.
        resolve: makes a ref of an address in the arguments; without it a message with a ref can not be called.

    Raises:
        DeclarationError: a class is no agent, or a message, or its reply, cannot be written as JSON.
    """
    listed = [(ref, each if isinstance(each, Spec) else spec_of(each)) for ref, each in agents]
    taken: set[str] = set()
    tools: list[Tool] = []
    for ref, spec in listed:
        prefix = (ref.name,) if len(listed) > 1 else ()
        for action, (message, handler) in sorted(spec.wire_table().items()):
            if include is None or include(spec, message):
                name = _unique("_".join((*prefix, snake_case(action))), taken)
                tools.append(_tool(name, ref, spec, message, handler, resolve))
    return tools


def _tool(  # noqa: PLR0913, PLR0917 - what a tool is made of
    name: str, ref: AgentRef[Any], spec: Spec, message: type, handler: Handler, resolve: Resolve | None
) -> Tool:
    return Tool(
        name=name,
        description=inspect.cleandoc(handler.function.__doc__ or vars(message).get("__doc__") or ""),
        input_schema=message_schema(message),
        output_schema=_output_schema(message),
        streams=handler.kind == "stream",
        message=message,
        handler=handler,
        spec=spec,
        agent=ref,
        resolve=resolve,
    )


def _output_schema(message: type) -> dict[str, Any] | None:
    """Return the schema of what a call returns; None where that is not always an object."""
    item, reply = item_type(message), reply_type(message)
    if item is not None:
        schema = message_schema(GenericAlias(list, item))
        items = {"type": schema.pop("type"), "items": schema.pop("items")}
        fields = {"items": items, "complete": {"type": "boolean", "description": "whether these are all"}}
        return schema | {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}
    is_object = reply is not None and (attrs.has(origin(reply)) or origin(reply) in MAPS)
    return message_schema(reply) if is_object else None


def _unique(name: str, taken: set[str]) -> str:
    """Return a name in allowed characters that no other tool has, and take it."""
    safe = _UNSAFE.sub("_", name)[:MOST_NAME].strip("_") or "tool"
    found, number = safe, 2
    while found in taken:
        ending = f"_{number}"
        found, number = safe[: MOST_NAME - len(ending)] + ending, number + 1
    taken.add(found)
    return found


def _foreseen(error: ReplyError) -> str:
    """Return a protocol's own error in words: its name, and its fields."""
    name = wire_name(type(error))
    if not attrs.has(type(error)):
        return printable(str(error) or name, MOST_WORDS)
    try:
        fields = to_json(error)
    except MessageError:
        return name
    words = ", ".join(f"{field}={value!r}" for field, value in fields.items())
    return printable(f"{name}: {words}" if words else name, MOST_WORDS)


def _size(item: object) -> int:
    """Return about how many bytes an item has; what cannot be sent counts as none, and is refused later."""
    try:
        return len(str(to_json(item)))
    except MessageError:
        return 0
