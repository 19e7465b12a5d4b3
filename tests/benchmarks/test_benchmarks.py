"""The benchmarks run, say what they are to say, and are not fooled by a workload that loses messages."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import against, agents, raw, workloads
from benchmarks.__main__ import finish
from benchmarks.local import BYTES, LATENESS, RESIDENT, WORKS
from benchmarks.measure import Result, Row, WrongResultError, fails, interleave, report
from benchmarks.workloads import Add, More, Token, peers_of

ROOT = Path(__file__).parents[2]

TIMES = Row("tells", "messages/s", least=4, aim=6)
AT_MOST = Row("bytes", "bytes", "value at most", least=400, aim=256)

both_sides = pytest.mark.parametrize("side", [agents, raw], ids=["agents", "raw"])


def test_a_quick_run_writes_every_row_as_json(tmp_path: Path) -> None:
    file = tmp_path / "local.json"
    command = [sys.executable, "-m", "benchmarks", "local", "--quick", "--scale", "0.001", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert file.exists(), run.stderr  # what it exits with hangs on speed, of which so small a run proves nothing
    rows = json.loads(file.read_text())
    assert list(rows) == [*(work.row.workload for work in WORKS), BYTES.workload, RESIDENT.workload, LATENESS.workload]
    for workload, row in rows.items():
        assert row.keys() >= {"value", "unit", "reference", "ratio"}
        assert f"| {workload} |" in run.stdout
        assert "missing" in row or row["value"] > 0


@both_sides
@pytest.mark.parametrize("workload", ["count", "create"])
async def test_a_wrong_count_of_tells_raises(side: ModuleType, workload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "ONE", More(2))
    with pytest.RaisesGroup(WrongResultError, flatten_subgroups=True, allow_unwrapped=True):
        await getattr(side, workload)(11)


@pytest.mark.parametrize("ask", [agents.ask, agents.ask_plain, raw.ask])
async def test_a_wrong_sum_of_replies_raises(ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "ASK", Add(2))
    with pytest.RaisesGroup(WrongResultError, flatten_subgroups=True, allow_unwrapped=True):
        await ask(10, 2)


@both_sides
async def test_a_token_that_skips_stations_raises(side: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "Token", lambda hops: Token(max(0, hops - 1)))
    with pytest.RaisesGroup(WrongResultError, flatten_subgroups=True, allow_unwrapped=True):
        await side.ring(10)


@both_sides
async def test_a_ping_too_few_raises(side: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "peers_of", lambda index, pings: peers_of(index, pings - 1))
    with pytest.RaisesGroup(WrongResultError, flatten_subgroups=True, allow_unwrapped=True):
        await side.big(3)


def test_no_player_pings_itself() -> None:
    assert all(index not in peers_of(index, 500) for index in range(workloads.BIG))


def test_medians_are_taken_in_turn() -> None:
    order: list[str] = []
    times = iter([1.0, 10.0, 3.0, 30.0, 2.0, 20.0])

    def measure(name: str) -> Callable[[], float]:
        def take() -> float:
            order.append(name)
            return next(times)

        return take

    assert interleave(3, measure("ours"), measure("theirs")) == [2.0, 20.0]
    assert order == ["ours", "theirs"] * 3


@pytest.mark.parametrize(
    ("result", "full", "quick"),
    [
        (Result(TIMES, 400.0, 100.0), False, False),
        (Result(TIMES, 399.0, 100.0), True, False),
        (Result(TIMES, 199.0, 100.0), True, True),
        (Result(AT_MOST, 400.0), False, False),
        (Result(AT_MOST, 401.0), True, False),
        (Result(AT_MOST, 801.0), True, True),
        (Result(TIMES, missing="no timers"), True, True),
        (Result(Row("informs", "messages/s"), 1.0, 100.0), False, False),
    ],
)
def test_a_missed_least_fails_and_a_quick_run_only_below_half(result: Result, full: bool, quick: bool) -> None:
    assert fails([result], quick=False) == full
    assert fails([result], quick=True) == quick


def test_the_table_says_what_is_reached_and_what_is_missing() -> None:
    table = report([Result(TIMES, 500.0, 100.0), Result(AT_MOST, 500.0), Result(TIMES, missing="no timers")], None)
    reached, missed, missing = table.splitlines()[2:]
    assert reached == "| tells | 500 | messages/s | 100 | 5x | 4x | 6x | yes |"
    assert missed == "| bytes | 500 | bytes | - | - | ≤ 400 | ≤ 256 | no |"
    assert missing.endswith("| missing: no timers |")


def test_a_run_ends_with_its_verdict() -> None:
    with pytest.raises(SystemExit) as ended:
        finish([Result(TIMES, 100.0, 100.0)], None, quick=True)
    assert ended.value.code == 1


@pytest.mark.parametrize("workload", ["count", "ask"])
@pytest.mark.parametrize("script", ["autonomy_agent.py", "asyncio_actor.py"])
def test_a_peers_script_prints_its_seconds(script: str, workload: str) -> None:
    assert against.run_script([sys.executable, str(against.SCRIPTS / script)], workload, 100) > 0


def test_a_peers_script_that_fails_raises() -> None:
    with pytest.raises(WrongResultError, match=r"asyncio_actor\.py nothing"):
        against.run_script([sys.executable, str(against.SCRIPTS / "asyncio_actor.py")], "nothing", 1)


def test_a_peer_that_cannot_be_installed_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(against, "PEERS", (against.Peer("Pykka", "pykka_actor.py", 1, 1, 1.3, 2, "pykka"),))
    with pytest.raises(against.NotInstalledError, match=r"\Acannot be installed: .+\Z"):
        against.install("pykka", tmp_path / "file")
    monkeypatch.setattr(against, "_measure", lambda *_, **__: ())
    results = list(against.run(tmp_path / "file", quick=True))
    assert "missing: cannot be installed" in report(results, None)
    assert fails(results, quick=True)
