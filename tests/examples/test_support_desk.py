"""The support desk, as somebody runs it at a terminal."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import trio

from tests.support.models import refuse, say, scripted
from tests.support.processes import PATIENCE, environment


async def run(tmp_path: Path, typed: str, **settings: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "examples.support_desk"]
    env = environment(tmp_path, **settings)
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            command, stdin=typed.encode(), env=env, capture_stdout=True, capture_stderr=True, check=False
        )


async def test_it_looks_orders_up_and_pays_back_what_a_person_and_the_shops_policy_allow(tmp_path: Path) -> None:
    pay_7, pay_8 = ("2", "pay_back", {"number": 7, "amount": 12}), ("3", "pay_back", {"number": 8, "amount": 900})
    async with scripted(
        say("Let me see.", ("1", "look_up", {"number": 7})),
        say("Your bell is on its way."),
        *(part for pay in (pay_7, pay_8, pay_7) for part in (say("", pay), say("Well."))),
    ) as server:
        talk = partial(run, tmp_path, SUPPORT_MODEL="openai:m", SUPPORT_MODEL_URL=server.url)
        found = await talk("Where is 7?\nMy money for it!\ny\nMy money for 8!\ny\nAnd again!\nn\n\n")
    out = found.stdout.decode()
    assert found.returncode == 0, found.stderr.decode()
    assert 'it calls look_up {"number": 7}' in out
    assert 'and is told: {"item": "bicycle bell", "state": "on its way", "price": 12}' in out
    assert "Your bell is on its way." in out
    assert out.count("12 euros for the bicycle bell are on their way back") == 1
    assert "and is told: The call failed: the policy of orders does not allow it" in out
    assert "and is told: This was not approved, so it was not done." in out
    assert "Traceback" not in out + found.stderr.decode()


async def test_a_model_that_does_not_answer_is_told_of_in_a_sentence(tmp_path: Path) -> None:
    async with scripted(refuse(401)) as server:
        found = await run(tmp_path, "Hello\n\n", SUPPORT_MODEL="openai:m", SUPPORT_MODEL_URL=server.url)
    assert "no answer: openai:m at 127.0.0.1" in found.stdout.decode()
    assert found.returncode == 0


async def test_without_a_key_it_says_what_is_missing(tmp_path: Path) -> None:
    found = await run(tmp_path, "", OPENAI_API_KEY="")
    assert found.returncode == 1
    assert found.stderr.decode().startswith("openai:gpt-5 has no key: put it into the environment variable OPENAI")
    assert "Traceback" not in found.stderr.decode()
