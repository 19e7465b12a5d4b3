"""Where messages end while their agents are killed and restarted at random: handled, in a dead letter, or queued."""

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pytest
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import AgentRef, Context, Mailbox, Request, agent, on, pool, supervise
from autonomy_trio.actors.local import SENDS_PER_CHECKPOINT
from autonomy_trio.actors.runtime import Runtime, open_runtime
from autonomy_trio.errors import DeliveryError, MailboxFull, NotDelivered

if TYPE_CHECKING:
    from autonomy_trio.actors.supervision import Strategy

MESSAGES = 1_000_000
RUNS = 8
ROUNDS = 10
SENDERS = 25
ASKS = 40_000

What = Literal["", "sleep", "fail", "forward", "stash", "unstash", "leave"]


@frozen
class Work:
    number: int
    what: What


@frozen
class Question(Request[int]):
    number: int
    what: What


@attrs.define
class Ledger:
    """What became of each message, by its number."""

    chance: random.Random
    runtime: Runtime = attrs.field(init=False)
    makers: dict[str, Any] = attrs.field(factory=dict[str, Any])
    """What builds an agent anew, by its name."""
    handled: bytearray = attrs.field(factory=bytearray)
    refused: int = 0

    def number(self) -> int:
        self.handled.append(0)
        return len(self.handled) - 1

    def what(self) -> What:
        if self.chance.random() < 0.97:
            return ""
        return self.chance.choice(["sleep", "sleep", "fail", "forward", "forward", "stash", "unstash", "leave"])

    def someone(self) -> AgentRef[Any]:
        return self.runtime.ref(self.chance.choice([*self.makers, "nobody"]))

    async def tell(self, ref: AgentRef[Any], what: What) -> None:
        number = self.number()
        try:
            await ref.tell(Work(number, what))
        except BaseException:  # whatever it is, the message was not sent
            self.refused += 1
            raise

    def check(self) -> None:
        """No message was handled twice, and as many as the node says."""
        assert max(self.handled, default=0) <= 1
        assert sum(self.handled) == self.runtime.handled_so_far()

    def check_tells(self) -> None:
        """None is unaccounted for; an ask that was refused would be an error and no dead letter."""
        self.check()
        runtime = self.runtime
        accounted = runtime.handled_so_far() + len(runtime.dead_letters) + runtime.withdrawn + runtime.queued()
        assert accounted == len(self.handled) - self.refused


@agent
class Plain:
    ledger: Ledger

    @on(Work)
    async def work(self, message: Work, context: Context) -> None:
        await self.do(message.what, context)
        self.ledger.handled[message.number] += 1

    @on(Question)
    async def answer(self, message: Question, context: Context) -> int:
        await self.do(message.what, context)
        self.ledger.handled[message.number] += 1
        return message.number

    async def do(self, what: What, context: Context) -> None:
        match what:
            case "sleep":
                await trio.sleep(self.ledger.chance.random())
            case "fail":
                raise ValueError
            case "forward":
                await self.ledger.tell(self.ledger.someone(), "")
            case "stash":
                if self.ledger.chance.random() < 0.5:
                    context.stash()
            case "unstash":
                context.unstash_all()
            case "leave":
                context.stop()
            case "":
                pass


@agent(concurrency=4, restart="permanent")
class Crowd(Plain):
    pass


@agent(mailbox=Mailbox(8, overflow="drop_oldest"))
class Forgetful(Plain):
    pass


@agent(mailbox=Mailbox(8, overflow="drop_newest"), restart="temporary")
class Deaf(Plain):
    pass


@agent(mailbox=Mailbox(16, overflow="fail"), idle_after=0.5)
class Strict(Plain):
    async def on_stop(self, context: Context) -> None:
        await trio.sleep(0.1)


KINDS = (Plain, Crowd, Forgetful, Deaf, Strict)


def populate(ledger: Ledger) -> None:
    """Spawn agents alone, in supervisors and in a pool, and note how to make those again that end for good."""
    runtime, makers = ledger.runtime, ledger.makers
    groups: dict[Strategy, tuple[type[Plain], ...]] = {"one_for_all": KINDS[:2], "rest_for_one": KINDS[2:]}
    for strategy, kinds in groups.items():
        runtime.start(supervise(*(partial(kind, ledger) for kind in kinds), strategy=strategy, max_restarts=20))
    makers.update({cell.name: partial(type(cell.instance), ledger) for cell in runtime.cells()})
    for kind, number in itertools.product(KINDS, range(2)):
        makers[f"alone_{kind.__name__}_{number}"] = partial(kind, ledger)
    makers["pool"] = pool(partial(Plain, ledger), 3)
    revive(ledger)


def revive(ledger: Ledger) -> None:
    for name, maker in ledger.makers.items():
        if ledger.runtime.find(name) is None:
            ledger.runtime.spawn(maker, name)


async def kill_at_random(ledger: Ledger, check: Callable[[], None]) -> None:
    """Stop an agent, look at the books while nothing runs, and make again what has ended."""
    while True:
        await trio.sleep(ledger.chance.random() * 0.2)
        ledger.someone().stop()
        await trio.testing.wait_all_tasks_blocked()
        check()
        revive(ledger)


