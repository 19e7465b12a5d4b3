"""Enrolment between nodes: tickets, renewal without dropping a session, and how fast a revocation is obeyed."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from attrs import frozen
from structlog.testing import capture_logs

from autonomy_trio import Context, Node, Request, agent, on
from autonomy_trio.errors import (
    AddressError,
    CredentialError,
    Denied,
    HandlerFailed,
    NameTaken,
    NotDelivered,
    RelayUnreachable,
    UsageError,
)
from autonomy_trio.fabric.access import enrolment
from autonomy_trio.fabric.access.authority import Fetch, Redeem, Renew
from autonomy_trio.fabric.access.enrolment import REVOKED_WITHIN
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.authority import open_authority, read_ledger
from autonomy_trio.trust.credentials import from_text, read_presentation
from autonomy_trio.trust.ledger import ISSUED_LIMIT
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import XX3
from tests.support.net import Add, Counter, Net, Total

MINUTE, HOUR = 60.0, 3600.0


@attrs.frozen
class Office:
    """An authority with a home that is served on a node, and a counter that trusts it."""

    net: Net
    folder: Path
    node: Node
    counter: Node

    @property
    def address(self) -> str:
        return self.counter.address("counter")

    @property
    def vault(self) -> Vault:
        return self.node._vault

    def ticket(self) -> str:
        return self.node.ticket(team="payments")

    def revoke(self, node: Node) -> None:
        """Take back all that a node has, as `authority revoke --subject` does in another process."""
        with open_authority(self.vault, self.folder / "office") as ledger:
            subject = parse_identifier(node.identifier)
            held = [each.id for each in ledger.ledger.issued.values() if each.subject == subject]
            ledger.revoke(held, now=virtual_now())


@asynccontextmanager
async def open_office(net: Net, folder: Path, next_update: int = 86_400) -> AsyncGenerator[Office]:
    """Open both; the counter's home was enrolled, so it knows where the authority is."""
    async with net.node(home=folder / "office") as authority:
        authority.serve_authority(next_update=next_update)
        async with net.node(home=folder / "server") as counter:
            enrolled = await counter.enroll(authority.ticket(team="servers"))
            assert enrolled.trusts
        async with net.node([Counter], home=folder / "server") as counter:
            yield Office(net, folder, authority, counter)


@pytest.fixture
async def office(net: Net, tmp_path: Path) -> AsyncGenerator[Office]:
    async with open_office(net, tmp_path) as office:
        yield office


async def ask(office: Office, node: Node) -> Total:
    return await node.ref(office.address, Counter).ask(Add(1))


async def test_whoever_redeems_a_ticket_proves_what_it_says(office: Office, autojump_clock: object) -> None:
    async with office.net.node(home=office.folder / "alice") as alice:
        with pytest.raises(Denied):
            await ask(office, alice)
        enrolled = await alice.enroll(office.ticket())
        assert (enrolled.authority, enrolled.attributes) == (office.node.identifier, {"team": "payments"})
        assert await ask(office, alice) == Total(1)
    async with office.net.node(home=office.folder / "alice") as alice:
        assert await ask(office, alice) == Total(2)


async def test_a_home_that_trusted_itself_alone_trusts_the_authority_for_the_tickets_attributes(
    office: Office, autojump_clock: object
) -> None:
    home = office.folder / "alice"
    async with office.net.node(home=home) as alice:
        assert (await alice.enroll(office.ticket())).trusts
        (anchor,) = Anchors.load(home / "anchors.toml").by_identifier.values()
        assert (anchor.identifier, anchor.attributes) == (office.vault.identifier, {"team": "string"})
        assert not (await alice.enroll(office.ticket())).trusts


async def test_anchors_of_its_own_and_a_home_that_is_an_authority_stay_as_they_are(
    office: Office, autojump_clock: object
) -> None:
    home = office.folder / "alice"
    async with office.net.node(home=home) as alice:
        alice.issue(office.node.identifier, level=3)
        assert not (await alice.enroll(office.ticket())).trusts
        assert not (home / "anchors.toml").exists()
    anchors = office.folder / "server" / "anchors.toml"
    async with office.net.node(home=office.folder / "bob", anchors=anchors) as bob:
        assert not (await bob.enroll(office.ticket())).trusts
        assert not (office.folder / "bob" / "anchors.toml").exists()


