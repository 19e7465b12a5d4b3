"""What one instance of an agent has under way: it is bounded, whatever the agent does."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import Context, Down, Request, Stream, agent, on
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.errors import HandlerFailed, OutcomeUnknown, Overloaded


@frozen
class Beat:
    pass


@frozen
class HowMany(Request[int]):
    pass


@frozen
class Flood(Request[str]):
    """Have more ticks, or ends of watches, wait than an agent may."""

    what: str


@agent
class Flooder:
    heard: int = 0

    @on(Beat)
    async def beat(self, message: Beat) -> None:
        self.heard += 1

    @on(Down)
    async def down(self, message: Down) -> None:
        self.heard += 1

    @on(Flood)
    async def flood(self, message: Flood, context: Context) -> str:
        try:
            for _ in range(5000):
                if message.what == "ticks":
                    context.after(0, Beat())
                    await trio.sleep(0.01)
                elif message.what == "cancelled ticks":
                    timer = context.after(0, Beat())
                    await trio.sleep(0.01)
                    timer.cancel()
                else:
                    context.watch(context.ref("nobody"))
        except Overloaded as error:
            return str(error)
        return "no bound"

    @on(HowMany)
    async def how_many(self, message: HowMany) -> int:
        return self.heard


@pytest.mark.parametrize(
    ("what", "told", "heard"),
    [
        ("ticks", "1,024 timers", 1024),
        ("cancelled ticks", "1,024 timers", 0),
        ("ends", "1,024 watches", 1024),
    ],
)
async def test_no_more_ticks_and_ends_wait_than_an_agent_may_have_timers_and_watches(
    autojump_clock: object, what: str, told: str, heard: int
) -> None:
    async with open_runtime(ask_limit=1000) as runtime:
        ref = runtime.spawn(Flooder)
        assert told in await ref.ask(Flood(what))
        assert await ref.ask(HowMany()) == heard
        assert told in await ref.ask(Flood(what)), "the room is there again"
        assert await ref.ask(HowMany()) == 2 * heard


@frozen
class Begin(Request[None]):
    kind: str


@frozen
class Items(Stream[int]):
    pass


@agent
class Stubborn:
    """Leaves behind what outlives the grace its instance has, and fails then."""

    @on(Begin)
    async def begin(self, message: Begin, context: Context) -> None:
        if message.kind == "background task":
            context.start_soon(self.hang)
        await trio.sleep(1)
        raise ValueError

    @on(Items)
    async def items(self, message: Items) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            with trio.move_on_after(100, shield=True):
                await self.hang()

    @on(HowMany)
    async def how_many(self, message: HowMany) -> int:
        await trio.sleep(20)
        return 1

    async def hang(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        raise KeyError


@pytest.mark.parametrize("kind", ["background task", "stream"])
async def test_what_outlives_its_instance_and_fails_does_not_fail_the_next_one(
    autojump_clock: object, kind: str
) -> None:
    async with open_runtime(grace=2) as runtime, trio.open_nursery() as nursery:
        ref = runtime.spawn(Stubborn)

        async def read() -> None:
            async with ref.stream(Items()) as items:
                await trio.sleep(30)  # the producer waits for credit, without a turn
                with pytest.raises((OutcomeUnknown, HandlerFailed)):
                    _ = [item async for item in items]

        if kind == "stream":
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(HandlerFailed):
            await ref.ask(Begin(kind))
        assert await ref.ask(HowMany()) == 1
        assert runtime.failures == 2, "it is counted all the same"


@frozen
class BeginCancelled(Request[bool]):
    """Start a task that fails while its starter is cancelled, and say whether the cancellation arrived."""


@agent
class Starter:
    @on(BeginCancelled)
    async def begin(self, message: BeginCancelled, context: Context) -> bool:
        async def fail_at_the_end(task_status: object) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError

        with pytest.RaisesGroup(ValueError, flatten_subgroups=True), trio.CancelScope() as scope:
            scope.cancel()
            await context.start(fail_at_the_end)
        return scope.cancelled_caught


async def test_the_cancellation_of_who_starts_a_task_passes_though_the_task_fails_meanwhile() -> None:
    async with open_runtime() as runtime:
        assert await runtime.spawn(Starter).ask(BeginCancelled())
