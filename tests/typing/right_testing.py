"""What type checkers must keep accepting of `autonomy_trio.testing`."""

from typing import Any, assert_type

from attrs import frozen

from autonomy_trio import AgentRef, Node, Request, Stream, agent, on
from autonomy_trio.testing import Probe, Script, TestFabric, TestNode, open_test_fabric, open_test_node


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Watch(Stream[int]):
    pass


@frozen
class Note:
    text: str


@agent
class Counter:
    @on(Note)
    def note(self, message: Note) -> None: ...


@frozen
class Introduce:
    counter: AgentRef[Counter]


async def slowly(message: Add) -> Total:
    return Total(message.amount)


async def probes(probe: Probe) -> None:
    assert_type(await probe.receive(Note), Note)
    assert_type(probe.on(Add), Script[Total])
    assert_type(probe.on(Watch), Script[int])
    Introduce(probe.ref)
    probe.on(Add).reply(Total(1), lambda message: Total(message.amount), slowly, ValueError("no disk"))
    probe.on(Watch).reply(1, 2, 3)


async def nodes() -> None:
    async with open_test_node([Counter], expected=(ValueError, OSError)) as node:
        assert_type(node, TestNode)
        assert_type(node.node, Node)
        assert_type(node.spawn(Counter), AgentRef[Counter])
        assert_type(node.ref("counter", Counter), AgentRef[Counter])
        assert_type(node.probe().ref, AgentRef[Any])
    async with open_test_fabric() as fabric, fabric.open_node([Counter]) as server:
        assert_type(fabric, TestFabric)
        assert_type(server, TestNode)