async def test_the_same_node_gets_the_same_credential_again_and_another_is_refused_and_reported(
    office: Office, autojump_clock: object
) -> None:
    ticket = office.ticket()
    async with office.net.node() as alice, office.net.node() as thief:
        await alice.enroll(ticket)
        await alice.enroll(ticket)
        with capture_logs() as logs, pytest.raises(CredentialError, match="refused the ticket, which another has"):
            await thief.enroll(ticket)
        (report,) = [line for line in logs if line["event"] == "ticket refused"]
        assert report["node"] == thief.identifier
        assert alice.identifier in report["why"]
        with pytest.raises(Denied):
            await ask(office, thief)
    issued = read_ledger(office.vault, office.folder / "office").issued.values()
    assert sum(each.subject == parse_identifier(alice.identifier) for each in issued) == 1


async def test_an_answer_that_was_lost_does_not_cost_the_ticket(office: Office, autojump_clock: object) -> None:
    ticket = office.ticket()
    async with office.net.node() as alice:
        office.net.loses = lambda frame: getattr(frame, "destination", None) == parse_identifier(alice.identifier)
        with pytest.raises(NotDelivered, match="did not answer"):
            await alice.enroll(ticket)
        office.net.loses = lambda _: False
        await alice.enroll(ticket)
        assert await ask(office, alice) == Total(1)


async def test_a_ticket_that_holds_no_more_is_refused_before_anything_is_sent(
    office: Office, autojump_clock: object
) -> None:
    ticket = office.ticket()
    await trio.sleep(10 * MINUTE)
    async with office.net.node(relay=()) as alice:
        with pytest.raises(CredentialError, match="expired 0 s ago: ask for a new one"):
            await alice.enroll(ticket)
        with pytest.raises(CredentialError, match="damaged: copy it again, whole"):
            await alice.enroll(f"{office.ticket()[:-5]}!")
        with pytest.raises(CredentialError, match="is no ticket"):
            await alice.enroll("nothing")
        assert alice.relays == []


async def test_the_wrong_home_a_relay_that_is_not_there_and_an_authority_that_is_away_are_told_apart(
    office: Office, autojump_clock: object
) -> None:
    with pytest.raises(UsageError, match="this home's own"):
        await office.node.enroll(office.ticket())
    async with office.net.node() as alice:
        with pytest.raises(AddressError):
            await alice.enroll(office.node.ticket(relay="nowhere", team="payments"))
    async with office.net.node(home=office.folder / "idle") as idle, office.net.node() as alice:
        with pytest.raises(NotDelivered, match="is `authority serve` running there"):
            await alice.enroll(idle.ticket(team="payments"))
    office.net.kill_relay()
    async with office.net.node(relay=()) as alice:
        with pytest.raises(RelayUnreachable):
            await alice.enroll(office.ticket())


async def test_an_authority_needs_a_home_and_is_served_once(office: Office, autojump_clock: object) -> None:
    with pytest.raises(NameTaken):
        office.node.serve_authority()
    async with office.net.node() as homeless:
        with pytest.raises(UsageError, match="needs a home"):
            homeless.serve_authority()
    async with office.net.node(relay=()) as alone:
        with pytest.raises(UsageError, match="has no relay"):
            alone.ticket(team="payments")


async def test_hours_of_renewals_leave_no_files_and_cost_no_message(office: Office, autojump_clock: object) -> None:
    async with office.net.node(home=office.folder / "alice") as alice:
        await alice.enroll(office.ticket())
        for asked in range(1, 12):
            assert await ask(office, alice) == Total(asked)
            await trio.sleep(10 * MINUTE)
        assert len(list((office.folder / "alice" / "credentials").iterdir())) <= 2


async def test_a_renewed_credential_counts_in_the_session_that_stands(office: Office, autojump_clock: object) -> None:
    async with office.net.node(home=office.folder / "alice") as alice:
        await alice.enroll(office.ticket())
        for asked in range(1, 50):
            assert await ask(office, alice) == Total(asked)
            before = office.net.packets(XX3)
            await trio.sleep(MINUTE)
            assert office.net.packets(XX3) - before < 10


@frozen
class Use(Request[int]):
    address: str


@agent(inherit=False)
class Bridge:
    @on(Use)
    async def use(self, message: Use, context: Context) -> int:
        return (await context.ref(message.address, Counter).ask(Add(1))).value


