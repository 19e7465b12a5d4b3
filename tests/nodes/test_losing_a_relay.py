"""What two nodes with two relays promise each other when one of the relays is lost, with what it had taken."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import AgentRef, Node, Request, Stream, agent, on, open_node
from autonomy_trio.errors import OutcomeUnknown
from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.testing import Faults, TestFabric, open_test_fabric
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.wire.entries import Awaited, Entry, Reply
from tests.support.net import Lose

URLS = "ws://one:1", "ws://two:1"


@frozen
class Work(Request[int]):
    seconds: float


@frozen
class Ticks(Stream[int]):
    every: float


@agent
class Worker:
    runs: int = 0

    @on(Work, allow="true")
    async def work(self, message: Work) -> int:
        self.runs += 1
        await trio.sleep(message.seconds)
        return self.runs

    @on(Ticks, allow="true")
    async def ticks(self, message: Ticks) -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await trio.sleep(message.every)


@attrs.define
class Pair:
    """A node with a worker, one that asks it, and the two relays both are attached to."""

    fabrics: dict[str, TestFabric]
    far: Node
    near: Node

    @property
    def worker(self) -> AgentRef[Worker]:
        return self.near.ref(self.far.address("worker"), Worker)

    @property
    def runs(self) -> int:
        cell = self.far._runtime.find("worker")
        assert cell is not None
        return cell.instance.runs

    @property
    def fabric(self) -> TestFabric:
        """That of the relay by which the two speak now."""
        carrier = self.near._peers.sessions.peers[parse_identifier(self.far.identifier)].carrier
        assert isinstance(carrier, Attachment)
        return self.fabrics[carrier.relay.url]

    def swallow(self) -> None:
        """Have the relay take everything and forward nothing."""
        self.fabric.faults = Faults(drop=1)

    def kill(self) -> None:
        self.fabric.stop_relay()


@pytest.fixture
async def pair() -> AsyncGenerator[Pair]:
    async with open_test_fabric() as one, open_test_fabric() as two:
        fabrics = dict(zip(URLS, (one, two), strict=True))

        async def connect(url: str, nursery: trio.Nursery) -> Link:
            return await fabrics[url].connect(fabrics[url].url, nursery)

        options: dict[str, Any] = {"relay": URLS, "now": virtual_now, "connect": connect}
        async with open_node([Worker], **options) as far, open_node(**options) as near:
            pair = Pair(fabrics, far, near)
            assert await pair.worker.ask(Work(0)) == 1
            yield pair


@asynccontextmanager
async def unknown_within(seconds: float) -> AsyncGenerator[None]:
    """Expect the outcome to be unknown so soon, and no ask to wait for its deadline of 30 s."""
    began = trio.current_time()
    with pytest.raises(OutcomeUnknown):
        yield
    assert trio.current_time() - began <= seconds


async def after(seconds: float, act: Callable[[], None]) -> None:
    await trio.sleep(seconds)
    act()


async def test_an_ask_that_a_dead_relay_had_taken_has_an_unknown_outcome_at_once(
    pair: Pair, nursery: trio.Nursery, autojump_clock: object
) -> None:
    pair.swallow()
    nursery.start_soon(after, 1, pair.kill)
    async with unknown_within(2):
        await pair.worker.ask(Work(0))
    assert pair.runs == 1, "it never arrived"
    assert await pair.worker.ask(Work(0)) == 2


async def test_an_ask_whose_reply_a_dead_relay_had_taken_has_an_unknown_outcome_at_once(
    pair: Pair, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(after, 0.5, pair.swallow)
    nursery.start_soon(after, 2, pair.kill)
    async with unknown_within(3):
        await pair.worker.ask(Work(1))
    assert pair.runs == 2, "it ran, and once"


async def test_an_ask_that_had_arrived_is_answered_over_the_other_relay(
    pair: Pair, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(after, 1, pair.kill)
    assert await pair.worker.ask(Work(5)) == 2
    assert pair.runs == 2


async def test_a_stream_of_which_a_dead_relay_had_taken_items_ends_with_an_error_at_once(
    pair: Pair, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(after, 2.5, pair.swallow)
    nursery.start_soon(after, 3.5, pair.kill)
    items: list[int] = []
    async with unknown_within(5), pair.worker.stream(Ticks(1)) as ticks:
        async for number in ticks:
            items.append(number)  # noqa: PERF401 - what came before the error counts
    assert items == [0, 1, 2]


async def test_a_stream_goes_on_over_the_other_relay_where_nothing_was_lost(
    pair: Pair, nursery: trio.Nursery, autojump_clock: object
) -> None:
    nursery.start_soon(after, 2.5, pair.kill)
    async with pair.worker.stream(Ticks(1)) as ticks:
        assert [number async for number in ticks] == list(range(10))


async def test_an_ask_is_known_to_be_lost_long_before_its_deadline_where_no_connection_was(
    pair: Pair, lose: Lose, autojump_clock: object
) -> None:
    lose(lambda entry: isinstance(entry, Reply))
    async with unknown_within(25):
        with trio.fail_after(1000):
            await pair.worker.ask(Work(0))


async def test_an_ask_that_takes_long_is_awaited_through_every_word_about_it(
    pair: Pair, autojump_clock: object
) -> None:
    with trio.fail_after(200):
        assert await pair.worker.ask(Work(100)) == 2


async def test_a_word_about_asks_is_repeated_where_it_was_lost(pair: Pair, lose: Lose, autojump_clock: object) -> None:
    began = trio.current_time()

    def loses(entry: Entry) -> bool:
        return isinstance(entry, Reply) or (isinstance(entry, Awaited) and trio.current_time() < began + 25)

    lose(loses)
    async with unknown_within(45):
        with trio.fail_after(1000):
            await pair.worker.ask(Work(0))


async def test_both_relays_can_be_lost_and_come_back_and_no_ask_waits_for_its_deadline(
    pair: Pair, nursery: trio.Nursery, autojump_clock: object
) -> None:
    for fabric in pair.fabrics.values():
        fabric.faults = Faults(drop=1)
        nursery.start_soon(after, 1, fabric.stop_relay)

    def start() -> None:
        for fabric in pair.fabrics.values():
            fabric.faults = Faults()
            fabric.start_relay()

    nursery.start_soon(after, 3, start)
    async with unknown_within(10):
        await pair.worker.ask(Work(0))
