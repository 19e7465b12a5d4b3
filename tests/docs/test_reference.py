"""The reference leaves out nothing that users import, and no parameter where it writes a signature by hand."""

import ast
import inspect
import re
from typing import Final

import pytest

import autonomy_trio
from tests.support.processes import ROOT

ENTRY: Final = re.compile(r"^\.\. auto[a-z]+:: ((\w+)(?:\(.+\))?)", re.MULTILINE)
ENTRIES: Final = {name: text for text, name in ENTRY.findall((ROOT / "docs/reference/api.md").read_text("utf-8"))}


def test_every_public_name_has_its_entry() -> None:
    assert set(autonomy_trio.__all__) <= ENTRIES.keys()


@pytest.mark.parametrize("name", [name for name, text in ENTRIES.items() if text != name])
def test_a_signature_written_by_hand_has_the_parameters_of_the_code(name: str) -> None:
    (written,) = ast.parse(f"def {ENTRIES[name]}: ...").body
    assert isinstance(written, ast.FunctionDef)
    names = [each.arg for each in (*written.args.args, *written.args.kwonlyargs)]
    assert names == list(inspect.signature(getattr(autonomy_trio, name)).parameters)
