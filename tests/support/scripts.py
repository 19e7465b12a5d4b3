"""The scripts among the examples, run as a user would, and what they print without what differs each time."""

import re
import subprocess
import sys
from pathlib import Path

import trio

from tests.support.processes import PATIENCE, ROOT, environment


async def run_script(name: str, tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script of the folder ``examples`` to its end."""
    env = environment(tmp_path, PYTHON=sys.executable, TMPDIR=str(tmp_path), **settings)
    script = str(ROOT / "examples" / name)
    with trio.fail_after(4 * PATIENCE):
        return await trio.run_process(
            ["bash", script], env=env, capture_stdout=True, stderr=subprocess.STDOUT, check=False
        )


def normal(output: str) -> str:
    """Return a script's output with what is different in each run written in one way."""
    output = re.sub(r"I[0-9a-f]{64}", "I…", output)
    output = re.sub(r"127\.0\.0\.1:[0-9]+", "127.0.0.1:4100", output)
    output = re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", "YYYY-MM-DD HH:MM:SS", output)
    return re.sub(r"/[^ ]*/tmp\.[A-Za-z0-9]+", "/tmp/tmp.…", output)


def homes_in(folder: Path) -> list[Path]:
    """Return the folders for homes that scripts have left behind."""
    return list(folder.glob("tmp.*"))
