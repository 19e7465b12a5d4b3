"""The tools of a model agent: what other agents can be asked, called by the words of a model."""

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, cast, final

import attrs
import trio

from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import spec_of
from autonomy_trio.connect.models.messages import ToolCall, ToolOffer
from autonomy_trio.connect.tools import Tool, tools_of
from autonomy_trio.connect.values import to_json
from autonomy_trio.errors import CallFailed, DeclarationError, MessageError

MOST_CALLS: Final = 32
"""Calls that one answer of a model may have; the rest is refused, and the model told so."""
MOST_TOLD: Final = 16 * 1024
"""Characters of a tool's answer that a model is told."""

UNKNOWN: Final = "It is not known whether this was done: nobody waited for it any more."
"""What a model is told of a call that was cancelled."""

Ask = Callable[[Tool, str], Awaitable[bool]]
"""Asks a person whether a tool may be called with arguments, as JSON."""
Find = Callable[[str, type], AgentRef[Any]]
"""Finds an agent by its name or address."""


@attrs.frozen
class ToolsOf:
    """What a model may ask an agent: an entry of ``tools``.

    Args:
        agent: the agent's class.
        at: its name on this node, or its address on another; by default the name that its class gives it.
        only: the messages that are tools; by default all that it handles.
        approve: those of them that a person has to approve, each time.

    Raises:
        DeclarationError: the agent does not handle one of these messages.
    """

    agent: type
    at: str | None = attrs.field(default=None, kw_only=True)
    only: Sequence[type] | None = attrs.field(default=None, kw_only=True)
    approve: Sequence[type] = attrs.field(default=(), kw_only=True)

    def __attrs_post_init__(self) -> None:
        known = {message for message, _ in spec_of(self.agent).wire_table().values()}
        for each in (*(self.only or ()), *self.approve):
            if each not in known or (self.only is not None and each not in self.only):
                raise DeclarationError(f"ToolsOf({self.agent.__name__}): it has no tool {each.__name__}")


@attrs.frozen
class Answer:
    """What a model is told of a call."""

    text: str
    failed: bool = False


@final
@attrs.define(eq=False)
class Toolbox:
    """Tools by the names that a model calls them by."""

    _tools: dict[str, Tool]
    _asked_first: frozenset[str]
    offers: tuple[ToolOffer, ...]

    @classmethod
    def fill(cls, entries: Iterable[type | ToolsOf], find: Find) -> "Toolbox":
        """Return the tools that agents are for a model.

        Raises:
            DeclarationError: what is listed is no agent, or its messages cannot be written as JSON.
        """
        given = [each if isinstance(each, ToolsOf) else ToolsOf(each) for each in entries]
        wanted: list[tuple[AgentRef[Any], ToolsOf]] = [
            (find(each.at or spec_of(each.agent).name, each.agent), each) for each in given
        ]
        tools: dict[str, Tool] = {}
        asked_first: set[str] = set()
        for tool in tools_of([(ref, each.agent) for ref, each in wanted]):
            entry = next(each for ref, each in wanted if ref is tool.agent)
            if entry.only is None or tool.message in entry.only:
                tools[tool.name] = tool
                if tool.message in entry.approve:
                    asked_first.add(tool.name)
        offers = (
            ToolOffer(each.name, each.description or f"Ask {each.agent.name}.", each.input_schema)
            for each in tools.values()
        )
        return cls(tools, frozenset(asked_first), tuple(offers))

    async def call(self, call: ToolCall, ask: Ask, patience: float) -> Answer:
        """Call a tool, and return what the model is to be told, whatever comes of it.

        Args:
            call: as the model wrote it.
            ask: asks a person, for a tool that needs it.
            patience: seconds that the tool has, from the approval on.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            return Answer(
                f"There is no tool {call.name!r}. There are: {', '.join(self._tools) or 'none'}.", failed=True
            )
        try:
            message = tool.read(_arguments(call))
            if call.name in self._asked_first and not await ask(tool, json.dumps(to_json(message))):
                return Answer("This was not approved, so it was not done. Do not try it again.", failed=True)
            with trio.fail_after(patience):
                return Answer(_told(await _result(tool, message)))
        except MessageError as error:
            return Answer(f"The arguments are wrong: {error}", failed=True)
        except CallFailed as error:
            return Answer(f"The call failed: {error}", failed=True)
        except trio.TooSlowError:
            return Answer(f"There was no answer in {patience:g} s: it may or may not be done.", failed=True)


async def _result(tool: Tool, message: Any) -> Any:  # noqa: ANN401 - JSON
    if tool.streams:
        items, complete = await tool.collect(message, _nothing)
        return {"items": [tool.written(each) for each in items], "complete": complete}
    return tool.written(await tool.ask(message))


async def _nothing(_: object) -> None:
    """Tell nobody of an item."""


def _arguments(call: ToolCall) -> dict[str, Any]:
    """Read a call's arguments.

    Raises:
        MessageError: they are no JSON object.
    """
    try:
        found: object = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MessageError("they are no JSON object")
    return cast("dict[str, Any]", found)


def _told(result: object) -> str:
    """Return a result as a text, cut to what a model is told."""
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}… (the rest is left out)"
