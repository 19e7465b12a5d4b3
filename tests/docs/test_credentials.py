"""The how-to about credentials: its commands are typed into a shell, and what they print is compared."""

import re
import subprocess
from pathlib import Path
from typing import Final

from tests.docs.test_tutorial import IDENTIFIER, commands, pattern
from tests.support.processes import PATIENCE, ROOT, environment

PAGE: Final = ROOT / "docs" / "how-to" / "credentials.md"


def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    identity, typed = "(no identity was shown)", 0
    env = environment(tmp_path)
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for command, expected in commands(block):
            found = subprocess.run(
                ["bash", "-c", command.replace("I…", identity)],
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
            identity = found if re.fullmatch(IDENTIFIER, found) else identity
            typed += 1
    assert typed == 11
