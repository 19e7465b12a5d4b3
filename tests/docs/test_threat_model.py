"""The threat model names a test for what it claims, and each is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "threat-model.md"
NAMED = sorted(set(re.findall(r"`([Tt]est\w+)`", PAGE.read_text(encoding="utf-8"))))


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 40


@pytest.fixture(scope="module")
def there() -> set[str]:
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")]
    return {
        name for source in sources for name in re.findall(r"^(?:async )?(?:def )?([Tt]est\w+)", source, re.MULTILINE)
    }


@pytest.mark.parametrize("name", NAMED)
def test_every_test_it_names_is_there(name: str, there: set[str]) -> None:
    assert name in there
