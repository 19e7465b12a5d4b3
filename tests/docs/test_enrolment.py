"""The how-tos about enrolment and finding: their commands are typed into shells, and what they print is compared."""

import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.docs.test_tutorial import commands, pattern
from tests.support.processes import PATIENCE, ROOT, Process, environment, free_port

PAGES: Final = {"enrolment": 6, "finding": 4}
"""How many commands each page shows."""
SERVING: Final = ("authority serve", "run ")
"""The commands that go on until Ctrl-C."""


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_print_what_the_page_shows(page: str, tmp_path: Path) -> None:
    env, listen = environment(tmp_path), f"127.0.0.1:{free_port()}"
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    ticket, typed = "(no ticket was made)", 0
    with ExitStack() as stack:
        serving: Process | None = None
        for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            for shown, expected in commands(block):
                command = shown.replace("127.0.0.1:4000", listen).replace("ticket-…", ticket)
                typed += 1
                arguments = command.removeprefix("python -m autonomy_trio ")
                if arguments.startswith(SERVING):
                    serving = stack.enter_context(Process(*arguments.split(), env=env, cwd=tmp_path))
                    serving.wait_line(expected.strip().rpartition("\n")[2].split(" ")[0] or "counter")
                    assert not expected or re.fullmatch(pattern(expected), serving.out.strip())
                    continue
                found = subprocess.run(
                    ["bash", "-c", command],
                    cwd=tmp_path,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    timeout=PATIENCE,
                    check=False,
                ).stdout.strip()
                assert re.fullmatch(pattern(expected), found), f"{command}\n{found}"
                made = re.search(r"^ticket-\S+$", found, re.MULTILINE)
                ticket = made[0] if made else ticket
        assert serving is not None
        serving.signal(signal.SIGINT)
        assert serving.wait() == 0
    assert typed == PAGES[page]
