"""What nodes make of identities over time: rotation, copies of homes, thieves of keys, and days that pass."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from autonomy_trio import Node
from autonomy_trio.errors import Denied, NotDelivered, RelayRefused, VaultError
from autonomy_trio.fabric import opening
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.testing.node import EPOCH, virtual_now
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.credentials import issue, to_text
from autonomy_trio.trust.identity import Change, derive_seed, verify_bundle, verify_history
from autonomy_trio.trust.records import SigningKey, digest, parse_identifier, sign_record
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.vault_file import Recovery
from tests.support.net import Add, Counter, Net, Total

HOUR = 3600
DAY = 24 * HOUR


def alices(rotations: int = 0) -> Vault:
    """Alice's identity as it is after some rotations; always the same one."""
    numbers = itertools.count()
    vault = Vault.in_memory(random=lambda size: next(numbers).to_bytes(size, "big"))
    for _ in range(rotations):
        vault.rotate(Recovery(1, vault.identifier, bytes(32)), EPOCH)
    return vault


def thiefs() -> Vault:
    """Alice's identity in the hands of who stole its key after one rotation, and made that rotation anew."""
    vault = alices(1)
    seed = derive_seed(bytes(32), 1)
    first = vault.history.changes[0]
    change = Change(1, 1, digest("h-prev", first.body), SigningKey(seed).public, bytes(32))
    history = verify_history([first, sign_record(SigningKey(seed), "change", change)])
    vault._save(msgspec.structs.replace(vault._keys.secrets, changes=history.changes), history)
    vault._attest(EPOCH)
    return vault


As = Callable[[Vault], None]


@pytest.fixture
def opened_as(monkeypatch: pytest.MonkeyPatch) -> As:
    """Have the next node opened with this vault."""

    def opened_as(vault: Vault) -> None:
        async def open_vault(home: Path | None, *_: object) -> Vault:
            await trio.lowlevel.checkpoint()
            vault.renew(virtual_now())
            return vault

        monkeypatch.setattr(opening, "_open_vault", open_vault)

    return opened_as


async def test_a_rotated_node_is_who_it_was(net: Net, opened_as: As, autojump_clock: object) -> None:
    async with net.node([Counter]) as server:
        credential = server.issue(f"I{alices().identifier.hex()}", team="payments")
        opened_as(alices())
        async with net.node() as alice:
            alice.add_credential(credential)
            assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
        opened_as(alices(1))
        async with net.node([Counter]) as rotated:
            assert rotated.identifier == alice.identifier
            with trio.fail_after(10):
                await server.ref(rotated.address("counter")).tell(Add(1))


@pytest.mark.parametrize("stolen", [alices, thiefs], ids=["a key that was rotated away", "a second change"])
async def test_who_saw_the_owner_first_talks_to_nobody_else(
    net: Net, opened_as: As, stolen: Callable[[], Vault], autojump_clock: object
) -> None:
    async with net.node([Counter]) as server:
        credential = server.issue(f"I{alices().identifier.hex()}", team="payments")
        opened_as(alices(1))
        async with net.node() as alice:
            with pytest.raises(Denied):
                await alice.ref(server.address("counter"), Counter).ask(Add(1))
        net.kill_relay()
        net.start_relay()  # a relay that has forgotten whom it saw
        await trio.sleep(60)
        opened_as(stolen())
        async with net.node() as thief:
            thief.add_credential(credential)
            with pytest.raises(NotDelivered), trio.fail_after(20):
                await thief.ref(server.address("counter"), Counter).ask(Add(1))


async def test_a_key_that_was_rotated_away_registers_at_no_relay_that_saw_the_next(
    net: Net, opened_as: As, autojump_clock: object
) -> None:
    opened_as(alices(1))
    async with net.node():
        pass
    opened_as(alices())
    with pytest.raises(RelayRefused):
        async with net.node():
            pass


