import pytest
import trio
import trio.testing

from autonomy_trio.errors import LinkBroken
from autonomy_trio.fabric.links.link import FRAME_COST, MOST_JOINED, PATIENCE, PING, PONG, Outbox, attend
from autonomy_trio.fabric.links.memory import open_memory_links

pytestmark = pytest.mark.usefixtures("calm")


async def test_frames_that_wait_together_leave_in_one_message(nursery: trio.Nursery) -> None:
    here, there = open_memory_links()
    outbox = Outbox(10_000)
    assert outbox.put(b"one")
    assert outbox.put(b"two")
    nursery.start_soon(outbox.write_to, here)
    assert await there.receive() == b"onetwo"
    assert outbox.put(b"three")
    assert await there.receive() == b"three"


async def test_a_message_is_joined_up_to_its_limit_and_a_larger_frame_travels_alone(nursery: trio.Nursery) -> None:
    here, there = open_memory_links()
    outbox = Outbox(10 * MOST_JOINED)
    large, half = bytes(MOST_JOINED + 1), bytes(MOST_JOINED // 2)
    for frame in (half, half, b"x", large, b"y"):
        assert outbox.put(frame)
    nursery.start_soon(outbox.write_to, here)
    assert [await there.receive() for _ in range(4)] == [half + half, b"x", large, b"y"]


def test_an_outbox_is_bounded_in_bytes_and_small_frames_cost_what_they_take() -> None:
    outbox = Outbox(1000)
    assert not outbox.put(bytes(1000))
    assert outbox.put(bytes(1000 - FRAME_COST))
    assert not outbox.put(b"")
    outbox.discard()
    assert sum(outbox.put(b"") for _ in range(1000)) == 1000 // FRAME_COST


async def test_a_sign_of_life_overtakes_what_waits_and_waits_once_though_the_outbox_is_full(
    nursery: trio.Nursery,
) -> None:
    here, there = open_memory_links()
    outbox = Outbox(2 * (MOST_JOINED + FRAME_COST))
    frame = bytes(MOST_JOINED)
    assert outbox.put(frame)
    assert outbox.put(frame)
    for _ in range(1000):
        outbox.put_urgent(PING)
        outbox.put_urgent(PONG)
    nursery.start_soon(outbox.write_to, here)
    assert [await there.receive() for _ in range(3)] == [PING + PONG, frame, frame]
    assert outbox.size == 0


async def test_who_waits_for_room_goes_on_when_half_of_it_is_free(nursery: trio.Nursery) -> None:
    here, there = open_memory_links()
    frame = bytes(MOST_JOINED - FRAME_COST)
    outbox = Outbox(4 * MOST_JOINED)
    with trio.fail_after(0.5):
        await outbox.wait_room()
    for _ in range(4):
        assert outbox.put(frame)
    went_on = trio.Event()

    async def wait() -> None:
        await outbox.wait_room()
        went_on.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not went_on.is_set()
    nursery.start_soon(outbox.write_to, here)
    await there.receive()
    await there.receive()
    with trio.fail_after(0.5):
        await went_on.wait()


async def test_an_outbox_is_empty_when_the_last_message_has_left(nursery: trio.Nursery) -> None:
    here, there = open_memory_links()
    outbox = Outbox(10 * MOST_JOINED)
    for _ in range(3):
        assert outbox.put(bytes(MOST_JOINED))
    nursery.start_soon(outbox.write_to, here)
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0.01) as waiting:
        await outbox.wait_empty()
    assert waiting.cancelled_caught
    for _ in range(2):
        await there.receive()
    with trio.fail_after(0.5):
        await outbox.wait_empty()


async def test_discarding_lets_everybody_go_on(nursery: trio.Nursery) -> None:
    outbox = Outbox(1000)
    assert outbox.put(bytes(900))
    outbox.put_urgent(PING)
    with trio.fail_after(0.5):
        async with trio.open_nursery() as waiting:
            waiting.start_soon(outbox.wait_room)
            waiting.start_soon(outbox.wait_empty)
            await trio.testing.wait_all_tasks_blocked()
            outbox.discard()
    assert outbox.size == 0


async def test_a_reader_that_takes_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    here, there = open_memory_links()
    outbox = Outbox(10 * MOST_JOINED)
    for _ in range(2):
        assert outbox.put(bytes(MOST_JOINED))
    with pytest.raises(LinkBroken, match="took nothing for 10 s"):
        await outbox.write_to(here)
    assert trio.current_time() == pytest.approx(PATIENCE)
    await there.receive()
    with pytest.raises(LinkBroken):
        await there.receive()


async def test_a_cancelled_send_ends_a_link_in_memory_too() -> None:
    here, there = open_memory_links()
    await here.send(b"fits")
    with trio.move_on_after(0.01):
        await here.send(b"waits")
    assert await there.receive() == b"fits"
    for link in (here, there):
        with pytest.raises(LinkBroken):
            await link.send(b"")
        with pytest.raises(LinkBroken):
            await link.receive()


async def test_a_silent_neighbour_is_asked_and_then_given_up(autojump_clock: trio.testing.MockClock) -> None:
    here, _there = open_memory_links()
    outbox = Outbox(1000)
    assert outbox.put(bytes(900))
    with pytest.raises(LinkBroken, match="was silent for 25 s"):
        await attend(here, outbox, lambda _: 0.0, ping_after=10, gone_after=25)
    assert trio.current_time() == pytest.approx(25)
    assert outbox._take().startswith(PING)


@pytest.mark.parametrize("pause", [1.0, 9.0, 11.0, 24.0])
async def test_a_neighbour_that_says_something_in_time_is_kept(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, pause: float
) -> None:
    here, there = open_memory_links()
    outbox = Outbox(1000)

    async def speak() -> None:
        for _ in range(5):
            await trio.sleep(pause)
            await there.send(b"here")

        await there.aclose()

    nursery.start_soon(speak)
    heard: list[bytes] = []

    def take(message: bytes) -> float:
        heard.append(message)
        return 0.0

    with pytest.raises(LinkBroken, match="closed"):
        await attend(here, outbox, take, ping_after=10, gone_after=25)
    assert heard == [b"here"] * 5
    assert trio.current_time() == pytest.approx(5 * pause)


async def test_no_message_is_taken_while_none_is_wanted_and_that_is_no_silence(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    here, there = open_memory_links()
    outbox, heard = Outbox(1000), list[float]()

    async def speak() -> None:
        for _ in range(3):
            await there.send(b"here")
        await trio.sleep_forever()

    def take(message: bytes) -> float:
        heard.append(trio.current_time())
        return 30.0

    nursery.start_soon(speak)
    with pytest.raises(LinkBroken, match="was silent for 25 s"):
        await attend(here, outbox, take, ping_after=10, gone_after=25)
    assert heard == [0, 30, 60]
    assert trio.current_time() == pytest.approx(90 + 25)


async def test_a_link_in_memory_ends_for_both_when_one_closes() -> None:
    here, there = open_memory_links()
    await here.aclose()
    for link in (here, there):
        with pytest.raises(LinkBroken):
            await link.send(b"")
        with pytest.raises(LinkBroken):
            await link.receive()
