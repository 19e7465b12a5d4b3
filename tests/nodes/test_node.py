"""The node itself: opening and closing, what it counts, what it refuses, and queues at their bounds."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from attrs import frozen

from autonomy_trio import AgentRef, Request, agent, current_node, on, open_node
from autonomy_trio.errors import (
    AddressError,
    ConfigurationError,
    GaveUp,
    MailboxFull,
    NameTaken,
    NotDelivered,
    OutcomeUnknown,
    RelayUnreachable,
    UsageError,
)
from autonomy_trio.fabric.attachments import MOST_RELAYS, UNUSED_AFTER
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.opening import check_agents
from autonomy_trio.fabric.peers.outcomes import from_code, to_code
from autonomy_trio.testing import TestFabric, open_test_fabric
from autonomy_trio.testing.node import virtual_now
from tests.support.net import Add, Counter, Fail, Hold, Net, Note, Notes, Secret, Total, World


@frozen
class Where(Request[str]):
    pass


@agent
class Local:
    @on(Where)
    def where(self, message: Where) -> str:
        return current_node().identifier


async def test_a_node_without_relays_runs_agents_and_opens_no_socket(autojump_clock: object) -> None:
    async with open_node([Local]) as node:
        assert await node.ref("local", Local).ask(Where()) == node.identifier
        assert node.relays == []
        assert node.address("local") == f"{node.identifier}/local"
        assert repr(node) == f"<Node {node.identifier}>"
        assert node.ask_limit == 30


async def test_current_node_is_for_code_in_agents() -> None:
    with pytest.raises(UsageError, match="for code that runs in an agent"):
        current_node()


async def test_two_nodes_in_one_process_know_themselves(autojump_clock: object) -> None:
    async with open_node([Local]) as one, open_node([Local]) as two:
        assert await one.ref("local", Local).ask(Where()) == one.identifier
        assert await two.ref("local", Local).ask(Where()) == two.identifier


async def test_a_name_taken_twice_is_refused(autojump_clock: object) -> None:
    async with open_node([Local]) as node:
        with pytest.raises(NameTaken):
            node.spawn(Local, "local")


async def test_what_open_node_raises_is_one_error(net: Net, tmp_path: Path, autojump_clock: object) -> None:
    net.kill_relay()
    with pytest.raises(RelayUnreachable):
        async with net.node():
            pass
    with pytest.raises(AddressError):
        async with net.node(relay="http://nowhere"):
            pass
    with pytest.raises(ConfigurationError, match="anchors file"):
        async with net.node(relay=(), anchors=tmp_path / "none.toml"):
            pass
    with pytest.raises(KeyError, match="of the block"):
        async with net.node(relay=()):
            raise KeyError("of the block")


async def test_a_node_attaches_to_so_many_relays_and_to_each_once(net: Net, autojump_clock: object) -> None:
    async with net.node() as node:
        await node.attach(net.url)
        assert node.relays == [net.url]
        for number in range(MOST_RELAYS - 1):
            await node.attach(f"ws://memory:{2 + number}")
        with pytest.raises(ConfigurationError, match="would be relay number 17 of this node"):
            await node.attach("ws://memory:99")
        assert len(node.relays) == MOST_RELAYS


async def test_relays_that_addresses_named_give_their_places_to_others(autojump_clock: object) -> None:
    async with AsyncExitStack() as stack:
        fabrics: dict[str, TestFabric] = {}
        for number in range(MOST_RELAYS + 4):
            fabrics[f"ws://memory:{number + 1}"] = await stack.enter_async_context(open_test_fabric())

        async def connect(url: str, nursery: trio.Nursery) -> Link:
            return await fabrics[url].connect(fabrics[url].url, nursery)

        given, *named = fabrics
        node = await stack.enter_async_context(open_node(relay=given, now=virtual_now, connect=connect))

        def use(url: str) -> None:
            node.ref(f"{url}/I{'0' * 64}/nobody").tell_nowait(Note("x"))

        for url in named[: MOST_RELAYS - 1]:
            use(url)
        await trio.sleep(1)
        with pytest.raises(ConfigurationError, match="would be relay number 17 of this node"):
            use(named[-1])
        await trio.sleep(UNUSED_AFTER)
        use(named[0])
        for url in named[MOST_RELAYS - 1 :]:
            use(url)
        await trio.sleep(1)
        assert len(node.relays) == node.statistics().relays == MOST_RELAYS
        assert {given, named[0], *named[MOST_RELAYS - 1 :]} <= set(node.relays), "the one it was given, and the latest"
        assert named[1] not in node.relays
        use(named[1])
        await trio.sleep(1)
        assert named[1] in node.relays


async def test_a_relay_that_cannot_be_attached_is_forgotten_and_can_be_tried_again(
    net: Net, autojump_clock: object
) -> None:
    async with net.node(relay=()) as node:
        net.kill_relay()
        with pytest.raises(RelayUnreachable):
            await node.attach(net.url)
        elsewhere = node.ref(f"{net.url}/I{'0' * 64}/counter", Counter)
        with pytest.raises(NotDelivered, match="no relay can be reached"):
            await elsewhere.ask(Add(1))
        assert node.relays == []
        net.start_relay()
        await node.attach(net.url)
        assert node.statistics().relays == 1


async def test_serving_ends_when_no_agent_is_left(autojump_clock: object) -> None:
    @agent
    class Doomed:
        async def on_start(self, context: object) -> None:
            raise ValueError

    with pytest.raises(GaveUp, match="no agent is left"):
        async with open_node([Doomed]) as node:
            await node.serve_forever()


def fill(ref: AgentRef[Counter]) -> None:
    for _ in range(1025):
        ref.tell_nowait(Note("never"))


async def test_tell_nowait_reaches_the_other_node_and_says_when_the_queue_is_full(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    counter.tell_nowait(Note("at once"))
    assert await counter.ask(Notes()) == ["at once"]
    nowhere = world.alice.ref(f"I{'0' * 64}/counter", Counter)
    with pytest.raises(MailboxFull, match=r"the mailbox of I0+/counter is full, and so is the way to it"):
        fill(nowhere)
    other = world.alice.ref(f"I{'0' * 64}/other", Counter)
    with pytest.raises(MailboxFull, match=r"the queue to I0+ is full \(1024 messages\)"):
        fill(other)
    assert counter.name == "counter"
    assert repr(counter) == f"<AgentRef {world.address}>"


async def test_an_ask_that_was_not_sent_is_withdrawn_from_the_queue(net: Net, autojump_clock: object) -> None:
    async with net.node() as alone:
        nowhere = alone.ref(f"I{'0' * 64}/counter", Counter)
        with trio.move_on_after(1):
            await nowhere.ask(Add(1))
        (peer,) = alone._peers.sessions.peers.values()
        assert (list(peer.waiting), peer.waiting_bytes, peer.asked) == ([], 0, {})


async def test_flush_returns_when_what_was_told_has_left(world: World, autojump_clock: object) -> None:
    await world.alice.ref(world.address, Counter).tell(Note("x"))
    await world.alice.flush()
    assert world.net.packets(0x30) >= 2
    assert world.alice.statistics().lost == 0


async def test_a_stopping_node_sends_nothing_for_those_outside(net: Net, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery, net.node([Counter], grace=3) as node:
        elsewhere = node.ref(f"I{'0' * 64}/counter", Counter)

        async def late() -> None:
            await trio.sleep(1)
            for refused in (lambda: elsewhere.tell(Note("x")), lambda: elsewhere.ask(Add(1))):
                with pytest.raises(NotDelivered, match="the node is stopping"):
                    await refused()

        nursery.start_soon(late)
        nursery.start_soon(_expect_unknown, node.ref("counter", Counter))  # noqa: ASYNC111 - it outlives the node on purpose
        await trio.sleep(0.1)


async def _expect_unknown(counter: object) -> None:
    with pytest.raises(OutcomeUnknown):
        await counter.ask(Hold(60))  # type: ignore[attr-defined]


async def test_agents_may_speak_to_other_nodes_while_their_node_drains(net: Net, autojump_clock: object) -> None:
    said: list[Total] = []

    @agent
    class Forwarder:
        to: str

        @on(Note)
        async def forward(self, message: Note) -> None:
            await trio.sleep(1)
            said.append(await current_node().ref(self.to, Counter).ask(Add(1)))

    async with net.node([Counter]) as server:
        async with net.node() as alice:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            address = server.address("counter")
            await alice.spawn(lambda: Forwarder(address), "forwarder").tell(Note("go"))
        assert said == [Total(1)]


async def test_check_agents_says_what_can_be_reached(autojump_clock: object) -> None:
    specs, policies = check_agents([Counter, lambda: Local()], None)  # noqa: PLW0108 - a callable that is no class
    assert list(specs) == ["counter", "local"]
    reachable = {each.action for each in policies.reachable()}
    assert reachable >= {"Add", "Fail", "Hold", "Note", "Notes"}
    assert "Secret" not in reachable
    with pytest.raises(NameTaken, match="the app lists two agents called 'local'"):
        check_agents([Local, lambda: Local()], None)  # noqa: PLW0108


async def test_a_reply_that_cannot_be_encoded_is_the_handlers_failure(net: Net, autojump_clock: object) -> None:
    @frozen
    class Give(Request[object]):
        pass

    @agent
    class Giver:
        @on(Give, allow="true")
        def give(self, message: Give) -> object:
            return open

    async with net.node([Giver]) as server, net.node() as alice:
        with pytest.raises(Exception, match="the reply has no encoding or is too large"):
            await alice.ref(server.address("giver"), Giver).ask(Give())


def test_errors_cross_the_wire_by_code_and_a_strangers_words_are_made_printable() -> None:
    where = {"address": "I…/counter", "message": "Add"}
    assert isinstance(from_code("too slow", "", **where), trio.TooSlowError)
    unknown = from_code("a code of next year", "text\x1b[31m\nmore", **where)
    assert isinstance(unknown, OutcomeUnknown)
    assert str(unknown).isprintable()
    assert str(from_code("overloaded", "", **where)) == "I…/counter answered Add with an error and no words"
    assert to_code(trio.TooSlowError()) == ("too slow", "")
    assert to_code(ValueError("a secret")) == ("handler failed", "")


async def test_a_failing_agent_over_there_is_restarted_and_given_up_like_here(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    for _ in range(4):
        with pytest.raises(Exception, match="failed on Fail"):
            await counter.ask(Fail("x"))
    with pytest.raises(Exception, match="denied Add"):  # nothing is told of agents that are not there
        await counter.ask(Add(1))
    assert world.server.dead_letters.latest().reason == "unknown agent"


async def test_in_the_process_no_policy_applies(world: World, autojump_clock: object) -> None:
    assert await world.server.ref("counter", Counter).ask(Secret()) == 42
