"""Models that speak as Anthropic's messages do."""

from typing import Any

import pytest
from attrs import frozen

from autonomy_trio import AgentRef, open_node
from autonomy_trio.connect.models import (
    Complete,
    CompleteInParts,
    Completion,
    Model,
    ModelFailed,
    Said,
    Text,
    ToolCall,
    ToolOffer,
    Usage,
    fill,
)
from autonomy_trio.connect.models.over_anthropic import MOST_TOKENS
from tests.support.models import Scripted, answer, claude, claude_events, events, scripted

LOOK = ToolOffer("look", "Look something up.", {"type": "object", "properties": {"order": {"type": "integer"}}})


def model(server: Scripted) -> Model:
    return Model("anthropic:m", name="claude", base_url=server.url)


async def read(ref: AgentRef[Any]) -> list[Any]:
    async with ref.stream(CompleteInParts("Hi")) as parts:
        return [part async for part in parts]


async def test_a_conversation_with_tools_reaches_it_in_its_form_and_is_answered() -> None:
    calls = ToolCall("c1", "look", '{"order": 7}'), ToolCall("c2", "look", "rubbish")
    said = [
        Said("system", "Be brief."),
        Said("user", "7?"),
        Said("assistant", "Well.", calls),
        Said("tool", "here", (), "c1"),
        Said("tool", "wrong", (), "c2"),
        Said("assistant", "", (ToolCall("c3", "look", ""),)),
        Said("tool", "gone", (), "c3"),
        Said("assistant", ""),
    ]
    found = answer(claude("It is", ("c4", "look", {"order": 8})))
    async with scripted(found) as server, open_node([model(server)]) as node:
        reply = await node.ref("claude", Model).ask(Complete(said, (LOOK,), None, 50, 0.5))
    call = ToolCall("c4", "look", '{"order": 8}')
    assert reply == Completion("It is", (call,), Usage(7, 3), "calls", "claude-1")
    assert server.seen[0].headers["authorization"] == "Bearer none"
    assert server.seen[0].body == {
        "model": "m",
        "max_tokens": 50,
        "temperature": 0.5,
        "system": "Be brief.",
        "tools": [{"name": "look", "description": "Look something up.", "input_schema": LOOK.schema}],
        "messages": [
            {"role": "user", "content": "7?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Well."},
                    {"type": "tool_use", "id": "c1", "name": "look", "input": {"order": 7}},
                    {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "here"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "wrong"},
                ],
            },
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c3", "name": "look", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c3", "content": "gone"}]},
        ],
    }


async def test_it_is_told_a_limit_where_the_prompt_has_none() -> None:
    async with scripted(answer(claude("Hi", stopped="max_tokens"))) as server, open_node([model(server)]) as node:
        assert (await node.ref("claude", Model).ask(Complete("Hi"))).stopped == "length"
    assert server.seen[0].body["max_tokens"] == MOST_TOKENS


async def test_a_stream_brings_text_calls_and_the_whole() -> None:
    sent = events(*claude_events("one two", ("c1", "look", {"order": 7}), ("c2", "look", "")), typed=True)
    async with scripted(sent) as server, open_node([model(server)]) as node:
        parts = await read(node.ref("claude", Model))
    calls = ToolCall("c1", "look", '{"order": 7}'), ToolCall("c2", "look", "{}")
    assert parts == [Text("one "), Text("two"), *calls, Completion("one two", calls, Usage(7, 3), "calls", "claude-1")]


async def test_a_stream_that_ends_in_the_middle_is_told_of() -> None:
    async with scripted(events(*claude_events("one")[:4], typed=True)) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await read(node.ref("claude", Model))
    assert caught.value.kind == "cut off"


@pytest.mark.parametrize("body", [{"content": 5}, [], {"content": [{"type": "text"}]}, {"type": "message"}])
async def test_something_that_is_no_answer_is_told_of(body: object) -> None:
    async with scripted(answer(body)) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await node.ref("claude", Model).ask(Complete("Hi"))
    assert caught.value.kind == "rubbish"


@pytest.mark.parametrize("event", [{"hello": 1}, [], {"type": "message_start", "message": {"usage": {}}}])
async def test_rubbish_in_a_stream_is_told_of(event: object) -> None:
    async with scripted(events(event)) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await read(node.ref("claude", Model))
    assert caught.value.kind == "rubbish"


async def test_a_refusal_of_a_request_is_told_of_in_its_words() -> None:
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens"}}
    async with scripted(answer(body, 400)) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed, match="say less: it says 'prompt is too long") as caught:
            await node.ref("claude", Model).ask(Complete("Hi"))
    assert caught.value.kind == "too long"


@frozen
class Ticket:
    urgent: bool


async def test_it_is_held_to_a_schema_by_the_vendor() -> None:
    async with scripted(answer(claude('{"urgent": true}'))) as server, open_node([model(server)]) as node:
        assert await fill(node.ref("claude", Model), Ticket, "Hurry") == Ticket(urgent=True)
    assert server.seen[0].body["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "title": "Ticket",
            "type": "object",
            "properties": {"urgent": {"type": "boolean"}},
            "required": ["urgent"],
            "additionalProperties": False,
        },
    }
