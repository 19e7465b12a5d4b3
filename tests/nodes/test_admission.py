"""Who may do what between nodes: a denied message runs nothing, takes no slot, is not decoded; what counts as proof."""

from pathlib import Path

import pytest
import trio
from attrs import frozen

from autonomy_trio import Request, agent, message, on
from autonomy_trio.errors import CredentialError, DeclarationError, Denied, NotHandled, Overloaded, PolicyError
from autonomy_trio.fabric.opening import check_agents
from autonomy_trio.messages import Untyped
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.authority import open_authority
from autonomy_trio.trust.credentials import from_text, issue, read_presentation, to_text
from autonomy_trio.trust.lists import list_to_text, sign_list
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault
from tests.support.net import Add, Counter, Hold, Net, Note, Notes, Secret, Total, World, virtual_now


async def test_a_denied_message_runs_no_handler_takes_no_slot_and_is_not_decoded(
    world: World, autojump_clock: object
) -> None:
    counter = world.bob.ref(world.address, Counter)
    for _ in range(20):  # the mailbox holds 8
        await counter.tell(Note("never"))
    with pytest.raises(Denied, match="denied Add: its policy does not let you send it this, or it has no such agent"):
        await counter.ask(Add(1))
    cell = world.server._runtime.find("counter")
    assert cell is not None
    assert cell.state == "resting", "it woke the agent"
    statistics = world.server.statistics()
    assert (statistics.decoded, statistics.queued) == (0, 0)
    assert statistics.dead_letters == {"denied": 21}
    why = world.server.dead_letters.latest().why
    assert why == 'no permit: Counter.add needs principal.team == "payments"; not proven: principal.team'


async def test_a_handler_without_a_permit_is_not_reachable_from_outside(world: World, autojump_clock: object) -> None:
    with pytest.raises(Denied):
        await world.alice.ref(world.address, Counter).ask(Secret())
    assert await world.server.ref("counter", Counter).ask(Secret()) == 42


async def test_the_message_part_of_a_policy_is_judged_after_decoding(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    with pytest.raises(Denied):
        await counter.ask(Add(101))
    assert world.server.statistics().decoded == 1
    assert world.server.dead_letters.latest().why == "no permit: Counter.add needs context.message.amount <= 100"
    assert await counter.ask(Add(100)) == Total(100)
    with pytest.raises(Denied):
        await counter.ask(Add(2**64 - 1))


async def test_a_stranger_cannot_tell_what_there_is(world: World, autojump_clock: object) -> None:
    said: set[str] = set()
    for address, sent in (
        (world.address, Untyped("Add", {"amount": 1})),
        (world.address, Untyped("Add", {"amount": "no int"})),
        (world.address, Untyped("Nothing", {})),
        (world.address.replace("counter", "nobody"), Untyped("Add", {"amount": 1})),
    ):
        with pytest.raises(Denied) as caught:
            await world.bob.ref(address).ask(sent)
        said.add(str(caught.value).replace(address, "it").replace(sent.name, "this"))
    assert len(said) == 1
    assert world.server.dead_letters.counts() == {"denied": 2, "not handled": 1, "unknown agent": 1}


async def test_who_may_send_an_agent_something_is_told_what_it_handles(world: World, autojump_clock: object) -> None:
    with pytest.raises(NotHandled, match="counter does not handle Ad; you may send it Add, Fail, Hold, Note, Notes"):
        await world.alice.ref(world.address).ask(Untyped("Ad", {"amount": 1}))


async def test_a_credential_counts_until_it_expires_in_a_live_session_too(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter]) as server, net.node() as alice:
        alice.add_credential(server.issue(alice.identifier, validity=60, team="payments"))
        counter = alice.ref(server.address("counter"), Counter)
        for number in range(1, 8):
            assert await counter.ask(Add(1)) == Total(number)
            await trio.sleep(8)
        await trio.sleep(5)
        with pytest.raises(Denied):
            await counter.ask(Add(1))
        assert net.packets(0x01) == 1, "not the same session"


async def test_one_expired_credential_takes_its_own_attributes_only(net: Net, autojump_clock: object) -> None:
    @agent
    class Two:
        @on(Add, allow="principal.level == 3")
        def add(self, message: Add) -> Total:
            return Total(message.amount)

    async with net.node([Two]) as server, net.node() as alice:
        alice.add_credential(server.issue(alice.identifier, validity=60, team="payments"))
        alice.add_credential(server.issue(alice.identifier, validity=600, level=3))
        two = alice.ref(server.address("two"), Two)
        assert await two.ask(Add(1)) == Total(1)
        await trio.sleep(100)
        assert await two.ask(Add(1)) == Total(1)


async def test_a_foreign_authority_does_not_count(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter]) as server, net.node() as mallory, net.node() as alice:
        alice.add_credential(mallory.issue(alice.identifier, team="payments"))
        with pytest.raises(Denied):
            await alice.ref(server.address("counter"), Counter).ask(Add(1))


