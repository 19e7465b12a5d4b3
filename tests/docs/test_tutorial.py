"""The tutorial from beginning to end: its files are written, its commands run, and what they print is compared."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from tests.support.processes import PATIENCE, ROOT, Process, environment

PAGE: Final = ROOT / "docs" / "tutorial.md"

STEP: Final = re.compile(
    r"^```\{literalinclude\} (?P<file>\S+)$|^```console\n(?P<console>.*?)^```$|(?P<stop>Stop the node with Ctrl-C)",
    re.MULTILINE | re.DOTALL,
)
IDENTIFIER: Final = r"I[0-9a-f]{64}"


@attrs.define
class Reader:
    """Somebody who does what the page says, with one terminal for the node and one for everything else."""

    folder: Path
    stack: ExitStack
    node: Process | None = None
    address: str = "(no node was started)"
    identity: str = "(no identity was shown)"

    def write(self, source: Path) -> None:
        (self.folder / source.name).write_bytes(source.read_bytes())

    def type(self, command: str, expected: str) -> None:
        command = command.replace("ws://127.0.0.1:4000/I…/account", self.address).replace("I…", self.identity)
        python, *arguments = shlex.split(command)
        assert python == "python"
        is_node = arguments[:3] == ["-m", "autonomy_trio", "run"] and "--check" not in arguments
        found = self.start(arguments[2:], expected) if is_node else self.run(arguments)
        assert re.fullmatch(pattern(expected), found.strip()), f"{command}\n{found}"
        if shown := re.fullmatch(IDENTIFIER, found.strip()):
            self.identity = shown[0]

    def run(self, arguments: list[str]) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        ).stdout

    def start(self, arguments: list[str], expected: str) -> str:
        assert self.node is None, "the page starts a second node and has not stopped the first"
        self.node = self.stack.enter_context(Process(*arguments, env=self.environment(), cwd=self.folder))
        self.node.wait_line(expected.splitlines()[-1].strip())
        address = re.search(rf"^ws://\S+/{IDENTIFIER}/account$", self.node.out, re.MULTILINE)
        assert address is not None
        self.address = address[0]
        return self.node.out

    def stop(self) -> None:
        assert self.node is not None
        self.node.signal(signal.SIGINT)
        assert self.node.wait() == 0
        self.node = None

    def environment(self) -> dict[str, str]:
        # Two versions of a file may be written within the second that a compiled file's date tells apart.
        return environment(self.folder.parent, PYTHONDONTWRITEBYTECODE="1")


def pattern(expected: str) -> str:
    """What an output is to match: `…` is what differs in each run, and a port in use is replaced by a free one."""
    return re.escape(expected.strip()).replace("…", ".*").replace(re.escape("127.0.0.1:4000"), r"127\.0\.0\.1:\d+")


def commands(console: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def test_the_tutorial_does_what_it_says_from_an_empty_folder_on(tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    folder.mkdir()
    typed = 0
    with ExitStack() as stack:
        reader = Reader(folder, stack)
        for step in STEP.finditer(PAGE.read_text(encoding="utf-8")):
            if step["file"]:
                reader.write(PAGE.parent / step["file"])
            elif step["stop"]:
                reader.stop()
            else:
                for command, expected in commands(step["console"]):
                    reader.type(command, expected)
                    typed += 1
    assert typed > 5
