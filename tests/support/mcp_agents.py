"""The scripted MCP server as an agent, and what it was told."""

import sys
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from autonomy_trio.connect.mcp import McpServer, mcp_server
from tests.support.processes import PATIENCE

SCRIPT: Final = Path(__file__).with_name("mcp_script.py")


@attrs.frozen
class Script:
    """Makes agents of the scripted server, which all write to one log."""

    log: Path

    def command(self, mode: str = "well") -> list[str]:
        return [sys.executable, "-S", str(SCRIPT), mode, str(self.log)]

    def agent(self, mode: str = "well", **options: object) -> type[McpServer]:
        given: dict[str, Any] = {"name": "script", "command": self.command(mode), **options}
        return mcp_server(**given)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    async def wait_line(self, part: str, times: int = 1) -> str:
        """Return the line that has `part` in it, once there are so many."""
        with trio.fail_after(PATIENCE):
            while True:
                found = [line for line in self.lines() if part in line]
                if len(found) >= times:
                    return found[-1]
                await trio.sleep(0.01)  # another process writes them

    def pids(self) -> list[int]:
        """The processes that began, in order."""
        return [int(line.split()[1]) for line in self.lines() if line.startswith("began ")]


def runs(pid: int) -> bool:
    """Whether there is a process of this number that is more than a name for whoever waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def is_gone(pid: int) -> bool:
    """Whether a process ends within a test's patience."""
    with trio.move_on_after(PATIENCE):
        while True:
            if not runs(pid):
                return True
            await trio.sleep(0.01)  # it is nobody's here to wait for
    return False
