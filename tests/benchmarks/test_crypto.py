"""The cryptographic benchmarks run, and are not fooled by one that loses messages or decides wrongly."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import crypto
from benchmarks.__main__ import main
from benchmarks.measure import WrongResultError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run take a few of everything, once: such a run proves nothing about speed."""
    for name in ("handshakes", "bare_handshakes"):
        measure = getattr(crypto, name)
        monkeypatch.setattr(crypto, name, lambda _, measure=measure: measure(2))
    envelopes, bare, ask = crypto.envelopes, crypto.bare_envelopes, crypto.ask
    monkeypatch.setattr(crypto, "envelopes", lambda pair, traffic, _: envelopes(pair, traffic, traffic.batch))
    monkeypatch.setattr(crypto, "bare_envelopes", lambda traffic, _: bare(traffic, traffic.batch))
    monkeypatch.setattr(crypto, "ask", lambda _, agents: ask(10, agents))
    monkeypatch.setattr(crypto, "interleave", lambda _, *measures: [measure() for measure in measures])


@pytest.mark.usefixtures("small")
def test_a_run_writes_every_row(tmp_path: Path) -> None:
    file = tmp_path / "crypto.json"
    run = CliRunner().invoke(main, ["crypto", "--quick", "--json", str(file)])
    assert run.exit_code in {0, 1}, run.output
    rows = json.loads(file.read_text())
    assert list(rows) == [
        crypto.HANDSHAKE.workload,
        *(traffic.row.workload for traffic in crypto.TRAFFIC),
        crypto.BATCHED.workload,
        crypto.CACHED.workload,
        crypto.UNCACHED.workload,
    ]
    assert all(row["value"] > 0 for row in rows.values())


def test_a_lost_message_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "next_batch", lambda waiting: [waiting.popleft() for _ in range(len(waiting))][1:])
    with pytest.raises(WrongResultError, match="messages opened"):
        crypto.envelopes(crypto.open_session(), crypto.Traffic("", 256, 8), 8)


def test_a_wrong_decision_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    principal = crypto.Principal
    monkeypatch.setattr(crypto, "Principal", lambda who, node, _attributes, credentials: principal(who, node))
    with pytest.raises(WrongResultError, match="messages allowed"):
        crypto.ask(10, 1)