async def test_what_was_issued_to_an_agent_is_renewed_for_that_agent_and_for_no_other(
    office: Office, autojump_clock: object
) -> None:
    async with office.net.node([Bridge], home=office.folder / "alice") as alice:
        await alice.enroll(office.ticket())
        for name in ("bridge", "absent"):
            whom = alice.agent_identifier(name)
            alice.add_credential(office.node.issue(whom, team="payments", validity=1800), agent=name)
        before = {each.credential.id for each in alice._wallet._held.values()}
        for hour in range(1, 4):
            assert await alice.ref("bridge", Bridge).ask(Use(office.address)) == hour
            await trio.sleep(HOUR)
        held = [each.credential for each in alice._wallet._held.values() if each.credential.id not in before]
        assert {each.subject for each in held} == {
            alice._vault.identifier,
            parse_identifier(alice.agent_identifier("bridge")),
        }
        issued = read_ledger(office.vault, office.folder / "office").issued.values()
        assert sum(each.subject == parse_identifier(alice.agent_identifier("absent")) for each in issued) == 1


async def test_an_agent_of_a_home_that_was_restarted_is_renewed_once_it_speaks(
    office: Office, autojump_clock: object
) -> None:
    async with office.net.node([Bridge], home=office.folder / "alice") as alice:
        await alice.enroll(office.ticket())
        whom = alice.agent_identifier("bridge")
        alice.add_credential(office.node.issue(whom, team="payments"), agent="bridge")
    await trio.sleep(2 * HOUR)
    async with office.net.node([Bridge], home=office.folder / "alice") as alice:
        with pytest.raises(HandlerFailed):
            await alice.ref("bridge", Bridge).ask(Use(office.address))
        await trio.sleep(MINUTE)
        assert await alice.ref("bridge", Bridge).ask(Use(office.address)) == 1


async def test_an_agent_gets_no_renewal_of_what_is_anothers(office: Office, autojump_clock: object) -> None:
    @frozen
    class Steal(Request[str]):
        address: str
        credential: bytes

    @agent
    class Thief:
        @on(Steal)
        async def steal(self, message: Steal, context: Context) -> str:
            return str(await context.ref(message.address).ask(Renew(message.credential)))

    async with office.net.node([Thief], home=office.folder / "alice") as alice:
        text = office.node.issue(alice.agent_identifier("bridge"), team="payments")
        theirs = read_presentation(from_text(text)).credential.id
        address = office.node.address("authority")
        assert await alice.ref("thief").ask(Steal(address, theirs)) == "None"
        own = read_presentation(from_text(office.node.issue(alice.agent_identifier("thief"), team="x"))).credential.id
        assert await alice.ref("thief").ask(Steal(address, own)) != "None"
        assert await alice.ref(address).ask(Renew(own)) is None
        nodes = read_presentation(from_text(office.node.issue(alice.identifier, team="x"))).credential.id
        assert await alice.ref("thief").ask(Steal(address, nodes)) == "None"
        assert await alice.ref(address).ask(Renew(nodes)) is not None


async def test_a_node_that_was_switched_off_for_hours_is_renewed_when_it_is_back(
    office: Office, autojump_clock: object
) -> None:
    async with office.net.node(home=office.folder / "alice") as alice:
        await alice.enroll(office.ticket())
    await trio.sleep(2 * HOUR)
    async with office.net.node(home=office.folder / "alice") as alice:
        with pytest.raises(Denied):
            await ask(office, alice)
        await trio.sleep(MINUTE)
        assert await ask(office, alice) == Total(1)


async def test_a_revocation_reaches_live_sessions_within_its_stated_time(
    office: Office, autojump_clock: object
) -> None:
    async with office.net.node(home=office.folder / "alice") as alice, office.net.node() as bob:
        await alice.enroll(office.ticket())
        await bob.enroll(office.ticket())
        assert await ask(office, alice) == Total(1)
        office.revoke(alice)
        await trio.sleep(REVOKED_WITHIN)
        with pytest.raises(Denied):
            await ask(office, alice)
        assert await ask(office, bob) == Total(2)


async def test_what_was_revoked_is_not_renewed_even_for_who_was_away(office: Office, autojump_clock: object) -> None:
    async with office.net.node(home=office.folder / "alice") as alice:
        await alice.enroll(office.ticket())
    await trio.sleep(2 * HOUR)
    office.revoke(alice)
    async with office.net.node(home=office.folder / "alice") as alice:
        with capture_logs() as logs:
            await trio.sleep(HOUR)
        assert "credential not renewed: its issuer refuses" in [line["event"] for line in logs]
        with pytest.raises(Denied):
            await ask(office, alice)


