"""The network benchmarks run, and are not fooled by one that loses messages."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing
from click.testing import CliRunner

from benchmarks import forwarder, linked, nats, network, wires
from benchmarks.__main__ import main
from benchmarks.measure import Row, WrongResultError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run do a few of everything, once, without NATS: such a run proves nothing about speed.

    Of packets not fewer: the kernel tells another process's CPU time late by up to 4 ms.
    """
    few = {"TOLD": 200, "ASKERS": 4, "ASKED": 8, "ASKED_SINGLY": 3, "PACKETS": 400, "IDLE": 2}
    for name, count in few.items():
        monkeypatch.setattr(network, name, count)
    monkeypatch.setattr(network, "interleave", lambda _, *measures: [measure() for measure in measures])
    monkeypatch.setattr("benchmarks.neighbours.UNDELIVERED", 10)
    monkeypatch.setattr("shutil.which", lambda _: None)


@pytest.mark.usefixtures("small")
def test_a_run_writes_every_row_and_says_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    run = CliRunner().invoke(main, ["network", "--quick", "--json", str(file)])
    if not isinstance(run.exception, SystemExit | None):
        raise run.exception
    rows = json.loads(file.read_text())
    without = " (nats-server is not installed)"
    assert list(rows) == [
        network.NATS_ONE_WAY.workload + without,
        network.RAW_ONE_WAY.workload,
        network.BULK.workload,
        network.BATCHED.workload,
        network.NATS_ASK.workload + without,
        network.ONE_ASK.workload,
        network.SEALED_ASK.workload,
        network.FRAMES.workload,
        network.IDLE_BYTES.workload,
        network.SLOW.workload,
    ]


async def test_a_lost_message_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked, "SIZE", linked.SIZE + 1)  # as if none had arrived whole
    with network.around() as around, pytest.raises(WrongResultError, match="chunks over the relay"):
        await linked.one_way(around.url, 10)


async def test_the_raw_side_forwards_and_forwards_on_after_one_end_has_left() -> None:
    with network.around() as around:
        for _ in range(2):
            assert await wires.one_way(around.port, 1000) > 0


async def test_frames_come_whole_however_they_are_cut(nursery: trio.Nursery) -> None:
    sent = forwarder.frame(1, b"one") + forwarder.frame(2, b"") + forwarder.frame(3, bytes(100_000))
    near, far = trio.testing.memory_stream_pair()

    async def send() -> None:
        for start in range(0, len(sent), 1001):
            await near.send_all(sent[start : start + 1001])
        await near.send_eof()

    nursery.start_soon(send)
    frames = forwarder.Frames(far)
    for name, length in ((1, 3), (2, 0), (3, 100_000)):
        assert await frames.next() == (name, b"one" if name == 1 else bytes(length))
    assert await frames.next() is None


def test_a_script_that_fails_raises() -> None:
    server = nats.Server("nats://127.0.0.1:1")
    with pytest.raises(WrongResultError, match="NATS one_way"):
        server.rate("one_way", 1)


def test_a_row_without_its_reference_informs_only() -> None:
    result = nats.Server(missing="none").result(Row("told", "messages/s", least=1), 5.0, 0.0)
    assert result.reference is None
    assert result.reaches_least()
