"""Whole policies between nodes: in both directions, changed while sessions live, and written down."""

import json
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
from attrs import frozen

from autonomy_trio import Down, Request, agent, on
from autonomy_trio.errors import ConfigurationError, DeclarationError, Denied, NotHandled, PolicyError
from autonomy_trio.messages import Untyped
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.records import format_identifier, parse_identifier
from tests.support.net import Add, Counter, Net, Note, Secret, Total

OPEN_SECRET = 'permit(principal, action == Action::"Secret", resource is Counter);\n'
NOBODY = "forbid(principal, action, resource is Counter);\n"
SEND_TO_TEAM = (
    'forbid(principal, action == Action::"Send", resource)\n'
    'unless { resource has team && resource.team == "payments" };\n'
)


def write(path: Path, text: str) -> None:
    path.write_text(text)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policies.cedar"
    path.write_text(OPEN_SECRET)
    return path


async def test_a_file_of_policies_opens_and_closes_what_handlers_do_not_say(
    net: Net, file: Path, autojump_clock: object
) -> None:
    async with net.node([Counter], policy=file) as server, net.node() as bob:
        counter = bob.ref(server.address("counter"), Counter)
        assert await counter.ask(Secret()) == 42
        with pytest.raises(Denied):
            await counter.ask(Add(1))


async def test_changed_policies_count_from_the_next_message_of_a_live_session(
    net: Net, file: Path, autojump_clock: object
) -> None:
    async with net.node([Counter], policy=file) as server, net.node() as bob:
        counter = bob.ref(server.address("counter"), Counter)
        assert await counter.ask(Secret()) == 42
        handshakes = len(net.sent)
        generation = server.policies.generation
        write(file, OPEN_SECRET + NOBODY)
        assert await counter.ask(Secret()) == 42
        server.reload_policies()
        with pytest.raises(Denied):
            await counter.ask(Secret())
        assert server.dead_letters.latest().why == "forbidden by policies.cedar:2: true"
        write(file, OPEN_SECRET + "forbid(principal, action, resource is Contr);")
        with pytest.raises(PolicyError, match=r"policies\.cedar:2: there is no agent class 'Contr'"):
            server.reload_policies()
        with pytest.raises(Denied):
            await counter.ask(Secret())
        write(file, OPEN_SECRET)
        server.reload_policies()
        assert await counter.ask(Secret()) == 42
        assert server.policies.generation == generation + 2
        assert len(net.sent) - handshakes < 20


