"""Passphrases: where they may come from, and that nothing works without the right one."""

import io
from pathlib import Path
from typing import Any

import click
import pytest

from autonomy_trio.trust import protection
from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call

PHRASE = "correct horse"


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "OPERATIONS", 1)
    monkeypatch.setattr(protection, "MEMORY", 8)
    monkeypatch.delenv("AUTONOMY_PASSPHRASE", raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def protected(home: Path) -> str:
    with Vault.open(home, passphrase=PHRASE) as vault:
        return f"I{vault.identifier.hex()}\n"


class Standard(io.TextIOWrapper):
    """Standard input with some bytes on it, of a terminal or not."""

    def __init__(self, data: bytes, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(data))
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def test_a_passphrase_may_come_from_the_environment(
    call: Call, home: Path, protected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTONOMY_PASSPHRASE", PHRASE)
    assert call("identity", "show", "--home", home).out == protected


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nmore\n"])
def test_a_passphrase_may_come_from_the_first_line_of_a_file(
    call: Call, home: Path, protected: str, tmp_path: Path, end: str
) -> None:
    (tmp_path / "phrase").write_bytes(f"{PHRASE}{end}".encode())
    assert call("identity", "show", "--home", home, "--passphrase-file", tmp_path / "phrase").out == protected


def test_a_file_counts_before_the_environment(
    call: Call, home: Path, protected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTONOMY_PASSPHRASE", "wrong")
    (tmp_path / "phrase").write_text(PHRASE)
    assert call("identity", "show", "--home", home, "--passphrase-file", tmp_path / "phrase").out == protected


def test_a_passphrase_may_come_from_standard_input(
    call: Call, home: Path, protected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Standard(f"{PHRASE}\n".encode(), terminal=False))
    assert call("identity", "show", "--home", home, "--passphrase-file", "-").out == protected


def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Sit at a terminal and answer what is asked; return how it was asked."""
    prompts = []

    def prompt(text: str, **options: object) -> str:
        prompts.append({"text": text, **options})
        return PHRASE

    monkeypatch.setattr("sys.stdin", Standard(b"", terminal=True))
    monkeypatch.setattr(click, "prompt", prompt)
    return prompts


def test_at_a_terminal_it_is_asked_for_where_the_home_has_one(
    call: Call, home: Path, protected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = asked(monkeypatch)
    assert call("identity", "show", "--home", home).out == protected
    assert prompts == [{"text": f"Passphrase of {home}", "hide_input": True, "confirmation_prompt": False, "err": True}]


def test_at_a_terminal_nothing_is_asked_where_the_home_has_none(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = asked(monkeypatch)
    for _ in range(2):
        assert call("identity", "show", "--home", home).code == 0
    assert prompts == []
    assert not Vault.is_protected(home)


def test_a_home_is_born_with_a_passphrase_that_was_asked_for_twice(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = asked(monkeypatch)
    assert call("identity", "show", "--home", home, "--passphrase-file", "-").code == 0
    assert [each["confirmation_prompt"] for each in prompts] == [True]
    assert Vault.is_protected(home)


def test_without_the_passphrase_it_is_said_how_to_give_it(call: Call, home: Path, protected: str) -> None:
    found = call("identity", "show", "--home", home)
    assert found.is_one_sentence(1)
    assert "is under a passphrase: set $AUTONOMY_PASSPHRASE" in found.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("identity", "show"),
        ("identity", "rotate"),
        ("identity", "forgive", f"I{'0' * 64}"),
        ("authority", "init"),
        ("authority", "issue", "--subject", f"I{'0' * 64}", "--attribute", "team=x"),
        ("ask", f"ws://127.0.0.1:9/I{'0' * 64}/counter", '{"Add": {}}'),
        ("send", f"ws://127.0.0.1:9/I{'0' * 64}/counter", '{"Add": {}}'),
        ("relay", "--listen", "127.0.0.1:0"),
        ("run", "examples.counter:agents"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_wrong_passphrase_opens_nothing_and_is_not_repeated(
    call: Call, home: Path, protected: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTONOMY_PASSPHRASE", "a wrong one")
    found = call(*arguments, "--home", home)
    assert found.is_one_sentence(1)
    assert "does not open: the passphrase is another" in found.err
    assert "a wrong one" not in found.err


def test_an_empty_passphrase_is_refused(call: Call, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTONOMY_PASSPHRASE", "")
    found = call("identity", "show", "--home", home)
    assert found.is_one_sentence(1)
    assert "the passphrase is empty" in found.err
    assert not (home / "vault").exists()


def test_a_passphrase_file_that_cannot_be_used_is_one_sentence(call: Call, home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "long").write_text("x" * 5000)
    for name, words in (
        ("missing", "does not exist"),
        ("empty", "there is no passphrase in"),
        ("long", "4096 bytes are allowed"),
    ):
        found = call("identity", "show", "--home", home, "--passphrase-file", tmp_path / name)
        assert found.is_one_sentence(2)
        assert words in found.err
    assert not home.exists()


def test_a_passphrase_file_that_may_not_be_read_is_one_sentence(
    call: Call, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "phrase").write_text(PHRASE)
    monkeypatch.setattr(Path, "open", refuse)
    found = call("identity", "show", "--home", home, "--passphrase-file", tmp_path / "phrase")
    assert found.is_one_sentence(2)
    assert "cannot be read (permission denied)" in found.err


def test_there_is_no_option_that_takes_a_passphrase_itself(call: Call, home: Path) -> None:
    assert call("identity", "show", "--home", home, "--passphrase", PHRASE).is_one_sentence(2)
