"""The example of the page on datastores that needs a server prints what it says."""

import subprocess
import sys
from pathlib import Path

from tests.support.processes import PATIENCE, ROOT, environment
from tests.support.redis import redis_server


def test_visits_are_counted_and_heard_of(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        found = subprocess.run(
            [sys.executable, ROOT / "examples" / "docs" / "how_to" / "redis.py"],
            env=environment(tmp_path, REDIS=server.url),
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
    assert found.returncode == 0, found.stderr
    said = found.stdout.splitlines()
    assert [line for line in said if line.startswith("visit")] == ["visit 1", "visit 2"]
    assert "somebody visited home" in said
