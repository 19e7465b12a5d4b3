"""What those who use a node are told when its process is lost: killed, and stopped as it should be."""

import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Node, Request, agent, on, open_node
from autonomy_trio.actors.cell import Cell
from autonomy_trio.errors import NotDelivered, OutcomeUnknown
from tests.cli.conftest import credential_for
from tests.support.app import Counter, Hold, Meter, Tick
from tests.support.processes import PATIENCE, Process, environment, free_port, serving_node


@frozen
class See(Request[None]):
    ref: AgentRef[Counter]


@agent
class Watcher:
    downs: list[Down] = field(factory=list[Down])

    @on(See)
    async def see(self, message: See, context: Context) -> None:
        context.watch(message.ref)

    @on(Down)
    def down(self, message: Down) -> None:
        self.downs.append(message)


@attrs.define
class Losing:
    """A node in this process that waits for one in another."""

    process: Process
    node: Node
    counter: AgentRef[Counter]
    meter: AgentRef[Meter]
    ended: list[type[Exception]] = attrs.field(factory=list[type[Exception]])

    @property
    def downs(self) -> list[Down]:
        cell = self.node._runtime.find("watcher")
        assert isinstance(cell, Cell)
        return list(cell.instance.downs)

    async def ask(self) -> None:
        try:
            with trio.fail_after(10 * PATIENCE):
                await self.counter.ask(Hold(10 * PATIENCE))
        except (OutcomeUnknown, NotDelivered) as error:
            self.ended.append(type(error))

    async def read(self, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with self.meter.stream(Tick("until it is lost")) as ticks:
                await anext(ticks)
                await anext(ticks)
                task_status.started()
                await anext(ticks)
        except (OutcomeUnknown, NotDelivered) as error:
            self.ended.append(type(error))


@asynccontextmanager
async def losing(tmp_path: Path) -> AsyncGenerator[Losing]:
    env, listen = environment(tmp_path), f"127.0.0.1:{free_port()}"
    server, alice = tmp_path / "server", tmp_path / "alice"
    (tmp_path / "payments").write_text(credential_for(alice, server))
    with Process("relay", "--listen", listen, "--home", str(tmp_path / "relay"), env=env) as relay:
        await trio.to_thread.run_sync(relay.wait_line, "to pin it")
        options = ("tests.support.app:agents", "--relay", f"ws://{listen}", "--home", str(server))
        with serving_node(*options, env=env) as (process, address):
            async with open_node(
                [Watcher], relay=f"ws://{listen}", home=alice, credentials=[tmp_path / "payments"]
            ) as node:
                counter = node.ref(address, Counter)
                meter = node.ref(address.replace("/counter", "/meter"), Meter)
                yield Losing(process, node, counter, meter)


async def until(condition: Callable[[], bool], patience: float) -> None:
    with trio.fail_after(patience):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.05)


async def lose(scene: Losing, how: Callable[[], None], patience: float) -> float:
    """Have an ask, a stream and a watch open, lose the process, and return in how many seconds all were told."""
    async with trio.open_nursery() as nursery:
        await scene.node.ref("watcher", Watcher).ask(See(scene.counter))
        nursery.start_soon(scene.ask)
        await trio.to_thread.run_sync(scene.process.wait_line, "holding")
        await nursery.start(scene.read)
        began = trio.current_time()
        await trio.to_thread.run_sync(how)
        await until(lambda: len(scene.downs) == 1 and len(scene.ended) == 2, patience)
        took = trio.current_time() - began
    assert scene.ended == [OutcomeUnknown] * 2
    return took


async def test_a_node_that_is_killed_is_down_and_its_asks_and_streams_end(tmp_path: Path) -> None:
    async with losing(tmp_path) as scene:
        before = trio.lowlevel.current_statistics().tasks_living
        took = await lose(scene, scene.process.kill, PATIENCE)
        print(f"told {took:.1f} s after a kill -9; what was promised is 30")  # noqa: T201 - measured
        assert [down.reason for down in scene.downs] == ["node lost"]
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before, PATIENCE)
        assert scene.node.statistics().peers == 0


async def test_a_node_that_stops_is_down_at_once(tmp_path: Path) -> None:
    async with losing(tmp_path) as scene:
        took = await lose(scene, lambda: scene.process.signal(signal.SIGTERM), PATIENCE)
        print(f"told {took:.1f} s after SIGTERM")  # noqa: T201 - measured
        assert took < 20, "its grace is 5 s, and nobody waits for silence"
        assert scene.downs[0].reason in ("stopped", "node lost")
