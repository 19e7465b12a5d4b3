"""Who speaks between nodes: an agent for itself, with what it and its node have proven."""

import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Mailbox, Node, Request, Sender, Stream, agent, on, pool
from autonomy_trio.errors import CredentialError, Denied, NotDelivered
from autonomy_trio.fabric.identity.voices import Voice
from autonomy_trio.messages import Untyped
from autonomy_trio.testing import Faults, open_test_fabric
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.credentials import from_text, issue, read_presentation, to_text
from autonomy_trio.trust.delegates import Introduction
from autonomy_trio.trust.lists import sign_list
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import LARGEST_INDEX
from autonomy_trio.wire.introductions import IntroducedAgents
from tests.support.net import Net


@frozen
class Who(Request[str]):
    pass


@frozen
class Payments(Request[str]):
    pass


@frozen
class Tellers(Request[str]):
    pass


@frozen
class Note:
    pass


@frozen
class Count(Stream[str]):
    pass


@frozen
class Go(Request[str]):
    """Ask an agent elsewhere, and say what came of it."""

    address: str
    message: str


@frozen
class Everything(Request[list[str]]):
    """Reach an agent elsewhere in every way there is."""

    address: str


@frozen
class Look(Request[None]):
    """Watch an agent elsewhere."""

    address: str


@agent(mailbox=Mailbox(1000))
class Bank:
    heard: list[Sender] = field(factory=list[Sender])

    @on(Note, allow="true")
    @on(Who, allow="true")
    @on(Payments, allow='principal.team == "payments"')
    @on(Tellers, allow='principal.role == "teller"')
    def hear(self, message: Note | Who | Payments | Tellers, context: Context) -> str:
        self.heard.append(context.sender)
        return context.sender.id

    @on(Count, allow="true")
    async def count(self, message: Count, context: Context) -> AsyncIterator[str]:
        self.heard.append(context.sender)
        yield context.sender.id


@agent
class Closed:
    @on(Note, allow='principal.team == "payments"')
    def note(self, message: Note) -> None:
        pass


class Speaks:
    downs: list[Down]

    @on(Go)
    async def go(self, message: Go, context: Context) -> str:
        other: AgentRef[Any] = context.ref(message.address)
        try:
            return str(await other.ask(Untyped(message.message, {})))
        except (Denied, NotDelivered) as error:
            return type(error).__name__

    @on(Everything)
    async def everything(self, message: Everything, context: Context) -> list[str]:
        other: AgentRef[Bank] = context.ref(message.address, Bank)
        context.watch(other)
        await other.tell(Note())
        other.tell_nowait(Note())
        async with other.stream(Count()) as items:
            streamed = [item async for item in items]
        return [await other.ask(Who()), *streamed]

    @on(Look)
    def look(self, message: Look, context: Context) -> None:
        context.watch(context.ref(message.address))

    @on(Down)
    def down(self, message: Down) -> None:
        self.downs.append(message)


@agent
class Clerk(Speaks):
    downs: list[Down] = field(factory=list[Down])


@agent(inherit=False)
class Bridge(Speaks):
    downs: list[Down] = field(factory=list[Down])


def ask_who(node: Node, name: str, address: str, message: str = "Who") -> Awaitable[str]:
    return node.ref(name).ask(Go(address, message))


async def test_a_message_of_an_agent_is_the_agents_and_one_of_no_agent_the_nodes(
    net: Net, autojump_clock: object
) -> None:
    bank = Bank()
    async with net.node([lambda: bank]) as server, net.node([Clerk, Bridge]) as alice:
        address = server.address("bank")
        clerk, bridge = alice.agent_identifier("clerk"), alice.agent_identifier("bridge")
        assert await ask_who(alice, "clerk", address) == clerk
        assert await ask_who(alice, "bridge", address) == bridge
        assert await alice.ref(address, Bank).ask(Who()) == alice.identifier
        assert [(each.id, each.node, each.is_local) for each in bank.heard] == [
            (who, alice.identifier, False) for who in (clerk, bridge, alice.identifier)
        ]
        assert len({clerk, bridge, alice.identifier, server.agent_identifier("clerk")}) == 4