async def test_changed_anchors_count_from_the_next_message_of_a_live_session(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    path = tmp_path / "anchors.toml"
    async with net.node() as authority, net.node() as other, net.node() as alice:

        def trust(identifier: str) -> None:
            path.write_text(to_toml(Anchor(parse_identifier(identifier), {"team": "string"})))

        trust(authority.identifier)
        async with net.node([Counter], anchors=path) as server:
            alice.add_credential(authority.issue(alice.identifier, team="payments"))
            counter = alice.ref(server.address("counter"), Counter)
            assert await counter.ask(Add(1)) == Total(1)
            trust(other.identifier)
            server.reload_policies()
            with pytest.raises(Denied):
                await counter.ask(Add(1))
            write(path, "[[anchor]]")
            with pytest.raises(ConfigurationError):
                server.reload_policies()


async def test_policies_can_name_what_a_callable_builds(net: Net, file: Path, autojump_clock: object) -> None:
    async with net.node([lambda: Counter(5)], policy=file) as server, net.node() as bob:
        assert await bob.ref(server.address("counter")).ask(Secret()) == 42


async def test_a_policy_that_hiding_an_attribute_evades_is_logged(net: Net, file: Path, autojump_clock: object) -> None:
    write(file, OPEN_SECRET + "forbid(principal, action, resource) when { principal has team };")
    with structlog.testing.capture_logs() as logged:
        async with net.node([Counter], policy=file):
            pass
    found = [entry for entry in logged if entry["event"] == "policy can be evaded"]
    assert [(entry["policy"], entry["by_hiding"]) for entry in found] == [("policies.cedar:2", ["principal.team"])]


async def test_a_wrong_policy_stops_the_start(net: Net, file: Path, autojump_clock: object) -> None:
    write(file, OPEN_SECRET + "\npermit(principal, action, resource is Conter);")
    with pytest.raises(
        PolicyError, match=r"policies\.cedar:3: there is no agent class 'Conter': did you mean 'Counter'"
    ):
        async with net.node([Counter], policy=file):
            raise AssertionError


async def test_each_decision_about_what_arrives_is_a_line_of_the_audit_log(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    path = tmp_path / "audit.jsonl"
    async with net.node([Counter], audit=path) as server, net.node() as alice, net.node() as bob:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        await alice.ref(server.address("counter"), Counter).ask(Add(99))
        for sent in (Add(99), Secret()):
            with pytest.raises(Denied):
                await bob.ref(server.address("counter"), Counter).ask(sent)
        with pytest.raises(Denied):
            await alice.ref(server.address("counter"), Counter).ask(Add(101))
        with pytest.raises(Denied):
            await bob.ref(server.address("nobody"), Counter).ask(Add(1))
    lines = read(path)
    assert [(line["principal"], line["action"], line["allowed"]) for line in lines] == [
        (alice.identifier, "Add", True),
        (bob.identifier, "Add", False),
        (bob.identifier, "Secret", False),
        (alice.identifier, "Add", False),
    ]
    assert {(line["agent"], line["resource"]) for line in lines} == {("Counter", "counter")}
    assert len(lines[0]["credentials"]) == 1
    assert "99" not in json.dumps([line["reason"] for line in lines])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_nothing_is_sent_to_whom_a_policy_forbids_it(net: Net, file: Path, autojump_clock: object) -> None:
    write(file, SEND_TO_TEAM)
    audit = file.with_name("audit.jsonl")
    async with net.node([Counter]) as server, net.node(policy=file, audit=audit) as careful:
        counter = careful.ref(server.address("counter"), Counter)
        with pytest.raises(Denied) as caught:
            await counter.ask(Add(1))
        assert str(caught.value) == (
            f"Add was not sent to {server.identifier}/counter: forbidden by policies.cedar:1:"
            ' !((resource has team) && (resource.team == "payments")); not proven: resource.team'
        )
        await counter.tell(Note("x"))
        await careful.flush()
        assert server.dead_letters.counts() == {}
        assert careful.dead_letters.counts() == {"denied": 2}
        assert careful.dead_letters.latest().message == "Note"
    lines = read(audit)
    assert [(line["action"], line["agent"], line["resource"], line["allowed"]) for line in lines] == [
        ("Send", "Principal", server.identifier, False)
    ] * 2


async def test_a_recipient_that_has_proven_enough_is_sent_to_and_is_always_answered(
    net: Net, file: Path, autojump_clock: object
) -> None:
    write(file, SEND_TO_TEAM + OPEN_SECRET)
    async with net.node([Counter]) as server, net.node([Counter], policy=file) as careful:
        # Its answer to a node that has proven nothing follows the ask.
        assert await server.ref(careful.address("counter"), Counter).ask(Secret()) == 42
        with pytest.raises(Denied, match="was not sent"):
            await careful.ref(server.address("counter"), Counter).ask(Add(1))
    async with net.node([Counter]) as server, net.node([Counter], policy=file) as careful:
        server.add_credential(careful.issue(server.identifier, team="payments"))
        assert await server.ref(careful.address("counter"), Counter).ask(Secret()) == 42
        with pytest.raises(Denied, match="denied Add: its policy does not let you"):
            await careful.ref(server.address("counter"), Counter).ask(Add(1))


async def test_policies_know_the_pinned_relay_that_brought_a_message(
    net: Net, file: Path, autojump_clock: object
) -> None:
    relay = net.relay
    assert relay is not None
    pin = format_identifier(relay._vault.identifier)
    write(file, f'permit(principal, action, resource) when {{ context has relay && context.relay == "{pin}" }};')
    for url, expected in ((net.url, False), (f"{net.url}#{pin}", True)):
        async with net.node([Counter], policy=file, relay=url) as server, net.node() as bob:
            counter = bob.ref(server.address("counter").replace(f"#{pin}", ""), Counter)
            if expected:
                assert await counter.ask(Secret()) == 42
                continue
            with pytest.raises(Denied):
                await counter.ask(Secret())


@frozen
class Priced:
    amount: Decimal


@frozen
class Quoted(Request[Decimal]):
    pass


@frozen
class Offer:
    pass


@frozen
class PricedOffer(Offer):
    amount: Decimal


@agent
class Shop:
    downs: list[Down] = attrs.Factory(list[Down])

    @on(Priced)
    def priced(self, message: Priced) -> None: ...

    @on(Quoted)
    def quoted(self, message: Quoted) -> Decimal:
        return Decimal(1)

    @on(Offer)
    def offer(self, message: Offer) -> None: ...

    @on(Down)
    def down(self, message: Down) -> None:
        self.downs.append(message)


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("Priced", r"Shop\.priced, which a policy opens to other nodes: Priced cannot be sent: Decimal is no type"),
        ("Quoted", r"Shop\.quoted, which a policy opens .*: Quoted cannot be sent: Decimal is no type"),
        ("PricedOffer", r"Shop\.offer, which a policy opens .*: PricedOffer cannot be sent: Decimal is no type"),
    ],
)
async def test_a_policy_that_opens_a_message_nobody_could_read_stops_the_start(
    net: Net, file: Path, action: str, why: str, autojump_clock: object
) -> None:
    write(file, f'permit(principal, action == Action::"{action}", resource is Shop);')
    with pytest.raises(DeclarationError, match=why):
        async with net.node([Shop], policy=file):
            pass
    write(file, 'permit(principal, action == Action::"Offer", resource is Shop);')
    async with net.node([Shop], policy=file) as node:
        write(file, f'permit(principal, action == Action::"{action}", resource is Shop);')
        with pytest.raises(DeclarationError, match=why):
            node.reload_policies()


async def test_no_policy_lets_another_node_say_that_an_agent_is_down(
    net: Net, file: Path, autojump_clock: object
) -> None:
    write(file, 'permit(principal, action == Action::"Offer", resource);')
    async with net.node([Shop], policy=file) as node, net.node() as bob:
        fields = {"ref": bob.address("b"), "reason": "failed"}
        with pytest.raises(NotHandled, match="does not handle Down; you may send it Offer"):
            await bob.ref(node.address("shop")).ask(Untyped("Down", fields))
        write(file, 'permit(principal, action == Action::"Down", resource is Shop);')
        with pytest.raises(PolicyError, match="there is no message 'Down'"):
            node.reload_policies()
