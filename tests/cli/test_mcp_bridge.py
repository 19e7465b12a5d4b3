"""``mcp bridge`` as an MCP client runs it: a process that speaks MCP over standard input and output."""

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
from mcp import types
from mcp.client.session import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError

from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call
from tests.support.mcp_agents import SCRIPT
from tests.support.processes import PATIENCE, Process, environment

APP: Final = """
from autonomy_trio.connect.mcp import mcp_server

agents = [
    mcp_server(
        name="script",
        command={command},
        allow='principal.role == "reader"',
        tools='context.message.name != "about"',
    )
]
"""
BEGIN: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@attrs.frozen
class Bridged:
    """A node that serves a scripted MCP server behind a relay, and the home of one that may use it."""

    address: str
    home: Path
    env: dict[str, str]
    log: Path

    def arguments(self) -> list[str]:
        return ["-m", "autonomy_trio", "mcp", "bridge", self.address, "--home", str(self.home)]

    def start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, *self.arguments()], env=self.env, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8"
        )


@pytest.fixture(scope="module")
def bridged(tmp_path_factory: pytest.TempPathFactory) -> Generator[Bridged]:
    folder = tmp_path_factory.mktemp("bridged")
    env = environment(folder)
    log = folder / "log"
    (folder / "app.py").write_text(APP.format(command=[sys.executable, "-S", str(SCRIPT), "well", str(log)]))
    home = folder / "client"
    with Vault.open(home) as vault:
        identifier = f"I{vault.identifier.hex()}"
    server = folder / "server"
    issue = ["authority", "issue", "--subject", identifier, "--attribute", "role=reader"]
    with Process("run", "app:agents", "--listen", "127.0.0.1:0", "--home", str(server), env=env, cwd=folder) as node:
        address = node.wait_line("/script").strip()
        with Process(*issue, "--out", str(home / "credentials" / "role"), "--home", str(server), env=env) as issuing:
            assert issuing.wait() == 0
        yield Bridged(address, home, env, log)


def say(process: subprocess.Popen[str], message: dict[str, Any]) -> dict[str, Any]:
    """Send a request, and return what is answered."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


async def test_an_unmodified_client_calls_what_it_may_and_nothing_else(bridged: Bridged, tmp_path: Path) -> None:
    parameters = StdioServerParameters(command=sys.executable, args=bridged.arguments(), env=bridged.env)
    strange: list[object] = []

    async def take(message: object) -> None:
        if isinstance(message, Exception):
            strange.append(message)

    said = tmp_path / "said"
    with trio.fail_after(PATIENCE), said.open("w") as errors:
        async with (
            stdio_client(parameters, errlog=errors) as (messages, replies),
            ClientSession(messages, replies, message_handler=take) as session,
        ):
            assert (await session.initialize()).server_info.name == "script"
            answers: list[types.CallToolResult] = []

            async def call(size: int) -> None:
                found = await session.call_tool("big", {"size": size})
                assert isinstance(found, types.CallToolResult)
                answers.append(found)

            async with trio.open_nursery() as nursery:
                for size in (1, 1_000_000, 2):
                    nursery.start_soon(call, size)
            sizes = [len(part.text) for each in answers for part in each.content if isinstance(part, types.TextContent)]
            assert sorted(sizes) == [1, 2, 1_000_000]
            with pytest.raises(MCPError, match="denied CallToolInParts"):
                await session.call_tool("about", {})
    assert strange == [], "there is something on standard output that is no JSON-RPC"
    assert said.read_text() == ""


def test_it_ends_with_its_standard_input(bridged: Bridged) -> None:
    with bridged.start() as process:
        assert say(process, BEGIN)["result"]["serverInfo"]["name"] == "script"
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_withdraws_what_is_under_way(bridged: Bridged, number: signal.Signals) -> None:
    with bridged.start() as process:
        say(process, BEGIN)
        assert process.stdin is not None
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "wait"}}
        process.stdin.write(json.dumps(call) + "\n")
        process.stdin.flush()
        assert say(process, {"jsonrpc": "2.0", "id": 3, "method": "ping"})["id"] == 3
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_it_ends_when_its_client_reads_no_more(bridged: Bridged) -> None:
    with bridged.start() as process:
        say(process, BEGIN)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write('{"jsonrpc": "2.0", "id": 2, "method": "ping"}\n')
        process.stdin.flush()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_what_cannot_work_is_one_sentence(bridged: Bridged, call: Call, tmp_path: Path) -> None:
    nobody = bridged.address.replace("ws://127.0.0.1:", "ws://127.0.0.1:1/").split("/")
    unreachable = f"ws://127.0.0.1:1/{'/'.join(nobody[-2:])}"
    assert call("mcp", "bridge", unreachable, "--home", tmp_path / "one").is_one_sentence(1)
    assert call("mcp", "bridge", "nonsense", "--home", tmp_path / "one").is_one_sentence(2)
    assert call("mcp", "bridge", "--home", tmp_path / "one").is_one_sentence(2)


def test_without_the_extra_the_line_that_installs_it_is_said(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "autonomy_trio.connect.mcp.servers.bridging", raising=False)
    for module in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.setitem(sys.modules, module, None)
    found = call("mcp", "bridge", "nonsense")
    assert found.is_one_sentence(2)
    assert 'pip install "autonomy-trio[mcp]"' in found.err
