"""Tools, replies and prompts in the words of the MCP SDK."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import mcp_types as types

from autonomy_trio.connect.mcp.content import Content, Embedded, Media, Turn
from autonomy_trio.connect.mcp.marks import Resource
from autonomy_trio.connect.mcp.offers import fields_of
from autonomy_trio.connect.tools import Tool

MOST_COMPLETIONS: Final = 100
"""Values of one completion, as the protocol has it."""

_CONTENT: Final = (str, Media, Embedded)


def shown_tool(tool: Tool) -> types.Tool:
    """Return how a tool is listed."""
    return types.Tool(
        name=tool.name,
        description=tool.description or tool.name,
        input_schema=dict(tool.input_schema),
        output_schema=None if tool.output_schema is None or _is_content(tool) else dict(tool.output_schema),
    )


def shown_prompt(tool: Tool) -> types.Prompt:
    """Return how a prompt is listed."""
    needed = tool.input_schema["required"]
    arguments = [types.PromptArgument(name=name, required=name in needed) for name in fields_of(tool.input_schema)]
    return types.Prompt(name=tool.name, description=tool.description or tool.name, arguments=arguments)


def shown_resource(tool: Tool, mark: Resource) -> types.Resource:
    """Return how a resource with a fixed address is listed."""
    return types.Resource(uri=mark.uri, name=tool.name, description=tool.description or tool.name, mime_type=mark.type)


def shown_template(tool: Tool, mark: Resource) -> types.ResourceTemplate:
    """Return how a template of addresses is listed."""
    return types.ResourceTemplate(
        uri_template=mark.uri, name=tool.name, description=tool.description or tool.name, mime_type=mark.type
    )


def result_of(tool: Tool, reply: object) -> types.CallToolResult:
    """Return a reply as a tool's result.

    Raises:
        CallFailed: it cannot be written as JSON.
    """
    if isinstance(reply, _CONTENT):
        return types.CallToolResult(content=[_content(reply)])
    if (parts := _parts(reply)) is not None:
        return types.CallToolResult(content=[_content(each) for each in parts])
    if reply is None:
        return types.CallToolResult(content=[])
    written = tool.written(reply)
    structured = written if tool.output_schema is not None and not _is_content(tool) else None
    return types.CallToolResult(content=[_text(json.dumps(written))], structured_content=structured)


def items_of(tool: Tool, items: Iterable[object], *, complete: bool) -> types.CallToolResult:
    """Return the items of a stream as a tool's result.

    Raises:
        CallFailed: one cannot be written as JSON.
    """
    written = {"items": [tool.written(item) for item in items], "complete": complete}
    return types.CallToolResult(content=[_text(json.dumps(written))], structured_content=written)


def refusal(sentence: str) -> types.CallToolResult:
    """Return a tool's result that says why there is none, for the model to read."""
    return types.CallToolResult(content=[_text(sentence)], is_error=True)


def document_of(tool: Tool, mark: Resource, uri: str, reply: object) -> types.ReadResourceResult:
    """Return a reply as a document.

    Raises:
        CallFailed: it cannot be written as JSON.
    """
    contents: list[types.TextResourceContents | types.BlobResourceContents] = []
    parts: Sequence[object] = _parts(reply) or [reply]
    for part in parts:
        match part:
            case str():
                contents.append(types.TextResourceContents(uri=uri, mime_type=mark.type, text=part))
            case Media():
                contents.append(_blob(uri, part.type, part.data))
            case Embedded():
                contents.append(_embedded(part))
            case _:
                text = json.dumps(tool.written(part))
                contents.append(types.TextResourceContents(uri=uri, mime_type=mark.type, text=text))
    return types.ReadResourceResult(contents=contents)


def prompt_of(tool: Tool, reply: object) -> types.GetPromptResult:
    """Return a reply as a prompt.

    Raises:
        CallFailed: it cannot be written as JSON.
    """
    listed = isinstance(reply, list | tuple)
    parts: list[object] = list(cast("Iterable[object]", reply)) if listed else [reply]
    turns = [
        part if isinstance(part, Turn) else Turn("user", part if isinstance(part, _CONTENT) else _json(tool, part))
        for part in parts
    ]
    messages = [types.PromptMessage(role=turn.role, content=_content(turn.content)) for turn in turns]
    return types.GetPromptResult(description=tool.description or tool.name, messages=messages)


def completion_of(schema: Mapping[str, Any], field: str, beginning: str) -> types.CompleteResult:
    """Return how a field of a message can go on: where it is a choice, those choices that begin so."""
    choices = fields_of(schema).get(field, {}).get("enum", [])
    fitting = [str(each) for each in choices if str(each).startswith(beginning)]
    shown = fitting[:MOST_COMPLETIONS]
    return types.CompleteResult(
        completion=types.Completion(values=shown, total=len(fitting), has_more=len(shown) < len(fitting))
    )


def _json(tool: Tool, part: object) -> str:
    return json.dumps(tool.written(part))


def _is_content(tool: Tool) -> bool:
    """Tell whether a reply is shown as what it is, and so has no schema of its own."""
    return any(kind in (Media, Embedded) for kind in tool.handler.reply or ())


def _parts(reply: object) -> list[Content] | None:
    """Return the parts of an answer that is a list of them; None for any other."""
    if not isinstance(reply, list | tuple) or not reply:
        return None
    parts = list(cast("Iterable[object]", reply))
    return cast("list[Content]", parts) if all(isinstance(each, _CONTENT) for each in parts) else None


def _content(part: Content) -> types.ContentBlock:
    match part:
        case str():
            return _text(part)
        case Media(data, kind) if kind.startswith("audio/"):
            return types.AudioContent(data=_base64(data), mime_type=kind)
        case Media(data, kind):
            return types.ImageContent(data=_base64(data), mime_type=kind)
        case Embedded():
            return types.EmbeddedResource(resource=_embedded(part))


def _embedded(part: Embedded) -> types.TextResourceContents | types.BlobResourceContents:
    if part.data is not None:
        return _blob(part.uri, part.type, part.data)
    return types.TextResourceContents(uri=part.uri, mime_type=part.type, text=part.text or "")


def _blob(uri: str, kind: str, data: bytes) -> types.BlobResourceContents:
    return types.BlobResourceContents(uri=uri, mime_type=kind, blob=_base64(data))


def _text(text: str) -> types.TextContent:
    return types.TextContent(text=text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
