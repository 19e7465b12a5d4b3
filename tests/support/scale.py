"""Very many agents in a process of their own, which prints what it counted: ``python -m tests.support.scale resident``.

A process of its own, so that its memory is that of the agents and nothing measures along, coverage least of all.
"""

import faulthandler
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import Context, agent, on
from autonomy_trio.actors.runtime import Runtime, open_runtime
from tests.support.processes import ROOT

RESIDENT: Final = 1_000_000
AWAKE: Final = 100_000
AN_HOUR: Final = 3600.0
PATIENCE: Final = 900.0
"""Seconds that a scenario may take: far more than it needs."""


@frozen
class Tick:
    pass


@frozen
class Hold:
    pass


@agent
class Small:
    """What an application's smallest agent is."""

    told: int = 0

    @on(Tick)
    def tick(self, message: Tick) -> None:
        self.told += 1


@agent
class Sleepless:
    """One that cannot rest: it is in a handler, or holds a timer."""

    told: int = 0

    @on(Hold)
    async def hold(self, message: Hold) -> None:
        self.told += 1
        await trio.sleep_forever()

    @on(Tick)
    def tick(self, message: Tick, context: Context) -> None:
        self.told += 1
        context.after(AN_HOUR, message)


def measure(scenario: str) -> dict[str, Any]:
    """Run a scenario in a process of its own and return what it counted."""
    # What takes half a minute may take many on a busy machine: pytest's alarm for tests that hang would ring too soon.
    faulthandler.cancel_dump_traceback_later()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.scale", scenario],
        check=True,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
    )
    return json.loads(child.stdout)


async def resident() -> dict[str, Any]:
    tasks = _tasks()
    async with open_runtime() as runtime:
        before = _resident_bytes()
        refs = (runtime.spawn(Small) for _ in range(RESIDENT))
        living = sum(1 for _ in refs)
        each = (_resident_bytes() - before) / RESIDENT
        for cell in runtime.cells():
            await cell.ref().tell(Tick())
        await trio.testing.wait_all_tasks_blocked()
        whole = _resident_bytes()
        facts = {
            "living": living,
            "names": runtime.count(),
            "told": [sum(cell.instance.told for cell in runtime.cells()), _told_once(runtime)],
            "handled": runtime.handled_so_far(),
            "dead": len(runtime.dead_letters),
            "bytes each": each,
            "bytes each once told": (whole - before) / RESIDENT,
            "bytes": whole,
        }
        draining = time.process_time()
    return facts | {"drain seconds": time.process_time() - draining, "tasks left": _tasks() - tasks}


async def awake() -> dict[str, Any]:
    tasks = _tasks()
    raw = await _raw_seconds()
    async with open_runtime(grace=0) as runtime:
        refs = [runtime.spawn(Sleepless) for _ in range(AWAKE)]
        for number, ref in enumerate(refs):
            await ref.tell(Hold() if number % 2 else Tick())
        await trio.testing.wait_all_tasks_blocked()
        facts = {
            "awake": sum(cell.crew is not None for cell in runtime.cells()),
            "tasks": _tasks() - tasks,
            "told": [sum(cell.instance.told for cell in runtime.cells()), _told_once(runtime)],
            "handled": runtime.handled_so_far(),
            "queued": runtime.queued(),
        }
        draining = time.process_time()
    seconds = time.process_time() - draining
    return facts | {
        "drain seconds": seconds,
        "raw seconds": raw,
        "dead": dict(runtime.dead_letters.counts()),
        "names": runtime.count(),
        "tasks left": _tasks() - tasks,
    }


async def _raw_seconds() -> float:
    """How long trio takes to cancel as many tasks, each in a scope of its own."""
    scopes: list[trio.CancelScope] = []

    async def sleep() -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(AWAKE):
            nursery.start_soon(sleep)
        await trio.testing.wait_all_tasks_blocked()
        start = time.process_time()
        for scope in scopes:
            scope.cancel()
    return time.process_time() - start


def _told_once(runtime: Runtime) -> int:
    return sum(cell.instance.told == 1 for cell in runtime.cells())


def _tasks() -> int:
    """Count the tasks of this run, by walking the tree, and have trio's own count agree but for the system's."""
    root = trio.lowlevel.current_root_task()
    pending, found = [root], 0
    while pending:
        task = pending.pop()
        found += 1
        assert task is not None
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)
    assert found == trio.lowlevel.current_statistics().tasks_living
    return found


def _resident_bytes() -> int:
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    listed = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], check=True, stdout=subprocess.PIPE)
    return int(listed.stdout) * 1024


SCENARIOS: Final[dict[str, Callable[[], Awaitable[dict[str, Any]]]]] = {"resident": resident, "awake": awake}


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    json.dump(trio.run(SCENARIOS[sys.argv[1]]), sys.stdout)
