"""``identity show``."""

import os
import stat
from pathlib import Path

import pytest

from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call, Result, Served


def test_show_prints_the_identifier_and_nothing_else_and_always_the_same(call: Call, tmp_path: Path) -> None:
    first = call("identity", "show", "--home", tmp_path / "home")
    with Vault.open(tmp_path / "home") as vault:
        assert first == Result(0, f"I{vault.identifier.hex()}\n", "")
    assert call("identity", "show", "--home", tmp_path / "home") == first


def test_show_works_beside_a_running_node(call: Call, served: Served) -> None:
    assert call("identity", "show", "--home", served.server).out == f"{served.identifier}\n"


def test_without_home_it_is_that_of_the_environment(call: Call, tmp_path: Path) -> None:
    call("identity", "show")
    assert (tmp_path / "default" / "vault").exists()


def test_without_home_and_environment_it_is_in_the_platforms_place(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUTONOMY_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert call("identity", "show").code == 0
    (vault,) = tmp_path.rglob("vault")
    assert vault.parent.name == "home"


def test_an_empty_home_is_refused_for_it_would_be_the_working_folder(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o700)
    assert call("identity", "show", "--home", "").is_one_sentence(2)
    assert call("relay", "--home", "").is_one_sentence(2)
    assert list(tmp_path.iterdir()) == []


def _loose_folder(home: Path) -> None:
    home.chmod(0o755)


def _loose_vault(home: Path) -> None:
    (home / "vault").chmod(0o644)


def _damaged_vault(home: Path) -> None:
    (home / "vault").write_bytes(b"not a vault")


def _lost_vault(home: Path) -> None:
    (home / "vault").unlink()


def _moved_behind_a_link(home: Path) -> None:
    home.rename(home.with_name("elsewhere"))
    home.symlink_to(home.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        (_loose_folder, "run `chmod 700 "),
        (_loose_vault, "run `chmod 600 "),
        (_damaged_vault, "is damaged: restore it from a copy"),
        (_lost_vault, "restore "),
        (_moved_behind_a_link, "is a symbolic link"),
    ],
)
def test_a_home_that_cannot_be_used_is_told_how_to_mend_it(
    call: Call, tmp_path: Path, spoil: object, mend: str
) -> None:
    home = tmp_path / "home"
    call("identity", "show", "--home", home)
    assert callable(spoil)
    spoil(home)
    found = call("identity", "show", "--home", home)
    assert found.is_one_sentence(1)
    assert mend in found.err
    assert str(home) in found.err


def test_a_home_below_a_file_is_one_sentence(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert call("identity", "show", "--home", tmp_path / "file").is_one_sentence(2)
    assert call("identity", "show", "--home", tmp_path / "file" / "home").is_one_sentence(1)


def test_a_home_is_private_from_birth(call: Call, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        call("identity", "show", "--home", tmp_path / "home")
    finally:
        os.umask(before)
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home", *(tmp_path / "home").iterdir())
    }
    assert modes == {"home": 0o700, "vault": 0o600, "vault.lock": 0o600, "recovery": 0o600}
