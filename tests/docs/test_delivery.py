"""The page on delivery names a test for each promise, and each is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "delivery.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`([Tt]est\w+)`", PAGE)))


def test_each_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 25
    assert [row for row in rows if not re.search(r"\| `[Tt]est\w+`[^|]*\|$", row)] == []


@pytest.fixture(scope="module")
def there() -> set[str]:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    return {
        name for source in sources for name in re.findall(r"^(?:async )?(?:def )?([Tt]est\w+)", source, re.MULTILINE)
    }


@pytest.mark.parametrize("name", NAMED)
def test_every_test_it_names_is_there(name: str, there: set[str]) -> None:
    assert name in there
