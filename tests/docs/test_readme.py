"""The README's Python runs as it stands there, with its address replaced by one that is served."""

import re
import sys
import textwrap
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
import trio

from autonomy_trio import Node, open_node
from tests.support.processes import ROOT

APP, CLIENT = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)
NAME: Final = "app_of_the_readme"


@pytest.fixture
def app() -> Generator[ModuleType]:
    module = sys.modules[NAME] = ModuleType(NAME)
    exec(compile(APP, "README.md", "exec"), vars(module))
    yield module
    del sys.modules[NAME]


def client(url: str, address: str, home: Path) -> str:
    code = CLIENT
    for shown, served in (
        ('"ws://relay.example.com:4000"', repr(url)),
        ('"I5c1f…9a/counter"', repr(address)),
        ('"alice"', repr(str(home))),
    ):
        assert shown in code
        code = code.replace(shown, served)
    return f"async def main():\n{textwrap.indent(code, '    ')}\n    return total\n"


async def issue_alice_a_credential(server: Node, home: Path) -> None:
    async with open_node(home=home) as node:
        node.add_credential(server.issue(node.identifier, team="payments"))


async def test_its_client_asks_its_app_over_a_relay(app: ModuleType, tmp_path: Path) -> None:
    async with open_node(app.agents, listen="127.0.0.1:0") as server:
        await issue_alice_a_credential(server, tmp_path / "alice")
        address = server.address("counter")
        url = address.partition("/I")[0]
        names = {"open_node": open_node, "trio": trio, "Counter": app.Counter, "Add": app.Add}
        exec(compile(client(url, address.removeprefix(f"{url}/"), tmp_path / "alice"), "README.md", "exec"), names)
        assert await names["main"]() == app.Total(3)
