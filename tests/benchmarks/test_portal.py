"""The portal benchmarks run, say what is not installed, and are not fooled by bytes that are lost."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import portal, tunnels
from benchmarks.__main__ import main
from benchmarks.measure import WrongResultError
from tests.support.processes import free_port


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run do a little of everything: such a run proves nothing about speed."""
    monkeypatch.setattr(portal, "UPLOADED", portal.MIB)
    monkeypatch.setattr(portal, "REQUESTS", 200)
    monkeypatch.setattr("benchmarks.measure.NOISE", 100.0)


@pytest.mark.usefixtures("small")
def test_a_run_writes_every_row_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis = {"redis-server", "redis-benchmark", "valkey-server", "valkey-benchmark"}
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path=None: which(name) if name in redis else None)
    file = tmp_path / "portal.json"
    run = CliRunner().invoke(main, ["portal", "--quick", "--json", str(file)])
    if not isinstance(run.exception, SystemExit | None):
        raise run.exception
    rows = json.loads(file.read_text())
    no_ssh, no_stunnel = " (openssh-server and openssh-client are not installed)", " (stunnel4 is not installed)"
    assert list(rows) == [
        portal.CHAIN.workload,
        portal.SSH.workload + no_ssh,
        portal.STUNNEL.workload + no_stunnel,
        portal.CPU.workload,
        portal.SSH_CPU.workload + no_ssh,
        portal.GETS.workload,
    ]
    assert rows[portal.CHAIN.workload]["ratio"] > 0


def test_without_redis_its_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert "not installed" in portal.gets(1, 1).missing


@pytest.mark.outside
@pytest.mark.parametrize("tunnel", [tunnels.ssh, tunnels.stunnel])
def test_a_tunnel_of_others_carries_bytes_and_its_time_is_counted(tunnel: "type[tunnels.ssh]", tmp_path: Path) -> None:
    with portal._end("sink") as sink, tunnel(int(sink.line()), tmp_path) as way:
        if way.missing:
            pytest.skip(way.missing)
        found = portal.upload(way, 64 * portal.MIB)
    assert found.rate > 0
    assert found.cpu > 0


def test_bytes_that_are_lost_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portal, "MIB", portal.MIB + 1)  # as if the last one had not arrived
    with portal._end("sink") as sink, pytest.raises(WrongResultError, match="bytes uploaded"):
        portal.upload(tunnels.Way(int(sink.line())), 1024 * 1024)


def test_a_redis_benchmark_that_fails_raises() -> None:
    with pytest.raises(WrongResultError, match="redis-benchmark"):
        portal._gets("false", free_port(), 1)


def test_a_process_that_does_not_come_up_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "PATIENCE", 0.1)
    with pytest.raises(WrongResultError, match="nobody listens"):
        tunnels.wait_listening(free_port())
