"""``mcp serve``: what it says, what it refuses, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import Call
from tests.support.processes import PATIENCE, ROOT, Process, environment

APP: Final = "tests.support.desk:agents"
HELLO: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
READY: Final = {"jsonrpc": "2.0", "method": "notifications/initialized"}
WAIT: Final = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "wait"}}


@pytest.fixture
def stdio(tmp_path: Path) -> Generator[subprocess.Popen[str]]:
    """A server with a client that speaks to it by hand."""
    with subprocess.Popen(
        [sys.executable, "-m", "autonomy_trio", "mcp", "serve", APP],
        env=environment(tmp_path),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        yield process
        process.kill()


def say(process: subprocess.Popen[str], *messages: object) -> None:
    assert process.stdin is not None
    for message in messages:
        process.stdin.write(f"{json.dumps(message)}\n")
    process.stdin.flush()


def add(number: int) -> dict[str, object]:
    params = {"name": "add", "arguments": {"amount": 1}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def greeted(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    say(process, HELLO)
    assert json.loads(process.stdout.readline())["id"] == 1
    say(process, READY)


def test_over_http_it_says_where_it_serves_and_ends_with_a_signal(tmp_path: Path) -> None:
    with Process("mcp", "serve", APP, "--http", "127.0.0.1:0", env=environment(tmp_path)) as server:
        assert "/mcp" in server.wait_line("serving MCP at http://127.0.0.1:")
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.out == ""
        assert server.err.endswith("stopped\n")


def test_it_makes_no_home_unless_there_is_a_use_for_one(tmp_path: Path) -> None:
    with Process("mcp", "serve", APP, "--http", "127.0.0.1:0", env=environment(tmp_path)) as server:
        server.wait_line("serving MCP at")
    assert not list(tmp_path.iterdir())
    home = tmp_path / "kept"
    arguments = ("mcp", "serve", APP, "--http", "127.0.0.1:0", "--home", str(home))
    with Process(*arguments, env=environment(tmp_path)) as server:
        server.wait_line("serving MCP at")
    assert home.exists()


def test_standard_output_has_nothing_but_messages(stdio: subprocess.Popen[str]) -> None:
    greeted(stdio)
    say(stdio, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "who_asks"}})
    assert stdio.stdout is not None
    assert json.loads(stdio.stdout.readline())["result"]["content"] == [{"type": "text", "text": "mcp"}]
    out, err = stdio.communicate(timeout=PATIENCE)
    assert out == ""
    assert "a handler that prints\n" in err
    assert stdio.returncode == 0


def test_a_client_that_closes_its_end_ends_the_server(stdio: subprocess.Popen[str]) -> None:
    greeted(stdio)
    say(stdio, WAIT)
    stdio.communicate(timeout=PATIENCE)
    assert stdio.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_while_its_client_says_nothing(
    stdio: subprocess.Popen[str], number: signal.Signals
) -> None:
    greeted(stdio)
    os.kill(stdio.pid, number)
    assert stdio.wait(PATIENCE) == 0


def test_a_second_signal_does_not_wait_for_calls(stdio: subprocess.Popen[str]) -> None:
    greeted(stdio)
    say(stdio, WAIT)
    say(
        stdio,
        add(3),
    )
    assert stdio.stdout is not None
    stdio.stdout.readline()
    os.kill(stdio.pid, signal.SIGTERM)
    say(
        stdio,
        add(4),
    )
    while "the server is stopping" not in stdio.stdout.readline():
        say(
            stdio,
            add(5),
        )
    os.kill(stdio.pid, signal.SIGTERM)
    assert stdio.wait(PATIENCE) == 0


def test_a_port_in_use_is_one_sentence(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        found = call("mcp", "serve", APP, "--http", f"127.0.0.1:{port}")
    assert found.code == 2
    assert found.err.startswith(f"Error: cannot listen on 127.0.0.1:{port} (address already in use)")
    assert len(found.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--http", "0.0.0.0:0"), "there is no token: give one with --token-file"),
        (("--http", "nowhere"), "'nowhere' is nothing to listen on: write HOST:PORT"),
        (("--attribute", "team"), "--attribute 'team' is no attribute"),
    ],
)
def test_what_cannot_be_right_is_one_sentence(call: Call, arguments: tuple[str, ...], said: str) -> None:
    found = call("mcp", "serve", APP, *arguments)
    assert found.code == 2
    assert said in found.err
    assert len(found.err.splitlines()) == 1


def test_a_token_is_for_http(call: Call, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token that is long enough\n")
    found = call("mcp", "serve", APP, "--token-file", str(tmp_path / "token"))
    assert found.code == 2
    assert "--token-file is for --http" in found.err


def test_a_token_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token that is long enough\n")
    arguments = ("mcp", "serve", APP, "--http", "127.0.0.1:0", "--token-file", str(tmp_path / "token"))
    with Process(*arguments, env=environment(tmp_path)) as server:
        server.wait_line(", with a token")
    assert "long enough" not in server.err
