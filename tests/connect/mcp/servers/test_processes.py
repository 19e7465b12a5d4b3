"""A server's process: its words in the log, and how it is said to have ended."""

import sys

import pytest
import trio
from structlog.testing import capture_logs

from autonomy_trio.connect.mcp.servers import processes
from autonomy_trio.connect.mcp.servers.processes import MOST_SAID, SAID_WITHIN, Sayings, running
from autonomy_trio.logs import get_log


def python(program: str) -> list[str]:
    return [sys.executable, "-S", "-c", program]


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("pass", "ended with exit code 0"),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 15)", "was ended by SIGTERM"),
        ("import os; os.kill(os.getpid(), 40)", "was ended by signal 40"),
    ],
)
async def test_it_says_how_it_ended(program: str, how: str) -> None:
    async with running(python(program), {}, None, Sayings(get_log())) as child:
        await child.ended.wait()
        assert child.how() == how


async def test_it_says_that_it_lives() -> None:
    async with running(python("input()"), {}, None, Sayings(get_log())) as child:
        assert child.how() == "no longer answers"


async def test_of_a_line_without_end_nothing_is_logged_and_all_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST_STDERR_LINE", 1000)
    program = python("import sys; sys.stderr.write('x' * 1_000_000); sys.stderr.flush()")
    with capture_logs() as logs:
        async with running(program, {}, None, Sayings(get_log())) as child:
            await child.ended.wait()  # which it could not, were it not read
    (said,) = logs
    assert said["event"] == "the MCP server's standard error is not logged any more"


async def test_few_lines_are_written_and_the_next_says_how_many_were_not(autojump_clock: object) -> None:
    sayings = Sayings(get_log())
    with capture_logs() as logs:
        for _ in range(MOST_SAID + 7):
            sayings.say("it says", "a line")
        await trio.sleep(SAID_WITHIN)
        sayings.say("it says", "the last")
    assert len(logs) == MOST_SAID + 1
    assert logs[-1]["left_out"] == 7
