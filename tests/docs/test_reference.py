"""The reference leaves out nothing that users import, and no parameter where it writes a signature by hand."""

import ast
import inspect
import re
from types import ModuleType
from typing import Final

import pytest

import autonomy_trio
from autonomy_trio import testing
from autonomy_trio.connect import mcp, models
from tests.support.processes import ROOT

ENTRY: Final = re.compile(r"^\.\. auto(?!module)[a-z]+:: ((\w+)(?:\(.+\))?)", re.MULTILINE)


def entries(page: str) -> dict[str, str]:
    return {name: text for text, name in ENTRY.findall((ROOT / "docs" / "reference" / page).read_text("utf-8"))}


PAGES: Final = [
    (autonomy_trio, entries("api.md")),
    (testing, entries("testing.md")),
    (models, entries("models.md")),
]

# This page is about a second module too, so its signatures are not all of the first.
ALL_PAGES: Final = [*PAGES, (mcp, entries("mcp.md"))]


@pytest.mark.parametrize(("module", "found"), ALL_PAGES, ids=lambda each: getattr(each, "__name__", ""))
def test_every_public_name_has_its_entry(module: ModuleType, found: dict[str, str]) -> None:
    assert set(module.__all__) <= found.keys()


@pytest.mark.parametrize(
    ("module", "text"), [(module, text) for module, found in PAGES for name, text in found.items() if text != name]
)
def test_a_signature_written_by_hand_has_the_parameters_of_the_code(module: ModuleType, text: str) -> None:
    (written,) = ast.parse(f"def {text}: ...").body
    assert isinstance(written, ast.FunctionDef)
    names = [each.arg for each in (*written.args.args, *written.args.kwonlyargs)]
    assert names == list(inspect.signature(getattr(module, written.name)).parameters)
