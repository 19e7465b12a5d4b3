"""JSON-RPC as lines: cut, bounded, and ended with either stream."""

import anyio
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification

from autonomy_trio.connect.mcp.servers import lines
from autonomy_trio.connect.mcp.servers.lines import Lines, over_lines
from autonomy_trio.errors import ProtocolError


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_lines_are_the_same_however_their_bytes_come(data: bytes, cuts: list[int]) -> None:
    found = Lines(1000, bytearray())
    cut: list[bytes] = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        cut += found.feed(data[start:end])
    assert cut == [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]


def test_a_line_has_a_most() -> None:
    assert Lines(4, bytearray()).feed(b"1234\n") == [b"1234"]
    for before, last in ((b"", b"12345\n"), (b"123", b"45"), (b"", b"1\n12345")):
        found = Lines(4, bytearray())
        assert found.feed(before) == []
        with pytest.raises(ProtocolError, match="a line has more than 4 bytes"):
            found.feed(last)


def notice(method: str) -> SessionMessage:
    return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method=method))


async def test_messages_go_both_ways_and_what_is_none_is_told() -> None:
    near, far = trio.testing.memory_stream_pair()
    strange: list[bytes] = []
    async with over_lines(near, near, strange.append) as (messages, replies):
        await far.send_all(b'{"jsonrpc":"2.0","method":"a"}\r\nnonsense\n{"jsonrpc":"2.0","method":"b"}\n{"half')
        assert [(await messages.receive()), (await messages.receive())] == [notice("a"), notice("b")]
        await replies.send(notice("c"))
        assert await far.receive_some() == b'{"jsonrpc":"2.0","method":"c"}\n'
        await far.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await messages.receive()
    assert strange == [b"nonsense"]


async def test_what_is_read_ends_when_nothing_can_be_written_any_more() -> None:
    near, far = trio.testing.memory_stream_pair()
    source, _kept = trio.testing.memory_stream_pair()
    await far.aclose()
    async with over_lines(source, near, lambda _: None) as (messages, replies):
        await replies.send(notice("lost"))
        with pytest.raises(anyio.EndOfStream):
            await messages.receive()


class Broken(trio.abc.ReceiveStream):
    """A stream whose other side is gone."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        """Hold nothing."""


async def test_a_break_is_an_end() -> None:
    near, _far = trio.testing.memory_stream_pair()
    async with over_lines(Broken(), near, lambda _: None) as (messages, _):
        with pytest.raises(anyio.EndOfStream):
            await messages.receive()


async def test_a_line_that_is_too_long_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE", 10)
    near, far = trio.testing.memory_stream_pair()
    with pytest.RaisesGroup(ProtocolError):
        async with over_lines(near, near, lambda _: None):
            await far.send_all(b"x" * 11)
            await trio.sleep_forever()
