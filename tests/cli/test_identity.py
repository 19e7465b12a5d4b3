"""``identity show``, ``rotate`` and ``forgive``."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from autonomy_trio.trust.identity import make_history
from autonomy_trio.trust.records import digest
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Mark
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


def test_an_agent_of_a_home_has_an_identifier_of_its_own_that_stays(call: Call, tmp_path: Path) -> None:
    home = str(tmp_path / "node")
    shown = {name: call("identity", "show", "--home", home, "--agent", name).out for name in ("a", "b", "a")}
    node = call("identity", "show", "--home", home).out
    assert len({node, *shown.values()}) == 3
    assert all(each.startswith("I") and len(each.strip()) == 65 for each in shown.values())
    assert call("identity", "show", "--home", home, "--agent", "a").out == shown["a"]


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


# rotate


def test_rotate_moves_to_the_next_key_and_says_what_follows(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "home"
    identifier = call("identity", "show", "--home", home).out.strip()
    for seq in (1, 2):
        found = call("identity", "rotate", "--home", home)
        assert (found.code, found.out) == (0, f"{identifier} is at sequence {seq}\n")
        assert "credentials of earlier sequences count no more" in found.err
        assert f"move {home / 'recovery'} off this machine" in found.err
    assert call("identity", "show", "--home", home).out.strip() == identifier
    with Vault.open(home) as vault:
        assert vault.seq == 2


def test_rotate_takes_the_recovery_secret_from_where_it_was_moved(call: Call, tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "stick"
    call("identity", "show", "--home", home)
    (home / "recovery").rename(elsewhere)
    found = call("identity", "rotate", "--home", home)
    assert found.is_one_sentence(1)
    assert "--recovery FILE" in found.err
    found = call("identity", "rotate", "--home", home, "--recovery", elsewhere)
    assert found.code == 0
    assert "off this machine" not in found.err
    assert not (home / "recovery").exists()


def test_rotate_with_what_is_no_recovery_secret_or_anothers_changes_nothing(call: Call, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for each in (home, other):
        call("identity", "show", "--home", each)
    before = (home / "vault").read_bytes()
    (tmp_path / "text").write_text("hello")
    for file, words, code in (
        (tmp_path / "text", "holds no recovery secret", 1),
        (home / "vault", "holds no recovery secret", 1),
        (other / "recovery", "is that of I", 1),
        (tmp_path / "missing", "does not exist", 2),
        (tmp_path, "is a directory", 2),
    ):
        found = call("identity", "rotate", "--home", home, "--recovery", file)
        assert found.is_one_sentence(code)
        assert words in found.err
    assert (home / "vault").read_bytes() == before


def test_rotate_makes_no_home_and_waits_for_no_node(call: Call, tmp_path: Path) -> None:
    found = call("identity", "rotate", "--home", tmp_path / "none")
    assert found.is_one_sentence(1)
    assert "there is no home" in found.err
    assert not (tmp_path / "none").exists()
    with Vault.open(tmp_path / "home"):
        found = call("identity", "rotate", "--home", tmp_path / "home")
    assert found.is_one_sentence(1)
    assert "in use already: stop the node" in found.err


def test_a_copy_from_before_says_so_and_is_brought_up_by_rotate(call: Call, tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    identifier = call("identity", "show", "--home", home).out.strip()
    shutil.copytree(home, copy)
    for _ in range(2):
        call("identity", "rotate", "--home", home)
    with Vault.open(home) as current, Vault.open(copy) as vault:
        vault.learn(current.history)
    found = call("identity", "show", "--home", copy)
    assert (found.code, found.out.strip()) == (0, identifier)
    assert "rotated to sequence 2 elsewhere and is at 0 here; run `identity rotate`" in found.err
    assert call("authority", "issue", "--subject", identifier, "--attribute", "a=b", "--home", copy).is_one_sentence(1)
    assert call("identity", "rotate", "--home", copy).out == f"{identifier} is at sequence 2\n"
    assert call("identity", "show", "--home", copy).err == ""


# forgive


def test_forgive_lets_an_authority_count_again_and_shows_both_changes(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "home"
    anchor, other = make_history(bytes(32)), make_history(bytes(31) + b"o")
    name = f"I{anchor.identifier.hex()}"
    with Vault.open(home) as vault:
        vault.remember(Mark(anchor.identifier, 0, anchor.changes[0], other.changes[0]))
        vault.remember(Mark(other.identifier, 0, other.changes[0]))
    assert f"the authority {name} was seen with two histories" in call("identity", "show", "--home", home).err
    found = call("identity", "forgive", name, "--home", home)
    kept, refused = (digest("h-prev", history.changes[0].body).hex() for history in (anchor, other))
    assert found == Result(0, f"{name} counts again\nkept     {kept}\nrefused  {refused}\n", "")
    assert call("identity", "show", "--home", home).err == ""
    with Vault.open(home) as vault:
        assert not any(mark.is_doubted for mark in vault.marks)


def test_forgive_refuses_whom_nothing_is_held_against(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "home"
    call("identity", "show", "--home", home)
    for wrong, words in ((f"I{'0' * 64}", "nothing is held against"), ("alice", "is not an identifier")):
        found = call("identity", "forgive", wrong, "--home", home)
        assert found.is_one_sentence(2)
        assert words in found.err
    assert call("identity", "forgive", "--home", home).is_one_sentence(2)
    assert call("identity", "forgive", f"I{'0' * 64}", "--home", tmp_path / "none").is_one_sentence(1)