async def tell_many(ledger: Ledger, number: int) -> None:
    for _ in range(number):
        if ledger.chance.random() < 0.02:
            revive(ledger)
        patience = ledger.chance.choice((0.0, 0.1)) if ledger.chance.random() < 0.01 else float("inf")
        with trio.move_on_after(patience):
            try:
                await ledger.tell(ledger.someone(), ledger.what())
            except MailboxFull:
                await trio.lowlevel.checkpoint()


async def ask_many(ledger: Ledger, number: int, outcomes: Counter[str]) -> None:
    for _ in range(number):
        question = Question(ledger.number(), ledger.what())
        end = "withdrawn"
        with trio.move_on_after(ledger.chance.choice((0.0, 0.3, 100.0))) as scope:
            try:
                assert await ledger.someone().ask(question) == question.number
                end = "answered"
            except (DeliveryError, trio.TooSlowError) as error:
                end = type(error).__name__
        assert scope.cancelled_caught == (end == "withdrawn")
        outcomes[end] += 1
        if end not in ("withdrawn", "TooSlowError"):  # of those the asker knows no more than their deadline
            assert ledger.handled[question.number] == (end == "answered")


@pytest.mark.scale
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_million_messages_to_agents_killed_and_restarted_at_random_are_each_accounted_for_once(seed: int) -> None:
    ledger = Ledger(random.Random(seed))

    async def main() -> None:
        async with open_runtime(grace=0.3) as runtime:
            ledger.runtime = runtime
            populate(ledger)
            async with trio.open_nursery() as killing:
                killing.start_soon(kill_at_random, ledger, ledger.check_tells)
                for _ in range(ROUNDS):
                    async with trio.open_nursery() as telling:
                        for _ in range(SENDERS):
                            telling.start_soon(tell_many, ledger, MESSAGES // RUNS // ROUNDS // SENDERS)
                    await trio.testing.wait_all_tasks_blocked()
                    ledger.check_tells()
                killing.cancel_scope.cancel()
            await ledger.tell(runtime.ref("pool"), "sleep")
            await trio.testing.wait_all_tasks_blocked()
            assert runtime.queued() > 0, "the drain has nothing to do"
        assert runtime.queued() == 0
        ledger.check_tells()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    letters = ledger.runtime.dead_letters.counts()
    print(len(ledger.handled), sum(ledger.handled), letters, ledger.runtime.failures)  # noqa: T201 - for -rP
    assert len(ledger.handled) >= MESSAGES // RUNS
    assert sum(ledger.handled) > len(ledger.handled) // 4
    assert {"failed", "overloaded", "stopped", "unknown agent"} == set(letters)


def test_each_ask_to_agents_killed_and_restarted_at_random_has_one_end_and_the_books_agree_with_it() -> None:
    ledger, outcomes = Ledger(random.Random(0)), Counter[str]()

    async def main() -> None:
        async with open_runtime(grace=0.3, ask_limit=5) as runtime:
            ledger.runtime = runtime
            populate(ledger)
            async with trio.open_nursery() as killing:
                killing.start_soon(kill_at_random, ledger, ledger.check)
                async with trio.open_nursery() as asking:
                    for _ in range(SENDERS):
                        asking.start_soon(ask_many, ledger, ASKS // SENDERS, outcomes)
                killing.cancel_scope.cancel()
        assert runtime.queued() == 0
        ledger.check()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    print(outcomes)  # noqa: T201 - as above
    assert outcomes.total() == ASKS
    assert outcomes["answered"] > ASKS // 4
    assert {"HandlerFailed", "NotDelivered", "Overloaded", "withdrawn"} <= set(outcomes)


@agent
class Slow:
    @on(Work)
    async def work(self, message: Work) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(message.number)

    @on(Question)
    def answer(self, message: Question) -> int:
        return message.number


async def test_what_is_told_to_a_pool_whose_last_agents_are_stopping_is_in_a_dead_letter(
    autojump_clock: object,
) -> None:
    async with open_runtime() as runtime:
        slow = runtime.spawn(pool(Slow, 2), "slow")
        for seconds in (1, 3):
            slow.tell_nowait(Work(seconds, ""))
        await trio.testing.wait_all_tasks_blocked()
        slow.stop()
        await trio.sleep(2)
        assert runtime.find("slow") is not None
        for _ in range(4):
            slow.tell_nowait(Work(0, ""))
        assert len(runtime.dead_letters) + runtime.handled_so_far() + runtime.queued() == 6


async def test_an_ask_whose_agent_ends_before_it_is_put_into_the_mailbox_is_not_delivered(
    autojump_clock: object,
) -> None:
    """One ask in 64 lets others run between finding the agent and sending; which of two runs first is chance."""
    async with open_runtime() as runtime:
        for _ in range(16 * SENDS_PER_CHECKPOINT):
            slow = runtime.spawn(Slow, "slow")
            await slow.tell(Work(0, ""))
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end_of_ask, slow)
                nursery.start_soon(stop, slow)
            await slow.stopped()


async def end_of_ask(ref: AgentRef[Any]) -> None:
    started = trio.current_time()
    with contextlib.suppress(NotDelivered):
        assert await ref.ask(Question(2, "")) == 2
    assert trio.current_time() == started


async def stop(ref: AgentRef[Any]) -> None:
    ref.stop()
