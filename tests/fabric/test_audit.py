"""The audit log as a file: for its user alone, appended to, and no reason for a node to stop."""

import errno
import json
import os
import stat
from collections.abc import Generator
from pathlib import Path

import pytest
import structlog

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.access.audit import AuditLog
from autonomy_trio.trust.policy import Decision, Principal

DECISION = Decision(allowed=True, policies=("p",), errors=(), reason="r", credentials=frozenset(), generation=1)


def write(log: AuditLog, action: str) -> None:
    log.write(DECISION, Principal("I1", "I1"), action, "Counter", "counter", now=1.0)


@pytest.fixture
def log(tmp_path: Path) -> Generator[AuditLog]:
    log = AuditLog.open(tmp_path / "audit.jsonl")
    yield log
    log.close()


def lines(log: AuditLog) -> list[dict[str, object]]:
    return [
        json.loads(line) for line in log.path.read_text().splitlines() if line.startswith("{") and line.endswith("}")
    ]


def test_lines_are_appended_to_a_file_that_is_its_users_alone(log: AuditLog) -> None:
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    write(log, "Add")
    again = AuditLog.open(log.path)
    write(again, "Get")
    again.close()
    assert [line["action"] for line in lines(log)] == ["Add", "Get"]


def test_a_file_that_others_may_read_is_refused_with_the_mend(tmp_path: Path) -> None:
    path = tmp_path / "an audit"
    path.touch(mode=0o644)
    with pytest.raises(ConfigurationError, match=r"can be read by others: chmod 600 '.*/an audit'$"):
        AuditLog.open(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ConfigurationError, match="pipe is no file: name another one"):
        AuditLog.open(tmp_path / "pipe")
    os.close(reader)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("link", "no/folder"):
        with pytest.raises(ConfigurationError, match="cannot be opened"):
            AuditLog.open(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_logged_once_and_the_gap_is_told(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log, "First")
    real, room = os.write, 0

    def full(descriptor: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:room])

    monkeypatch.setattr(os, "write", full)
    with structlog.testing.capture_logs() as logged:
        write(log, "Lost")
        room = 10  # the last of the disk takes half a line
        write(log, "Torn")
        room = 0
        write(log, "Lost too")
        monkeypatch.setattr(os, "write", real)
        write(log, "Second")
        write(log, "Third")
    assert [line.get("action", line.get("lost")) for line in lines(log)] == ["First", 3, "Second", "Third"]
    assert [(entry["event"], entry["log_level"]) for entry in logged] == [
        ("audit log not written", "error"),
        ("audit log written again", "info"),
    ]
    assert logged[0]["why"] == "No space left on device"
    assert logged[1]["lost"] == 3
