"""What every kind of link promises: in memory, over a websocket, over plain TCP."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
import trio.testing

from autonomy_trio.errors import LinkBroken
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.link import MOST_MESSAGE, Link
from autonomy_trio.fabric.links.linking import connect, listen
from autonomy_trio.fabric.links.memory import open_memory_links

pytestmark = pytest.mark.usefixtures("calm")

Ends = tuple[Link, Link]
Open = Callable[[], AbstractAsyncContextManager[Ends]]


@asynccontextmanager
async def in_memory() -> AsyncGenerator[Ends]:
    yield open_memory_links()


@asynccontextmanager
async def over(scheme: str) -> AsyncGenerator[Ends]:
    listener = await listen(ListenAddress("127.0.0.1", 0, scheme))
    send, receive = trio.open_memory_channel[Link](1)
    done = trio.Event()

    async def serve(link: Link) -> None:
        await send.send(link)
        await done.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.serve, serve)
        here = await connect(listener.address.url, nursery)
        yield here, await receive.receive()
        done.set()
        await here.aclose()
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["memory", "ws", "tcp"])
async def ends(request: pytest.FixtureRequest) -> AsyncGenerator[Ends]:
    async with in_memory() if request.param == "memory" else over(request.param) as ends:
        yield ends


async def both_ways(ends: Ends, test: Callable[[Link, Link], Awaitable[None]]) -> None:
    await test(*ends)
    await test(*reversed(ends))


async def send_for_ever(link: Link) -> None:
    while True:
        await link.send(bytes(MOST_MESSAGE))


async def receive_for_ever(link: Link) -> None:
    while True:
        assert await link.receive() == bytes(MOST_MESSAGE)


async def test_messages_arrive_whole_and_in_order_however_large(ends: Ends, nursery: trio.Nursery) -> None:
    messages = [bytes([number]) * size for number, size in enumerate((1, 2, 125, 126, 65_535, 65_536, MOST_MESSAGE))]

    async def send_all(link: Link) -> None:
        for message in messages:
            await link.send(message)

    async def check(here: Link, there: Link) -> None:
        nursery.start_soon(send_all, here)
        assert [await there.receive() for _ in messages] == messages

    with trio.fail_after(10):
        await both_ways(ends, check)


async def test_a_receive_that_was_cancelled_has_lost_nothing(ends: Ends, nursery: trio.Nursery) -> None:
    here, there = ends
    message = bytes(MOST_MESSAGE)
    nursery.start_soon(here.send, message)
    received: list[bytes] = []
    with trio.fail_after(10):
        while not received:
            # Now and then in the middle of the message.
            with trio.move_on_after(0.0005):
                received.append(await there.receive())
    assert received == [message]


async def test_when_one_end_closes_the_other_gets_what_was_sent_and_then_the_end(
    ends: Ends, nursery: trio.Nursery
) -> None:
    here, there = ends
    with trio.fail_after(10):
        nursery.start_soon(there.send, b"never read")
        await here.send(b"last words")
        nursery.start_soon(here.aclose)
        assert await there.receive() == b"last words"
        with pytest.raises(LinkBroken):
            await there.receive()
        with pytest.raises(LinkBroken):
            await send_for_ever(there)


async def test_a_send_that_was_cancelled_half_way_ends_the_link(ends: Ends) -> None:
    here, there = ends
    with trio.move_on_after(0.5) as scope:
        await send_for_ever(here)
    assert scope.cancelled_caught
    with pytest.raises(LinkBroken):
        await here.send(b"more")
    with trio.fail_after(10), pytest.raises(LinkBroken):
        await receive_for_ever(there)


async def test_closing_waits_a_second_at_most_for_the_other_end_and_twice_does_no_harm(ends: Ends) -> None:
    here, _ = ends
    with trio.fail_after(10):
        await here.aclose()
        await here.aclose()


async def test_closing_ends_the_wait_of_who_receives(ends: Ends, nursery: trio.Nursery) -> None:
    here, _ = ends
    ended = trio.Event()

    async def wait_for_more() -> None:
        with pytest.raises(LinkBroken):
            await here.receive()
        ended.set()

    nursery.start_soon(wait_for_more)
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(10):
        await here.aclose()
        await ended.wait()


async def test_who_takes_much_lets_others_run(ends: Ends, nursery: trio.Nursery) -> None:
    here, there = ends
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async def send() -> None:
        for _ in range(1000):
            await here.send(b"x")

    nursery.start_soon(count)
    nursery.start_soon(send)
    with trio.fail_after(10):
        for _ in range(1000):
            await there.receive()
    assert turns > 10
    nursery.cancel_scope.cancel()
