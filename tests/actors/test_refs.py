"""A ref: what it is called, and what it is equal to."""

from typing import Any

import pytest
from attrs import frozen

from autonomy_trio import AgentRef, Context, Request, agent, on
from autonomy_trio.actors.runtime import open_runtime


@frozen
class Speak(Request[None]):
    text: str


@agent
class Speaker:
    @on(Speak)
    def speak(self, message: Speak, context: Context) -> None:
        context.log.info(message.text)


async def test_a_ref_has_a_name_and_an_address_and_shows_no_more() -> None:
    async with open_runtime() as runtime:
        runtime.address_of = lambda name: f"Iabc/{name}"
        ref: AgentRef[Any] = runtime.spawn(Speaker)
        assert (ref.name, ref.address, repr(ref)) == ("speaker", "Iabc/speaker", "<AgentRef Iabc/speaker>")


async def test_refs_to_one_agent_are_equal_and_to_others_or_other_nodes_not() -> None:
    async with open_runtime() as first, open_runtime() as second:
        ref = first.spawn(Speaker)
        assert ref == first.ref("speaker")
        assert hash(ref) == hash(first.ref("speaker"))
        assert ref != first.ref("other")
        assert ref != second.ref("speaker")


async def test_the_log_of_a_context_names_its_agent(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_runtime() as runtime:
        await runtime.spawn(Speaker, "herald").ask(Speak("hear me"))
    assert capsys.readouterr().err.rstrip().endswith("hear me agent=herald")