async def test_a_tell_a_stream_and_a_watch_are_the_agents_too(net: Net, autojump_clock: object) -> None:
    bank, clerk = Bank(), Clerk()
    async with net.node([lambda: bank]) as server, net.node([lambda: clerk]) as alice:
        identifier = alice.agent_identifier("clerk")
        said = await alice.ref("clerk").ask(Everything(server.address("bank")))
        assert said == [identifier, identifier]
        assert [each.id for each in bank.heard] == [identifier] * 4
        server.ref("bank").stop()
        await trio.sleep(1)
        assert [down.reason for down in clerk.downs] == ["stopped"]


async def test_a_watch_of_an_agent_that_may_send_nothing_is_told_of_nobody(net: Net, autojump_clock: object) -> None:
    clerk, bridge = Clerk(), Bridge()
    async with net.node([Closed]) as server, net.node([lambda: clerk, lambda: bridge]) as alice:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        for each in ("clerk", "bridge"):
            await alice.ref(each).ask(Look(server.address("closed")))
        await trio.sleep(1)
        assert clerk.downs == []
        assert [down.reason for down in bridge.downs] == ["unknown agent"]
        assert [letter.sender for letter in server.dead_letters if letter.message == "Watch"] == [
            alice.agent_identifier("bridge")
        ]


