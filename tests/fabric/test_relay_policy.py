"""Relays that not everybody may register with."""

from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from autonomy_trio import open_node
from autonomy_trio.errors import ConfigurationError, CredentialError, LinkBroken, PolicyError, RelayRefused
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.relays import gate
from autonomy_trio.fabric.relays.policy import RelayPolicy
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.fabric.stores.store import MemoryStore
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.anchors import Anchor, Anchors
from autonomy_trio.trust.credentials import issue, read_presentation, to_text
from autonomy_trio.trust.identity import verify_bundle
from autonomy_trio.trust.lists import list_to_text, sign_list, verify_list
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import RELAY_ISSUERS
from autonomy_trio.wire.directory import ListedAgent, Record, make_listing
from autonomy_trio.wire.frames import Lookup, Ping, Pong, Publish, Records, Show, Stored, join_frames
from autonomy_trio.wire.frames import Store as StoreFrame
from autonomy_trio.wire.mailbox import stored_id
from autonomy_trio.wire.packets import SealedPacket
from autonomy_trio.wire.registration import make_register, verify_hello
from tests.support.neighbours import NONCE, NOW, Neighbour, Neighbourhood, eventually

PAYMENTS = """
permit(principal, action == Action::"Register", resource) when { principal has team && principal.team == "payments" };
"""


def says(authority: Vault, node: Vault, *, now: float = NOW, validity: int = 3600, team: str = "payments") -> bytes:
    return issue(authority, subject=node.identifier, attributes={"team": team}, now=now, validity=validity)


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    file = tmp_path / "relay.cedar"
    file.write_text(PAYMENTS)
    return file


@pytest.fixture
def authority() -> Vault:
    return Vault.in_memory()


@pytest.fixture
def node() -> Vault:
    return Vault.in_memory()


def admit(policy: RelayPolicy, node: Vault, *presentations: bytes, now: float = NOW) -> float:
    return policy.admit(verify_bundle(node.bundle(now), now), presentations, bytes(32), now).until


def test_with_anchors_alone_any_credential_of_theirs_lets_in_until_it_expires(authority: Vault, node: Vault) -> None:
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier))
    assert admit(policy, node, says(authority, node, team="kitchen")) == NOW + 3600
    assert policy.issuers == (authority.identifier,)


@pytest.mark.parametrize("shown", ["nothing", "a stranger's", "somebody else's", "expired", "garbage"])
def test_what_does_not_count_lets_nobody_in(authority: Vault, node: Vault, shown: str) -> None:
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier))
    presentations = {
        "nothing": [],
        "a stranger's": [says(Vault.in_memory(), node)],
        "somebody else's": [says(authority, Vault.in_memory())],
        "expired": [says(authority, node, now=NOW - 7200)],
        "garbage": [b"\x00" * 100],
    }[shown]
    with pytest.raises(CredentialError, match="no credential that counts here"):
        admit(policy, node, *presentations)


def test_a_policy_says_who_may(authority: Vault, node: Vault, policy_file: Path) -> None:
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier), policy_file)
    assert admit(policy, node, says(authority, node)) == NOW + 3600
    with pytest.raises(CredentialError, match="may not register"):
        admit(policy, node, says(authority, node, team="kitchen"))
    with pytest.raises(CredentialError, match="may not register"):
        admit(policy, node)


def test_a_forbid_outweighs_a_permit(authority: Vault, node: Vault, tmp_path: Path) -> None:
    file = tmp_path / "p.cedar"
    file.write_text(
        "permit(principal, action, resource);\n"
        'forbid(principal, action, resource) when { principal has team && principal.team == "x" };'
    )
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier), file)
    assert admit(policy, node) == float("inf")
    with pytest.raises(CredentialError, match="may not register"):
        admit(policy, node, says(authority, node, team="x"))


def test_a_policy_about_something_else_is_refused_at_the_start(authority: Vault, tmp_path: Path) -> None:
    file = tmp_path / "p.cedar"
    file.write_text('permit(principal, action == Action::"Enter", resource);')
    with pytest.raises(PolicyError, match="Enter"):
        RelayPolicy.load(Anchors.of_self(authority.identifier), file)


def test_no_more_anchors_than_a_relay_can_name() -> None:
    identifiers = [bytes([number, *bytes(31)]) for number in range(RELAY_ISSUERS + 1)]
    many = {each: Anchor(each, None) for each in identifiers}
    with pytest.raises(ConfigurationError, match="at most 64"):
        RelayPolicy.load(Anchors(many, None))


