"""``mcp``: agents and the Model Context Protocol."""

import os
from pathlib import Path

import click
import trio
from click.core import ParameterSource

from autonomy_trio.cli.options import (
    FILE,
    anchors_option,
    credential_option,
    home_option,
    parse_attributes,
    policy_option,
    relay_option,
    run_trio,
)
from autonomy_trio.cli.output import debug_option, log_option, say
from autonomy_trio.cli.passphrase import passphrase_for
from autonomy_trio.cli.send import reachable, refuse_itself
from autonomy_trio.cli.signals import Stop, reload_at_hangup, stoppable
from autonomy_trio.cli.target import load_agents
from autonomy_trio.connect.extras import extra
from autonomy_trio.connect.mcp.servers.agent import McpServer
from autonomy_trio.connect.mcp.serving import serve_http, serve_stdio
from autonomy_trio.fabric.node import Node
from autonomy_trio.fabric.opening import open_node
from autonomy_trio.trust.attributes import AttributeValue


@click.group()
def mcp() -> None:
    """Agents and the Model Context Protocol."""


@mcp.command()
@click.argument("target")
@click.option(
    "--http",
    metavar="ADDR",
    help="HOST:PORT to serve streamable HTTP on, say 127.0.0.1:8000; without it, standard input and output.",
)
@click.option(
    "--token-file",
    type=FILE,
    metavar="FILE",
    help="With --http: the bearer token that each client must show; needed beyond this machine.",
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    help="What is true of the client, for policies to read, say team=payments; repeatable. By default nothing.",
)
@relay_option
@home_option
@anchors_option
@policy_option
@click.option(
    "--audit",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Append a line of JSON to this file for each decision about what clients and other nodes send.",
)
@credential_option
@log_option
@debug_option
@click.pass_context
def serve(  # noqa: PLR0913, PLR0917 - the options of the command
    context: click.Context,
    target: str,
    http: str | None,
    token_file: Path | None,
    attributes: tuple[str, ...],
    relays: tuple[str, ...],
    home: Path,
    anchors: Path | None,
    policy: Path | None,
    audit: Path | None,
    credentials: tuple[Path, ...],
) -> None:
    """Offer the agents of TARGET, MODULE:ATTRIBUTE, to MCP clients.

    Each handler with a policy that lets the client through, allow= or --policy, is a tool. To policies the client is
    the agent 'mcp' of this node. Without --relay and --home the node's keys live in memory.

    The first Ctrl-C or SIGTERM gives calls under way 5 s to end; a second one stops at once. SIGHUP has it read its
    anchors and policy again.
    """
    if token_file is not None and http is None:
        raise click.UsageError("--token-file is for --http: at standard input and output there is one client.")
    about = parse_attributes(attributes)
    token = None if token_file is None else token_file.read_text(encoding="utf-8", errors="replace").strip()
    chosen = context.get_parameter_source("home") is not ParameterSource.DEFAULT or "AUTONOMY_HOME" in os.environ
    kept = home if chosen or relays else None
    passphrase = None if kept is None else passphrase_for(kept)
    agents = load_agents(target)

    async def main() -> None:
        opened = open_node(
            agents,
            relay=relays,
            home=kept,
            passphrase=passphrase,
            anchors=anchors,
            policy=policy,
            audit=audit,
            credentials=credentials,
        )
        async with stoppable() as stop, opened as node:
            stop.drains = True
            await _serve(node, http, token, about, stop)

    run_trio(main)
    say("stopped")


async def _serve(
    node: Node, http: str | None, token: str | None, attributes: dict[str, AttributeValue], stop: Stop
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(reload_at_hangup, node.reload_policies, stop)
        if http is None:
            say(f"node  {node.identifier}\nserving MCP at standard input and output")
            await serve_stdio(node, attributes=attributes, stop=stop.asked)
        else:
            async with trio.open_nursery() as serving:

                async def run(task_status: trio.TaskStatus[str]) -> None:
                    await serve_http(
                        node, http, token=token, attributes=attributes, stop=stop.asked, task_status=task_status
                    )

                url = await serving.start(run)
                say(f"node  {node.identifier}\nserving MCP at {url}{'' if token is None else ', with a token'}")
        nursery.cancel_scope.cancel()


@mcp.command(short_help="Be an MCP server to a client, and an agent on any node behind it.")
@click.argument("address")
@relay_option
@home_option
@credential_option
@log_option
@debug_option
def bridge(address: str, relays: tuple[str, ...], home: Path, credentials: tuple[Path, ...]) -> None:
    """Be an MCP server on standard input and output that answers what the agent at ADDRESS does.

    An MCP client starts this as it starts any server. It ends when standard input does, or with Ctrl-C. What it may do
    is decided by the policy of the agent's node, which sees the identity and credentials of --home.
    """
    with extra("mcp", "mcp bridge"):
        from autonomy_trio.connect.mcp.servers.bridging import Bridge  # noqa: PLC0415 - it needs the extra
        from autonomy_trio.connect.mcp.stdio import standard_streams  # noqa: PLC0415 - as well
    where, relays = reachable(address, relays)
    passphrase = passphrase_for(home)

    async def main() -> None:
        opened = open_node(relay=relays, home=home, passphrase=passphrase, credentials=credentials)
        async with (
            standard_streams() as (source, sink),
            stoppable() as stop,
            opened as node,
            trio.open_nursery() as nursery,
        ):
            stop.drains = True
            refuse_itself(node, where, home)

            async def end() -> None:
                await stop.asked.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            await Bridge(node, node.ref(str(where), McpServer)).serve(source, sink)
            nursery.cancel_scope.cancel()

    run_trio(main)