async def test_an_agent_speaks_with_its_nodes_attributes_unless_it_inherits_nothing(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server, net.node([Clerk, Bridge]) as alice:
        address = server.address("bank")
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        assert await ask_who(alice, "clerk", address, "Payments") == alice.agent_identifier("clerk")
        assert await ask_who(alice, "bridge", address, "Payments") == "Denied"
        assert await ask_who(alice, "bridge", address) == alice.agent_identifier("bridge")
        assert "not proven: principal.team" in server.dead_letters.latest().why


async def test_an_agent_speaks_with_its_own_credentials_and_no_other_does(net: Net, autojump_clock: object) -> None:
    async with net.node([Bank]) as server, net.node([Clerk, Bridge]) as alice:
        address = server.address("bank")
        bridge = alice.agent_identifier("bridge")
        assert await ask_who(alice, "bridge", address, "Tellers") == "Denied"
        alice.add_credential(server.issue(bridge, role="teller"), agent="bridge")
        assert await ask_who(alice, "bridge", address, "Tellers") == bridge
        assert await ask_who(alice, "clerk", address, "Tellers") == "Denied"
        with pytest.raises(Denied):
            await alice.ref(address, Bank).ask(Tellers())
        with pytest.raises(CredentialError, match=f"is about {bridge}, and this home is .* folder credentials/agents"):
            alice.add_credential(server.issue(bridge, role="teller"))
        with pytest.raises(CredentialError, match=f"is about {bridge}, and that agent is"):
            alice.add_credential(server.issue(bridge, role="teller"), agent="clerk")


async def test_what_an_agent_and_its_node_prove_differently_is_dropped(net: Net, autojump_clock: object) -> None:
    async with net.node([Bank]) as server, net.node([Clerk]) as alice:
        address = server.address("bank")
        alice.add_credential(server.issue(alice.identifier, team="payments", role="teller"))
        assert await ask_who(alice, "clerk", address, "Payments") == alice.agent_identifier("clerk")
        alice.add_credential(server.issue(alice.agent_identifier("clerk"), team="kitchen"), agent="clerk")
        assert await ask_who(alice, "clerk", address, "Payments") == "Denied"
        assert await ask_who(alice, "clerk", address, "Tellers") == alice.agent_identifier("clerk")
        assert (await alice.ref(address, Bank).ask(Payments())) == alice.identifier


async def test_credentials_of_an_agent_expire_and_are_renewed_in_a_live_session(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server, net.node([Bridge]) as alice:
        address, bridge = server.address("bank"), alice.agent_identifier("bridge")
        alice.add_credential(server.issue(bridge, role="teller", validity=60), agent="bridge")
        assert await ask_who(alice, "bridge", address, "Tellers") == bridge
        await trio.sleep(61)
        assert await ask_who(alice, "bridge", address, "Tellers") == "Denied"
        alice.add_credential(server.issue(bridge, role="teller"), agent="bridge")
        assert await ask_who(alice, "bridge", address, "Tellers") == bridge


async def test_a_revoked_credential_of_an_agent_counts_no_more_in_a_live_session(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    anchors = tmp_path / "anchors.toml"
    async with net.node() as office, net.node([Bridge]) as alice, net.node() as bob:
        anchors.write_text(
            f'[[anchor]]\nidentifier = "{office.identifier}"\nattributes = {{ role = "string", team = "string" }}\n'
        )
        async with net.node([Bank], anchors=anchors) as server:
            address, bridge = server.address("bank"), alice.agent_identifier("bridge")
            text = office.issue(bridge, role="teller")
            alice.add_credential(text, agent="bridge")
            assert await ask_who(alice, "bridge", address, "Tellers") == bridge
            taken_back = read_presentation(from_text(text)).credential.id
            signed = sign_list(office._vault, seq=1, credentials=[taken_back], least={}, now=virtual_now())
            bobs = issue(
                office._vault,
                subject=parse_identifier(bob.identifier),
                attributes={"role": "visitor"},
                now=virtual_now(),
                revocations=signed,
            )
            bob.add_credential(to_text(bobs))
            assert await bob.ref(address, Bank).ask(Who()) == bob.identifier
            assert await ask_who(alice, "bridge", address, "Tellers") == "Denied"
            assert await ask_who(alice, "bridge", address) == bridge
            assert server.statistics().unproven == 1
            assert alice.statistics().speakers == 1


@frozen
class Said:
    name: str


@frozen
class Say(Request[None]):
    address: str
    name: str


@agent
class Talker:
    @on(Say)
    async def say(self, message: Say, context: Context) -> None:
        await context.ref(message.address).tell(Said(message.name))


@agent(mailbox=Mailbox(1000))
class Listener:
    heard: list[tuple[str, str]] = field(factory=list[tuple[str, str]])

    @on(Said, allow="true")
    def hear(self, message: Said, context: Context) -> None:
        self.heard.append((message.name, context.sender.id))


@pytest.mark.parametrize("seed", range(4))
async def test_on_links_that_err_what_is_heard_is_the_agents_who_said_it(seed: int, autojump_clock: object) -> None:
    listener = Listener()
    async with (
        open_test_fabric(Faults(drop=0.1, duplicate=0.1, tamper=0.05, reorder=0.1), seed=seed) as fabric,
        fabric.open_node([lambda: listener]) as server,
        fabric.open_node() as user,
    ):
        names = [f"talker_{number}" for number in range(8)]
        for name in names:
            user.spawn(Talker, name)
        address = server.address("listener")
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(user.ref(name, Talker).ask, Say(address, name))
            await trio.sleep(0.5)
        assert {name for name, _ in listener.heard} == set(names)
        assert set(listener.heard) == {(name, user.node.agent_identifier(name)) for name in names}


async def test_the_credentials_of_an_agent_are_kept_in_the_home(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server:
        address = server.address("bank")
        async with net.node([Bridge], home=tmp_path / "home") as alice:
            bridge = alice.agent_identifier("bridge")
            # A home is opened by a thread, for which virtual time does not wait: hours may pass.
            alice.add_credential(server.issue(bridge, validity=86_400, role="teller"), agent="bridge")
        async with net.node([Bridge], home=tmp_path / "home") as alice:
            assert alice.agent_identifier("bridge") == bridge
            assert await ask_who(alice, "bridge", address, "Tellers") == bridge
        assert [file.parent.name for file in (tmp_path / "home" / "credentials" / "agents").iterdir()] == ["agents"]


async def test_an_agent_is_introduced_once_in_a_session_and_no_message_is_signed_for_it(
    net: Net, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    introduce = Vault.introduce

    def counted(self: Vault, name: str, now: float) -> Introduction:
        made.append(name)
        return introduce(self, name, now)

    monkeypatch.setattr(Vault, "introduce", counted)
    async with net.node([Bank]) as server, net.node([Clerk]) as alice:
        address = server.address("bank")
        for _ in range(3):
            await ask_who(alice, "clerk", address)
        sizes = [len(message) for message in net.sent]
        for _ in range(20):
            await ask_who(alice, "clerk", address)
        assert made == ["clerk"]
        asks = [len(message) for message in net.sent[len(sizes) :]]
        assert max(asks) < 400, "an introduction rode again"


async def test_agents_that_never_speak_elsewhere_cost_no_key(
    net: Net, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Vault, "introduce")
    async with net.node([Bank]) as server, net.node() as alice:
        for number in range(1000):
            alice.spawn(Clerk, f"clerk_{number}")
        assert await alice.ref(server.address("bank"), Bank).ask(Who()) == alice.identifier
        assert len(alice._peers.sessions.voices) == 0


async def test_many_agents_are_introduced_no_faster_than_they_are_verified_and_none_is_refused(
    net: Net, autojump_clock: object
) -> None:
    async with net.node([Bank]) as server, net.node() as alice:
        address, said = server.address("bank"), dict[str, str]()

        async def ask(name: str) -> None:
            said[name] = await ask_who(alice, name, address)

        async with trio.open_nursery() as nursery:
            for number in range(900):
                alice.spawn(Clerk, f"clerk_{number}")
                nursery.start_soon(ask, f"clerk_{number}")
        assert said == {name: alice.agent_identifier(name) for name in said}
        assert len(said) == 900
        assert server.dead_letters.counts() == {}
        assert 5 < trio.current_time() < 20


async def test_an_agent_that_was_forgotten_is_told_so_and_speaks_again(net: Net, autojump_clock: object) -> None:
    async with net.node([Bank]) as server, net.node([Clerk]) as alice:
        address = server.address("bank")
        clerk = await ask_who(alice, "clerk", address)
        channel = server._peers.sessions.endpoint._roster.get(alice._vault.identifier).current  # type: ignore[union-attr]
        assert channel is not None
        channel.introduced = IntroducedAgents()
        assert await ask_who(alice, "clerk", address) == "NotDelivered"
        assert server.dead_letters.counts() == {"lost": 1}
        assert await ask_who(alice, "clerk", address) == clerk


async def test_an_agent_speaks_on_after_its_session_was_renewed_and_its_peer_restarted(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node([Clerk]) as alice:
        clerk = alice.agent_identifier("clerk")
        for seconds in (1, 130):
            async with net.node([Bank], home=tmp_path / "server") as server:
                for _ in range(3):
                    assert await ask_who(alice, "clerk", server.address("bank")) == clerk
                    await trio.sleep(seconds)
                known = server._peers.sessions.endpoint._roster.get(alice._vault.identifier)
                assert known is not None
                assert len(known.agents) == 1


async def test_the_agents_of_a_pool_have_the_pools_identity(net: Net, autojump_clock: object) -> None:
    async with net.node([Bank]) as server, net.node() as alice:
        alice.spawn(pool(Clerk, 3), "clerks")
        assert await ask_who(alice, "clerks", server.address("bank")) == alice.agent_identifier("clerks")


async def test_policies_and_the_audit_log_name_the_agent_both_ways(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    policy, audit = tmp_path / "in.cedar", tmp_path / "in"
    outward = tmp_path / "out.cedar"
    policy.write_text("permit(principal, action, resource);\n")
    outward.write_text("permit(principal, action, resource);\n")
    async with (
        net.node([Bank], policy=policy, audit=audit) as server,
        net.node([Clerk, Bridge], policy=outward, home=tmp_path / "alice", audit=tmp_path / "sent") as alice,
    ):
        address, clerk, bridge = server.address("bank"), *map(alice.agent_identifier, ("clerk", "bridge"))
        policy.write_text(f'forbid(principal == Principal::"{bridge}", action, resource);\n')
        outward.write_text(f'forbid(principal == Principal::"{clerk}", action == Action::"Send", resource);\n')
        server.reload_policies()
        assert await ask_who(alice, "clerk", address) == clerk
        assert await ask_who(alice, "bridge", address) == "Denied"
        alice.reload_policies()
        assert await ask_who(alice, "clerk", address) == "Denied"
        assert alice.dead_letters.latest().sender == clerk
        lines = [json.loads(line) for line in audit.read_text().splitlines()]
        assert [(line["principal"], line["node"], line["allowed"]) for line in lines] == [
            (clerk, alice.identifier, True),
            (bridge, alice.identifier, False),
        ]
        sent = [json.loads(line) for line in (tmp_path / "sent").read_text().splitlines()]
        assert [(line["principal"], line["allowed"]) for line in sent] == [(clerk, False)]


async def test_in_its_own_process_an_agent_is_known_by_its_name(net: Net, autojump_clock: object) -> None:
    bank = Bank()
    async with net.node([lambda: bank, Clerk]) as node:
        for address in ("bank", node.address("bank")):
            assert await node.ref("clerk").ask(Everything(address)) == ["clerk", "clerk"]
        assert bank.heard == [Sender("clerk", "")] * 8
        assert len(node._peers.sessions.voices) == 0


def test_a_voice_that_left_as_it_is_would_be_nobodys() -> None:
    assert Voice("clerk", inherits=True) == LARGEST_INDEX
