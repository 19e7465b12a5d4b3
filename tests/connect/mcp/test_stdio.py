"""MCP over a process's standard input and output: pipes, as clients have them, and files, as shells have them."""

import json
import os
import sys
import tty
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import mcp_types as types
import pytest
import trio
from mcp import Client, StdioServerParameters
from mcp.shared.message import SessionMessage
from structlog.testing import capture_logs

from autonomy_trio.connect.mcp.servers import lines
from autonomy_trio.connect.mcp.stdio import stdio_messages
from autonomy_trio.errors import ProtocolError
from tests.support.processes import ROOT

PING: Final = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
PONG: Final = SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={}))

Pipe = tuple[int, int]


def open_descriptors() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir() if each.exists()}


@pytest.fixture
def pipes() -> Generator[tuple[Pipe, Pipe]]:
    """A pipe to write the input of, and one to read the output of."""
    before = open_descriptors()
    source, target = os.pipe(), os.pipe()
    yield source, target
    for end in (*source, *target):
        try:
            os.close(end)
        except OSError:
            continue
    assert open_descriptors() <= before


async def received(count: int, source: Pipe, target: Pipe) -> list[Any]:
    with trio.fail_after(30):
        async with stdio_messages(source[0], target[1]) as (reading, _):
            return [await reading.receive() for _ in range(count)]


async def test_each_line_is_a_message_and_so_is_each_answer(pipes: tuple[Pipe, Pipe]) -> None:
    source, target = pipes
    os.write(source[1], PING + b"\n" + PING)
    with trio.fail_after(30):
        async with stdio_messages(source[0], target[1]) as (reading, writing):
            assert [(await reading.receive()).message.id for _ in range(2)] == [1, 1]  # type: ignore[union-attr]
            await writing.send(PONG)
            found = await trio.to_thread.run_sync(os.read, target[0], 1000)
    assert json.loads(found) == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert found.endswith(b"\n")


async def test_what_is_no_message_is_logged_and_those_after_it_come(pipes: tuple[Pipe, Pipe]) -> None:
    os.write(pipes[0][1], b"garbage\n\n" + b"\xff\n" + PING)
    with capture_logs() as logged:
        (found,) = await received(1, *pipes)
    assert isinstance(found, SessionMessage)
    assert [each["event"] for each in logged] == ["an MCP client sent what is no message"] * 2


async def test_a_client_that_asks_and_does_not_read_is_read_no_further(pipes: tuple[Pipe, Pipe]) -> None:
    source, target = pipes
    asked, answer = 0, SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=1, result={"text": "x" * 10_000}))
    os.write(source[1], PING * 1000)
    with trio.fail_after(30):
        async with stdio_messages(source[0], target[1]) as (reading, writing), trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                while asked < 1000:
                    await reading.receive()
                    asked += 1
                    nursery.start_soon(writing.send, answer)
            nursery.cancel_scope.cancel()
    assert asked < 200


async def test_a_line_that_is_too_long_ends_it(pipes: tuple[Pipe, Pipe], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE", 100)
    os.write(pipes[0][1], b"x" * 500 + b"\n" + PING)
    source, target = pipes
    with pytest.RaisesGroup(pytest.RaisesExc(ProtocolError, match="more than 100 bytes"), flatten_subgroups=True):
        async with stdio_messages(source[0], target[1]):
            await trio.sleep_forever()


async def test_the_inputs_end_is_the_streams(pipes: tuple[Pipe, Pipe]) -> None:
    source, target = pipes
    os.close(source[1])
    with trio.fail_after(30):
        async with stdio_messages(source[0], target[1]) as (reading, _):
            assert [each async for each in reading] == []


async def test_a_client_that_has_closed_its_end_is_no_failure(pipes: tuple[Pipe, Pipe]) -> None:
    source, target = pipes
    os.close(target[0])
    with trio.fail_after(30):
        async with stdio_messages(source[0], target[1]) as (_, writing):
            await writing.send(PONG)
            await trio.testing.wait_all_tasks_blocked()


async def test_it_can_be_cancelled_while_nothing_comes(pipes: tuple[Pipe, Pipe]) -> None:
    with trio.fail_after(30):
        with trio.move_on_after(0):
            await received(1, *pipes)


async def test_in_the_block_nobody_else_reads_or_writes_the_descriptors_and_afterwards_they_are_back(
    pipes: tuple[Pipe, Pipe],
) -> None:
    source, target = pipes
    async with stdio_messages(source[0], target[1]):
        assert os.read(source[0], 10) == b""
        os.write(target[1], b"printed\n")
    os.write(target[1], b"after\n")
    assert os.read(target[0], 100) == b"after\n"


async def test_a_terminal_stays_as_it_is_for_others() -> None:
    ours, theirs = os.openpty()
    another, out = os.dup(theirs), os.dup(theirs)
    try:
        tty.setraw(theirs)
        os.write(ours, PING)
        with trio.fail_after(30):
            async with stdio_messages(theirs, out) as (reading, _):
                assert isinstance(await reading.receive(), SessionMessage)
                assert os.get_blocking(another)
    finally:
        for end in (ours, theirs, another, out):
            os.close(end)


async def test_files_do_as_well_as_pipes(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(PING)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        with trio.fail_after(30):
            async with stdio_messages(source.fileno(), target.fileno()) as (reading, writing):
                assert [type(each) async for each in reading] == [SessionMessage]
                await writing.send(PONG)
                await trio.testing.wait_all_tasks_blocked(0.05)
    assert json.loads((tmp_path / "out").read_bytes()) == {"jsonrpc": "2.0", "id": 1, "result": {}}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_client_starts_the_server_and_calls_a_tool_and_what_handlers_print_is_no_message(
    mode: Any,  # noqa: ANN401 - the client's own
    tmp_path: Path,
) -> None:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "autonomy_trio", "mcp", "serve", "tests.support.desk:agents"],
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        cwd=ROOT,
    )
    with trio.fail_after(60):
        async with Client(server, mode=mode) as client:
            assert (await client.call_tool("add", {"amount": 3})).structured_content == {"value": 3}
            assert (await client.call_tool("who_asks", {})).content == [types.TextContent(text="mcp")]
