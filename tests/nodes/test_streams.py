"""Streams between nodes on bad days: what is lost, refused, forged, and who goes away."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

import attrs
import pytest
import trio

from autonomy_trio import AgentRef, Mailbox, Node, Request, Stream, agent, on
from autonomy_trio.actors.cell import Cell
from autonomy_trio.errors import (
    DeclarationError,
    Denied,
    HandlerFailed,
    MessageError,
    NotDelivered,
    OutcomeUnknown,
    Overloaded,
)
from autonomy_trio.fabric.peers.peer import Peer
from autonomy_trio.fabric.peers.streams import LEASE, MOST_STREAMS, REPEAT_EVERY
from autonomy_trio.messages import Untyped, encode_payload, message
from autonomy_trio.testing import Faults, open_test_fabric
from autonomy_trio.wire.constants import DATA
from autonomy_trio.wire.entries import Cancel, Credit, Entry, Item, Open, Progress
from tests.support.contract import Add, Count, Service
from tests.support.net import Lose, Net, say

T = TypeVar("T")


@attrs.frozen
class Pair:
    net: Net
    server: Node
    reader: Node

    @property
    def service(self) -> AgentRef[Service]:
        return self.reader.ref(self.server.address("service"), Service)

    def streamed(self) -> tuple[int, int]:
        """How many numbers the service has made, and how many of its streams have ended."""
        return streamed(self.server)

    @property
    def serving(self) -> Peer:
        """The reader as the server sees it."""
        return self.server._peers.sessions.peers[self.reader._vault.identifier]

    def say(self, node: Node, to: Node, *entries: Entry) -> None:
        """Have a node send what no ref would."""
        say(node, to, *entries)


def streamed(server: Node) -> tuple[int, int]:
    found = server._runtime.find("service")
    assert isinstance(found, Cell)
    return found.instance.made, found.instance.ended


@pytest.fixture
async def pair(net: Net) -> AsyncGenerator[Pair]:
    async with net.node([Service]) as server, net.node() as reader:
        yield Pair(net, server, reader)


async def test_an_item_that_was_lost_ends_the_stream_with_an_error_there_too(
    pair: Pair, lose: Lose, autojump_clock: object
) -> None:
    lose(lambda entry: isinstance(entry, Item) and entry.index == 5)
    async with pair.service.stream(Count(1000)) as numbers:
        assert [await anext(numbers) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(OutcomeUnknown, match=r"items of Count from .* were lost on the way: 5 came before that"):
            await anext(numbers)
        await trio.sleep(1)
        assert pair.streamed()[1] == 1


@pytest.mark.parametrize(
    "which",
    [
        lambda entry: isinstance(entry, Item) and entry.index == 2,
        lambda entry: isinstance(entry, Progress) and entry.is_over,
        lambda entry: isinstance(entry, Open),
    ],
    ids=["the last item", "the end", "the opening"],
)
async def test_a_reader_learns_of_what_was_lost_last(
    pair: Pair, lose: Lose, which: Callable[[Entry], bool], autojump_clock: object
) -> None:
    await pair.service.ask(Add(1))
    lose(which)
    start = trio.current_time()
    with pytest.raises(OutcomeUnknown, match="lost on the way"):
        await read_all(pair.service.stream(Count(3)))
    assert trio.current_time() - start <= 2 * REPEAT_EVERY
    assert not pair.serving.feeding


async def read_all(stream: AbstractAsyncContextManager[AsyncIterator[T]]) -> list[T]:
    async with stream as numbers:
        return [number async for number in numbers]


async def test_credit_that_was_lost_is_given_again(pair: Pair, lose: Lose, autojump_clock: object) -> None:
    lose(lambda entry: isinstance(entry, Credit) and trio.current_time() < 15)
    assert await read_all(pair.service.stream(Count(100))) == list(range(100))
    assert trio.current_time() >= 15


async def test_a_cancel_that_was_lost_leaves_a_stream_open_for_a_while_only(
    pair: Pair, lose: Lose, autojump_clock: object
) -> None:
    lose(lambda entry: isinstance(entry, Cancel))
    async with pair.service.stream(Count(1000)) as numbers:
        await anext(numbers)
    await trio.sleep(1)
    assert pair.streamed() == (16, 0)
    await trio.sleep(LEASE + REPEAT_EVERY)
    assert pair.streamed() == (16, 1)
    assert not pair.serving.feeding


async def test_an_idle_stream_stays_open(pair: Pair, autojump_clock: object) -> None:
    async with pair.service.stream(Count(1, wait=True)) as numbers:
        assert await anext(numbers) == 0
        await trio.sleep(600)
        assert pair.streamed() == (1, 0)


async def test_a_reader_that_is_slow_for_an_hour_keeps_its_stream(pair: Pair, autojump_clock: object) -> None:
    async with pair.service.stream(Count(40)) as numbers:
        assert await anext(numbers) == 0
        await trio.sleep(3600)
        assert [number async for number in numbers] == list(range(1, 40))


async def test_a_node_that_vanishes_ends_streams_at_both_ends_within_thirty_seconds(
    pair: Pair, autojump_clock: object
) -> None:
    async with pair.service.stream(Count(1, wait=True)) as numbers:
        assert await anext(numbers) == 0
        pair.net.loses = lambda _: True
        start = trio.current_time()
        with pytest.raises(OutcomeUnknown, match="may have had effects"):
            await anext(numbers)
        assert trio.current_time() - start <= 30
        await trio.sleep(10)
        assert pair.streamed() == (1, 1)


async def test_a_node_that_leaves_ends_its_streams_at_once(net: Net, autojump_clock: object) -> None:
    async with net.node([Service]) as server:
        async with (
            net.node() as reader,
            reader.ref(server.address("service"), Service).stream(Count(1, wait=True)) as numbers,
        ):
            assert await anext(numbers) == 0
        await trio.sleep(1)
        assert streamed(server) == (1, 1)
        assert server.statistics().peers == 0


async def test_a_stream_to_a_node_that_is_not_there_ends_in_not_delivered(net: Net, autojump_clock: object) -> None:
    async with net.node() as alone, alone.ref(f"I{'0' * 64}/service", Service).stream(Count(1)) as numbers:
        with pytest.raises(NotDelivered, match="Count was not delivered to I0000"):
            await anext(numbers)
        assert alone.statistics().peers == 0


@message(name="Private")
@attrs.frozen
class Private(Stream[int]):
    pass


@attrs.frozen
class Odd(Request[int]):
    pass


@attrs.frozen
class Texts(Stream[str]):
    size: int


@agent(mailbox=Mailbox(1, overflow="drop_newest"))
class Guarded:
    runs: int = 0

    @on(Private, allow='principal.team == "payments"')
    async def private(self, message: Private) -> AsyncIterator[int]:
        self.runs += 1
        yield 1

    @on(Texts, allow="true")
    async def texts(self, message: Texts) -> AsyncIterator[str]:
        yield "x" * message.size
        yield "more"

    @on(Odd, allow="true")
    async def odd(self, message: Odd) -> int:
        await trio.sleep(5)
        return 1


async def test_a_stream_is_denied_by_policy_as_any_message(net: Net, autojump_clock: object) -> None:
    async with net.node([Guarded]) as server, net.node() as alice, net.node() as bob:
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        address = server.address("guarded")
        assert await read_all(alice.ref(address, Guarded).stream(Private())) == [1]
        with pytest.raises(Denied):
            await read_all(bob.ref(address, Guarded).stream(Private()))
        with pytest.raises(Denied):
            await read_all(bob.ref(server.address("nobody")).stream(Private()))
        found = server._runtime.find("guarded")
        assert isinstance(found, Cell)
        assert found.instance.runs == 1


async def test_an_item_too_large_to_travel_ends_the_stream_and_fails_nobody(net: Net, autojump_clock: object) -> None:
    async with net.node([Guarded]) as server, net.node() as reader:
        guarded = reader.ref(server.address("guarded"), Guarded)
        with pytest.raises(HandlerFailed, match="too large"):
            await read_all(guarded.stream(Texts(200_000)))
        assert server.statistics().failures == 0
        assert await read_all(guarded.stream(Texts(3))) == ["xxx", "more"]


async def test_what_a_full_mailbox_drops_is_told_and_ends_no_node(net: Net, autojump_clock: object) -> None:
    async with net.node([Guarded]) as server, net.node() as reader:
        guarded = reader.ref(server.address("guarded"), Guarded)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(guarded.ask, Odd())
            await trio.sleep(1)
            nursery.start_soon(guarded.ask, Odd())
            await trio.sleep(1)
            with pytest.raises(Overloaded):
                await guarded.ask(Odd())
            with pytest.raises(Overloaded):
                await read_all(guarded.stream(Texts(1)))


async def test_an_item_that_does_not_fit_ends_the_stream_with_an_error(pair: Pair, autojump_clock: object) -> None:
    @message(name="Count")
    @attrs.frozen
    class OtherCount(Stream[str]):
        upto: int
        wait: bool = False
        ends: str = ""

    with pytest.raises(MessageError, match=r"the item of .*service does not fit Count"):
        await read_all(pair.service.stream(OtherCount(5)))  # type: ignore[arg-type]
    await trio.sleep(1)
    assert pair.streamed()[1] == 1


async def test_a_stream_can_be_opened_by_name(pair: Pair, autojump_clock: object) -> None:
    asked: Any = Untyped("Count", {"upto": 2, "wait": False, "ends": ""})
    assert await read_all(pair.service.stream(asked)) == [0, 1]


def test_a_stream_whose_items_cannot_travel_is_refused_with_the_class() -> None:
    @attrs.frozen
    class Types(Stream[type]):
        pass

    with pytest.raises(DeclarationError, match=r"Seller\.types: Types cannot be sent"):

        @agent
        class Seller:
            @on(Types, allow="true")
            async def types(self, message: Types) -> AsyncIterator[type]:
                yield int


async def test_one_node_has_a_bounded_number_of_streams_open_here(pair: Pair, autojump_clock: object) -> None:
    await pair.service.ask(Add(1))
    wanted = encode_payload(Count(1, wait=True))
    for first in range(1, MOST_STREAMS + 65, 64):
        opened = [Open(number, "service", "Count", wanted, 16, 0, 0) for number in range(first, first + 64)]
        pair.say(pair.reader, pair.server, *opened)
        await trio.sleep(1)
    assert len(pair.serving.feeding) <= MOST_STREAMS
    assert pair.streamed()[0] <= 64
    await trio.sleep(LEASE + REPEAT_EVERY)
    assert not pair.serving.feeding, "their reader never said a word of them"


async def test_credit_past_what_a_reader_may_grant_makes_no_flood(pair: Pair, autojump_clock: object) -> None:
    await pair.service.ask(Add(1))
    pair.say(pair.reader, pair.server, Open(77, "service", "Count", encode_payload(Count(10**9)), 2**63 - 1, 0, 0))
    pair.say(pair.reader, pair.server, *[Credit(77, 2**63 - 1)] * 3)
    await trio.sleep(1)
    made, _ = pair.streamed()
    assert made <= 4 * 16


async def test_items_that_nobody_allowed_or_wanted_are_not_kept(pair: Pair, autojump_clock: object) -> None:
    async with pair.service.stream(Count(1, wait=True)) as numbers:
        assert await anext(numbers) == 0
        peer = pair.reader._peers.sessions.peers[pair.server._vault.identifier]
        ((request, reading),) = peer.reading.items()
        pair.say(pair.server, pair.reader, *(Item(request, index, b"\x05") for index in range(1, 200)))
        pair.say(pair.server, pair.reader, *(Item(99, index, b"\x05") for index in range(200)))
        await trio.sleep(1)
        assert len(reading._buffer) <= 16
        with pytest.raises(OutcomeUnknown):
            assert {number async for number in numbers} == {5}


@pytest.mark.parametrize("seed", range(8))
async def test_on_links_that_err_a_stream_is_whole_or_ends_in_an_error(seed: int, autojump_clock: object) -> None:
    faults = Faults(drop=0.1, duplicate=0.1, tamper=0.05, reorder=0.05)
    async with open_test_fabric(seed=seed) as fabric, fabric.open_node([Service]) as server, fabric.open_node() as user:
        service = user.ref(server.address("service"), Service)
        await service.ask(Add(1))
        fabric.faults = faults
        found: list[int] = []
        with trio.fail_after(300), suppress(OutcomeUnknown):
            async with service.stream(Count(60)) as numbers:
                async for number in numbers:
                    found.append(number)
                    await trio.sleep(0.2)
            assert len(found) == 60
        assert found == list(range(len(found)))
        fabric.faults = Faults()
        await trio.sleep(LEASE + 2 * REPEAT_EVERY)
        made, ended = streamed(server.node)
        assert ended == (made > 0), "an opening that was lost began nothing, and what began has ended"
        assert not any(peer.feeding for peer in server.node._peers.sessions.peers.values())


async def test_items_that_are_there_at_once_travel_together(pair: Pair, autojump_clock: object) -> None:
    await pair.service.ask(Add(1))
    before = pair.net.packets(DATA)
    async with pair.service.stream(Count(800)) as numbers:
        assert [number async for number in numbers] == list(range(800))
    assert pair.net.packets(DATA) - before < 800 / 2, "items, and credit for them"
