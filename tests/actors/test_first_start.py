"""How the agents of a supervisor start for the first time: one after the other, in order, as OTP's do."""

from collections.abc import Callable

import pytest
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import Context, Request, agent, on, pool, supervise
from autonomy_trio.actors.runtime import open_runtime
from autonomy_trio.actors.supervision import Strategy
from autonomy_trio.errors import NotDelivered

LOG: list[str] = []
FAILS: dict[str, int] = {}


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()
    FAILS.clear()


@frozen
class Say(Request[str]):
    text: str


@agent
class First:
    said: list[str] = field(factory=list[str])

    def __attrs_post_init__(self) -> None:
        LOG.append(f"build {type(self).__name__}")

    async def on_start(self, context: Context) -> None:
        name = context.self.name
        LOG.append(f"{name} begins")
        await trio.sleep(1)
        if FAILS.get(name, 0):
            FAILS[name] -= 1
            LOG.append(f"{name} fails")
            raise ValueError
        LOG.append(f"{name} is there")

    @on(Say)
    async def say(self, message: Say) -> str:
        self.said.append(message.text)
        return " ".join(self.said)


@agent
class Second(First):
    pass


@agent
class Third(First):
    pass


@agent
class Plain:
    @on(Say)
    def say(self, message: Say) -> str:
        return message.text


def starts() -> list[str]:
    return [line for line in LOG if not line.startswith("build")]


def in_order(*names: str) -> list[str]:
    return [line for name in names for line in (f"{name} begins", f"{name} is there")]


async def test_children_start_one_after_the_other_in_order_nested_ones_and_pools_too(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(First, supervise(pool(Second, 2), Plain), Third))
        await trio.sleep(10)
        assert starts() == in_order("first", "second/0", "second/1", "third")
        assert len(LOG) - len(starts()) == 4, "each was built once"
        assert all(cell.relations.restarts == 0 for cell in runtime.cells())


async def test_agents_without_a_supervisor_of_their_own_and_a_pool_start_side_by_side(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        runtime.spawn(First)
        runtime.spawn(pool(Second, 3))
        await trio.testing.wait_all_tasks_blocked()
        assert len(starts()) == 4


async def test_what_is_sent_to_one_that_has_not_started_waits_for_it(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second))
        await runtime.ref("second").tell(Say("early"))
        assert await runtime.ref("second").ask(Say("later")) == "early later"
        assert starts() == in_order("first", "second")


async def test_one_without_on_start_handles_nothing_before_those_before_it_have_started(
    autojump_clock: object,
) -> None:
    stopped: list[str] = []

    @agent(concurrency=2, idle_after=1)
    class Last:
        @on(Say)
        def say(self, message: Say) -> str:
            LOG.append(f"last says {message.text}")
            return message.text

        def on_stop(self, context: Context) -> None:
            stopped.append(context.self.name)

    async with open_runtime() as runtime:
        early = runtime.spawn(Last, "early")  # the next agent of its kind gets its crew
        await early.tell(Say("early"))
        await trio.sleep(5)
        runtime.start(supervise(Plain, First, pool(Last, 2)))
        start = trio.current_time()
        assert await runtime.ref("plain").ask(Say("at once")) == "at once"
        assert trio.current_time() == start
        await runtime.ref("last").tell(Say("first"))
        assert await runtime.ref("last/1").ask(Say("then")) == "then"
        await trio.testing.wait_all_tasks_blocked()
        assert starts()[:3] == ["last says early", *in_order("first")]
        assert sorted(starts()[3:]) == ["last says first", "last says then"]
        assert stopped == []
        assert all(cell.relations.restarts == 0 for cell in runtime.cells())
        await trio.sleep(200)
        assert not runtime.awake
    assert sorted(stopped) == ["early", "last/0", "last/1"]


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", ["second"]), ("rest_for_one", ["second"]), ("one_for_all", ["first", "second"])],
)
async def test_a_first_start_that_fails_is_decided_before_the_next_one_starts(
    autojump_clock: object, strategy: Strategy, restarted: list[str]
) -> None:
    FAILS["second"] = 1
    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, Third, strategy=strategy))
        await trio.sleep(20)
        failed = ["second begins", "second fails"]
        assert starts() == [*in_order("first"), *failed, *in_order(*restarted, "third")]
        assert await runtime.ref("third").ask(Say("on")) == "on"


async def test_a_nested_supervisor_has_decided_before_the_next_one_starts(autojump_clock: object) -> None:
    FAILS["second"] = 2
    async with open_runtime() as runtime:
        runtime.start(supervise(First, supervise(Second, max_restarts=1), Third, max_restarts=1))
        await trio.sleep(20)
        failed = ["second begins", "second fails"]
        assert starts() == [*in_order("first"), *failed, *failed, *in_order("second", "third")]


async def test_a_supervisor_that_gives_up_on_a_first_start_ends_those_that_never_started(
    autojump_clock: object,
) -> None:
    FAILS["second"] = 9
    answers: list[str] = []

    async def ask(name: str, build: Callable[[], str]) -> None:
        try:
            await ref.ask(Say(name))
        except NotDelivered:
            answers.append(build())

    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, Third, max_restarts=0))
        ref = runtime.ref("third")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "third", lambda: "told")
            await trio.sleep(20)
        assert answers == ["told"]
        assert "third begins" not in LOG
        assert runtime.count() == 0


async def test_one_that_was_stopped_before_its_turn_is_left_out(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second, Third))
        await trio.testing.wait_all_tasks_blocked()
        runtime.ref("second").stop()
        await trio.sleep(20)
        assert starts() == in_order("first", "third")


async def test_a_node_that_stops_meanwhile_waits_for_the_one_that_has_begun_alone(autojump_clock: object) -> None:
    async with open_runtime() as runtime:
        runtime.start(supervise(First, Second))
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
    assert trio.current_time() - start <= 2
    assert starts()[:2] == in_order("first")


async def test_an_agent_that_gets_the_crew_of_one_at_rest_starts_without_a_message(autojump_clock: object) -> None:
    @agent(concurrency=3, idle_after=1)
    class Crowd(Plain):
        pass

    @agent(concurrency=3, idle_after=1)
    class Eager(First):
        pass

    async with open_runtime() as runtime:
        crowd = runtime.spawn(Crowd)
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(crowd.tell, Say("x"))
            await trio.sleep(5)
            assert not runtime.awake
            eager = runtime.spawn(Eager, "eager")
            await trio.sleep(2)
            assert starts() == in_order("eager")
            LOG.clear()
            eager.stop()
            await eager.stopped()
