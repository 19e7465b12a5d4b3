"""The commands on the page about policies print what it shows."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import PATIENCE, ROOT, environment

PAGE: Final = ROOT / "docs" / "how-to" / "policies.md"
CONSOLE: Final = re.compile(r"^```console\n\$ (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN: Final = CONSOLE.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("command", "printed"), SHOWN, ids=[command.split("trio ")[1][:40] for command, _ in SHOWN])
def test_a_command_prints_what_the_page_shows(command: str, printed: str, tmp_path: Path) -> None:
    python, *arguments = shlex.split(command)
    assert python == "python"
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT / "examples" / "docs" / "policies",
        env=environment(tmp_path, PYTHONDONTWRITEBYTECODE="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    ).stdout
    assert found == printed
