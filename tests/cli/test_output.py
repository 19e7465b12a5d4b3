"""``--log`` and ``--debug``: what a command says beside its results."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call, Served
from tests.support.processes import Process, environment

APP = "tests.support.app"


def objects(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines()]


def test_with_log_json_all_of_standard_error_is_an_object_a_line(tmp_path: Path) -> None:
    arguments = ("run", f"{APP}:agents", "--listen", "127.0.0.1:0", "--log", "json", "--debug")
    with Process(*arguments, env=environment(tmp_path)) as node:
        address = node.wait_line("/counter")
        assert address.startswith("ws://"), "the first screen is a result, and stays as it is"
        node.signal(signal.SIGINT)
        assert node.wait() == 0
        lines = objects(node.err)
    assert {"timestamp", "level", "event"} <= set.intersection(*map(set, lines))
    assert "debug" in {line["level"] for line in lines}
    assert [line["event"] for line in lines if line["level"] == "info"] == [
        "stopping: the agents finish what they have; once more to stop at once",
        "stopped",
    ]


def test_an_error_is_an_object_too(call: Call) -> None:
    found = call("run", f"{APP}:empty", "--log", "json")
    assert found.code == 2
    (line,) = objects(found.err)
    assert line["level"] == "error"
    assert "list at least one agent class" in line["event"]
    assert "exception" not in line


def test_what_was_sent_is_told_as_an_object_too(call: Call, served: Served) -> None:
    found = call("send", served.address, '{"Note": {"text": "hello"}}', "--home", served.alice, "--log", "json")
    assert (found.code, found.out) == (0, "")
    assert objects(found.err)[-1]["event"].startswith("sent Note to ws://")


def test_debug_lines_are_shown_with_debug_only(call: Call, served: Served, tmp_path: Path) -> None:
    arguments = ("run", f"{APP}:hopeless", "--listen", "127.0.0.1:0", "--home", tmp_path / "home")
    assert "node attached" not in call(*arguments).err
    assert "node attached" in call(*arguments, "--debug").err


def test_another_form_of_log_lines_is_a_wrong_use(call: Call) -> None:
    assert call("run", f"{APP}:agents", "--log", "xml").is_one_sentence(2)


@pytest.mark.parametrize("code", ["1 / 0", "def broken(:", "raise SystemExit(7)"])
def test_what_was_unexpected_is_one_line_that_names_debug_and_with_it_a_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"unexpected_{abs(hash(code))}"
    Path(f"{name}.py").write_text(f"secret = 'hidden' + 'ly'\n{code}\n")
    found = call("run", f"{name}:agents")
    assert found.is_one_sentence(1)
    assert found.err.endswith("; run with --debug for the traceback\n")

    found = call("run", f"{name}:agents", "--debug")
    assert found.code == 1
    assert found.err.startswith("Traceback (most recent call last):\n")
    assert code in found.err
    assert found.err.splitlines()[-1].startswith(f"Error: the module '{name}' cannot be imported, at ")
    assert "--debug" not in found.err
    assert "hiddenly" not in found.err

    (line,) = objects(call("run", f"{name}:agents", "--debug", "--log", "json").err)
    assert line["exception"].startswith("Traceback (most recent call last):\n")


def test_an_error_of_ours_that_nobody_foresaw_is_one_line_too(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        msg = "first\nsecond \x1b[31mred"
        raise ValueError(msg)

    monkeypatch.setattr(sys.modules["autonomy_trio.cli.run"], "check_agents", broken)
    found = call("run", f"{APP}:agents", "--check")
    assert found.is_one_sentence(1)
    assert "ValueError at " in found.err
    assert found.err.endswith("first second ?[31mred; run with --debug for the traceback\n")
    shown = call("run", f"{APP}:agents", "--check", "--debug").err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert "\x1b" not in shown


def test_what_was_foreseen_shows_no_traceback_with_debug_either(call: Call) -> None:
    assert call("run", f"{APP}:agnts", "--debug").is_one_sentence(2)


def test_every_command_takes_debug(call: Call) -> None:
    for command in ("new", "run", "relay", "ask", "send", "identity show", "authority init", "authority issue"):
        assert "--debug" in call(*command.split(), "--help").out
