"""A relay and a node that serve, as processes, for all tests of the command line; and the command line itself."""

import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

import attrs
import pytest

from autonomy_trio.cli import main
from autonomy_trio.trust.credentials import issue, to_text
from autonomy_trio.trust.vault import Vault
from tests.support.processes import ROOT, Process, environment, serving_node


@attrs.frozen
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def is_one_sentence(self, code: int) -> bool:
        """Tell whether it is an error as promised: one line, said on standard error, with nothing on the other."""
        lines = self.err.splitlines()
        # click says how the command is used in front of what is wrong with this use.
        usage = lines and lines[0].startswith("Usage: ")
        said = lines[3:] if usage else lines
        return self.code == code and not self.out and len(said) == 1 and said[0].startswith("Error: ")


Call = Callable[..., Result]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run a command in this process, as ``python -m autonomy_trio`` would in one of its own."""
    monkeypatch.setenv("AUTONOMY_HOME", str(tmp_path / "default"))
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["autonomy_trio", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        out, err = capsys.readouterr()
        return Result(cast("int", code), out, err)

    return call


@attrs.frozen
class Served:
    """A node that serves `tests.support.app` behind a relay of its own, and two homes that may ask it.

    Alice can prove that she is in the payments team; bob can prove nothing.
    """

    relay: Process
    url: str
    pinned: str
    node: Process
    address: str
    identifier: str
    server: Path
    alice: Path
    alice_identifier: str
    bob: Path
    env: dict[str, str]

    def of(self, agent: str) -> str:
        """The address of another of its agents."""
        return self.address.removesuffix("counter") + agent


def credential_for(home: Path, server: Path, *, at: float | None = None, team: str = "payments") -> str:
    """What the authority `server` says of a home at some time, for an hour."""
    with Vault.open_beside(server) as authority, Vault.open_beside(home) as subject:
        now = time.time() if at is None else at
        return to_text(issue(authority, subject=subject.identifier, attributes={"team": team}, now=now))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    homes = tmp_path_factory.mktemp("served")
    env = environment(homes)
    server, alice, bob = (homes / name for name in ("server", "alice", "bob"))
    credentials = alice / "credentials"
    with Vault.open(alice) as vault:
        alice_identifier = f"I{vault.identifier.hex()}"
    credentials.mkdir()
    (credentials / "payments").write_text(credential_for(alice, server))
    with Process("relay", "--listen", "127.0.0.1:0", "--home", str(homes / "relay"), env=env) as relay:
        url = relay.wait_line("relay ws://").removeprefix("relay ")
        pinned = relay.wait_line("to pin it: ").removeprefix("to pin it: ")
        options = ("app:agents", "--relay", url, "--home", str(server))
        with serving_node(*options, env=env, cwd=ROOT / "tests" / "support") as (node, address):
            identifier = address.split("/")[-2]
            yield Served(relay, url, pinned, node, address, identifier, server, alice, alice_identifier, bob, env)


@pytest.fixture
def still_serves(served: Served, call: Call) -> Generator[None]:
    """After the test, the serving side answers as ever."""
    yield
    answer = call("ask", served.address, '{"Echo": {"text": "still here"}}', "--home", served.alice)
    assert answer == Result(0, '"still here"\n', "")