async def test_an_anchors_file_says_who_counts_and_for_what(net: Net, tmp_path: Path, autojump_clock: object) -> None:
    async with net.node() as office, net.node() as alice, net.node() as bob:
        anchors = tmp_path / "anchors.toml"
        anchors.write_text(f'[[anchor]]\nidentifier = "{office.identifier}"\nattributes = {{ team = "string" }}\n')
        async with net.node([Counter], anchors=anchors) as server:
            alice.add_credential(office.issue(alice.identifier, team="payments"))
            bob.add_credential(server.issue(bob.identifier, team="payments"))
            assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
            with pytest.raises(Denied):
                await bob.ref(server.address("counter"), Counter).ask(Add(1))


async def test_a_home_brings_its_anchors_and_credentials(net: Net, tmp_path: Path) -> None:
    async with net.node(home=tmp_path / "office") as office, net.node(home=tmp_path / "alice") as alice:
        alice.add_credential(office.issue(alice.identifier, team="payments"))
        identifier = office.identifier
    (tmp_path / "office" / "anchors.toml").write_text(
        f'[[anchor]]\nidentifier = "{identifier}"\nattributes = {{ team = "string" }}\n'
    )
    async with net.node([Counter], home=tmp_path / "office") as office, net.node(home=tmp_path / "alice") as alice:
        assert office.identifier == identifier
        assert await alice.ref(office.address("counter"), Counter).ask(Add(1)) == Total(1)
    kept = next((tmp_path / "alice" / "credentials").iterdir())
    assert kept.stat().st_mode & 0o077 == 0


async def test_what_a_home_has_revoked_does_not_count_at_its_node(net: Net, tmp_path: Path) -> None:
    home = tmp_path / "server"
    async with net.node() as alice:
        async with net.node([Counter], home=home) as server:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
            with Vault.open_beside(home) as vault, open_authority(vault, home) as authority:
                authority.revoke(authority.ledger.issued, now=virtual_now())
        async with net.node([Counter], home=home) as server:
            with pytest.raises(Denied):
                await alice.ref(server.address("counter"), Counter).ask(Add(1))


