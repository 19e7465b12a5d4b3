"""Cancellation after each step that any task takes during an ask, a stream and a drain: what is left is as documented.

Each test runs its program again and again: cancelled after the first step, after the second, and so on until it ends
before it would be cancelled.
"""

import contextlib
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, Stream, agent, on
from autonomy_trio.actors.cell import Cell
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import DeliveryError, MailboxFull, NotDelivered, OutcomeUnknown

MOST_STEPS = 2_000
"""Far more than any of the programs takes."""


@frozen
class Work(Request[int]):
    number: int
    via: AgentRef[Any] | None = None


@frozen
class Quick(Request[int]):
    number: int


@frozen
class Count(Stream[int]):
    most: int


@frozen
class Hold:
    pass


@agent(mailbox=Mailbox(1))
class Account:
    begun: int = 0
    done: list[int] = field(factory=list[int])
    ended: int = 0
    cancelled: list[int] = field(factory=list[int])

    @on(Work)
    async def work(self, message: Work) -> int:
        with self.noted(message.number):
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            if message.via is not None:
                assert await message.via.ask(Work(message.number)) == message.number
            await trio.sleep(1)
        return message.number

    @on(Quick)
    def quick(self, message: Quick) -> int:
        with self.noted(message.number):
            return message.number

    @on(Count)
    async def count(self, message: Count) -> AsyncGenerator[int]:
        self.begun += 1
        try:
            for number in range(message.most):
                await trio.lowlevel.checkpoint()
                yield number
        finally:
            self.ended += 1

    @on(Hold)
    async def hold(self, message: Hold) -> None:
        await trio.sleep(1)

    @contextlib.contextmanager
    def noted(self, number: int):  # noqa: ANN201
        self.begun += 1
        try:
            yield
            self.done.append(number)
        except trio.Cancelled:
            self.cancelled.append(number)
            raise
        finally:
            self.ended += 1


