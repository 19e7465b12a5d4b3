"""What an MCP server behind an agent is asked, and what it answers; of use without the MCP SDK.

Source: Model Context Protocol, revisions 2024-11-05 to 2026-07-28, "Server features".
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TypeVar

from attrs import field, frozen

from autonomy_trio.connect.mcp.servers.blocks import (
    BlobResource,
    ContentBlock,
    Prompt,
    Resource,
    ResourceTemplate,
    Text,
    TextResource,
    Tool,
    content_of,
    resource_of,
)
from autonomy_trio.errors import ReplyError
from autonomy_trio.messages import Request, Stream

R_co = TypeVar("R_co", covariant=True)

LOST: Final = -32000
"""Code of an `McpError` of a server that has ended or cannot be reached; JSON-RPC leaves it to implementations."""
METHOD_NOT_FOUND: Final = -32601
"""Code of an `McpError` of a method that a server does not have. Source: JSON-RPC 2.0, section 5.1."""
INVALID_PARAMS: Final = -32602
"""Code of an `McpError` of a question that cannot be right. Source: JSON-RPC 2.0, section 5.1."""
INTERNAL_ERROR: Final = -32603
"""Code of an `McpError` of an answer that cannot be used. Source: JSON-RPC 2.0, section 5.1."""

Role = Literal["user", "assistant"]


@frozen
class McpError(ReplyError):
    """What an MCP server answers in place of a result, or what became of it: then the code is -32000.

    A tool that ran and failed is none: its `ToolResult` says ``is_error``.
    """

    code: int
    message: str
    data: Any = None

    def __str__(self) -> str:
        """Return what the server says, and its code."""
        return f"{self.message} ({self.code})"


@frozen
class Description:
    """Who an MCP server says it is, and what it can do."""

    name: str
    version: str
    protocol: str
    """The revision of MCP that is spoken with it, as in ``2025-11-25``."""
    capabilities: Mapping[str, Any]
    """As MCP writes them."""
    title: str | None = None
    instructions: str | None = None
    """What it tells the model that uses it."""


@frozen
class Describe(Request[Description]):
    """Ask who an MCP server is."""


@frozen
class Ping(Request[None]):
    """Ask an MCP server whether it answers."""


@frozen
class Tools:
    """A page of a server's tools."""

    tools: tuple[Tool, ...]
    next_cursor: str | None = None
    """What `ListTools` gets the next page with; None after the last one."""


@frozen
class ListTools(Request[Tools]):
    """Ask for the tools of an MCP server, a page at a time."""

    cursor: str | None = None


@frozen
class Resources:
    """A page of a server's resources."""

    resources: tuple[Resource, ...]
    next_cursor: str | None = None


@frozen
class ListResources(Request[Resources]):
    """Ask for the resources of an MCP server, a page at a time."""

    cursor: str | None = None


@frozen
class ResourceTemplates:
    """A page of a server's templates of resources."""

    resource_templates: tuple[ResourceTemplate, ...]
    next_cursor: str | None = None


@frozen
class ListResourceTemplates(Request[ResourceTemplates]):
    """Ask for the templates of resources of an MCP server, a page at a time."""

    cursor: str | None = None


@frozen
class Prompts:
    """A page of a server's prompts."""

    prompts: tuple[Prompt, ...]
    next_cursor: str | None = None


@frozen
class ListPrompts(Request[Prompts]):
    """Ask for the prompts of an MCP server, a page at a time."""

    cursor: str | None = None


@frozen
class Progress:
    """How far a server is with what it was asked; the number grows."""

    progress: float
    total: float | None = None
    message: str | None = None


@frozen
class Part:
    """A piece of an answer's JSON; `ask_in_parts` joins them."""

    data: bytes = field(repr=False)


class InParts(Protocol[R_co]):
    """A question whose answer may be larger than one message."""

    def whole(self, data: bytes) -> R_co:
        """Return the answer that all parts together are."""
        ...