async def test_a_subject_with_credentials_is_remembered_for_good_and_a_stranger_is_not(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    with pytest.raises(Denied):
        await world.bob.ref(world.address, Counter).ask(Add(1))
    admission = world.server._admission
    watcher = admission.proofs.remember.__self__
    assert (watcher.statistics().kept, watcher.statistics().passing) == (1, 2), "alice; bob and the relay"


async def test_a_list_that_somebody_shows_counts_for_the_live_sessions_of_others(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node() as office, net.node() as alice, net.node() as bob:
        anchors = tmp_path / "anchors.toml"
        anchors.write_text(f'[[anchor]]\nidentifier = "{office.identifier}"\nattributes = {{ team = "string" }}\n')
        async with net.node([Counter], anchors=anchors) as server:
            alices = office.issue(alice.identifier, team="payments")
            alice.add_credential(alices)
            counter = alice.ref(server.address("counter"), Counter)
            assert await counter.ask(Add(1)) == Total(1)
            taken_back = read_presentation(from_text(alices)).credential.id
            signed = sign_list(office._vault, seq=1, credentials=[taken_back], least={}, now=virtual_now())
            bobs = issue(
                office._vault,
                subject=parse_identifier(bob.identifier),
                attributes={"team": "payments"},
                now=virtual_now(),
                revocations=signed,
            )
            bob.add_credential(to_text(bobs))
            assert await bob.ref(server.address("counter"), Counter).ask(Add(1)) == Total(2)
            with pytest.raises(Denied):
                await counter.ask(Add(1))


async def test_a_list_in_the_home_is_obeyed_and_a_wrong_one_only_logged(net: Net, tmp_path: Path) -> None:
    office, home = Vault.in_memory(), tmp_path / "server"
    later = int(virtual_now()) + 3600
    Vault.open(home).close()
    (home / "anchors.toml").write_text(to_toml(Anchor(office.identifier, {"team": "string"})))
    (home / "lists").mkdir()
    async with net.node() as alice, net.node() as bob:
        shown = {
            each: issue(
                office,
                subject=parse_identifier(each.identifier),
                attributes={"team": "payments"},
                now=virtual_now(),
                random=lambda count, name=name: name * count,
            )
            for each, name in ((alice, b"a"), (bob, b"b"))
        }
        for each, encoded in shown.items():
            each.add_credential(to_text(encoded))
        for seq, now, name in ((1, virtual_now(), b"a"), (2, later, b"b")):
            signed = sign_list(office, seq=seq, credentials=[name * 16], least={}, now=now)
            (home / "lists" / "office").write_text(list_to_text(signed, office.history.changes))
            async with net.node([Counter], home=home) as server:
                for each in (alice, bob):
                    counter = each.ref(server.address("counter"), Counter)
                    if (seq, each) == (1, alice):
                        with pytest.raises(Denied):
                            await counter.ask(Add(1))
                    else:
                        await counter.ask(Add(1))


async def test_a_credential_that_could_not_count_is_refused_where_it_is_added(
    net: Net, tmp_path: Path, autojump_clock: object
) -> None:
    async with net.node() as office, net.node() as alice, net.node() as bob:
        text = office.issue(alice.identifier, validity=60, team="payments")
        with pytest.raises(CredentialError, match=f"is about {alice.identifier}, and this home is {bob.identifier}"):
            bob.add_credential(text)
        file = tmp_path / "mine.credential"
        for content, sentence in ((text, "is about"), ("nothing", "mine.credential"), ("\xff", "no credential")):
            file.write_text(content, encoding="latin-1")
            with pytest.raises(CredentialError, match=sentence):
                async with net.node(credentials=[file]):
                    pass
        with pytest.raises(CredentialError, match="cannot be read"):
            async with net.node(credentials=[tmp_path / "none"]):
                pass
        await trio.sleep(61)
        with pytest.raises(CredentialError, match="expired 1 s ago: ask its issuer, I"):
            alice.add_credential(text)


async def test_a_misspelt_attribute_stops_the_start(net: Net, tmp_path: Path, autojump_clock: object) -> None:
    @agent
    class Typo:
        @on(Add, allow='principal.taem == "payments"')
        def add(self, message: Add) -> Total:
            return Total(1)

    anchors = tmp_path / "anchors.toml"
    anchors.write_text(f'[[anchor]]\nidentifier = "I{"0" * 64}"\nattributes = {{ team = "string" }}\n')
    with pytest.raises(PolicyError, match="did you mean 'team'"):
        async with net.node([Typo], anchors=anchors):
            pass
    with pytest.raises(PolicyError, match="did you mean 'team'"):
        check_agents([Typo], anchors)
    async with net.node(anchors=anchors) as node:
        with pytest.raises(PolicyError, match="did you mean 'team'"):
            node.spawn(Typo)
        assert node.agents() == {}


async def test_an_agent_spawned_later_is_under_policy_too(world: World, autojump_clock: object) -> None:
    @frozen
    class Later(Request[str]):
        pass

    @agent
    class LateComer:
        @on(Later, allow='principal.team == "payments"')
        def later(self, message: Later) -> str:
            return "late"

    world.server.spawn(LateComer)
    world.server.spawn(lambda: LateComer(), name="another")  # noqa: PLW0108 - a callable that is no class
    for name in ("late_comer", "another"):
        assert await world.alice.ref(world.server.address(name)).ask(Later()) == "late"
        with pytest.raises(Denied):
            await world.bob.ref(world.server.address(name)).ask(Later())
    assert await world.alice.ref(world.address, Counter).ask(Add(1)) == Total(1)


async def test_a_subclass_of_a_message_is_judged_as_its_own_action(net: Net, autojump_clock: object) -> None:
    @frozen
    class Quiet:
        text: str

    @frozen
    class Loud(Quiet):
        pass

    @agent
    class Listener(Counter):
        @on(Quiet, allow='principal.team == "payments"')
        def quiet(self, message: Quiet) -> None:
            self.notes.append(message.text)

        @on(Loud)
        def loud(self, message: Loud) -> None:
            self.notes.append(message.text.upper())

    async with net.node([Listener]) as server, net.node() as alice:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        listener = alice.ref(server.address("listener"), Listener)
        await listener.tell(Loud("no permit of its own"))
        await listener.tell(Quiet("heard"))
        assert await listener.ask(Notes()) == ["heard"]


async def test_two_messages_of_one_wire_name_stop_the_start(net: Net, autojump_clock: object) -> None:
    @message(name="Add")
    @frozen
    class Other(Request[Total]):
        amount: int

    @agent
    class Both(Counter):
        @on(Other)
        def other(self, message: Other) -> Total:
            return Total(1)

    with pytest.raises(DeclarationError, match="two messages with the wire name 'Add'"):
        async with net.node([Both]):
            pass


async def test_too_many_open_asks_of_one_node_are_refused(
    world: World, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autonomy_trio.fabric.peers.peer.MOST_SERVED", 100)
    counter = world.alice.ref(world.address, Counter)
    outcomes: list[type[Exception]] = []

    async def ask() -> None:
        try:
            await counter.ask(Hold(1))
        except (Overloaded, trio.TooSlowError) as error:
            outcomes.append(type(error))

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(ask)
    assert outcomes.count(Overloaded) == 100
    assert outcomes.count(trio.TooSlowError) < 100, "those that found room are handled one after the other"
    assert world.server.statistics().queued == 0
