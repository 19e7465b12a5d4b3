"""Messages between nodes: what `ask` and `tell` promise across a relay."""

import pytest
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import AgentRef, Request, message
from autonomy_trio.errors import (
    AddressError,
    HandlerFailed,
    MessageError,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    UsageError,
)
from autonomy_trio.messages import Untyped
from tests.support.net import Add, Counter, Fail, Hold, Net, Note, Notes, Total, World


async def test_an_ask_over_the_relay_returns_the_typed_reply(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    assert await counter.ask(Add(3)) == Total(3)
    assert await counter.ask(Add(4)) == Total(7)


async def test_tells_arrive_in_the_order_they_were_sent(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    for number in range(200):
        await counter.tell(Note(str(number)))
        if number % 5 == 4:
            await counter.ask(Notes())  # the mailbox holds 8
    assert await counter.ask(Notes()) == [str(number) for number in range(200)]


async def test_an_address_without_a_relay_uses_the_nodes_own(world: World, autojump_clock: object) -> None:
    short = f"{world.server.identifier}/counter"
    assert await world.alice.ref(short, Counter).ask(Add(1)) == Total(1)


async def test_an_address_with_a_relay_attaches_to_it(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter]) as server, net.node(relay=()) as visitor:
        visitor.add_credential(server.issue(visitor.identifier, team="payments"))
        assert await visitor.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
        assert visitor.relays == [net.url]


async def test_an_address_of_the_node_itself_stays_in_the_process(world: World, autojump_clock: object) -> None:
    counter = world.server.ref(world.address, Counter)
    assert counter.address == world.address
    assert await counter.ask(Notes()) == []
    assert world.server.statistics().peers == 0


async def test_refs_are_refused_that_lead_nowhere(net: Net, autojump_clock: object) -> None:
    async with net.node(relay=()) as node:
        for text in ("I12/counter", "http://x/counter", "a/b/c", f"{node.identifier}/", "/counter"):
            with pytest.raises(AddressError):
                node.ref(text)
        with pytest.raises(UsageError, match="names no relay, and this node has none"):
            node.ref(f"I{'0' * 64}/counter")


async def test_the_deadline_crosses_the_wire(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    with trio.fail_after(10):
        assert await counter.ask(Hold(1)) == pytest.approx(10, abs=0.1)
    assert await counter.ask(Hold(1)) == pytest.approx(30, abs=0.1)


async def test_cancelling_an_ask_cancels_the_handler_on_the_other_node(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    with trio.move_on_after(2):
        await counter.ask(Hold(25))
    await trio.sleep(0.1)
    cell = world.server._runtime.find("counter")
    assert cell is not None
    assert cell.instance.cancelled == 1
    assert cell.relations.restarts == 0
    assert world.server.statistics().queued == 0


async def test_an_ask_cancelled_in_the_queue_over_there_never_runs(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(counter.ask, Hold(5))
        await trio.sleep(1)
        with trio.move_on_after(1):
            await counter.ask(Add(50))
    assert await counter.ask(Add(1)) == Total(1)


async def test_a_handler_that_fails_tells_the_asker_and_shows_nothing_of_its_error(
    world: World, autojump_clock: object
) -> None:
    with pytest.raises(HandlerFailed, match=r"^counter failed on Fail: the log of its node says why$"):
        await world.alice.ref(world.address, Counter).ask(Fail("the password is hunter2"))


async def test_a_message_that_does_not_fit_is_named_field_by_field(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address)
    for fields, sentence in (
        ({"amount": "3"}, "expected int, got str @ Add.amount"),
        ({"amount": True}, "expected int, got bool @ Add.amount"),
        ({}, "'amount' is missing @ Add"),
        ({"amount": 1, "extra": 2}, "unknown 'extra' @ Add"),
    ):
        with pytest.raises(NotHandled, match=sentence):
            await counter.ask(Untyped("Add", fields))
    assert world.server.dead_letters.counts() == {"malformed": 4}
    assert await counter.ask(Untyped("Add", {"amount": 3})) == {"value": 3}


async def test_a_message_too_large_is_refused_before_it_is_sent(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    with pytest.raises(MessageError, match="a message has at most 131,072"):
        await counter.tell(Note("x" * 200_000))
    for call in (counter.tell, counter.ask):
        with pytest.raises(MessageError, match="a message has at most 131,072: send it in parts"):
            await call(Note("x" * 100 * 1024 * 1024))  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="a message has at most 131,072"):
        counter.tell_nowait(Note("x" * 100 * 1024 * 1024))
    assert world.alice.statistics().peers == 0, "nothing of it was sent"
    with pytest.raises(MessageError, match="Add cannot be sent"):
        await counter.ask(Untyped("Add", {"amount": object()}))


async def test_a_large_message_travels_alone_and_whole(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    text = "x" * 120_000
    await counter.tell(Note(text))
    assert await counter.ask(Notes()) == [text]


async def test_a_reply_that_does_not_fit_its_request_never_reaches_the_asker_as_a_value(
    world: World, autojump_clock: object
) -> None:
    @message(name="Add")
    @frozen
    class OtherAdd(Request[str]):
        amount: int

    with pytest.raises(MessageError, match=r"the reply of .* does not fit Add"):
        await world.alice.ref(world.address).ask(OtherAdd(1))


async def test_a_node_that_is_not_there_is_said_within_seconds(net: Net, autojump_clock: object) -> None:
    async with net.node() as alone:
        start = trio.current_time()
        with pytest.raises(NotDelivered, match="Add was not delivered to I0000"):
            await alone.ref(f"I{'0' * 64}/counter", Counter).ask(Add(1))
        assert trio.current_time() - start == pytest.approx(5, abs=1)
        await alone.ref(f"I{'0' * 64}/counter", Counter).tell(Add(1))
        await trio.sleep(6)
        assert alone.statistics().lost == 1
        assert alone.statistics().peers == 0


async def test_concurrent_first_sends_share_one_handshake(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    async with trio.open_nursery() as nursery:
        for _ in range(3):  # with the asks, what the mailbox holds
            nursery.start_soon(counter.tell, Note("x"))
        for _ in range(5):
            nursery.start_soon(counter.ask, Add(1))
    assert world.net.packets(0x01) == 1


async def test_what_waits_leaves_in_one_envelope(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    before = world.net.packets(0x30)
    for _ in range(5):
        counter.tell_nowait(Note("x"))
    await counter.ask(Notes())
    assert world.net.packets(0x30) - before <= 3  # five tells in one, the ask, the reply


async def test_a_node_that_leaves_ends_asks_at_once(net: Net, autojump_clock: object) -> None:
    async with net.node() as alice, trio.open_nursery() as nursery:
        outcomes: list[tuple[type, float]] = []

        async def ask(address: str) -> None:
            with pytest.raises((OutcomeUnknown, NotDelivered)) as caught:
                await alice.ref(address, Counter).ask(Hold(20))
            outcomes.append((type(caught.value), trio.current_time()))

        async with net.node([Counter], grace=1) as server:
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            nursery.start_soon(ask, server.address("counter"))  # noqa: ASYNC111 - it outlives the node on purpose
            await trio.sleep(2)
            closing = trio.current_time()
    ((kind, moment),) = outcomes
    assert kind is OutcomeUnknown
    assert moment - closing < 2


async def test_a_node_that_vanishes_ends_asks_within_thirty_seconds(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with trio.fail_after(1000), pytest.raises(OutcomeUnknown, match="may have had effects"):
                await counter.ask(Hold(900))

        nursery.start_soon(ask)
        await trio.sleep(1)
        world.net.loses = lambda frame: True
    assert trio.current_time() - start <= 30


async def test_the_handler_of_an_asker_that_vanished_is_cancelled(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with trio.fail_after(1000), pytest.raises(OutcomeUnknown):
                await counter.ask(Hold(900))

        nursery.start_soon(ask)
        await trio.sleep(1)
        world.net.loses = lambda frame: True
        await trio.sleep(35)
        assert world.server.statistics().queued == 0


async def test_a_long_ask_outlives_silence_because_life_is_shown(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    with trio.fail_after(400):
        assert await counter.ask(Hold(300)) > 300


async def test_sessions_are_renewed_while_they_are_used(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    for number in range(1, 60):
        assert await counter.ask(Add(1)) == Total(number)
        await trio.sleep(10)
    assert 4 <= world.net.packets(0x01) <= 8


async def test_an_idle_pair_says_nothing_and_asks_again_later(world: World, autojump_clock: object) -> None:
    counter = world.alice.ref(world.address, Counter)
    await counter.ask(Add(1))
    await trio.sleep(200)
    quiet = world.net.packets(0x30)
    await trio.sleep(600)
    assert world.net.packets(0x30) == quiet
    assert world.server.statistics().peers == 0
    assert await counter.ask(Add(1)) == Total(2)


async def test_a_stopping_node_refuses_what_comes_from_outside(net: Net, autojump_clock: object) -> None:
    async with net.node() as alice, trio.open_nursery() as nursery, net.node([Counter], grace=4) as server:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        counter = alice.ref(server.address("counter"), Counter)
        await counter.ask(Add(1))
        nursery.start_soon(_hold, counter)
        nursery.start_soon(_refused_later, counter)
        await trio.sleep(0.5)


async def _hold(counter: AgentRef[Counter]) -> None:
    assert await counter.ask(Hold(3)) > 0


async def _refused_later(counter: AgentRef[Counter]) -> None:
    await trio.sleep(2)
    with pytest.raises(NotDelivered, match="the node is stopping"):
        await counter.ask(Add(1))


async def test_a_sender_waits_while_the_queue_to_a_node_is_full(net: Net, autojump_clock: object) -> None:
    async with net.node() as alone:
        nowhere = alone.ref(f"I{'0' * 64}/counter", Counter)
        with trio.move_on_after(3) as scope:
            for _ in range(5000):
                await nowhere.tell(Note("x"))
        assert scope.cancelled_caught
        assert alone.statistics().lost <= 1024