async def test_a_private_relay_says_whose_credentials_it_asks_for_and_turns_others_away(
    nursery: trio.Nursery, authority: Vault, node: Vault
) -> None:
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier))
    near = Neighbourhood(Relay(Vault.in_memory(), now=lambda: NOW, policy=policy), nursery)

    async def register(*presentations: bytes) -> Neighbour:
        link = near.link()
        hello = (await link.receive())[4:]
        assert verify_hello(hello, NOW)[0].issuers == (authority.identifier,)
        await link.send(join_frames([make_register(node, hello, presentations, NONCE, NOW)]))
        await link.receive()
        return Neighbour(link, node)

    with pytest.raises(LinkBroken):
        await register()
    assert near.relay.statistics().nodes == 0
    await register(says(authority, node))
    assert near.relay.statistics().nodes == 1


def with_list(authority: Vault, presentation: bytes, *revoked: bytes, seq: int = 1) -> bytes:
    """Return a presentation with a list that takes credentials back."""
    wallet = Wallet(read_presentation(presentation).credential.subject, None)
    wallet.add(to_text(presentation), NOW)
    signed = sign_list(authority, seq=seq, credentials=revoked, least={}, now=NOW)
    wallet.learn(verify_list(signed, authority.history), authority.history)
    [shown] = wallet.shown(NOW)
    return shown


def list_text(authority: Vault, *revoked: bytes, seq: int = 1) -> str:
    signed = sign_list(authority, seq=seq, credentials=revoked, least={}, now=NOW)
    return list_to_text(signed, authority.history.changes)


def id_of(presentation: bytes) -> bytes:
    return read_presentation(presentation).credential.id


@pytest.fixture
def near(nursery: trio.Nursery, authority: Vault) -> Neighbourhood:
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier))
    return Neighbourhood(Relay(Vault.in_memory(), now=lambda: NOW, policy=policy), nursery)


async def register(near: Neighbourhood, node: Vault, *presentations: bytes) -> Neighbour:
    neighbour = Neighbour(near.link(), node)
    await neighbour.register(presentations)
    return neighbour


async def is_let_go(neighbour: Neighbour) -> bool:
    with trio.move_on_after(5):
        with suppress(LinkBroken):
            await neighbour.link.receive()
            return False
        return True
    return False


async def test_a_revocation_that_another_node_shows_reaches_one_that_is_registered(
    near: Neighbourhood, authority: Vault, node: Vault
) -> None:
    credential, other = says(authority, node), Vault.in_memory()
    revoked = await register(near, node, credential)
    honest = await register(near, other, says(authority, other))
    third = Vault.in_memory()
    await register(near, third, with_list(authority, says(authority, third), id_of(credential)))
    assert await is_let_go(revoked)
    await honest.say(Ping())
    assert await honest.hear() == Pong(), "nobody else is concerned"
    assert near.relay.statistics().nodes == 2


async def test_a_revocation_that_a_registered_node_shows_later_counts_at_once(
    near: Neighbourhood, authority: Vault, node: Vault
) -> None:
    credential, other = says(authority, node), Vault.in_memory()
    revoked = await register(near, node, credential)
    shown = says(authority, other)
    honest = await register(near, other, shown)
    await honest.say(Show((with_list(authority, shown, id_of(credential)),)))
    assert await is_let_go(revoked)


