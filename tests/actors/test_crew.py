"""What waits for room in a full mailbox: in order, for once, and without a trace when its sender has gone."""

from collections.abc import AsyncGenerator
from typing import Literal

import pytest
import trio
import trio.testing
from attrs import Factory, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, Stream, agent, on
from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.local import LocalRef
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import NotDelivered

HUNG = 1000.0


@frozen
class Note:
    number: int


@frozen
class Count(Request[int]):
    number: int


@frozen
class Hang:
    pass


@frozen
class Watch(Stream[int]):
    pass


@agent(mailbox=Mailbox(2))
class Clerk:
    seen: list[int] = Factory(list[int])

    @on(Note)
    async def note(self, message: Note) -> None:
        self.seen.append(message.number)

    @on(Count)
    async def count(self, message: Count) -> int:
        self.seen.append(message.number)
        return message.number

    @on(Hang)
    async def hang(self, message: Hang) -> None:
        await trio.sleep(HUNG)

    @on(Watch)
    async def watch(self, message: Watch) -> AsyncGenerator[int]:
        yield 1


def cell_of(ref: AgentRef[Clerk]) -> Cell:
    assert isinstance(ref, LocalRef)
    cell = ref.find_any()
    assert isinstance(cell, Cell)
    return cell


async def spawn_full(runtime: Runtime) -> AgentRef[Clerk]:
    """Spawn a clerk that hangs, whose mailbox is full."""
    clerk = runtime.spawn(Clerk)
    await clerk.tell(Hang())
    await trio.testing.wait_all_tasks_blocked()
    await clerk.tell(Note(0))
    await clerk.tell(Note(1))
    return clerk


async def test_tells_and_asks_that_wait_for_room_are_handled_in_their_order(autojump_clock: object) -> None:
    async with open_runtime(ask_limit=2 * HUNG) as runtime, trio.open_nursery() as nursery:
        clerk = await spawn_full(runtime)
        for number in range(2, 20):
            nursery.start_soon(clerk.ask if number % 2 else clerk.tell, Count(number))
            await trio.testing.wait_all_tasks_blocked()
        assert runtime.queued() == 1 + 20
        await trio.sleep(HUNG)
        await trio.testing.wait_all_tasks_blocked()
        assert cell_of(clerk).instance.seen == list(range(20))


async def test_who_is_cancelled_while_it_waits_for_room_leaves_nothing_behind(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        clerk = await spawn_full(runtime)
        for _ in range(10):
            for send in (clerk.tell, clerk.ask):
                with trio.move_on_after(1):
                    await send(Count(9))
        assert runtime.queued() == 1 + 2
        await trio.sleep(HUNG)
        assert cell_of(clerk).instance.seen == [0, 1]
        assert runtime.queued() == 0


async def test_a_tell_goes_on_as_soon_as_there_is_room(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        clerk = await spawn_full(runtime)
        with trio.fail_after(HUNG + 1):
            await clerk.tell(Hang())
        assert runtime.queued() == 1
        with trio.fail_after(1):
            await clerk.tell(Note(2))


async def test_the_limit_of_an_ask_holds_while_it_waits_for_room(autojump_clock: object) -> None:
    async with open_runtime(ask_limit=5) as runtime:
        clerk = await spawn_full(runtime)
        start = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await clerk.ask(Count(2))
        assert trio.current_time() == start + 5
        assert runtime.queued() == 1 + 2


async def test_a_deadline_of_its_own_is_longer_than_the_limit(autojump_clock: object) -> None:
    async with open_runtime(ask_limit=5) as runtime:
        clerk = await spawn_full(runtime)
        with trio.fail_after(2 * HUNG):
            assert await clerk.ask(Count(2)) == 2


async def test_an_agent_that_ends_answers_asks_that_waited_for_room_and_frees_tells(autojump_clock: object) -> None:
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        clerk = await spawn_full(runtime)

        async def ask() -> None:
            with pytest.raises(NotDelivered, match="clerk is stopping: nothing was run"):
                await clerk.ask(Count(2))

        nursery.start_soon(ask)
        nursery.start_soon(clerk.tell, Note(3))
        await trio.testing.wait_all_tasks_blocked()
        cell_of(clerk).stop(0)
        await clerk.stopped()
        assert runtime.dead_letters.counts()["stopped"] == 5


async def test_a_stream_that_is_told_is_a_dead_letter_and_fails_nobody(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        clerk = runtime.spawn(Clerk)
        await clerk.tell(Watch())
        clerk.tell_nowait(Watch())
        assert await clerk.ask(Count(1)) == 1
        assert runtime.dead_letters.counts()["not handled"] == 2
        assert runtime.failures == 0


async def test_a_message_is_counted_as_queued_from_the_moment_it_is_told(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        clerk = runtime.spawn(Clerk)
        for number in range(2):
            clerk.tell_nowait(Note(number))
        assert runtime.queued() == 2
        await trio.testing.wait_all_tasks_blocked()
        assert runtime.queued() == 0
        clerk.tell_nowait(Note(2))
        assert runtime.queued() == 1


@pytest.mark.parametrize("overflow", ["block", "fail", "drop_newest", "drop_oldest"])
async def test_several_workers_begin_messages_in_the_order_in_which_they_were_sent(
    autojump_clock: object, overflow: Literal["block", "fail", "drop_newest", "drop_oldest"]
) -> None:
    """In whichever order trio runs the workers, which differs from time to time; also with less room than workers."""
    seen: list[int] = []

    @agent(concurrency=4, mailbox=Mailbox(1, overflow=overflow))
    class Several:
        @on(Note)
        async def note(self, message: Note) -> None:
            seen.append(message.number)
            await trio.sleep(1)

    async with open_runtime() as runtime:
        several = runtime.spawn(Several)
        await several.tell(Note(-1))
        await trio.sleep(2)
        for _ in range(20):
            seen.clear()
            for number in range(4):
                several.tell_nowait(Note(number))
                assert runtime.queued() == number + 1
            await several.tell(Note(4))
            await trio.sleep(3)
            assert seen == [0, 1, 2, 3, 4]


@agent(mailbox=Mailbox(1), concurrency=2, restart="permanent")
class Pair:
    lasting: bool = True

    @on(Hang)
    async def hang(self, message: Hang) -> None:
        await trio.sleep(1)

    @on(Note)
    async def talk(self, message: Note, context: Context) -> None:
        if message.number == 0:
            await trio.sleep(2)
            context.stop()
        elif message.number == 1:
            for number in (2, 3, 4):
                await context.self.tell(Note(number))


@agent(mailbox=Mailbox(1), concurrency=2)
class Leaving(Pair):
    pass


@pytest.mark.parametrize("kind", [Pair, Leaving])
async def test_an_agent_that_leaves_while_it_waits_for_room_in_its_own_mailbox_ends(
    kind: type[Pair], autojump_clock: object
) -> None:
    async with open_runtime() as runtime:
        pair = runtime.spawn(kind)
        await pair.tell(Note(0))  # one worker leaves in 2 s
        await trio.testing.wait_all_tasks_blocked()
        await pair.tell(Hang())  # the other takes this, then what follows, and fills the mailbox while it does
        await pair.tell(Note(1))
        with trio.move_on_after(10):
            await pair.stopped()
        cell = runtime.find(pair.name)
        assert (cell is None) == (kind is Leaving)
        if cell is not None:
            assert cell.state in ("running", "resting")
            assert isinstance(cell, Cell)
            assert cell.relations.restarts == 1
