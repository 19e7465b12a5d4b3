"""The example of a model, as somebody runs it."""

import subprocess
import sys
from pathlib import Path

import trio

from tests.support.models import refuse, say, scripted
from tests.support.processes import PATIENCE, environment


async def run(tmp_path: Path, url: str) -> subprocess.CompletedProcess[bytes]:
    env = environment(tmp_path, MODEL="openai:m", MODEL_URL=url)
    command = [sys.executable, "-m", "examples.model"]
    with trio.fail_after(PATIENCE):
        return await trio.run_process(command, env=env, capture_stdout=True, capture_stderr=True, check=False)


async def test_it_prints_what_a_model_answers_streams_and_fills_in(tmp_path: Path) -> None:
    filled = '{"kind": "repair", "urgent": true}'
    async with scripted(say("Blue."), say("One two three"), say(filled)) as server:
        found = await run(tmp_path, server.url)
    assert found.stderr == b""
    assert found.stdout.decode().splitlines() == [
        "Blue.  (3 tokens)",
        "One two three",
        "Ticket(kind='repair', urgent=True)",
    ]


async def test_it_says_in_a_sentence_why_there_is_no_answer(tmp_path: Path) -> None:
    async with scripted(refuse(404)) as server:
        found = await run(tmp_path, server.url)
    assert found.returncode == 1
    assert b"is unknown there (404)" in found.stderr
    assert b"Traceback" not in found.stderr