async def test_a_list_in_the_relays_home_is_obeyed_when_it_comes(
    near: Neighbourhood, authority: Vault, nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LISTS_EVERY", 0.01)
    lists, node = tmp_path / "lists", Vault.in_memory()
    credential = says(authority, node)
    revoked = await register(near, node, credential)
    nursery.start_soon(near.relay.obey_lists, lists)
    await trio.sleep(0.05)
    assert near.relay.statistics().nodes == 1
    lists.mkdir()
    (lists / "nonsense").write_bytes(b"\xff nothing")
    (lists / "stranger").write_text(list_text(Vault.in_memory(), id_of(credential)))
    (lists / "list").write_text(list_text(authority, id_of(credential)))
    assert await is_let_go(revoked)


async def test_a_node_that_shows_less_than_is_asked_for_is_let_go(
    near: Neighbourhood, authority: Vault, node: Vault
) -> None:
    neighbour = await register(near, node, says(authority, node))
    await neighbour.say(Show(()))
    assert await is_let_go(neighbour)


async def test_a_flood_of_credentials_is_not_looked_at(near: Neighbourhood, authority: Vault, node: Vault) -> None:
    neighbour = await register(near, node, says(authority, node))
    good = says(authority, node)
    for _ in range(4):
        await neighbour.say(Show((good,) * 16))
    await neighbour.say(Show((b"rubbish",)), Ping())
    assert await neighbour.hear() == Pong()


async def test_a_renewed_credential_keeps_a_node_registered_without_a_break(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, authority: Vault
) -> None:
    relay = Relay(Vault.in_memory(), now=virtual_now, policy=RelayPolicy.load(Anchors.of_self(authority.identifier)))
    near = Neighbourhood(relay, nursery)
    links = 0

    async def connect(_: str, __: trio.Nursery) -> Link:
        nonlocal links
        links += 1
        await trio.lowlevel.checkpoint()
        return near.link()

    async with open_node(now=virtual_now, connect=connect) as node:
        subject = bytes.fromhex(node.identifier[1:])
        for _ in range(5):
            credential = issue(authority, subject=subject, attributes={"a": 1}, now=virtual_now(), validity=120)
            node.add_credential(to_text(credential))
            await node.attach("ws://here:1")
            await trio.sleep(100)
            assert relay.statistics().nodes == 1
        assert links == 1
        await trio.sleep(50)
        assert relay.statistics().nodes == 0


STORES = """
permit(principal, action == Action::"Register", resource);
permit(principal, action == Action::"Store", resource)
when { principal has team && principal.team == "payments" && context.message.destination == "%s" };
permit(principal, action == Action::"Publish", resource) when { principal has team && principal.team == "kitchen" };
"""


async def test_who_may_store_for_whom_and_publish_is_policy_too(
    nursery: trio.Nursery, authority: Vault, tmp_path: Path
) -> None:
    payments, kitchen, till = Vault.in_memory(), Vault.in_memory(), Vault.in_memory()
    file = tmp_path / "relay.cedar"
    file.write_text(STORES % format_identifier(till.identifier))
    policy = RelayPolicy.load(Anchors.of_self(authority.identifier), file)
    relay = Relay(Vault.in_memory(), now=lambda: NOW, policy=policy, store=MemoryStore(lambda: NOW))
    near = Neighbourhood(relay, nursery)
    allowed = await register(near, payments, says(authority, payments))
    denied = await register(near, kitchen, says(authority, kitchen, team="kitchen"))
    packet = SealedPacket(1, bytes(96), bytes(128))
    sealed = packet.header + packet.message + packet.body
    for neighbour, destination, refusal in (
        (allowed, till.identifier, None),
        (allowed, kitchen.identifier, "denied"),
        (denied, till.identifier, "denied"),
    ):
        await neighbour.say(StoreFrame(destination, 60, sealed))
        assert await neighbour.hear() == Stored(stored_id(sealed), refusal)
    assert (relay.statistics().stored, relay.statistics().not_stored) == (1, 2)
    for neighbour in (allowed, denied):
        record = Record(1, neighbour.id, 0, 1, int(NOW), int(NOW) + 600, (), (ListedAgent("a", "", ()),))
        await neighbour.say(Publish(make_listing(neighbour.vault, record, ())), Lookup(1, None, "a", None))
        found = await neighbour.hear()
        assert isinstance(found, Records)
        assert len(found.listings) == (neighbour is denied)


async def test_a_node_stays_until_its_credential_expires_and_comes_back_with_the_next(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, authority: Vault
) -> None:
    relay = Relay(Vault.in_memory(), now=virtual_now, policy=RelayPolicy.load(Anchors.of_self(authority.identifier)))
    near = Neighbourhood(relay, nursery)

    async def connect(_: str, __: trio.Nursery) -> Link:
        await trio.lowlevel.checkpoint()
        return near.link()

    async with open_node(now=virtual_now, connect=connect) as node:
        subject = bytes.fromhex(node.identifier[1:])

        def credential(validity: int) -> str:
            return to_text(
                issue(authority, subject=subject, attributes={"team": "a"}, now=virtual_now(), validity=validity)
            )

        with pytest.raises(RelayRefused, match=format_identifier(authority.identifier)):
            await node.attach("ws://here:1")
        node.add_credential(credential(120))
        await node.attach("ws://here:1")
        assert relay.statistics().nodes == 1
        await trio.sleep(125)
        assert relay.statistics().nodes == 0
        node.add_credential(credential(3600))
        await eventually(lambda: relay.statistics().nodes == 1, 30)


def test_only_credentials_of_the_issuers_asked_for_are_shown(authority: Vault, node: Vault) -> None:
    wallet = Wallet(node.identifier, None)
    for each in (authority, Vault.in_memory()):
        wallet.add(to_text(says(each, node)), NOW)
    assert len(wallet.shown(NOW)) == 2
    [shown] = wallet.shown(NOW, (authority.identifier,))
    assert read_presentation(shown).credential.issuer == authority.identifier
