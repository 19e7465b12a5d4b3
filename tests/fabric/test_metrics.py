"""``/healthz`` and ``/metrics``: what they say, and that no stranger holds them up."""

from collections.abc import MutableMapping
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from autonomy_trio import open_node
from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric import metrics
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.metrics import Metric, Report, listen_for_metrics, node_report, relay_report, to_text
from autonomy_trio.fabric.relays.relay import RelayStatistics
from tests.support.neighbours import Neighbourhood, eventually

HERE = ListenAddress("127.0.0.1", 0)
REPORT = Report((Metric("things", "gauge", "Things.", 3),))


async def start(nursery: trio.Nursery, report: Report = REPORT) -> int:
    listener = await listen_for_metrics(HERE, lambda: report)
    nursery.start_soon(listener.serve)
    return listener.address.port


async def request(port: int, text: bytes) -> bytes:
    """Send a request, and return all that comes until the other end closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.fail_after(10):
            await stream.send_all(text)
            received = b""
            try:
                while more := await stream.receive_some():
                    received += more
            except trio.BrokenResourceError:
                pass  # closed with something of ours unread
            return received


async def get(port: int, path: str) -> tuple[str, str]:
    """Return the status and the body."""
    head, _, body = (await request(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return head.split(b"\r\n")[0].decode().removeprefix("HTTP/1.1 "), body.decode()


async def test_metrics_are_told_in_the_format_of_prometheus(nursery: trio.Nursery) -> None:
    status, body = await get(await start(nursery), "/metrics?x=1")
    assert (status, body) == ("200 OK", "# HELP things Things.\n# TYPE things gauge\nthings 3\n")


def test_a_metric_with_a_label_has_a_line_for_each_and_quotes_what_needs_it() -> None:
    text = to_text([Metric("letters_total", "counter", "Letters.", {"lost": 2, 'a"\\\nb': 1}, "why")])
    assert text.splitlines()[2:] == [r'letters_total{why="a\"\\\nb"} 1', 'letters_total{why="lost"} 2']


async def test_health_is_ok_or_says_what_ails(nursery: trio.Nursery) -> None:
    assert await get(await start(nursery), "/healthz") == ("200 OK", "ok\n")
    ailing = await start(nursery, attrs.evolve(REPORT, ailing="draining"))
    assert await get(ailing, "/healthz") == ("503 Service Unavailable", "draining\n")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"hello\r\n\r\n", b"400"),
        (b"\xff\xfe\x00 \x00 \x00 \x00\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
    ],
    ids=["path", "method", "word", "bytes", "nothing"],
)
async def test_other_requests_are_refused_and_the_next_is_answered(
    nursery: trio.Nursery, text: bytes, status: bytes
) -> None:
    port = await start(nursery)
    assert (await request(port, text)).startswith(b"HTTP/1.1 " + status)
    assert (await get(port, "/healthz"))[0] == "200 OK"


async def test_a_request_without_end_is_not_read_on(nursery: trio.Nursery) -> None:
    port = await start(nursery)
    assert await request(port, b"GET /metrics HTTP/1.1\r\nX: " + bytes(2 * metrics.MOST_REQUEST)) == b""
    assert (await get(port, "/healthz"))[0] == "200 OK"


async def test_connections_that_say_nothing_are_bounded_and_dropped(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MOST_REQUESTS", 2)
    port = await start(nursery)
    silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
    with trio.fail_after(10):
        while await request(port, b"GET /healthz HTTP/1.1\r\n\r\n"):  # noqa: ASYNC110 - only the server knows; until both have been accepted
            await trio.sleep(0.01)
    for stream in silent:
        await stream.aclose()
    with trio.fail_after(10):
        while not await request(port, b"GET /healthz HTTP/1.1\r\n\r\n"):  # noqa: ASYNC110 - only the server knows
            await trio.sleep(0.01)


async def test_a_silent_connection_ends_in_time(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_LIMIT", 0.05)
    assert await request(await start(nursery), b"") == b""


async def test_a_report_that_fails_is_logged_and_the_server_goes_on(
    nursery: trio.Nursery, log: list[MutableMapping[str, Any]]
) -> None:
    reports = iter([None, REPORT])

    def report() -> Report:
        found = next(reports)
        if found is None:
            raise RuntimeError("no numbers")
        return found

    listener = await listen_for_metrics(HERE, report)
    nursery.start_soon(listener.serve)
    assert await request(listener.address.port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    assert (await get(listener.address.port, "/metrics"))[0] == "200 OK"
    assert [line["event"] for line in log if line["log_level"] == "error"] == ["request for metrics failed"]


async def test_an_address_in_use_names_the_option(nursery: trio.Nursery) -> None:
    port = await start(nursery)
    with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} .*in use.*--metrics"):
        await listen_for_metrics(ListenAddress("127.0.0.1", port), lambda: REPORT)


async def test_a_relay_tells_all_it_counts(neighbourhood: Neighbourhood) -> None:
    a, b = await neighbourhood.neighbour(), await neighbourhood.neighbour()
    await a.send(b.id, b"packet")
    await a.send(bytes(32), b"packet")
    await eventually(lambda: neighbourhood.relay.statistics().refused == 1)
    text = to_text(relay_report(neighbourhood.relay.statistics()).metrics)
    assert "autonomy_relay_nodes 2\n" in text
    assert "autonomy_relay_forwarded_total 1\n" in text
    assert "autonomy_relay_refused_total 1\n" in text
    told = len(list(relay_report(neighbourhood.relay.statistics()).metrics))
    assert told == len(attrs.fields(RelayStatistics)) - 1  # all but `draining`, which is health


async def test_a_relay_that_drains_is_not_healthy_and_lets_nobody_in(neighbourhood: Neighbourhood) -> None:
    assert relay_report(neighbourhood.relay.statistics()).ailing is None
    await neighbourhood.relay.drain()
    assert relay_report(neighbourhood.relay.statistics()).ailing == "draining"
    refused = neighbourhood.link()
    with pytest.raises(Exception, match="closed"):
        await refused.receive()


async def test_a_node_tells_what_it_counts() -> None:
    async with open_node() as node:
        text = to_text(node_report(node.statistics()).metrics)
    assert "autonomy_node_agents 0\n" in text
    assert "autonomy_node_handled_total 0\n" in text