async def test_a_list_that_was_fetched_is_obeyed_after_a_restart_without_the_authority(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node(home=tmp_path / "alice") as alice:
        async with open_office(net, tmp_path) as office:
            await alice.enroll(office.ticket())
            assert await ask(office, alice) == Total(1)
            office.revoke(alice)
            await trio.sleep(REVOKED_WITHIN)
        async with net.node([Counter], home=tmp_path / "server") as counter:
            with pytest.raises(Denied):
                await alice.ref(counter.address("counter"), Counter).ask(Add(1))


async def test_a_list_that_another_brought_is_kept_over_a_restart(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with open_office(net, tmp_path) as office, net.node(home=tmp_path / "alice") as alice, net.node() as bob:
        await alice.enroll(office.ticket())
        await bob.enroll(office.ticket())
        (tmp_path / "told").mkdir(mode=0o700)
        (tmp_path / "told" / "anchors.toml").write_text((tmp_path / "alice" / "anchors.toml").read_text())
        async with net.node([Counter], home=tmp_path / "told") as told:
            assert await alice.ref(told.address("counter"), Counter).ask(Add(1)) == Total(1)
            office.revoke(alice)
            await trio.sleep(REVOKED_WITHIN)
            # This node does not know where the authority is: bob, who does, brings the list.
            assert await bob.ref(told.address("counter"), Counter).ask(Add(1)) == Total(2)
            with pytest.raises(Denied):
                await alice.ref(told.address("counter"), Counter).ask(Add(1))
            await trio.sleep(10)
        async with net.node([Counter], home=tmp_path / "told") as told:
            with pytest.raises(Denied):
                await alice.ref(told.address("counter"), Counter).ask(Add(1))


async def test_the_authoritys_own_node_obeys_what_a_command_beside_it_revokes(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node([Counter], home=tmp_path / "office") as authority, net.node() as alice:
        alice.add_credential(authority.issue(alice.identifier, team="payments"))
        office = Office(net, tmp_path, authority, authority)
        assert await ask(office, alice) == Total(1)
        office.revoke(alice)
        await trio.sleep(enrolment.TICK)
        with pytest.raises(Denied):
            await ask(office, alice)


async def test_the_list_is_signed_anew_before_it_promises_the_next(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with open_office(net, tmp_path, next_update=600) as office:
        for _ in range(3):
            before = read_ledger(office.vault, tmp_path / "office").list_seq
            await trio.sleep(5.5 * MINUTE)
            assert before < read_ledger(office.vault, tmp_path / "office").list_seq <= before + 2


async def test_an_authority_that_is_away_is_logged_once_and_what_holds_counts_on(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node(home=tmp_path / "alice") as alice:
        with capture_logs() as logs:  # it may be missed as soon as it closes
            async with open_office(net, tmp_path) as office:
                await alice.enroll(office.ticket())
            await trio.sleep(30 * MINUTE)
        assert [line["event"] for line in logs].count("authority away") == 1
        async with net.node([Counter], home=tmp_path / "server") as counter:
            assert await alice.ref(counter.address("counter"), Counter).ask(Add(1)) == Total(1)


async def test_strangers_get_nothing_and_fill_no_ledger(office: Office, autojump_clock: object) -> None:
    async with office.net.node() as alice, office.net.node() as stranger:
        await alice.enroll(office.ticket())
        (mine,) = alice._wallet._held
        authority = stranger.ref(office.node.address("authority"))
        before = read_ledger(office.vault, office.folder / "office").issued
        assert await authority.ask(Renew(mine)) is None
        assert await authority.ask(Renew(b"")) is None
        assert await authority.ask(Redeem("ticket-")) is None
        assert await authority.ask(Fetch(63, 2**63 - 1)) is None
        assert read_ledger(office.vault, office.folder / "office").issued == before
        asked = alice.ref(office.node.address("authority"))
        answers = [await asked.ask(Renew(mine)) for _ in range(12)]
        assert [each is None for each in answers] == [False] * 7 + [True] * 5
        assert len(read_ledger(office.vault, office.folder / "office").issued) < ISSUED_LIMIT


async def test_a_ledger_that_another_process_holds_is_waited_for_a_moment(
    office: Office, autojump_clock: object
) -> None:
    async with office.net.node() as alice, office.net.node() as bob, trio.open_nursery() as nursery:

        async def hold(seconds: float) -> None:
            with open_authority(office.vault, office.folder / "office"):
                await trio.sleep(seconds)

        nursery.start_soon(hold, 0.5)
        await trio.testing.wait_all_tasks_blocked()
        await alice.enroll(office.ticket())
        nursery.start_soon(hold, 5.0)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NotDelivered, match="cannot answer now: try again with the same ticket"):
            await bob.enroll(office.ticket())
