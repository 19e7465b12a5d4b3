"""What a relay or a node counts, over HTTP: ``/healthz``, and ``/metrics`` as Prometheus reads it.

The text format is Prometheus' own, version 0.0.4. Whoever connects is a stranger: one request of a few lines within a
few seconds is answered, and the connection ends.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, final

import attrs
import trio

from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.listening import open_listeners
from autonomy_trio.fabric.node import NodeStatistics
from autonomy_trio.fabric.relays.relay import RelayStatistics
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log

MOST_REQUEST: Final = 8 * 1024
"""Bytes of a request with its headers."""

REQUEST_LIMIT: Final = 5.0
"""Seconds in which a request is read and answered."""

MOST_REQUESTS: Final = 32
"""Requests at once."""

_CALM: Final = "text/plain; charset=utf-8"
_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

_log = get_log()


@attrs.frozen
class Metric:
    """Something that is counted or held now.

    `value` is a number, or one for each value of `label`.
    """

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    value: float | Mapping[str, float]
    label: str = ""


@attrs.frozen
class Report:
    """What is told over HTTP.

    Attributes:
        metrics: what there is now.
        ailing: why this is not healthy now; None where it is.
    """

    metrics: Iterable[Metric]
    ailing: str | None = None


def relay_report(statistics: RelayStatistics) -> Report:
    """Tell what a relay has done and holds; one that drains is not healthy, so that nobody is sent there."""
    return Report(
        (
            Metric("autonomy_relay_nodes", "gauge", "Nodes that are registered.", statistics.nodes),
            Metric("autonomy_relay_connections", "gauge", "Connections that are open.", statistics.connections),
            Metric("autonomy_relay_waiting_bytes", "gauge", "Bytes in all outboxes.", statistics.waiting_bytes),
            Metric("autonomy_relay_forwarded_total", "counter", "Packets that were forwarded.", statistics.forwarded),
            Metric(
                "autonomy_relay_refused_total",
                "counter",
                "Packets whose destination was away or full.",
                statistics.refused,
            ),
            Metric(
                "autonomy_relay_turned_away_total",
                "counter",
                "Connections that were one too many.",
                statistics.turned_away,
            ),
            Metric("autonomy_relay_passed_total", "counter", "Packets to other relays.", statistics.passed),
            Metric("autonomy_relay_stored_total", "counter", "Envelopes that were stored.", statistics.stored),
            Metric(
                "autonomy_relay_not_stored_total", "counter", "Envelopes that were not stored.", statistics.not_stored
            ),
            Metric("autonomy_store_envelopes", "gauge", "Envelopes in the store.", statistics.kept),
            Metric("autonomy_store_bytes", "gauge", "Bytes they count for.", statistics.kept_bytes),
            Metric(
                "autonomy_store_oldest_seconds", "gauge", "For how long the oldest has waited.", statistics.oldest_age
            ),
        ),
        "draining" if statistics.draining else None,
    )


def node_report(statistics: NodeStatistics) -> Report:
    """Tell what a node holds and has counted."""
    return Report(
        (
            Metric("autonomy_node_agents", "gauge", "Agents that live.", statistics.agents),
            Metric("autonomy_node_agents_awake", "gauge", "Agents that have a task now.", statistics.awake),
            Metric("autonomy_node_queued", "gauge", "Messages accepted and not handled yet.", statistics.queued),
            Metric("autonomy_node_peers", "gauge", "Nodes that something is under way with.", statistics.peers),
            Metric("autonomy_node_portals", "gauge", "Ends of portals' streams.", statistics.portals),
            Metric("autonomy_node_relays", "gauge", "Relays that the node is attached to.", statistics.relays),
            Metric("autonomy_node_handled_total", "counter", "Messages handled to their end.", statistics.handled),
            Metric("autonomy_node_decoded_total", "counter", "Payloads of other nodes decoded.", statistics.decoded),
            Metric("autonomy_node_failures_total", "counter", "Failures of agents.", statistics.failures),
            Metric("autonomy_node_lost_total", "counter", "Messages that could not be sent.", statistics.lost),
            Metric("autonomy_node_dropped_total", "counter", "Packets that no relay took.", statistics.dropped),
            Metric(
                "autonomy_node_dead_letters_total",
                "counter",
                "Messages that reached no handler or failed theirs.",
                {str(reason): count for reason, count in statistics.dead_letters.items()},
                "reason",
            ),
        )
    )


def to_text(metrics: Iterable[Metric]) -> str:
    """Return metrics in Prometheus' text format."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
        if isinstance(metric.value, Mapping):
            lines += [
                f'{metric.name}{{{metric.label}="{_escaped(label)}"}} {value}'
                for label, value in sorted(metric.value.items())
            ]
        else:
            lines.append(f"{metric.name} {metric.value}")
    return "".join(f"{line}\n" for line in lines)


@final
@attrs.define(eq=False)
class MetricsListener:
    """Sockets that answer requests, from `listen_for_metrics`."""

    address: ListenAddress
    """Where they listen, with the port they really have."""
    _listeners: list[trio.SocketListener]
    _report: Callable[[], Report]
    _open: int = 0

    async def serve(self) -> None:
        """Answer until cancelled."""
        await trio.serve_listeners(self._serve_one, self._listeners)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        def failed(error: Exception) -> None:
            if not isinstance(error, trio.BrokenResourceError):
                _log.error("request for metrics failed", exc_info=error)

        if self._open >= MOST_REQUESTS:
            return
        self._open += 1
        try:
            # Fence: a stranger's connection, or a number that cannot be had now; the server goes on.
            with trio.move_on_after(REQUEST_LIMIT), fence(failed):
                request = await _read_request(stream)
                if request is not None:
                    await stream.send_all(self._answer(request))
                    await stream.send_eof()
        finally:
            self._open -= 1

    def _answer(self, request: list[bytes]) -> bytes:
        match request:
            case [b"GET", path, _]:
                pass
            case [_, _, _]:
                return _response("405 Method Not Allowed", "only GET is answered\n", more="Allow: GET\r\n")
            case _:
                return _response("400 Bad Request", "this is no HTTP\n")
        report = self._report()
        match path.partition(b"?")[0]:
            case b"/metrics":
                return _response("200 OK", to_text(report.metrics), _PROMETHEUS)
            case b"/healthz" if report.ailing is None:
                return _response("200 OK", "ok\n")
            case b"/healthz":
                return _response("503 Service Unavailable", f"{report.ailing}\n")
            case _:
                return _response("404 Not Found", "there are /metrics and /healthz\n")


async def listen_for_metrics(address: ListenAddress, report: Callable[[], Report]) -> MetricsListener:
    """Open sockets to tell what there is on.

    Args:
        address: where; it tells anybody who can reach it, so on this machine alone unless asked otherwise.
        report: returns what to tell, at each request.

    Raises:
        ConfigurationError: the address cannot be listened on; the text says why.
    """
    listeners, found = await open_listeners(address, "--metrics")
    return MetricsListener(found, listeners, report)


async def _read_request(stream: trio.SocketStream) -> list[bytes] | None:
    """Return the words of a request's first line; None where it does not end within its bounds."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = await stream.receive_some(MOST_REQUEST)
        received += more
        if not more or len(received) > MOST_REQUEST:
            return None
    return received.split(b"\r\n", 1)[0].split(b" ")


def _response(status: str, text: str, kind: str = _CALM, *, more: str = "") -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
