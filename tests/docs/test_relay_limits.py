"""The page of a relay's limits says what the code does."""

import importlib
import re
from typing import Final

import pytest

from tests.support.processes import ROOT

PAGE: Final = (ROOT / "docs" / "reference" / "relay-limits.md").read_text("utf-8")
ROWS: Final = re.findall(r"^\| .+ \| (.+) \| `([\w.]+)\.(\w+)` \|$", PAGE, re.MULTILINE)
UNITS: Final = {"": 1, "s": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
PER_SECOND: Final = re.compile(r"([\d.,]+)/s, ([\d,]+) at once")


def number(text: str) -> float:
    return float(text.replace(",", ""))


def value(text: str) -> object:
    if match := PER_SECOND.fullmatch(text):
        return number(match[1]), number(match[2])
    amount, _, unit = text.partition(" ")
    return number(amount) * UNITS[unit]


@pytest.mark.parametrize(("limit", "module", "name"), ROWS, ids=[row[2] for row in ROWS])
def test_a_limit_on_the_page_is_that_of_the_code(limit: str, module: str, name: str) -> None:
    assert getattr(importlib.import_module(f"autonomy_trio.{module}"), name) == value(limit)


def test_every_row_of_the_page_is_compared() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what | limit")]
    assert len(rows) == len(ROWS) > 50