async def test_an_authority_caught_with_two_histories_counts_for_nothing_also_in_live_sessions(
    net: Net, opened_as: As, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    authority = alices(1)
    file = tmp_path / "anchors.toml"
    file.write_text(to_toml(Anchor(authority.identifier, {"team": "string"})))
    server_vault = Vault.in_memory()

    def issued(vault: Vault, subject: Node) -> str:
        to = parse_identifier(subject.identifier)
        return to_text(issue(vault, subject=to, attributes={"team": "payments"}, now=virtual_now()))

    async with net.node() as bob, net.node() as carol:
        opened_as(server_vault)
        async with net.node([Counter], anchors=file) as server:
            counter = bob.ref(server.address("counter"), Counter)
            bob.add_credential(issued(authority, bob))
            assert await counter.ask(Add(1)) == Total(1)
            carol.add_credential(issued(thiefs(), carol))
            with pytest.raises(Denied):
                await carol.ref(server.address("counter"), Counter).ask(Add(1))
            with pytest.raises(Denied):
                await counter.ask(Add(1))
            secrets = server_vault._keys.secrets

        def started_again() -> Vault:
            return Vault(secrets, server_vault.history, None, None, os.urandom)

        # The node is started again, with what its vault remembers.
        opened_as(started_again())
        async with net.node([Counter], anchors=file) as server:
            with pytest.raises(Denied):
                await bob.ref(server.address("counter"), Counter).ask(Add(1))
        forgiving = started_again()
        forgiving.forgive(authority.identifier)
        opened_as(forgiving)
        async with net.node([Counter], anchors=file) as server:
            assert await bob.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
            with pytest.raises(Denied):
                await carol.ref(server.address("counter"), Counter).ask(Add(1))
            assert await bob.ref(server.address("counter"), Counter).ask(Add(1)) == Total(2)


async def test_an_authority_that_became_an_anchor_while_the_node_ran_is_watched_as_any_other(
    net: Net, opened_as: As, tmp_path: Path, autojump_clock: object
) -> None:
    authority, server_vault = alices(1), Vault.in_memory()
    file = tmp_path / "anchors.toml"
    file.write_text(to_toml(Anchor(Vault.in_memory().identifier, {"team": "string"})))
    opened_as(server_vault)
    async with net.node([Counter], anchors=file) as server:
        file.write_text(to_toml(Anchor(authority.identifier, {"team": "string"})))
        server.reload_policies()
        opened_as(Vault.in_memory())
        async with net.node() as bob:
            to = parse_identifier(bob.identifier)
            bob.add_credential(
                to_text(issue(authority, subject=to, attributes={"team": "payments"}, now=virtual_now()))
            )
            assert await bob.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
        assert [mark.identifier for mark in server_vault.marks] == [authority.identifier]


async def test_a_copy_from_before_learns_so_from_a_credential_that_it_issued_later(
    net: Net, opened_as: As, autojump_clock: object
) -> None:
    vault = alices()

    async def serve_and_be_asked(asker: Node) -> None:
        async with net.node([Counter]) as server:
            await asker.ref(server.address("counter"), Counter).ask(Add(1))
            await trio.sleep(130)
            await asker.ref(server.address("counter"), Counter).ask(Add(1))

    async with net.node() as bob:
        later = issue(
            alices(1), subject=parse_identifier(bob.identifier), attributes={"team": "payments"}, now=virtual_now()
        )
        bob.add_credential(to_text(later))
        opened_as(vault)
        with pytest.raises(VaultError, match="this home is a copy from before: run `identity rotate`"):
            await serve_and_be_asked(bob)


async def test_a_relay_that_goes_back_to_an_older_key_is_refused(net: Net, autojump_clock: object) -> None:
    def relay_of(vault: Vault) -> None:
        net.kill_relay()
        net.start_relay()
        net.fabric._relay = Relay(vault, now=virtual_now)

    relay_of(alices(1))
    async with net.node(relay=f"{net.url}#I{alices().identifier.hex()}") as node:
        relay_of(alices())
        await trio.sleep(30)
        assert node.statistics().relays == 0
        relay_of(alices(2))
        await trio.sleep(60)
        assert node.statistics().relays == 1


async def test_a_running_node_that_learns_it_is_a_copy_from_before_ends_with_the_way_out(
    net: Net, opened_as: As, autojump_clock: object
) -> None:
    vault = alices()

    async def serve_and_be_asked(asker: Node) -> None:
        async with net.node([Counter]) as server:
            vault.learn(alices(1).history)
            await asker.ref(server.address("counter")).ask(Add(1))

    async with net.node() as bob:
        opened_as(vault)
        with pytest.raises(VaultError, match="this home is a copy from before: run `identity rotate`"):
            await serve_and_be_asked(bob)


async def test_a_node_renews_what_it_attests_for_as_long_as_it_runs(
    net: Net, opened_as: As, autojump_clock: object
) -> None:
    vault = alices()
    opened_as(vault)
    numbers = set()
    async with net.node(relay=()):
        for _ in range(8):  # an attestation that was not renewed would have less than 5 days left after 2
            bundle = verify_bundle(vault.bundle(virtual_now()), virtual_now())
            assert bundle.expires > virtual_now() + 5 * DAY
            numbers.add(bundle.prekeys[0].id)
            await trio.sleep(DAY / 2)
    assert len(numbers) == 4


async def test_a_node_whose_disk_is_full_goes_on_and_says_so(
    net: Net, opened_as: As, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    def refuse(*_: object) -> None:
        raise VaultError("no space left")

    vault = alices()
    opened_as(vault)
    async with net.node([Counter], relay=()) as node:
        with monkeypatch.context() as patched, capture_logs() as logs:
            patched.setattr(Vault, "_save", refuse)
            await trio.sleep(2 * DAY)
        assert {line["event"] for line in logs} == {"the vault cannot be renewed"}
        assert {line["why"] for line in logs} == {"no space left"}
        assert node.statistics().agents == 1
        await trio.sleep(HOUR + 1)
        assert verify_bundle(vault.bundle(virtual_now()), virtual_now()).not_before > EPOCH + DAY


async def test_a_home_that_is_a_copy_from_before_opens_no_node(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    home = tmp_path / "home"
    with Vault.open(home) as vault:
        recovery = vault.read_recovery()
        later = Vault.in_memory(random=lambda size: recovery.secret[:size])
        later.rotate(recovery, EPOCH)
        vault.learn(later.history)
    with pytest.raises(VaultError, match="this home is a copy from before: run `identity rotate`"):
        async with net.node(home=home, relay=()):
            pass
    with Vault.open(home) as vault:
        vault.rotate(recovery, EPOCH)
    async with net.node(home=home, relay=()) as node:
        assert node.identifier == f"I{later.identifier.hex()}"
