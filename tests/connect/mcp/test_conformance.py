"""The official conformance suite against ``mcp serve``, and the example that has what its scenarios need."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.processes import ROOT, Process, environment

PAGE: Final = ROOT / "docs" / "how-to" / "mcp-serve.md"
LIMIT: Final = 300.0
"""Seconds for the whole suite, which takes two."""


@pytest.fixture
def url(tmp_path: Path) -> Generator[str]:
    arguments = ("mcp", "serve", "examples.everything:agents", "--http", "127.0.0.1:0")
    with Process(*arguments, env=environment(tmp_path)) as server:
        yield server.wait_line("serving MCP at ").removeprefix("serving MCP at ")


def checks(folder: Path, url: str) -> Sequence[Any]:
    """Run the suite; return each check of each of its scenarios for servers."""
    program = shutil.which("conformance")
    if program is None:
        pytest.skip("'conformance' is not on PATH: npm install @modelcontextprotocol/conformance")
    ended = subprocess.run(
        [program, "server", "--url", url, "--suite", "all", "--output-dir", str(folder)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
        check=False,
    )
    found = [each for file in sorted(folder.rglob("checks.json")) for each in json.loads(file.read_text())]
    assert ended.returncode == 0, [each for each in found if each["status"] == "FAILURE"] or ended.stderr
    return found


@pytest.mark.outside
def test_the_suite_fails_nowhere_and_as_many_checks_pass_as_the_page_says(url: str, tmp_path: Path) -> None:
    found = Counter(each["status"] for each in checks(tmp_path / "results", url))
    said = re.search(r"(\d+) checks passed, none failed, none warned", PAGE.read_text(encoding="utf-8"))
    assert said is not None
    assert (found["SUCCESS"], found["FAILURE"], found["WARNING"]) == (int(said[1]), 0, 0)
