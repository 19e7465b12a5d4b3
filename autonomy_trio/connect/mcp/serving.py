"""Serve MCP clients from a node: over standard input and output, or over HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from autonomy_trio.connect.extras import extra
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.listening import open_listeners
from autonomy_trio.fabric.node import Node
from autonomy_trio.trust.attributes import AttributeValue

LEAST_TOKEN: Final = 16
"""Characters that a token has."""

NAME: Final = "autonomy-trio"
"""What a server is called to its clients."""

_PURPOSE: Final = "an MCP server"


async def serve_stdio(
    node: Node,
    *,
    attributes: Mapping[str, AttributeValue] | None = None,
    stop: trio.Event | None = None,
) -> None:
    """Serve the MCP client at this process's standard input and output, until that closes its end.

    What handlers print goes to standard error meanwhile.

    Args:
        node: whose agents are offered: each handler that policies open is a tool, a resource or a prompt.
        attributes: what is true of the client, for policies to read; by default nothing.
        stop: when set, no more calls are taken, those under way have 5 s to end, and it returns.

    Raises:
        ConfigurationError: the SDK is not installed.
        DeclarationError: a handler cannot be what it is marked as.
        NameTaken: an agent is called ``mcp``, as the one is that speaks for the client.

    On cancellation calls under way are cancelled.
    """
    with extra("mcp", _PURPOSE):
        from autonomy_trio.connect.mcp.service import open_service  # noqa: PLC0415 - it needs an extra
        from autonomy_trio.connect.mcp.stdio import stdio_messages  # noqa: PLC0415 - as well

    async with open_service(node, name=NAME, attributes=attributes) as service, trio.open_nursery() as nursery:
        nursery.start_soon(_drain_when, stop, service.drain, nursery.cancel_scope)
        async with stdio_messages() as (reading, writing):
            await service.server.run(reading, writing, service.server.create_initialization_options())
        nursery.cancel_scope.cancel()


async def serve_http(  # noqa: PLR0913 - each has a default that is right for most
    node: Node,
    address: str,
    *,
    token: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve MCP clients over streamable HTTP until cancelled, or stopped; starts with the URL.

    Requests whose ``Host`` is another than this machine's, or whose ``Origin`` is, are refused, and without the token
    where there is one. There is no TLS: beyond this machine put it behind something that has.

    Args:
        node: whose agents are offered: each handler that policies open is a tool, a resource or a prompt.
        address: ``HOST:PORT`` to listen on, port 0 for a free one.
        token: what each client must show as its bearer token, at least 16 characters; needed for an address that
            others than this machine reach.
        attributes: what is true of all clients, for policies to read; by default nothing.
        stop: when set, no more calls are taken, those under way have 5 s to end, and it returns.
        task_status: told the URL once it listens.

    Raises:
        ConfigurationError: the SDK is not installed, the address cannot be listened on, or it is reached by others and
            there is no token, or the token is short.
        DeclarationError: a handler cannot be what it is marked as.
        NameTaken: an agent is called ``mcp``, as the one is that speaks for the clients.

    On cancellation calls under way are cancelled, and all connections closed.
    """
    with extra("mcp", _PURPOSE):
        from autonomy_trio.connect.mcp.gate import PATH, Gate, is_loopback  # noqa: PLC0415 - it needs an extra
        from autonomy_trio.connect.mcp.service import open_service  # noqa: PLC0415 - as well
        from autonomy_trio.connect.mcp.web import Web  # noqa: PLC0415 - as well

    where = ListenAddress.parse(address)
    if token is None and not is_loopback(where.host):
        raise ConfigurationError(
            f"others than this machine reach {where}, and there is no token: give one with --token-file,"
            " or listen on 127.0.0.1"
        )
    if token is not None and not (len(token) >= LEAST_TOKEN and token.isascii() and token.isprintable()):
        raise ConfigurationError(f"the token must have at least {LEAST_TOKEN} characters of ASCII, without line breaks")
    async with open_service(node, name=NAME, attributes=attributes) as service, trio.open_nursery() as nursery:
        listeners, found = await open_listeners(where, "--http")
        await nursery.start(Web(service.server, Gate(where.host, token)).serve, listeners)
        nursery.start_soon(_drain_when, stop, service.drain, nursery.cancel_scope)
        task_status.started(f"http://{found}{PATH}")


async def _drain_when(stop: trio.Event | None, drain: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    if stop is not None:
        await stop.wait()
        await drain()
        scope.cancel()
