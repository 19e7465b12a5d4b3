"""Who speaks between nodes: an agent for itself, with what it and its node have proven."""

from typing import Any

import pytest
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Down, Request, Stream, agent, on
from autonomy_trio.errors import Denied
from tests.support.net import Net, Note, Secret


@frozen
class Go(Request[None]):
    address: str


@frozen
class Count(Stream[int]):
    pass


@agent(inherit=False)
class Bridge:
    """Speaks for others, in every way there is."""

    refused: list[str] = field(factory=list[str])

    @on(Go)
    async def go(self, message: Go, context: Context) -> None:
        other: AgentRef[Any] = context.ref(message.address)
        for way in (
            lambda: other.tell(Note("hello")),
            lambda: other.tell(Note("hello"), durable=True),
            lambda: other.ask(Secret()),
        ):
            with pytest.raises(Denied, match=r"bridge speaks for itself alone \(inherit=False\).*let another agent"):
                await way()
        with pytest.raises(Denied):
            other.tell_nowait(Note("hello"))
        with pytest.raises(Denied):
            async with other.stream(Count()):
                pass
        with pytest.raises(Denied):
            context.watch(other)

    @on(Down)
    def down(self, message: Down) -> None:
        raise AssertionError


@agent
class Open:
    heard: int = 0

    @on(Note, allow="true")
    @on(Secret, allow="true")
    def hear(self, message: Note | Secret) -> int:
        self.heard += 1
        return 42


async def test_an_agent_that_inherits_nothing_sends_nothing_in_its_nodes_name(net: Net, autojump_clock: object) -> None:
    async with net.node([Open]) as server, net.node([Bridge]) as node:
        await node.ref("bridge", Bridge).ask(Go(server.address("open")))
        assert server.statistics().decoded == 0
