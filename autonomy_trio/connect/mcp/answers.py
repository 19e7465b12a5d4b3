"""Tools, replies and prompts in the words of the MCP SDK."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import mcp_types as types

from autonomy_trio.connect.mcp.marks import Resource
from autonomy_trio.connect.mcp.offers import fields_of
from autonomy_trio.connect.mcp.servers.blocks import (
    Audio,
    BlobResource,
    ContentBlock,
    EmbeddedResource,
    Image,
    Text,
    TextResource,
    as_listed,
)
from autonomy_trio.connect.mcp.servers.blocks import Resource as Link
from autonomy_trio.connect.mcp.servers.messages import PromptMessage
from autonomy_trio.connect.tools import Tool

MOST_COMPLETIONS: Final = 100
"""Values of one completion, as the protocol has it."""

_BLOCKS: Final = (Text, Image, Audio, EmbeddedResource, Link)
_CONTENT: Final = (str, *_BLOCKS)

_Content = str | ContentBlock


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
    parts: Sequence[object] = _listed(reply)
    for part in parts:
        match part:
            case str():
                contents.append(types.TextResourceContents(uri=uri, mime_type=mark.type, text=part))
            case bytes():
                contents.append(types.BlobResourceContents(uri=uri, mime_type=mark.type, blob=_base64(part)))
            case TextResource() | BlobResource():
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
    messages: list[types.PromptMessage] = []
    for part in _listed(reply):
        match part:
            case PromptMessage():
                messages.append(types.PromptMessage(role=part.role, content=_content(part.content)))
            case str() | Text() | Image() | Audio() | EmbeddedResource() | Link():
                messages.append(types.PromptMessage(role="user", content=_content(part)))
            case _:
                messages.append(types.PromptMessage(role="user", content=_text(json.dumps(tool.written(part)))))
    return types.GetPromptResult(description=tool.description or tool.name, messages=messages)


def completion_of(schema: Mapping[str, Any], field: str, beginning: str) -> types.CompleteResult:
    """Return how a field of a message can go on: where it is a choice, those choices that begin so."""
    choices = fields_of(schema).get(field, {}).get("enum", [])
    fitting = [str(each) for each in choices if str(each).startswith(beginning)]
    shown = fitting[:MOST_COMPLETIONS]
    return types.CompleteResult(
        completion=types.Completion(values=shown, total=len(fitting), has_more=len(shown) < len(fitting))
    )


def _is_content(tool: Tool) -> bool:
    """Tell whether a reply is shown as what it is, and so has no schema of its own."""
    return any(kind in _BLOCKS for kind in tool.handler.reply or ())


def _listed(reply: object) -> list[object]:
    """Return the parts of a reply, or the reply as its one part."""
    return list(cast("Iterable[object]", reply)) if isinstance(reply, list | tuple) else [reply]


def _parts(reply: object) -> list[_Content] | None:
    """Return the parts of an answer that is a list of them; None for any other."""
    parts = _listed(reply)
    is_list = parts != [reply] and bool(parts)
    return cast("list[_Content]", parts) if is_list and all(isinstance(each, _CONTENT) for each in parts) else None


def _content(part: _Content) -> types.ContentBlock:
    match part:
        case str():
            return _text(part)
        case Text(text):
            return _text(text)
        case Image(data, kind):
            return types.ImageContent(data=_base64(data), mime_type=kind)
        case Audio(data, kind):
            return types.AudioContent(data=_base64(data), mime_type=kind)
        case EmbeddedResource(document):
            return types.EmbeddedResource(resource=_embedded(document))
        case Link():
            return types.ResourceLink.model_validate({"type": "resource_link", **as_listed(part)})


def _embedded(part: TextResource | BlobResource) -> types.TextResourceContents | types.BlobResourceContents:
    match part:
        case TextResource(uri, text, kind):
            return types.TextResourceContents(uri=uri, mime_type=kind, text=text)
        case BlobResource(uri, data, kind):
            return types.BlobResourceContents(uri=uri, mime_type=kind, blob=_base64(data))


def _text(text: str) -> types.TextContent:
    return types.TextContent(text=text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
