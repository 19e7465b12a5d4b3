"""What a test node promises: failures are seen, dead letters are a list, and failures come when a test wants them."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import structlog
import trio
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from autonomy_trio import Context, DeadLetter, Request, Stream, agent, current_node, on, pool, supervise
from autonomy_trio.actors.interceptors import Intercepted
from autonomy_trio.errors import HandlerFailed, OutcomeUnknown, Overloaded, UsageError
from autonomy_trio.testing import Injected, TestNode, open_test_node
from autonomy_trio.testing.node import MOST_FAILURES


@frozen
class Add(Request[int]):
    amount: int = 1


@frozen
class Note:
    text: str


@frozen
class Hold(Request[None]):
    seconds: float


@agent
class Counter:
    total: int = 0

    @on(Add)
    async def add(self, message: Add) -> int:
        if message.amount < 0:
            raise ValueError(message.amount)
        self.total += message.amount
        return self.total

    @on(Hold)
    async def hold(self, message: Hold) -> None:
        await trio.sleep(message.seconds)


@agent
class Plain:
    threads: list[int] = field(factory=list[int])

    @on(Note)
    def note(self, message: Note) -> None:
        raise ValueError(message.text)


async def test_an_agent_that_fails_fails_the_test_and_says_why() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="-1"), match=r"counter failed on Add: ValueError\(-1\)"):
        async with open_test_node([Counter]) as node:
            await node.ref("counter").tell(Add(-1))


async def test_what_the_block_raises_itself_goes_on_with_a_note_that_says_what_failed() -> None:
    with pytest.raises(HandlerFailed) as caught:
        async with open_test_node([Counter]) as node:
            await node.ref("counter", Counter).ask(Add(-1))
    (note,) = caught.value.__notes__
    assert note.startswith("counter failed on Add: ValueError(-1)\nTraceback")
    assert "raise ValueError(message.amount)" in note


async def test_a_failure_in_a_hook_a_background_task_and_a_plain_handler_is_one_too() -> None:
    @agent
    class Starts:
        async def on_start(self, context: Context) -> None:
            raise OSError("start")

    @agent
    class Stops:
        async def on_start(self, context: Context) -> None:
            pass

        async def on_stop(self, context: Context) -> None:
            raise OSError("stop")

    @agent(restart="temporary")
    class Works:
        async def on_start(self, context: Context) -> None:
            context.start_soon(self.work)

        async def work(self) -> None:
            raise OSError("work")

    async with open_test_node([Starts, Stops, Works, Plain], expected=(OSError, ValueError)) as node:
        await node.ref("plain").tell(Note("plain"))
        await trio.testing.wait_all_tasks_blocked()
    assert {str(each.error) for each in node.failures} == {"start", "stop", "work", "plain"}
    assert {each.agent for each in node.failures} == {"starts", "stops", "works", "plain"}
    assert [each.message for each in node.failures if each.agent == "plain"] == [Note("plain")]


async def test_expected_failures_are_listed_and_fail_no_test() -> None:
    async with open_test_node([Counter], expected=ValueError) as node:
        with pytest.raises(HandlerFailed):
            await node.ref("counter", Counter).ask(Add(-1))
        (failure,) = node.failures
    assert (failure.agent, failure.message, str(failure.error)) == ("counter", Add(-1), "-1")
    assert str(failure) == "counter failed on Add: ValueError(-1)"


async def test_an_error_of_another_class_is_not_expected() -> None:
    with pytest.RaisesGroup(ValueError):
        async with open_test_node([Counter], expected=OSError) as node:
            await node.ref("counter").tell(Add(-1))


async def test_failures_are_bounded(autojump_clock: MockClock) -> None:
    many = MOST_FAILURES + 10

    async with open_test_node([supervise(Counter, max_restarts=many)], expected=ValueError) as node:
        for _ in range(many):
            await node.ref("counter").tell(Add(-1))
    assert node.node.statistics().failures == many
    assert len(node.failures) == MOST_FAILURES


async def test_a_cancelled_block_is_no_failure() -> None:
    with trio.CancelScope() as scope:
        async with open_test_node([Counter]) as node:
            await node.ref("counter").tell(Add(-1))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert len(node.failures) == 1


async def test_it_opens_no_socket_and_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(trio.socket, "socket", refuse)
    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    threads = threading.active_count()
    async with open_test_node([Counter]) as node:
        assert await node.ref("counter", Counter).ask(Add(2)) == 2
        assert threading.active_count() == threads


async def test_code_in_its_agents_finds_the_node() -> None:
    @agent
    class Asks:
        @on(Note)
        async def note(self, message: Note) -> None:
            assert current_node() is nodes[0]

    nodes = []
    async with open_test_node([Asks]) as node:
        nodes.append(node.node)
        await node.ref("asks").tell(Note(""))
    assert node.statistics().handled == 1


def test_without_a_test_runner_an_hour_takes_no_time() -> None:
    async def main() -> float:
        async with open_test_node([Counter], ask_limit=100_000) as node:
            await node.ref("counter", Counter).ask(Hold(3_600))
            return trio.current_time()

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) >= 3_600


async def test_credentials_expire_in_virtual_time(autojump_clock: MockClock) -> None:
    async with open_test_node() as node:
        credential = node.issue(node.identifier, validity=60, team="payments")
        node.add_credential(credential)
        await trio.sleep(61)
        with pytest.raises(Exception, match="expired"):
            node.add_credential(credential)


async def test_dead_letters_are_a_list() -> None:
    async with open_test_node([Counter]) as node:
        assert node.dead_letters == []
        await node.ref("nobody").tell(Note("lost"))
        assert node.dead_letters == [DeadLetter("nobody", "Note", "node", "unknown agent")]


async def test_dead_letters_are_bounded() -> None:
    async with open_test_node() as node:
        for _ in range(1_010):
            await node.ref("nobody").tell(Note("lost"))
        assert len(node.dead_letters) == 1_000


async def test_own_interceptors_see_what_is_injected() -> None:
    seen: list[str] = []

    async def interceptor(delivery: Intercepted, proceed: Callable[[], Awaitable[object]], /) -> object:
        try:
            return await proceed()
        except ValueError as error:
            seen.append(f"{delivery.recipient}: {error}")
            raise

    async with open_test_node([Counter], interceptors=[interceptor]) as node:
        counter = node.ref("counter", Counter)
        node.fail_next(counter, ValueError("injected"))
        with pytest.raises(HandlerFailed):
            await counter.ask(Add())
    assert seen == ["counter: injected"]


async def test_the_next_call_fails_and_its_agent_begins_anew() -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        assert await counter.ask(Add()) == 1
        error = OSError("no disk")
        node.fail_next(counter, error)
        with pytest.raises(HandlerFailed):
            await counter.ask(Add())
        assert await counter.ask(Add()) == 1
        assert [each.error for each in node.failures] == [error]


async def test_only_calls_of_the_named_message_are_injected() -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        node.fail_next(counter, OSError(), message=Hold)
        assert await counter.ask(Add()) == 1
        with pytest.raises(HandlerFailed):
            await counter.ask(Hold(0))


async def test_what_is_planned_happens_in_its_order() -> None:
    async with open_test_node([Counter], expected=()) as node:
        counter = node.ref("counter", Counter)
        for text in ("first", "second"):
            node.fail_next(counter, OSError(text))
        for _ in range(2):
            with pytest.raises(HandlerFailed):
                await counter.ask(Add())
        assert [str(each.error) for each in node.failures] == ["first", "second"]


async def test_an_agent_that_is_not_there_yet_can_be_injected() -> None:
    async with open_test_node() as node:
        node.fail_next(node.ref("counter"), OSError())
        counter = node.spawn(Counter)
        with pytest.raises(HandlerFailed):
            await counter.ask(Add())


async def test_the_next_call_to_a_pool_fails_once() -> None:
    async with open_test_node() as node:
        workers = node.spawn(pool(Counter, 2), name="workers")
        node.fail_next(workers, OSError())
        with pytest.raises(HandlerFailed):
            await workers.ask(Add())
        assert {await workers.ask(Add()) for _ in range(3)} <= {1, 2, 3}


async def test_the_next_call_is_delayed(autojump_clock: MockClock) -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        node.delay_next(counter, 7)
        began = trio.current_time()
        assert await counter.ask(Add()) == 1
        assert trio.current_time() - began == pytest.approx(7)
        assert await counter.ask(Add()) == 2
        assert trio.current_time() - began == pytest.approx(7)


@pytest.mark.parametrize("after", [0, 5])
async def test_an_agent_is_killed_in_its_next_call(autojump_clock: MockClock, after: float) -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        assert await counter.ask(Add()) == 1
        node.kill_next(counter, after=after)
        began = trio.current_time()
        with pytest.raises(HandlerFailed, match="restarted while it handled Hold"):
            await counter.ask(Hold(20))
        assert trio.current_time() - began == pytest.approx(after)
        assert await counter.ask(Add()) == 1
        assert [type(each.error) for each in node.failures] == [Injected]


async def test_a_call_that_ends_before_its_agent_is_killed_is_spared(autojump_clock: MockClock) -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        node.kill_next(counter, after=5)
        await counter.ask(Hold(1))
        await trio.sleep(10)
        assert node.failures == []


async def test_an_agent_at_rest_can_be_killed_and_begins_anew() -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        node.kill(counter)
        assert await counter.ask(Add()) == 1
        assert [str(each) for each in node.failures] == ["counter failed: Injected('counter was killed')"]


async def test_killing_an_agent_too_often_stops_it_for_good(autojump_clock: MockClock) -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        for _ in range(4):
            node.kill(counter)
            await trio.sleep(0.1)
        await counter.stopped()
        with pytest.raises(UsageError, match="counter cannot be killed"):
            node.kill(counter)


async def test_killing_a_pool_kills_each_of_its_agents() -> None:
    async with open_test_node() as node:
        workers = node.spawn(pool(Counter, 3), name="workers")
        node.kill(workers)
        assert [each.agent for each in node.failures] == ["workers/0", "workers/1", "workers/2"]


async def disturbed(seed: int, messages: int = 60) -> tuple[list[str], list[str]]:
    """What happens to two agents, whatever order they run in."""

    async def drive(node: TestNode, name: str, outcomes: list[str]) -> None:
        counter = node.ref(name, Counter)
        for _ in range(messages):
            began = trio.current_time()
            try:
                await counter.ask(Hold(0.5))
                outcomes.append(f"handled after {trio.current_time() - began:.6f}")
            except HandlerFailed:
                outcomes.append(f"failed after {trio.current_time() - began:.6f}")

    entries = [supervise(Counter, max_restarts=1_000)]
    first: list[str] = []
    second: list[str] = []
    async with open_test_node(entries) as node, trio.open_nursery() as nursery:
        node.spawn(Counter, name="other")
        node.disturb(seed, fail=0.2, kill=0.2, delay=0.3, agents=[node.ref("counter")])
        nursery.start_soon(drive, node, "counter", first)
        nursery.start_soon(drive, node, "other", second)
    return first, second


@settings(max_examples=20)
@given(st.integers())
def test_what_happens_by_chance_is_the_same_for_a_seed(seed: int) -> None:
    def run() -> tuple[list[str], list[str]]:
        return trio.run(disturbed, seed, clock=MockClock(autojump_threshold=0))

    (first, other), (again, _) = run(), run()
    assert first == again
    assert set(other) == {"handled after 0.500000"}


async def test_chance_fails_kills_and_delays_about_as_often_as_asked(autojump_clock: MockClock) -> None:
    outcomes, _ = await disturbed(1, messages=300)
    assert 60 < sum(each.startswith("failed") for each in outcomes) < 130
    assert "failed after 0.000000" in outcomes
    assert "handled after 0.500000" in outcomes
    assert len(set(outcomes)) > 50


async def test_what_happened_by_chance_can_be_ended() -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        node.disturb(1, fail=1)
        with pytest.raises(HandlerFailed):
            await counter.ask(Add())
        node.disturb(1)
        assert await counter.ask(Add()) == 1


@pytest.mark.parametrize("chances", [{"fail": 1.1}, {"kill": -0.1}, {"delay": float("nan")}])
async def test_what_is_no_chance_is_refused(chances: dict[str, float]) -> None:
    async with open_test_node() as node:
        with pytest.raises(UsageError, match="give a number from 0 to 1"):
            node.disturb(1, **chances)


async def test_what_no_code_of_a_user_raised_is_logged_without_the_frames_of_the_runtime() -> None:
    with structlog.testing.capture_logs() as lines:
        async with open_test_node([Counter]) as node:
            node.fail_next(node.ref("counter"), OSError("no disk"))
            await node.ref("counter").tell(Add())
    (line,) = [line for line in lines if line["event"] == "agent failed"]
    assert str(line["exc_info"]) == "no disk"
    assert line["exc_info"].__traceback__ is None


async def test_a_failure_is_a_value() -> None:
    async with open_test_node([Counter], expected=ValueError) as node:
        await node.ref("counter").tell(Add(-1))
    (failure,) = node.failures
    assert failure == attrs.evolve(failure)


@frozen
class Numbers(Stream[int]):
    pass


@agent
class Counts:
    @on(Numbers)
    async def numbers(self, message: Numbers) -> AsyncIterator[int]:
        yield 1
        await trio.sleep(60)
        yield 2


async def test_what_is_injected_into_a_stream_happens_at_its_opening(autojump_clock: MockClock) -> None:
    async with open_test_node([Counts]) as node:
        counts = node.ref("counts", Counts)
        node.fail_next(counts, OSError())
        async with counts.stream(Numbers()) as items:
            with pytest.raises(HandlerFailed):
                await anext(items)
        node.delay_next(counts, 5)
        began = trio.current_time()
        async with counts.stream(Numbers()) as items:
            assert await anext(items) == 1
            assert trio.current_time() - began == pytest.approx(5)
            node.kill(counts)
            with pytest.raises(OutcomeUnknown):
                await anext(items)
        assert len(node.failures) == 2


async def test_an_injected_refusal_fails_nobody() -> None:
    async with open_test_node([Counter]) as node:
        counter = node.ref("counter", Counter)
        node.fail_next(counter, Overloaded("injected"))
        with pytest.raises(Overloaded, match="injected"):
            await counter.ask(Add())
        assert node.failures == []
