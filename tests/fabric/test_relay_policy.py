"""Relays that not everybody may register with."""

from pathlib import Path

import pytest
import trio
import trio.testing

from autonomy_trio import open_node
from autonomy_trio.errors import ConfigurationError, CredentialError, LinkBroken, PolicyError, RelayRefused
from autonomy_trio.fabric.credentials import Wallet
from autonomy_trio.fabric.links import Link
from autonomy_trio.fabric.relay import Relay
from autonomy_trio.fabric.relay_policy import RelayPolicy
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.anchors import Anchor, Anchors
from autonomy_trio.trust.credentials import issue, read_presentation, to_text
from autonomy_trio.trust.identity import verify_bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import RELAY_ISSUERS
from autonomy_trio.wire.frames import join_frames
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
    return policy.admit(verify_bundle(node.bundle(now), now), presentations, bytes(32), now)


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
