"""How the vendors' libraries are opened."""

from typing import Any

import pytest

from autonomy_trio.connect.models import Complete, Model
from autonomy_trio.connect.models.libraries import open_vendor
from autonomy_trio.connect.models.over_openai import OpenAI
from autonomy_trio.connect.models.vendor import VENDORS, Way


def way(vendor: str, *, is_vendors: bool = True) -> Way:
    return Way(
        vendor=vendor,
        model="m",
        url=VENDORS[vendor].url,
        is_vendors=is_vendors,
        key="sk-a-secret-of-tests",
        patience=1,
        at_once=1,
        words="m",
    )


@pytest.mark.parametrize(
    ("vendor", "variable", "url"),
    [
        ("openai", "OPENAI_BASE_URL", "https://api.openai.com/v1/"),
        ("anthropic", "ANTHROPIC_BASE_URL", "https://api.anthropic.com/"),
    ],
)
async def test_a_vendors_own_key_goes_to_the_vendor_whatever_the_environment_says_to_its_library(
    vendor: str, variable: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "https://elsewhere.example.com")
    opened: Any = open_vendor(way(vendor))
    assert str(opened.client.base_url).rstrip("/") == url.rstrip("/")
    assert opened.client.max_retries == 0
    await opened.aclose()


async def test_openai_is_told_a_limit_in_its_new_word_and_others_in_the_one_that_they_know() -> None:
    for is_vendors, word in ((True, "max_completion_tokens"), (False, "max_tokens")):
        opened = open_vendor(way("openai", is_vendors=is_vendors))
        assert isinstance(opened, OpenAI)
        assert opened._request(Complete("Hi", most_tokens=5))[word] == 5
        await opened.aclose()


def test_a_key_stands_in_no_repr() -> None:
    assert "sk-" not in repr(way("openai"))
    assert "sk-" not in repr(Model("openai:m"))
