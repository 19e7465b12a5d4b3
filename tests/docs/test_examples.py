"""Every example that a page shows prints what the page says it prints."""

import functools
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import trio
from trio.testing import MockClock

from tests.support.processes import PATIENCE, ROOT, environment
from tests.support.virtual import run_threads_in_place

DOCS: Final = ROOT / "docs"
EXAMPLES: Final = ROOT / "examples" / "docs"
PAGES: Final = sorted(DOCS.rglob("*.md"))
SHOWN: Final = {
    (page.parent / path).resolve()
    for page in PAGES
    for path in re.findall(r"^`{3,}\{literalinclude\} (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("example", sorted((EXAMPLES / "how_to").glob("*.txt")), ids=lambda path: path.stem)
def test_an_example_prints_what_its_page_shows(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In virtual time no order that it prints hangs on how busy the machine is.
    run_threads_in_place(monkeypatch)
    monkeypatch.setattr(trio, "run", functools.partial(trio.run, clock=MockClock(autojump_threshold=0)))
    runpy.run_path(str(example.with_suffix(".py")), run_name="__main__")
    assert capsys.readouterr().out == example.read_text(encoding="utf-8")


def test_the_tests_that_a_page_shows_pass(tmp_path: Path) -> None:
    for file in (*(EXAMPLES / "testing").glob("*.py"), EXAMPLES / "tutorial" / "2_reachable" / "pytest.ini"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_has_no_python_that_is_not_a_file(page: Path) -> None:
    assert not re.search(r"^`{3,} ?(python|py|pycon)", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_example_is_shown_and_is_there() -> None:
    files = {path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert files == {path for path in SHOWN if path.is_relative_to(EXAMPLES)}
