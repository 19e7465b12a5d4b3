"""One of two relays is killed, as a process, with asks and streams under way: none waits for its deadline."""

from collections import Counter
from collections.abc import AsyncIterator, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Request, Stream, agent, on, open_node
from autonomy_trio.errors import NotDelivered, OutcomeUnknown
from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.trust.records import parse_identifier
from tests.support.processes import PATIENCE, Process, environment, free_port

AT_ONCE = 50

DEADLINE = 3600.0
"""Seconds an ask may take: nothing in this test ends by that."""


@frozen
class Work(Request[int]):
    number: int


@frozen
class Ticks(Stream[int]):
    pass


@agent(concurrency=AT_ONCE)
class Worker:
    runs: Counter[int] = field(factory=Counter[int])

    @on(Work, allow="true")
    async def work(self, message: Work) -> int:
        self.runs[message.number] += 1
        await trio.sleep(message.number % 7 / 20)
        return message.number

    @on(Ticks, allow="true")
    async def ticks(self, message: Ticks) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await trio.sleep(0.01)


@contextmanager
def two_relays(folder: Path) -> Generator[dict[str, Process]]:
    """Relays as processes, by their URLs."""
    relays: dict[str, Process] = {}
    with ExitStack() as ending:
        for name in ("one", "two"):
            port = free_port()
            call = ("relay", "--listen", f"127.0.0.1:{port}", "--home", str(folder / name))
            relays[f"ws://127.0.0.1:{port}"] = ending.enter_context(Process(*call, env=environment(folder)))
        for url, relay in relays.items():
            relay.wait_line(f"relay {url}")
        yield relays


@attrs.define
class Load:
    """Asks and streams without a pause, until a relay is dead and each has gone on over the other."""

    worker: AgentRef[Worker]
    outcomes: Counter[str] = attrs.field(factory=Counter[str])
    dead: trio.Event = attrs.field(factory=trio.Event)

    async def ask(self, first: int) -> None:
        for number in range(first, first + 100_000, AT_ONCE):
            try:
                assert await self.worker.ask(Work(number)) == number
            except (OutcomeUnknown, NotDelivered) as error:
                self.outcomes[type(error).__name__] += 1
            else:
                self.outcomes["answered"] += 1
                if self.dead.is_set():
                    return

    async def read(self) -> None:
        while True:
            was_dead = self.dead.is_set()
            try:
                async with self.worker.stream(Ticks()) as ticks:
                    assert [await anext(ticks) for _ in range(20)] == list(range(20))
            except (OutcomeUnknown, NotDelivered) as error:
                self.outcomes[type(error).__name__] += 1
            else:
                if was_dead:
                    return


async def test_a_relay_that_is_killed_leaves_no_ask_and_no_stream_waiting(tmp_path: Path) -> None:
    with two_relays(tmp_path) as relays:
        urls = list(relays)
        async with open_node([Worker], relay=urls) as far, open_node(relay=urls, ask_limit=DEADLINE) as near:
            load = Load(near.ref(f"{far.identifier}/worker", Worker))
            with trio.fail_after(PATIENCE):
                assert await load.worker.ask(Work(-1)) == -1
                carrier = near._peers.sessions.peers[parse_identifier(far.identifier)].carrier
                assert isinstance(carrier, Attachment)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(load.read)
                    for first in range(AT_ONCE):
                        nursery.start_soon(load.ask, first)
                    await trio.sleep(1)  # for traffic to be under way
                    await trio.to_thread.run_sync(relays[carrier.relay.url].kill)
                    load.dead.set()
            cell = far._runtime.find("worker")
            assert cell is not None
            assert set(cell.instance.runs.values()) == {1}, f"no ask runs twice: {load.outcomes}"
