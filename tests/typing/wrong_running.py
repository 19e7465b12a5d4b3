"""What type checkers must refuse where agents run."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import trio

from autonomy_trio import AgentRef, App, Context, Node, open_node, pool, supervise
from autonomy_trio.actors.interceptors import Intercepted
from tests.typing.vocabulary import Client, Counter, Note, Total


async def nodes() -> None:
    with open_node() as node:  # type: ignore[attr-defined] # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        del node
    open_node([3])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    open_node(Counter)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node([Client])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    open_node([Counter()])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    open_node(relay=4000)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(listen=4000)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(home=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(credentials=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(ask_limit="30")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(grace=None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(name="node")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    open_node([Counter], "ws://127.0.0.1:4000")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    open_node(now=3.0)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(interceptors=timed)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    open_node(interceptors=[plain])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    open_node(interceptors=[without_proceed])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    open_node(interceptors=[of_notes])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


unsound: App = [Counter, supervise(Counter), 3]  # type: ignore[list-item] # pyright: ignore[reportAssignmentType]
unbuilt: App = [Counter, supervise(Counter), Client]  # type: ignore[list-item] # pyright: ignore[reportAssignmentType]


async def timed(delivery: Intercepted, proceed: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - any reply
    delivery.recipient = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    assert delivery.reply  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    await proceed  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
    return await proceed()


def plain(delivery: Intercepted, proceed: Callable[[], Awaitable[Any]]) -> None:
    pass


async def without_proceed(delivery: Intercepted) -> None:
    pass


async def of_notes(delivery: Note, proceed: Callable[[], Awaitable[Any]]) -> None:
    pass


def spawns(node: Node, counter: AgentRef[Counter]) -> None:
    other: AgentRef[Total] = node.spawn(Counter)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    pooled: AgentRef[Total] = node.spawn(pool(Counter, 2))  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    node.spawn(Counter())  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    node.spawn(Client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
    node.spawn(Client, counter)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    node.spawn(Counter, name=3)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    node.spawn(supervise(Counter))  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    node.spawn("counter")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    node.spawn(lambda: Client(3))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    node.spawn()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    Node()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    del other, pooled


def supervisors() -> None:
    pool(Counter)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    pool(Counter, "4")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pool(Counter(), 4)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    pool(Client, 4)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise([Counter])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter, strategy="all")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter, max_restarts="3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter, within=None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter, backoff=0.1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter, backoff=(0.1, 1, 30))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    supervise(Counter, restart="permanent")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


class Busy:
    async def work(self, number: int, text: str) -> None:
        pass

    def plain(self) -> None:
        pass

    async def handler(self, context: Context, node: Node) -> None:
        other: AgentRef[Client] = context.self.name  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
        number: int = context.sender.id  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
        context.sender.id = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
        assert context.sender.team  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        context.deadline = 3.0  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
        assert context.deadline.seconds  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        child: AgentRef[Client] = context.spawn(Counter)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
        context.spawn(Client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
        context.spawn(Counter, 3)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
        ref: AgentRef[Client] = context.ref("counter", Counter)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
        context.ref(Counter)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
        context.watch("counter")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.watch(Counter)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.unwatch("counter")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.after("1", Note("once"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.after(Note("once"), 1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.after(1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        context.every(1, Note("again")).stop()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        await context.after(1, Note("once"))  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]
        await context.publish("#prices", Note("published"))  # type: ignore[func-returns-value, misc] # pyright: ignore[reportGeneralTypeIssues]
        context.publish(Note("published"))  # type: ignore[arg-type, call-arg] # pyright: ignore[reportCallIssue]
        context.publish(3, Note("published"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.subscribe(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.stop(3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        context.tell(Note("to whom"))  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        context.start_soon(self.work, "a", 3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.start_soon(self.work, 3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.start_soon(self.work(3, "a"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.start_soon(self.plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        context.start_soon(trio.sleep)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        await context.start(self.plain)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        Context()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
        reason: Literal["forgotten"] = node.dead_letters.latest().reason  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
        node.issue("I…", validity="60")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        node.issue("I…", team=3.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        node.statistics().agents = 3  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
        del other, number, child, ref, reason
