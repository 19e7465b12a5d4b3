"""What holds for every command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Served
from tests.support.processes import PATIENCE, ROOT, environment, run_once


def test_without_arguments_it_lists_its_commands(call: Call) -> None:
    found = call()
    assert found.code == 2
    for command in ("ask", "authority", "identity", "new", "relay", "run", "send", "stream"):
        assert f"\n  {command} " in found.err


@pytest.mark.parametrize(
    "command",
    ["", "new", "run", "relay", "identity", "identity show", "authority", "authority init", "authority issue", "ask"],
)
def test_every_command_explains_itself_and_no_line_is_cut_short(call: Call, command: str) -> None:
    found = call(*command.split(), "--help")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("Usage: python -m autonomy_trio")
    if command not in {"new", "run", "ask", "authority issue", "authority init", "identity show", "relay"}:
        assert "..." not in found.out.split("Commands:")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["shout"],
        ["run"],
        ["run", "--bogus", "app:agents"],
        ["ask"],
        ["ask", "x"],
        ["send", "x", "y", "z"],
        ["identity", "rot"],
    ],
)
def test_a_wrong_use_is_one_sentence_and_exit_code_2(call: Call, arguments: list[str]) -> None:
    assert call(*arguments).is_one_sentence(2)


def test_an_error_is_one_line_without_control_characters_whatever_it_quotes(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shouting.py").write_text(r"raise ValueError('first\nsecond \x1b[31mred')")
    found = call("run", "shouting:agents")
    assert found.is_one_sentence(1)
    assert "ValueError: first second ?[31mred" in found.err


def test_an_error_has_a_bound(call: Call, served: Served) -> None:
    found = call("ask", f"{served.url}/{served.identifier}/{'x' * 100_000}", "[]")
    assert found.is_one_sentence(2)
    assert len(found.err) < 3000


def test_a_path_that_the_system_refuses_is_named(call: Call) -> None:
    found = call("identity", "show", "--home", f"/tmp/{'x' * 300}")
    assert found.is_one_sentence(1)
    assert "xxx" in found.err
    assert "long" in found.err


def test_a_closed_standard_output_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m autonomy_trio identity show --home home"
    for closed in ("| true", ">&-"):
        found = subprocess.run(
            ["bash", "-c", f"{command} {closed}"],
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_one_sentence(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "autonomy_trio", "identity", "show"],
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
    assert found.returncode == 1
    assert found.stderr.startswith("Error: ")
    assert found.stderr.count("\n") == 1


def test_a_terminal_without_utf_8_gets_all_there_is_to_say(tmp_path: Path, served: Served) -> None:
    env = environment(tmp_path, PYTHONIOENCODING="latin-1")
    assert "I\\u2026" in run_once("authority", "issue", "--help", env=env).stdout
    answer = run_once("ask", served.address, '{"Echo": {"text": "h\\u00e9"}}', "--home", str(served.alice), env=env)
    assert answer.stdout == '"h\\u00e9"\n'


def test_arguments_that_are_no_text_are_one_sentence(tmp_path: Path, served: Served) -> None:
    no_text = os.fsdecode(b"\xff")
    for address, message, code in (
        (served.of(no_text), '{"Read": {}}', 2),
        (served.address, f'{{"{no_text}": {{}}}}', 2),
        (served.address, f'{{"Echo": {{"text": "{no_text}"}}}}', 2),
        (served.address, no_text, 2),
    ):
        found = run_once("ask", address, message, "--home", str(served.alice), env=environment(tmp_path), cwd=ROOT)
        assert found.returncode == code, found.stderr
        assert found.stderr.startswith("Error: ")
        assert found.stderr.count("\n") == 1