@attrs.define(eq=False)
class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when the tasks of the run have taken so many steps since it was armed."""

    steps: int
    scope: trio.CancelScope | None = None

    @contextlib.contextmanager
    def armed(self):  # noqa: ANN201
        with trio.CancelScope() as self.scope:
            yield
        self.scope = None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.scope is not None and self.steps:
            self.steps -= 1
            if not self.steps:
                self.scope.cancel()


def cancel_after_each_step(program: Callable[[CancelAfter], Awaitable[None]]) -> None:
    for steps in itertools.count(1):
        cancel = CancelAfter(steps)
        clock = trio.testing.MockClock(autojump_threshold=0)
        try:
            trio.run(program, cancel, clock=clock, instruments=[cancel])
        except BaseException as error:
            error.add_note(f"cancelled after {steps} steps")
            raise
        if cancel.steps:
            assert steps > 3, "nothing was cancelled"
            return
        assert steps < MOST_STEPS, "it has no end"


def cell_of(runtime: Runtime, ref: AgentRef[Any]) -> Cell:
    cell = runtime.find(ref.name)
    assert isinstance(cell, Cell)
    return cell


async def check_as_before(runtime: Runtime, *refs: AgentRef[Any]) -> None:
    """Nothing of what was cancelled is left, and the agents go on as if it had not been."""
    await trio.testing.wait_all_tasks_blocked()
    assert (runtime.queued(), len(runtime.keeper.asks)) == (0, 0)
    assert (runtime.failures, len(runtime.dead_letters)) == (0, 0)
    for ref in refs:
        cell = cell_of(runtime, ref)
        account: Account = cell.instance
        assert account.begun == account.ended
        if cell.crew is not None:
            assert cell.crew.can_rest
            assert not any(worker.waits for worker in cell.crew.workers)
        assert await ref.ask(Work(100)) == 100
        assert 100 not in account.cancelled
        await check_slots(ref)
        async with ref.stream(Count(3)) as numbers:
            assert [number async for number in numbers] == [0, 1, 2]


async def check_slots(ref: AgentRef[Account]) -> None:
    """As many messages fit into the mailbox as ever."""
    ref.tell_nowait(Hold())
    await trio.testing.wait_all_tasks_blocked()
    ref.tell_nowait(Quick(0))
    with pytest.raises(MailboxFull):
        ref.tell_nowait(Quick(0))
    await trio.sleep(2)


async def answered(ref: AgentRef[Account], number: int) -> None:
    assert await ref.ask(Work(number)) == number


@pytest.mark.parametrize("neighbours", [0, 1, 2, 3])
@pytest.mark.parametrize("nested", [False, True])
def test_an_ask_cancelled_after_any_step_leaves_nothing_behind(neighbours: int, nested: bool) -> None:
    """The agent is idle, or in a handler, or full, or others wait for room besides."""

    async def program(cancel: CancelAfter) -> None:
        async with open_runtime() as runtime:
            ref, other = runtime.spawn(Account), runtime.spawn(Account)
            account: Account = cell_of(runtime, ref).instance
            reply = None
            async with trio.open_nursery() as nursery:
                for number in range(10, 10 + neighbours):
                    nursery.start_soon(answered, ref, number)
                    await trio.testing.wait_all_tasks_blocked()
                with cancel.armed():
                    reply = await ref.ask(Work(1, other if nested else None))
            await check_as_before(runtime, ref, other)
            assert set(account.cancelled) <= {1}
            assert (reply == 1) <= (1 in account.done)
            assert account.done.count(1) + account.cancelled.count(1) <= 1
            assert set(range(10, 10 + neighbours)) <= set(account.done)

    cancel_after_each_step(program)


def test_a_quick_ask_cancelled_after_any_step_leaves_nothing_behind() -> None:
    async def program(cancel: CancelAfter) -> None:
        async with open_runtime() as runtime:
            ref, replies = runtime.spawn(Account), list[int]()
            with cancel.armed():
                for number in range(200):
                    replies.append(await ref.ask(Quick(number)))
            account: Account = cell_of(runtime, ref).instance
            assert replies == list(range(len(replies)))
            assert len(account.done) in (len(replies), len(replies) + 1)
            await check_as_before(runtime, ref)

    cancel_after_each_step(program)


@pytest.mark.parametrize("busy", [False, True])
def test_a_stream_cancelled_after_any_step_is_closed_and_takes_no_turn_any_more(busy: bool) -> None:
    async def program(cancel: CancelAfter) -> None:
        async with open_runtime() as runtime:
            ref, got = runtime.spawn(Account), list[int]()
            async with trio.open_nursery() as nursery:
                if busy:
                    for number in (10, 11):
                        nursery.start_soon(answered, ref, number)
                    await trio.testing.wait_all_tasks_blocked()
                with cancel.armed():
                    async with ref.stream(Count(20)) as numbers:
                        async for number in numbers:
                            got.append(number)
                            if number == 10:
                                await trio.sleep(0.5)
            assert got == list(range(len(got)))
            await trio.testing.wait_all_tasks_blocked()
            crew = cell_of(runtime, ref).crew
            assert crew is None or crew.belongings is None or not (crew.belongings.tasks or crew.belongings.streams)
            await check_as_before(runtime, ref)

    cancel_after_each_step(program)


@agent(mailbox=Mailbox(2), concurrency=2)
class Parent(Account):
    stops: list[str] = field(factory=list[str])

    def on_start(self, context: Context) -> None:
        context.spawn(Account, "child").tell_nowait(Hold())
        context.every(1, Hold())
        context.start_soon(self.background)

    async def background(self) -> None:
        await trio.sleep_forever()

    async def on_stop(self, context: Context) -> None:
        await trio.sleep(0.5)
        self.stops.append("stopped")


async def end_of_ask(ref: AgentRef[Any], number: int, ends: list[object]) -> None:
    try:
        ends.append(await ref.ask(Work(number)))
    except DeliveryError as error:
        ends.append(type(error))


async def read(ref: AgentRef[Any], ends: list[object]) -> None:
    try:
        async with ref.stream(Count(1_000_000)) as numbers:
            async for _ in numbers:
                await trio.sleep(0.1)
    except DeliveryError as error:
        ends.append(type(error))


def test_a_drain_cancelled_after_any_step_ends_every_agent_and_every_asker_and_leaves_no_task() -> None:
    """Messages in handlers are of unknown outcome, queued ones are not delivered; hooks run at most once."""

    async def program(cancel: CancelAfter) -> None:
        ends: list[object] = []
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as askers:
            with trio.CancelScope() as scope:
                async with open_runtime(grace=2) as runtime:
                    parent, alone = runtime.spawn(Parent), runtime.spawn(Account)
                    await trio.testing.wait_all_tasks_blocked()
                    instances = [cell.instance for cell in runtime.cells()]
                    for number in range(6):
                        askers.start_soon(end_of_ask, parent, number, ends)
                        askers.start_soon(end_of_ask, alone, number, ends)
                    askers.start_soon(read, parent, ends)
                    await trio.testing.wait_all_tasks_blocked()
                    cancel.scope = scope
            cancel.scope = None
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert (runtime.count(), runtime.queued(), len(runtime.awake)) == (0, 0, 0)
        assert len(ends) == 13
        assert {end for end in ends if not isinstance(end, int)} <= {NotDelivered, OutcomeUnknown}
        for instance in instances:
            assert instance.begun == instance.ended
        assert instances[0].stops in ([], ["stopped"])
        assert scope.cancelled_caught or instances[0].stops == ["stopped"]
        with pytest.raises(NotDelivered):
            await parent.ask(Work(0))

    cancel_after_each_step(program)
