"""Days on which something is wrong with a node: its credential, its clock, its home. Who can mend it is told what."""

import os
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import structlog
import trio

from autonomy_trio import open_node
from autonomy_trio.errors import Denied, NotDelivered, VaultError
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.authority import open_authority
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault
from tests.support.net import Add, Counter, Net, Note, Total

HOUR = 3600.0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open homes and make commits in the loop: a thread would let virtual time run away."""

    async def run_sync(function: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


@attrs.define
class Clock:
    """A node's clock, which somebody sets."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return virtual_now() + self.ahead


def revoke(home: Path, vault: Vault, subject: str) -> None:
    with open_authority(vault, home) as authority:
        whose = parse_identifier(subject)
        held = [each.id for each in authority.ledger.issued.values() if each.subject == whose]
        authority.revoke(held, now=virtual_now())


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("connected", [True, False])
async def test_a_node_whose_credential_was_revoked_has_lost_its_rights_connected_or_not(
    net: Net, tmp_path: Path, autojump_clock: object, connected: bool
) -> None:
    async with net.node([Counter], home=tmp_path / "server") as server, net.node() as bob:
        address = server.address("counter")
        bob.add_credential(server.issue(bob.identifier, team="payments"))
        async with net.node(home=tmp_path / "alice") as alice:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            counter = alice.ref(address, Counter)
            assert await counter.ask(Add(1)) == Total(1)
            if connected:
                revoke(tmp_path / "server", server._vault, alice.identifier)
                await trio.sleep(6)  # the node reads its own ledger every 5 s
                with pytest.raises(Denied):
                    await counter.ask(Add(1))
        if not connected:
            revoke(tmp_path / "server", server._vault, alice.identifier)
            await trio.sleep(6)
        async with net.node(home=tmp_path / "alice") as alice:
            with structlog.testing.capture_logs() as logs:
                counter = alice.ref(address, Counter)
                with pytest.raises(Denied):
                    await counter.ask(Add(1))
                await counter.tell(Note("x"))
                await trio.sleep(1)
            refused = [line for line in logs if line["event"] == "credential not accepted"]
            assert "revoked" in refused[0]["why"]
            assert refused[0]["node"] == alice.identifier
        assert await bob.ref(address, Counter).ask(Add(1)) == Total(2)


@pytest.mark.parametrize("hours", [1, -1])
async def test_clocks_an_hour_apart_are_told_to_who_asks_and_in_the_log_of_both(
    net: Net, autojump_clock: object, hours: int
) -> None:
    clock = Clock()
    async with net.node([Counter]) as server, net.node(now=clock) as alice, net.node() as bob:
        for each in (alice, bob):
            each.add_credential(server.issue(each.identifier, team="payments", validity=4 * 3600))
        clock.ahead = hours * HOUR
        if hours > 0:
            alice._vault._bundle = None  # as after the next renewal: attested in the others' future
        with structlog.testing.capture_logs() as logs, pytest.raises(NotDelivered, match=r"clocks differ by 3,[56]"):
            await alice.ref(server.address("counter"), Counter).ask(Add(1))
        assert any("begins in 3,6" in str(line.get("reason")) for line in logs)
        assert await bob.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
        clock.ahead = 0.0
        assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(2)


async def test_clocks_an_hour_apart_that_do_no_harm_are_a_line_in_both_logs(net: Net, autojump_clock: object) -> None:
    clock = Clock()
    async with net.node([Counter]) as server, net.node(now=clock) as alice:
        alice.add_credential(server.issue(alice.identifier, team="payments", validity=4 * 3600))
        clock.ahead = HOUR
        with structlog.testing.capture_logs() as logs:
            for number in (1, 2):
                assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(number)
                await trio.sleep(200)
        told = [line for line in logs if line["event"] == "the clock of another node differs: set the clocks"]
        assert {(line["node"], line["by"]) for line in told} == {
            (alice.identifier, "+3,600 s"),
            (server.identifier, "-3,600 s"),
        }
        assert len(told) <= 4, "once for each time that a node is met"


@pytest.mark.usefixtures("at_once")
async def test_a_message_sealed_in_the_future_is_refused_and_the_receivers_log_says_why(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    clock = Clock()
    async with net.node(now=clock) as alice:
        async with net.node([Counter], home=tmp_path / "server") as server:
            address = server.address("counter")
            alice.add_credential(server.issue(alice.identifier, team="payments", validity=4 * 3600))
            assert await alice.ref(address, Counter).ask(Add(1)) == Total(1)
        clock.ahead = HOUR
        await alice.ref(address, Counter).tell(Note("from the future"), durable=True)
        with structlog.testing.capture_logs() as logs:
            async with net.node([Counter], home=tmp_path / "server") as server:
                await trio.sleep(2)
                assert server.statistics().decoded == 0
        refused = [line for line in logs if line["event"] == "sealed envelope refused"]
        assert "set the clocks" in refused[0]["why"]


async def test_two_nodes_on_one_home_the_second_is_told_and_the_first_goes_on(net: Net, tmp_path: Path) -> None:
    async with net.node([Counter], home=tmp_path / "home") as server, net.node() as alice:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        with pytest.raises(VaultError, match="is in use already: stop the node that uses it"):
            async with open_node(home=tmp_path / "home"):
                raise AssertionError
        assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)


@pytest.mark.parametrize("what", [".", "vault", "recovery"])
async def test_a_home_that_others_may_read_opens_no_node_and_the_error_has_the_command(
    tmp_path: Path, what: str
) -> None:
    home = tmp_path / "home"
    Vault.open(home).close()
    place = home / what
    await trio.Path(place).chmod(0o755 if what == "." else 0o644)
    with pytest.raises(VaultError, match="chmod"):
        async with open_node(home=home):
            raise AssertionError


async def test_a_home_of_another_user_opens_no_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    Vault.open(home).close()
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(VaultError, match=r"another user|belongs to"):
        async with open_node(home=home):
            raise AssertionError


@pytest.mark.usefixtures("at_once")
async def test_a_credential_that_expired_on_the_way_is_told_in_one_word_to_the_sender_and_all_of_it_at_home(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node([Counter]) as server, net.node() as alice:
        alice.add_credential(server.issue(alice.identifier, team="payments", validity=60))
        counter = alice.ref(server.address("counter"), Counter)
        assert await counter.ask(Add(1)) == Total(1)
        await trio.sleep(61)
        with pytest.raises(Denied, match="its policy does not let you"):
            await counter.ask(Add(1))
        assert "not proven: principal.team" in server.dead_letters.latest().why
