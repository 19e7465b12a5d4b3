"""The memory of very many idle agents, in a process of its own: ``python -m benchmarks.resident agents 1000000``."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import click
import trio

from autonomy_trio import open_node
from benchmarks import raw
from benchmarks.agents import Idler
from benchmarks.measure import check
from benchmarks.workloads import Add

STATM: Final = Path("/proc/self/statm")

ASKED: Final = 1000
"""Of the idle agents, at most: whether they live."""


@attrs.frozen
class Memory:
    """What a process holds."""

    each: float
    """Bytes that it grew by, per agent."""
    whole: int
    """Bytes resident."""


def measure(side: str, number: int) -> Memory:
    """Start a process that makes agents, or raw tasks, and return its memory.

    Args:
        side: ``agents`` or ``raw``.
        number: of agents or tasks.
    """
    child = subprocess.run(  # noqa: S603 - this module itself
        [sys.executable, "-m", "benchmarks.resident", side, str(number)],
        check=True,
        stdout=subprocess.PIPE,
    )
    return Memory(**json.loads(child.stdout))


def is_measurable() -> bool:
    """Tell whether this system says how much of a process is resident."""
    return STATM.exists()


def _resident() -> int:
    gc.collect()
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _memory(before: int, after: int, number: int) -> Memory:
    return Memory((after - before) / number, after)


async def _agents(number: int) -> Memory:
    async with open_node() as node:
        node.spawn(Idler)
        before = _resident()
        for _ in range(number - 1):
            node.spawn(Idler)
        memory = _memory(before, _resident(), number - 1)
        check("resident agents", node.statistics().agents, number)
        for name in list(node.agents())[:: max(1, number // ASKED)]:
            reply = await node.ref(name, Idler).ask(Add(1))
            check(f"resident agent {name}", reply.value, 1)
    return memory


async def _raw(number: int) -> Memory:
    async with trio.open_nursery() as nursery:
        before = _resident()
        ends = await raw.idle(nursery, number)
        memory = _memory(before, _resident(), number)
        check("resident tasks", len(ends), number)
        nursery.cancel_scope.cancel()
    return memory


SIDES: Final[dict[str, Callable[[int], Awaitable[Memory]]]] = {"agents": _agents, "raw": _raw}


@click.command()
@click.argument("side", type=click.Choice(list(SIDES)))
@click.argument("number", type=click.IntRange(min=2))
def main(side: str, number: int) -> None:
    """Print the memory of this process with so many idle agents in it, as JSON."""
    click.echo(json.dumps(attrs.asdict(trio.run(SIDES[side], number))))


if __name__ == "__main__":
    main()
