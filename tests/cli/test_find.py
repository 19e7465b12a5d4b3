"""``find`` and ``run --publish``."""

import time
from collections.abc import Generator
from pathlib import Path

import pytest

from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call, Result, Served, credential_for
from tests.support.processes import PATIENCE, ROOT, environment, free_port, serving_node


@pytest.fixture(scope="module")
def server(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, Path]]:
    """A node that lets its counter be found and proves team=servers; and anchors by which that counts."""
    folder = tmp_path_factory.mktemp("published")
    home, office = folder / "home", folder / "office"
    for each in (home, office):
        with Vault.open(each) as vault:
            identifier = vault.identifier
    (folder / "anchors.toml").write_text(to_toml(Anchor(identifier, {"team": "string"})))
    (folder / "credential").write_text(credential_for(home, office, team="servers"))
    options = ("app:agents", "--relay", served.url, "--home", str(home), "--publish", "counter")
    credential = ("--credential", str(folder / "credential"))
    with serving_node(*options, *credential, env=environment(folder), cwd=ROOT / "tests" / "support") as (_, address):
        yield address, folder / "anchors.toml"


def find(call: Call, served: Served, *options: str | Path) -> Result:
    """Look until the node has published."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = call("find", "--relay", served.url, "--home", served.bob, *options)
        if found.out:
            return found
    raise AssertionError(found)


def test_an_agent_is_found_with_what_its_node_proves(call: Call, served: Served, server: tuple[str, Path]) -> None:
    address, anchors = server
    options = ("--name", "counter", "--message", "Add", "--attribute", "team=servers", "--anchors", anchors)
    found = find(call, served, *options)
    assert (found.code, found.err) == (0, "")
    first, *_ = found.out.splitlines()
    assert first.startswith(f"{address}  team=servers  ")
    assert "Add" in first


def test_without_anchors_that_count_it_proves_nothing(call: Call, served: Served, server: tuple[str, Path]) -> None:
    assert f"{server[0]}  proves nothing  " in find(call, served, "--anyone").out
    nobody = call("find", "--relay", served.url, "--home", served.bob, "--attribute", "team=servers")
    assert nobody == Result(0, "", "nothing was found that fits, by the anchors of this home\n")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--relay", "ws://h:1"),
        ("--anyone",),
        ("--relay", "ws://h:1", "--name", "counter"),
        ("--relay", "ws://h:1", "--attribute", "team"),
        ("--relay", "ws://h:1", "--attribute", "anyone=true"),
        ("--relay", "nowhere", "--anyone"),
    ],
)
def test_what_cannot_be_looked_for_is_one_sentence(call: Call, options: tuple[str, ...]) -> None:
    assert call("find", *options).is_one_sentence(2)


def test_a_relay_that_is_not_there_is_one_sentence(call: Call, tmp_path: Path) -> None:
    found = call("find", "--relay", f"ws://127.0.0.1:{free_port()}", "--anyone", "--home", tmp_path / "home")
    assert found.is_one_sentence(1)
