"""``enroll``, ``authority ticket`` and ``authority serve``: a machine gets a credential, or is told why not."""

import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.authority import open_authority, read_ledger
from autonomy_trio.trust.credentials import from_text, read_presentation
from autonomy_trio.trust.tickets import make_ticket, verify_ticket
from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call
from tests.support.processes import Process, environment, free_port


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Path, str]]:
    """The home of an authority that is served, and where."""
    folder = tmp_path_factory.mktemp("served")
    home = folder / "office"
    options = ("authority", "serve", "--home", str(home), "--listen", "127.0.0.1:0")
    with Process(*options, env=environment(folder)) as process:
        address = process.wait_line("authority ws://").removeprefix("authority ")
        assert address.endswith("/authority")
        process.wait_line("tickets: authority ticket --home ")
        yield home, address.rsplit("/", 2)[0]
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert "Traceback" not in process.err


def ticket(call: Call, office: tuple[Path, str], *attributes: str) -> str:
    pairs = [part for pair in attributes or ("team=payments",) for part in ("--attribute", pair)]
    made = call("authority", "ticket", "--home", office[0], "--relay", office[1], *pairs)
    assert made.code == 0
    assert made.err.startswith("to be redeemed once, in 10 minutes")
    return made.out.strip()


def test_a_ticket_becomes_a_credential_in_the_home_and_an_anchor(
    call: Call, tmp_path: Path, office: tuple[Path, str]
) -> None:
    home = tmp_path / "alice"
    text = ticket(call, office, "team=payments", "roles={clerk}")
    enrolled = call("enroll", text, "--home", home)
    assert enrolled.code == 0
    assert enrolled.out.startswith(f"{home} is enrolled with I")
    assert ": roles=frozenset" not in enrolled.out
    assert "roles={clerk}, team=payments, until " in enrolled.out
    assert enrolled.err == f"it trusts that authority for roles, team from now on: {home / 'anchors.toml'}\n"
    (file,) = (home / "credentials").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    credential = read_presentation(from_text(file.read_text())).credential
    assert credential.attributes == {"team": "payments", "roles": frozenset({"clerk"})}
    assert Anchors.load(home / "anchors.toml").get(credential.issuer) is not None

    again = call("enroll", text, "--home", home)
    assert (again.code, again.out) == (0, enrolled.out)
    assert again.err == "whom this home trusts is as before, for it has anchors of its own or is an authority itself\n"
    (_,) = (home / "credentials").iterdir()


def test_a_ticket_is_refused_to_another_home_in_one_sentence(
    call: Call, tmp_path: Path, office: tuple[Path, str]
) -> None:
    text = ticket(call, office)
    assert call("enroll", text, "--home", tmp_path / "alice").code == 0
    refused = call("enroll", text, "--home", tmp_path / "bob")
    assert refused.is_one_sentence(1)
    assert "refused the ticket, which another has redeemed" in refused.err
    assert not (tmp_path / "bob" / "anchors.toml").exists()


def test_a_ticket_that_is_old_damaged_or_none_is_one_sentence_and_makes_no_home(call: Call, tmp_path: Path) -> None:
    with Vault.open(tmp_path / "office") as vault:
        old = make_ticket(vault, relay="ws://127.0.0.1:1", attributes={"team": "a"}, now=time.time() - 3600)
    for text, why in (
        (old, "expired 3,0"),
        (old[:-9], "this is not a ticket"),
        (f"{old[:-9]}!", "damaged: copy it again, whole"),
        ("hello", "is no ticket"),
        ("", "is no ticket"),
    ):
        found = call("enroll", text, "--home", tmp_path / "alice")
        assert found.is_one_sentence(1)
        assert why in found.err
    assert not (tmp_path / "alice").exists()


def test_an_authority_that_cannot_be_reached_is_one_sentence(
    call: Call, tmp_path: Path, office: tuple[Path, str]
) -> None:
    with Vault.open(tmp_path / "idle") as vault:
        vault.renew(time.time())
        for relay, why in (
            (f"ws://127.0.0.1:{free_port()}", "127.0.0.1"),
            (office[1], "is `authority serve` running there?"),
        ):
            text = make_ticket(vault, relay=relay, attributes={"team": "a"}, now=time.time())
            found = call("enroll", text, "--home", tmp_path / "alice")
            assert found.is_one_sentence(1)
            assert why in found.err


def test_the_authoritys_own_home_and_one_in_use_are_one_sentence(
    call: Call, tmp_path: Path, office: tuple[Path, str]
) -> None:
    text = ticket(call, office)
    found = call("enroll", text, "--home", office[0])
    assert found.is_one_sentence(1)
    assert "is in use already" in found.err
    with Vault.open(tmp_path / "own") as vault:
        vault.renew(time.time())
        own = make_ticket(vault, relay=office[1], attributes={"team": "a"}, now=time.time())
    found = call("enroll", own, "--home", tmp_path / "own")
    assert found.is_one_sentence(2)
    assert "this home's own" in found.err


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--attribute", "team"),
        ("--attribute", "node=x"),
        ("--attribute", "team=x", "--relay", "nowhere"),
        ("--attribute", "team=x", "--relay", "ws://h/path"),
    ],
)
def test_a_ticket_that_cannot_be_made_is_one_sentence(call: Call, tmp_path: Path, options: tuple[str, ...]) -> None:
    with Vault.open(tmp_path / "office"):
        pass
    assert call("authority", "ticket", "--home", tmp_path / "office", *options).is_one_sentence(2)


def test_a_ticket_names_the_usual_relay_where_none_is_given(call: Call, tmp_path: Path) -> None:
    made = call("authority", "ticket", "--home", tmp_path / "office", "--attribute", "team=a")
    assert verify_ticket(made.out, time.time()).relay == "ws://127.0.0.1:4000"


@pytest.mark.parametrize("options", [("--next-update", "soon"), ("--listen", "nowhere"), ("--relay", "nowhere")])
def test_an_authority_is_not_served_as_nobody_could_mean(call: Call, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert call("authority", "serve", "--home", tmp_path / "office", *options).is_one_sentence(2)


def test_an_authority_in_use_or_on_a_port_in_use_is_one_sentence(
    call: Call, tmp_path: Path, office: tuple[Path, str]
) -> None:
    assert call("authority", "serve", "--home", office[0], "--listen", "127.0.0.1:0").is_one_sentence(1)
    taken = office[1].removeprefix("ws://")
    assert call("authority", "serve", "--home", tmp_path / "another", "--listen", taken).code in {1, 2}


def test_revoking_a_subject_ends_what_has_expired_too_so_it_is_not_renewed(call: Call, tmp_path: Path) -> None:
    home, subject = tmp_path / "office", "ab" * 32
    with Vault.open(home) as vault, open_authority(vault, home) as ledger:
        now = time.time()
        ledger.issue(subject=bytes.fromhex(subject), attributes={"team": "a"}, now=now - 7200)
    assert call("authority", "revoke", "--home", home, "--subject", f"I{subject}").code == 0
    with Vault.open_beside(home) as vault:
        assert [each.revoked for each in read_ledger(vault, home).issued.values()] == [True]
