"""What type checkers must accept and infer where agents run: `open_node`, `spawn`, `Context`, interceptors."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, assert_type

import trio

from autonomy_trio import (
    AgentRef,
    App,
    Context,
    DeadLetter,
    Node,
    Sender,
    agent,
    current_node,
    on,
    open_node,
    pool,
    supervise,
)
from autonomy_trio.actors.belongings import Timer
from autonomy_trio.actors.dead_letters import Reason
from autonomy_trio.actors.interceptors import Intercepted
from autonomy_trio.fabric.node import NodeStatistics
from tests.typing.vocabulary import Add, Client, Counter, Note, Total


async def nodes() -> None:
    async with open_node() as node:
        assert_type(node, Node)
    async with open_node([Counter]) as node:
        assert_type(node.identifier, str)
    async with open_node([Counter, pool(Counter, 2), supervise(Counter, Counter), functools.partial(Counter, total=3)]):
        pass
    async with open_node(relay="ws://127.0.0.1:4000", home="alice", credentials=[Path("payments")]):
        pass
    async with open_node(relay=["ws://127.0.0.1:4000"], listen="127.0.0.1:0", home=Path("alice"), anchors="a.toml"):
        pass
    async with open_node(ask_limit=5, grace=1.0, interceptors=[timed, anything], now=lambda: 3.0):
        pass


agents: App = [Counter, supervise(Counter, pool(Counter, 2)), functools.partial(Counter, total=3)]


async def an_app_with_a_name() -> None:
    async with open_node(agents):
        pass
    async with open_node([*agents, Counter]):
        pass


async def timed(delivery: Intercepted, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any reply
    assert_type(delivery.recipient, str)
    assert_type(delivery.sender, Sender)
    assert_type(delivery.deadline, float)
    return await proceed()


async def anything(delivery: object, proceed: Callable[[], Awaitable[object]]) -> object:
    return await proceed()


def spawns(node: Node, counter: AgentRef[Counter]) -> None:
    assert_type(node.spawn(Counter), AgentRef[Counter])
    assert_type(node.spawn(Counter, name="counter"), AgentRef[Counter])
    assert_type(node.spawn(functools.partial(Counter, total=3)), AgentRef[Counter])
    assert_type(node.spawn(functools.partial(Client, counter)), AgentRef[Client])
    assert_type(node.spawn(lambda: Client(counter)), AgentRef[Client])
    assert_type(node.spawn(pool(Counter, 4), name="counters"), AgentRef[Counter])
    assert_type(node.spawn(pool(lambda: Client(counter), 4)), AgentRef[Client])


def supervisors() -> None:
    supervise(Counter)
    supervise(Counter, pool(Counter, 2), supervise(Counter, strategy="one_for_all"), strategy="rest_for_one")
    supervise(functools.partial(Counter, total=3), max_restarts=0, within=1, backoff=(0.1, 30))


@agent
class Busy:
    timer: Timer | None = None

    async def on_start(self, context: Context) -> None:
        assert_type(context.self, AgentRef[Any])
        assert_type(context.after(1, Note("once")), Timer)
        self.timer = context.every(0.5, Note("again"))
        assert_type(self.timer.cancel(), None)
        assert_type(self.timer.when, float)
        assert_type(self.timer.active, bool)
        context.subscribe("#prices")
        context.unsubscribe("#prices")
        context.start_soon(self.work, 3, "a")
        context.start_soon(trio.sleep, 1)
        context.start_soon(trio.sleep_forever)
        await context.start(self.serve)

    async def work(self, number: int, text: str) -> None:
        pass

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(4000)

    @on(Note)
    async def note(self, message: Note, context: Context) -> None:
        assert_type(context.sender, Sender)
        assert_type(context.sender.id, str)
        assert_type(context.sender.node, str)
        assert_type(context.sender.is_local, bool)
        assert_type(context.sender.attributes, Mapping[str, str | int | bool | frozenset[str]])
        assert_type(context.deadline, float)
        context.log.info("noted", text=message.text)
        child = context.spawn(Counter, name="child")
        assert_type(child, AgentRef[Counter])
        assert_type(await child.ask(Add(3)), Total)
        assert_type(context.spawn(pool(Counter, 2)), AgentRef[Counter])
        assert_type(context.ref("counter", Counter), AgentRef[Counter])
        assert_type(context.ref("counter"), AgentRef[Any])
        context.watch(child)
        context.unwatch(child)
        assert_type(context.publish("#prices", Note("published")), None)
        context.unstash_all()
        context.stop()

    @on(Add)
    def add(self, message: Add, context: Context) -> Total:
        context.stash()


async def what_a_node_tells(node: Node) -> None:
    assert_type(node.statistics(), NodeStatistics)
    assert_type(node.statistics().troubled, Mapping[str, str])
    assert_type(node.dead_letters.counts(), Mapping[Reason, int])
    assert_type(node.dead_letters.latest(), DeadLetter)
    assert_type([letter.recipient for letter in node.dead_letters], list[str])
    assert_type(node.address("counter"), str)
    assert_type(node.issue("I…", validity=60, team="payments", level=3, admin=True), str)
    assert_type(current_node(), Node)
    node.publish("#prices", Note("published"))
    await node.flush()
    await node.serve_forever()
