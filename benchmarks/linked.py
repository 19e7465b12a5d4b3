"""The network workloads as a user writes them: two nodes of this process, and the relay in another."""

import statistics
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from unittest.mock import patch

import trio
from attrs import frozen

from autonomy_trio import AgentRef, Mailbox, Request, agent, on, open_node
from autonomy_trio.fabric.peers import peer
from autonomy_trio.wire.entries import Entry
from benchmarks.measure import check, cpu_time
from benchmarks.workloads import Total

ALLOW: Final = 'principal.team == "payments"'
SIZE: Final = 256
"""Bytes of a message."""


@frozen
class Chunk:
    """What is told."""

    data: bytes


@frozen
class Echo(Request[bytes]):
    """What is asked."""

    data: bytes


@frozen
class Count(Request[Total]):
    """Asks how many chunks there were."""


CHUNK: Final = Chunk(bytes(SIZE))
ECHO: Final = Echo(bytes(SIZE))


@agent(mailbox=Mailbox(capacity=1_000_000))
class Sink:
    """Counts what it is told, and answers what it is asked, to whom its policy permits it."""

    chunks: int = 0

    @on(Chunk, allow=ALLOW)
    def chunk(self, message: Chunk) -> None:
        """Count one."""
        self.chunks += len(message.data) == SIZE

    @on(Echo, allow=ALLOW)
    def echo(self, message: Echo) -> bytes:
        """Return what was sent."""
        return message.data

    @on(Count, allow=ALLOW)
    def count(self, message: Count) -> Total:  # noqa: ARG002 - it says nothing but its type
        """Return how many there were."""
        return Total(self.chunks)


@asynccontextmanager
async def open_sink(url: str) -> AsyncGenerator[AgentRef[Sink]]:
    """Open two nodes at a relay; yield what one of them has for the agent of the other, with a session between them."""
    async with open_node([Sink], relay=url) as far, open_node(relay=url) as near:
        near.add_credential(far.issue(near.identifier, team="payments"))
        sink = near.ref(far.address("sink"), Sink)
        await sink.ask(Count())
        yield sink


async def one_way(url: str, messages: int) -> float:
    """Tell so many, and return how many arrive in a second of both nodes' CPU."""
    async with open_sink(url) as sink:
        with cpu_time() as spent:
            for _ in range(messages):
                await sink.tell(CHUNK)
            total = await sink.ask(Count())
    check("chunks over the relay", total.value, messages)
    return messages / spent.seconds


async def one_way_singly(url: str, messages: int) -> float:
    """Do the same, each message in an envelope of its own."""

    def one(waiting: deque[Entry], _: int) -> list[Entry]:
        return [waiting.popleft()]

    with patch.object(peer, "next_batch", one):
        return await one_way(url, messages)


async def ask(url: str, requests: int, askers: int) -> float:
    """Ask so many, `askers` at once, and return how many are answered in a second of both nodes' CPU."""
    async with open_sink(url) as sink:

        async def ask_in_turn() -> None:
            for _ in range(requests // askers):
                check("bytes of an answer", len(await sink.ask(ECHO)), SIZE)

        with cpu_time() as spent:
            async with trio.open_nursery() as nursery:
                for _ in range(askers):
                    nursery.start_soon(ask_in_turn)
        return requests // askers * askers / spent.seconds


async def median_ask(url: str, requests: int) -> float:
    """Ask one at a time, and return how many of the median one a second has."""
    async with open_sink(url) as sink:
        taken: list[float] = []
        for _ in range(requests):
            start = time.perf_counter()
            check("bytes of an answer", len(await sink.ask(ECHO)), SIZE)
            taken.append(time.perf_counter() - start)
    return 1 / statistics.median(taken)
