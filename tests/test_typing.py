"""What `nox -s types` relies on when it checks `tests/typing`, which both type checkers read and pytest does not run.

Each error that a program of `wrong_*.py` must have stands in its line as two comments, one for each type
checker. A checker that does not report it has a comment that it does not need, which is an
error of its own.
"""

import importlib
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import ROOT

PROGRAMS: Final = ROOT / "tests" / "typing"
RIGHT: Final = sorted(PROGRAMS.glob("right_*.py"))
WRONG: Final = sorted(PROGRAMS.glob("wrong_*.py"))
BOTH: Final = re.compile(r"# type: ignore\[[a-z, -]+\] # pyright: ignore\[[A-Za-z, ]+\]$")


@pytest.mark.parametrize("program", RIGHT, ids=lambda path: path.stem)
def test_what_type_checkers_accept_can_be_declared(program: Path) -> None:
    importlib.import_module(f"tests.typing.{program.stem}")


@pytest.mark.parametrize("program", WRONG, ids=lambda path: path.stem)
def test_each_error_is_expected_of_both_type_checkers(program: Path) -> None:
    expected = [line for line in program.read_text(encoding="utf-8").splitlines() if "ignore" in line]
    assert len(expected) >= 5
    assert [line for line in expected if not BOTH.search(line)] == []


def test_nothing_is_ignored_in_what_is_right() -> None:
    others = set(PROGRAMS.glob("*.py")) - set(WRONG)
    assert {
        path.name for path in others if re.search("type: ignore|pyright:", path.read_text(encoding="utf-8"))
    } == set()


def test_both_type_checkers_are_strict_and_refuse_an_error_that_is_expected_in_vain() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["mypy"]["strict"]  # warns of an unused `type: ignore`
    assert tools["mypy"].get("warn_unused_ignores", True)
    assert tools["pyright"]["typeCheckingMode"] == "strict"
    assert tools["pyright"]["reportUnnecessaryTypeIgnoreComment"] == "error"
    assert tools["pyright"]["enableTypeIgnoreComments"] is False  # mypy's comments are not pyright's
    assert "tests/typing" in tools["mypy"]["files"]
    assert "tests/typing" in tools["pyright"]["include"]
