"""nats-py at a nats-server of its own process, in plaintext: ``NATS_URL=… nats_client.py one_way|ask NUMBER``."""

import asyncio
import os
from typing import Any

import nats

from benchmarks.peers.command import cpu_time, run, verify

SIZE = 256
ASKERS = 256
URL = os.environ["NATS_URL"]


async def one_way(messages: int) -> float:
    """Publish so many to one subscriber of another connection."""
    near, far = await nats.connect(URL), await nats.connect(URL)
    received = 0
    done = asyncio.Event()

    async def count(message: Any) -> None:  # noqa: ANN401 - nats-py is not here when types are checked
        nonlocal received
        received += len(message.data) == SIZE
        if received == messages:
            done.set()

    await far.subscribe("chunks", cb=count, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await far.flush()
    with cpu_time() as spent:
        for _ in range(messages):
            await near.publish("chunks", bytes(SIZE))
        await near.flush()
        await done.wait()
    verify(received, messages)
    await near.close()
    await far.close()
    return spent.seconds


async def ask(requests: int) -> float:
    """Request so many, `ASKERS` at once, of one subscriber of another connection."""
    near, far = await nats.connect(URL), await nats.connect(URL)

    async def answer(message: Any) -> None:  # noqa: ANN401 - nats-py is not here when types are checked
        await message.respond(message.data)

    await far.subscribe("echo", cb=answer)
    await far.flush()
    answered = 0

    async def ask_in_turn() -> None:
        nonlocal answered
        for _ in range(requests // ASKERS):
            reply = await near.request("echo", bytes(SIZE), timeout=30)
            answered += len(reply.data) == SIZE

    with cpu_time() as spent:
        await asyncio.gather(*(ask_in_turn() for _ in range(ASKERS)))
    verify(answered, requests // ASKERS * ASKERS)
    await near.close()
    await far.close()
    return spent.seconds


if __name__ == "__main__":
    run(
        one_way=lambda number: asyncio.run(one_way(number)),
        ask=lambda number: asyncio.run(ask(number)),
    )