@frozen
class ToolResult:
    """What a tool has answered."""

    content: tuple[ContentBlock, ...]
    structured: Any = None
    """The same as JSON, where the tool declares an output schema."""
    is_error: bool = False
    """Whether the tool failed: then the content says how."""
    meta: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """All that is text in it, a line each."""
        return "\n".join(each.text for each in self.content if isinstance(each, Text))


@frozen
class CallTool(Request[ToolResult]):
    """Call a tool whose result fits one message, which is 128 KiB; `CallToolInParts` is for any."""

    name: str
    arguments: Mapping[str, Any] = field(factory=dict[str, Any])


@frozen
class CallToolInParts(Stream[Progress | Part]):
    """Call a tool, and hear of its progress; `ask_in_parts` opens it."""

    name: str
    arguments: Mapping[str, Any] = field(factory=dict[str, Any])

    def whole(self, data: bytes) -> ToolResult:
        """Return the result that all parts together are."""
        return tool_result_of(json.loads(data))


@frozen
class ResourceContents:
    """What a server has for a URI: one content, or several for a folder."""

    contents: tuple[TextResource | BlobResource, ...]


@frozen
class ReadResource(Request[ResourceContents]):
    """Read a resource that fits one message, which is 128 KiB; `ReadResourceInParts` is for any."""

    uri: str


@frozen
class ReadResourceInParts(Stream[Progress | Part]):
    """Read a resource of any size; `ask_in_parts` opens it."""

    uri: str

    def whole(self, data: bytes) -> ResourceContents:
        """Return the contents that all parts together are."""
        return contents_of(json.loads(data))


@frozen
class PromptMessage:
    """A turn of the conversation that a prompt begins."""

    role: Role
    content: ContentBlock


@frozen
class PromptResult:
    """A prompt with its arguments in place."""

    messages: tuple[PromptMessage, ...]
    description: str | None = None


@frozen
class GetPrompt(Request[PromptResult]):
    """Ask for a prompt that fits one message, which is 128 KiB; `GetPromptInParts` is for any."""

    name: str
    arguments: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class GetPromptInParts(Stream[Progress | Part]):
    """Ask for a prompt of any size; `ask_in_parts` opens it."""

    name: str
    arguments: Mapping[str, str] = field(factory=dict[str, str])

    def whole(self, data: bytes) -> PromptResult:
        """Return the prompt that all parts together are."""
        return prompt_of(json.loads(data))


@frozen
class Completion:
    """What an argument could be, as far as the server knows."""

    values: tuple[str, ...]
    total: int | None = None
    has_more: bool | None = None


@frozen
class CompletePrompt(Request[Completion]):
    """Ask how an argument of a prompt could go on, from the value so far and the arguments before it."""

    name: str
    argument: str
    value: str
    arguments: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class CompleteResource(Request[Completion]):
    """Ask how a variable of a template of resources could go on."""

    uri: str
    argument: str
    value: str
    arguments: Mapping[str, str] = field(factory=dict[str, str])


@frozen
class ListChanged:
    """What an agent publishes to the topic of its name when its server's lists change."""

    what: Literal["tools", "resources", "prompts"]


def tool_result_of(found: Mapping[str, Any]) -> ToolResult:
    """Read a ``CallToolResult`` as MCP writes it."""
    return ToolResult(
        tuple(map(content_of, found["content"])),
        found.get("structuredContent"),
        bool(found.get("isError", False)),
        found.get("_meta"),
    )


def contents_of(found: Mapping[str, Any]) -> ResourceContents:
    """Read a ``ReadResourceResult`` as MCP writes it."""
    return ResourceContents(tuple(map(resource_of, found["contents"])))


def prompt_of(found: Mapping[str, Any]) -> PromptResult:
    """Read a ``GetPromptResult`` as MCP writes it."""
    messages = [PromptMessage(each["role"], content_of(each["content"])) for each in found["messages"]]
    return PromptResult(tuple(messages), found.get("description"))


def completion_of(found: Mapping[str, Any]) -> Completion:
    """Read a ``CompleteResult`` as MCP writes it."""
    completion = found["completion"]
    return Completion(tuple(completion["values"]), completion.get("total"), completion.get("hasMore"))
