"""A PostgreSQL that one team reaches through a portal: who is of the team is let in, and nobody else."""

from pathlib import Path
from typing import Final

import pytest
import trio

from tests.support.postgres import postgres_server
from tests.support.processes import ROOT, free_port
from tests.support.scripts import homes_in, normal, run_script

SHOWN: Final = ROOT / "examples" / "private_postgres.txt"


@pytest.mark.outside
async def test_it_prints_what_the_page_shows_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with postgres_server() as postgres:
        settings = {name: value for name, value in postgres.environment().items() if name.startswith("PG")}
        seen = postgres.connections()
        found = await run_script(
            "private_postgres.sh",
            tmp_path,
            LISTEN=f"127.0.0.1:{free_port()}",
            DATABASE=f"127.0.0.1:{postgres.port}",
            **settings,
        )
        reached = await trio.to_thread.run_sync(postgres.connections) - seen
    assert normal(found.stdout.decode()) == SHOWN.read_text(encoding="utf-8")
    assert found.returncode == 0
    assert reached == 1, "bob reached the database"
    assert homes_in(tmp_path) == [], "its homes are left behind"
