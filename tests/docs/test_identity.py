"""The page about identities: its commands run, and print what the page says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.docs.test_tutorial import commands, pattern
from tests.support.processes import PATIENCE, ROOT, environment

PAGE: Final = ROOT / "docs" / "how-to" / "identity.md"


def test_the_commands_of_the_page_print_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "phrase.txt").write_text("correct horse battery staple\n")
    typed = 0
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for command, expected in commands(block):
            arguments = shlex.split(command)
            found = subprocess.run(
                [sys.executable, *arguments[1:]] if arguments[0] == "python" else arguments,
                cwd=tmp_path,
                env=environment(tmp_path),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=PATIENCE,
                check=False,
            ).stdout
            assert re.fullmatch(pattern(expected), found.strip()), f"{command}\n{found}"
            typed += 1
    assert typed > 5
