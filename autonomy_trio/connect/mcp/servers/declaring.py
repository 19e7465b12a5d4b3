"""`mcp_server`: the agent class of one MCP server, from where that is and who may ask it what."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import attrs

from autonomy_trio.actors.declare import agent, snake_case
from autonomy_trio.actors.spec import SPEC, spec_of
from autonomy_trio.connect.mcp.servers.agent import AT_ONCE, McpServer
from autonomy_trio.connect.mcp.servers.messages import (
    CallTool,
    CallToolInParts,
    CompletePrompt,
    CompleteResource,
    GetPrompt,
    GetPromptInParts,
    ReadResource,
    ReadResourceInParts,
)
from autonomy_trio.connect.mcp.servers.places import Command, Place, Url
from autonomy_trio.errors import DeclarationError, PolicyError
from autonomy_trio.trust.allow import check_allow, parse_allow

_NARROWED: Final[Mapping[type, str]] = {
    CallTool: "tools",
    CallToolInParts: "tools",
    ReadResource: "resources",
    ReadResourceInParts: "resources",
    CompleteResource: "resources",
    GetPrompt: "prompts",
    GetPromptInParts: "prompts",
    CompletePrompt: "prompts",
}
"""Which condition, besides `allow`, each message is judged by."""


def mcp_server(  # noqa: PLR0913 - each has a default that is right for most
    *,
    name: str,
    command: Sequence[str] | None = None,
    url: str | None = None,
    allow: str | None = None,
    tools: str | None = None,
    resources: str | None = None,
    prompts: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    headers: Mapping[str, str] | None = None,
    concurrency: int = AT_ONCE,
) -> type[McpServer]:
    """Return an agent class that is an MCP server to those who may reach it: list it in an app, or spawn it.

    Each agent of the class has one session with the server. When that ends, the agent fails, and its supervisor
    begins anew.

    Args:
        name: what its agents are called, in snake_case; its class, and so its type in policies, is that in CamelCase.
        command: a program and its arguments, to start as a process that speaks MCP over standard input and output.
        url: the endpoint of a server that is reached over streamable HTTP, in place of a command.
        allow: a Cedar condition on who may ask it from another node, as in `on`. Without one nobody may.
        tools: a further condition for calling a tool, say ``context.message.name == "read_file"``.
        resources: a further condition for reading a resource, say ``context.message.uri like "notes://*"``.
        prompts: a further condition for getting a prompt, by ``context.message.name``.
        env: environment variables of the process, besides the few that it inherits: ``HOME``, ``PATH`` and the like.
        cwd: the folder of the process.
        headers: what each HTTP request carries, say ``{"Authorization": "Bearer …"}``.
        concurrency: calls that the server works on at a time; more wait in the agent's mailbox.

    Raises:
        DeclarationError: the name cannot be one, or there is not one of `command` and `url`, or what is for the other.
        PolicyError: a condition does not parse, or names a field that one of its messages does not have.
    """
    place = _place(name, command, url, env, cwd, headers)
    class_name = "".join(part.capitalize() for part in name.split("_"))
    if not class_name.isidentifier() or snake_case(class_name) != name:
        raise DeclarationError(f"mcp_server(name={name!r}): write it in snake_case, as read_only_files")
    narrowed = {"tools": tools, "resources": resources, "prompts": prompts}
    if allow is None and any(narrowed.values()):
        raise DeclarationError(f"mcp_server({name!r}): tools=, resources= and prompts= narrow allow=: give that too")
    conditions = {message: _condition(name, message, allow, narrowed) for message in spec_of(McpServer).handlers}
    plain: type[McpServer] = type(class_name, (McpServer,), {"__doc__": f"The MCP server {name}.", "place": place})
    server = agent(concurrency=concurrency, topics={} if allow is None else {f"#{name}": allow})(plain)
    spec = spec_of(server)
    handlers = {message: attrs.evolve(handler, allow=conditions[message]) for message, handler in spec.handlers.items()}
    setattr(server, SPEC, attrs.evolve(spec, handlers=handlers, found={}, told={}))
    return server


def _place(  # noqa: PLR0913, PLR0917 - as they were given
    name: str,
    command: Sequence[str] | None,
    url: str | None,
    env: Mapping[str, str] | None,
    cwd: str | Path | None,
    headers: Mapping[str, str] | None,
) -> Place:
    start = f"mcp_server({name!r})"
    if (command is None) == (url is None):
        raise DeclarationError(f"{start}: give command=[…] or url=…, and not both")
    if command is not None:
        words = cast("Sequence[object]", command)
        if isinstance(command, str) or not words or not all(isinstance(each, str) for each in words):
            raise DeclarationError(f'{start}: give command= as a list of words, say ["uvx", "mcp-server-time"]')
        if headers is not None:
            raise DeclarationError(f"{start}: headers= is for url=; a command takes env=")
        return Command(tuple(command), dict(env or {}), cwd)
    if env is not None or cwd is not None:
        raise DeclarationError(f"{start}: env= and cwd= are for command=; a URL takes headers=")
    parts = urlsplit(cast("str", url))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise DeclarationError(f"{start}: url= is no http:// or https:// URL")
    return Url(cast("str", url), dict(headers or {}))


def _condition(name: str, message: type, allow: str | None, narrowed: Mapping[str, str | None]) -> str | None:
    """Return the condition on a message: that on all, and that on its kind."""
    if allow is None:
        return None
    which = _NARROWED.get(message, "")
    more = narrowed.get(which)
    try:
        for text in (allow, more):
            if text is not None:
                parse_allow(text)  # each by itself, so that no bracket of one closes one of the other
        condition = allow if more is None else f"({allow}) && ({more})"
        check_allow(condition, message)
    except PolicyError as error:
        hint = f"{which}=" if more else "what only a tool's, a resource's or a prompt's message has goes into its own"
        raise PolicyError(f"mcp_server({name!r}), {message.__name__}: {error} ({hint})") from None
    return condition
