"""A model of a vendor as an agent, against a server that says what each test has scripted."""

import email.utils
import json
import logging
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from autonomy_trio import AgentRef, Node, open_node
from autonomy_trio.connect.models import (
    Complete,
    CompleteInParts,
    Completion,
    Model,
    ModelFailed,
    ReadStatistics,
    Said,
    Text,
    ToolCall,
    ToolOffer,
    Usage,
)
from autonomy_trio.connect.models import bodies as bodies_module
from autonomy_trio.connect.models import model as model_module
from autonomy_trio.connect.models.retrying import MOST_TRIES
from autonomy_trio.errors import ConfigurationError, DeliveryError
from tests.support.models import (
    Exchange,
    Script,
    Scripted,
    answer,
    chunk,
    events,
    half,
    hang,
    refuse,
    say,
    scripted,
    then_hang,
    whole,
)

KEY = "sk-a-secret-of-tests"
LOOK = ToolOffer("look", "Look something up.", {"type": "object", "properties": {"order": {"type": "integer"}}})


def model(server: Scripted, **options: object) -> Model:
    return Model("openai:m", name="gpt", base_url=server.url, **options)


async def failure(ref: AgentRef[Any], prompt: str = "Hi") -> ModelFailed:
    with pytest.raises(ModelFailed) as caught:
        await ref.ask(Complete(prompt))
    return caught.value


async def failure_of(*scripts: Script, **options: object) -> tuple[ModelFailed, Scripted]:
    async with scripted(*scripts) as server, open_node([model(server, **options)]) as node:
        return await failure(node.ref("gpt", Model)), server


async def read(ref: AgentRef[Any], prompt: str = "Hi") -> list[Any]:
    async with ref.stream(CompleteInParts(prompt)) as parts:
        return [part async for part in parts]


async def test_a_prompt_is_answered_with_text_usage_and_why_it_stopped() -> None:
    async with (
        scripted(say("hello there"), say("cut", stopped="length"), say("odd", stopped="new")) as server,
        open_node([model(server)]) as node,
    ):
        gpt = node.ref("gpt", Model)
        assert await gpt.ask(Complete("Hi")) == Completion("hello there", (), Usage(7, 3), "end", "scripted-1")
        assert (await gpt.ask(Complete("Hi"))).stopped == "length"
        assert (await gpt.ask(Complete("Hi"))).stopped == "other"
    assert server.seen[0].body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def test_a_conversation_with_tools_limits_and_temperature_reaches_the_vendor_whole() -> None:
    call = ToolCall("c1", "look", '{"order": 7}')
    said = [
        Said("system", "Be brief."),
        Said("user", "7?"),
        Said("assistant", "", (call,)),
        Said("tool", "here", (), "c1"),
    ]
    async with scripted(say("", ("c2", "look", {"order": 8}))) as server, open_node([model(server)]) as node:
        found = await node.ref("gpt", Model).ask(Complete(said, (LOOK,), None, 50, 0.5))
    assert found.calls == (ToolCall("c2", "look", '{"order": 8}'),)
    assert found.stopped == "calls"
    assert server.seen[0].body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "7?"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"order": 7}'}}
                ],
            },
            {"role": "tool", "content": "here", "tool_call_id": "c1"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "look", "description": "Look something up.", "parameters": LOOK.schema},
            }
        ],
        "max_tokens": 50,
        "temperature": 0.5,
    }


async def test_a_stream_brings_text_as_it_is_written_then_calls_then_the_whole() -> None:
    async with scripted(say("one two", ("c1", "look", {"order": 7}))) as server, open_node([model(server)]) as node:
        parts = await read(node.ref("gpt", Model))
    call = ToolCall("c1", "look", '{"order": 7}')
    assert parts == [
        Text("one "),
        Text("two"),
        call,
        Completion("one two", (call,), Usage(7, 3), "calls", "scripted-1"),
    ]
    assert server.seen[0].body["stream_options"] == {"include_usage": True}


async def test_a_part_is_there_before_the_next_is_written() -> None:
    go_on = trio.Event()

    async def slowly(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.events(chunk({"content": "one"}))
        await go_on.wait()
        await exchange.events(chunk({"content": "two"}), chunk(stopped="stop"), "[DONE]")
        await exchange.end()

    async with (
        scripted(slowly) as server,
        open_node([model(server)]) as node,
        node.ref("gpt", Model).stream(CompleteInParts("Hi")) as parts,
    ):
        assert await anext(parts) == Text("one")
        go_on.set()
        assert await anext(parts) == Text("two")


async def test_requests_and_streams_that_follow_each_other_share_a_connection() -> None:
    async with scripted(say("one")) as server, open_node([model(server)]) as node:
        for _ in range(3):
            await node.ref("gpt", Model).ask(Complete("Hi"))
            await read(node.ref("gpt", Model))
    assert (len(server.seen), server.connections) == (6, 1)


async def test_a_stream_that_does_not_end_after_its_last_word_is_left() -> None:
    async def go_on(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.events(chunk({"content": "one"}, stopped="stop"), "[DONE]")
        await exchange.wait_hung_up()

    async with scripted(go_on) as server, open_node([model(server)]) as node:
        with trio.fail_after(5):
            assert (await read(node.ref("gpt", Model)))[0] == Text("one")
        await expect_hang_up(server, 1)


async def test_a_refusal_is_an_answer_that_says_so() -> None:
    refusal = whole("")
    refusal["choices"][0]["message"]["refusal"] = "I will not"
    parts = events(chunk({"refusal": "I will "}), chunk({"refusal": "not"}, stopped="content_filter"), "[DONE]")
    async with scripted(answer(refusal), parts) as server, open_node([model(server)]) as node:
        found = await node.ref("gpt", Model).ask(Complete("Hi"))
        streamed = (await read(node.ref("gpt", Model)))[-1]
    assert (found.text, found.stopped) == (streamed.text, streamed.stopped) == ("I will not", "refused")


async def test_a_server_that_counts_no_tokens_is_taken_as_it_is() -> None:
    uncounted = {**whole("hello"), "usage": None}
    async with scripted(answer(uncounted)) as server, open_node([model(server)]) as node:
        assert (await node.ref("gpt", Model).ask(Complete("Hi"))).usage == Usage()


async def test_tokens_answers_tries_and_failures_are_counted(mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    async with scripted(say("one"), refuse(500), say("two"), refuse(401)) as server, open_node([model(server)]) as node:
        gpt = node.ref("gpt", Model)
        await gpt.ask(Complete("Hi"))
        await gpt.ask(Complete("Hi"))
        await failure(gpt)
        found = await gpt.ask(ReadStatistics())
    assert (found.answered, found.failed, found.retries, found.usage) == (2, 1, 1, Usage(14, 6))
    assert (found.running, found.waiting) == (0, 0)


async def test_a_limit_of_tokens_holds_whatever_is_asked_for() -> None:
    async with scripted(say("one")) as server, open_node([model(server, most_tokens=100)]) as node:
        gpt = node.ref("gpt", Model)
        await gpt.ask(Complete("Hi", most_tokens=5000))
        await gpt.ask(Complete("Hi", most_tokens=50))
        await gpt.ask(Complete("Hi"))
    assert [each.body["max_tokens"] for each in server.seen] == [100, 50, 100]


# What goes wrong, in words.


async def test_a_key_that_is_refused_is_told_of_without_the_vendors_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    found, server = await failure_of(refuse(401, f"Incorrect API key provided: {KEY}"), key_variable="TEST_KEY")
    assert found.kind == "key"
    assert (
        str(found) == f"openai:m at 127.0.0.1:{server.port} refuses its key (401): whoever runs it has to give another"
    )
    assert len(server.seen) == 1


async def test_a_server_that_wants_a_key_where_none_was_given_is_told_of() -> None:
    found, _ = await failure_of(refuse(403))
    assert found.kind == "key"
    assert "asks for a key (403): whoever runs it has to give it a key_file=" in found.why


async def test_an_unknown_model_is_told_of() -> None:
    found, server = await failure_of(refuse(404, "The model m does not exist"))
    assert found.kind == "unknown model"
    assert "mend its name or base_url: it says 'The model m does not exist'" in found.why
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "script",
    [
        refuse(400, "This model's maximum context length is 10 tokens", "context_length_exceeded"),
        refuse(400, "request (9 tokens) exceeds the available context size"),
        refuse(413),
    ],
)
async def test_a_prompt_that_is_too_long_is_told_of(script: Script) -> None:
    found, server = await failure_of(script)
    assert found.kind == "too long"
    assert "say less" in found.why
    assert len(server.seen) == 1


async def test_a_request_that_is_refused_otherwise_is_told_of_in_the_vendors_words_without_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    found, _ = await failure_of(
        refuse(422, f"temperature\x1b is\nwrong, by {KEY} " + "x" * 500), key_variable="TEST_KEY"
    )
    assert found.kind == "request"
    assert "refuses the request (422): it says 'temperature? is?wrong, by …" in found.why
    assert len(found.why) < 300


@pytest.mark.parametrize("body", ["no JSON", [1], {"error": "text"}, {"error": [1]}, {"error": {"message": 1}}])
async def test_a_refusal_of_any_form_is_told_of(body: object) -> None:
    found, _ = await failure_of(answer(body, 400))
    assert found.kind == "request"


async def test_a_redirect_is_not_followed() -> None:
    found, server = await failure_of(answer("", 307, location="http://127.0.0.1:1/"))
    assert found.kind == "request"
    assert "(307)" in found.why
    assert len(server.seen) == 1


async def test_too_many_requests_are_told_of_after_every_try(mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    found, server = await failure_of(refuse(429))
    assert found.kind == "rate"
    assert "takes no more requests now (429): ask later, or less often" in found.why
    assert len(server.seen) == MOST_TRIES


async def test_an_error_of_the_server_is_told_of_after_every_try(mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    found, server = await failure_of(refuse(503))
    assert found.kind == "server"
    assert "failed on its side (503): ask later" in found.why
    assert len(server.seen) == MOST_TRIES


@pytest.mark.parametrize(
    "script",
    [
        answer("<html>hello</html>", content_type="text/html"),
        answer("{"),
        answer({"hello": 1}),
        answer([]),
        answer({**whole("x"), "choices": []}),
        answer({**whole("x"), "usage": {"prompt_tokens": "many", "completion_tokens": 1}}),
        answer({**whole("x"), "model": 5}),
    ],
)
async def test_something_that_is_no_answer_is_told_of_and_not_tried_again(script: Script) -> None:
    found, server = await failure_of(script)
    assert found.kind == "rubbish"
    assert "is its base_url right?" in found.why
    assert len(server.seen) == 1


@pytest.mark.parametrize("sent", ["rubbish", {"hello": 1}, {**chunk(), "choices": [{"delta": 5}]}])
async def test_rubbish_in_a_stream_is_told_of(sent: object) -> None:
    async with scripted(events(sent)) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await read(node.ref("gpt", Model))
    assert caught.value.kind == "rubbish"
    assert len(server.seen) == 1


async def test_an_error_in_a_stream_is_told_of(mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    async with scripted(events({"error": {"message": "overloaded"}})) as server, open_node([model(server)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await read(node.ref("gpt", Model))
    assert caught.value.kind == "server"
    assert len(server.seen) == MOST_TRIES


async def test_a_host_that_does_not_listen_is_told_of(mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    async with open_node([Model("openai:m", base_url="http://127.0.0.1:9/v1")]) as node:
        found = await failure(node.ref("m", Model))
    assert found.kind == "unreachable"
    assert str(found) == "openai:m at 127.0.0.1:9 was not reached: is its host right, and does it listen?"


@pytest.mark.parametrize("script", [hang, then_hang("one")])
async def test_silence_is_told_of(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "MOST_TRIES", 1)
    async with scripted(script) as server, open_node([model(server, patience=0.3)]) as node:
        with pytest.raises(ModelFailed) as caught:
            await read(node.ref("gpt", Model))
        assert caught.value.kind == "no answer"
        assert "said nothing for 0.3 s" in caught.value.why
        with trio.fail_after(10):
            await server.seen[0].hung_up.wait()


async def test_a_stream_that_ends_in_the_middle_is_told_of_after_its_parts() -> None:
    ending = events(chunk({"content": "one"}))
    async with scripted(half("one"), ending) as server, open_node([model(server)]) as node:
        for _ in range(2):
            async with node.ref("gpt", Model).stream(CompleteInParts("Hi")) as parts:
                assert await anext(parts) == Text("one")
                with pytest.raises(ModelFailed, match="ended its answer in the middle") as caught:
                    await anext(parts)
            assert caught.value.kind == "cut off"
    assert len(server.seen) == 2, "what a reader has in part is not asked for again"


async def test_an_answer_that_ends_in_the_middle_is_asked_for_again(mock_clock: MockClock) -> None:
    mock_clock.rate = 10

    async def cut(exchange: Exchange) -> None:
        await exchange.begin(200, {"content-type": "application/json", "content-length": "500"})
        await exchange.send('{"id": ')
        await exchange.drop()

    async with scripted(cut, say("whole")) as server, open_node([model(server)]) as node:
        assert (await node.ref("gpt", Model).ask(Complete("Hi"))).text == "whole"


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "script",
    [
        answer(f'{{"choices": {DEEP}}}'),
        answer({**whole("x"), "usage": {"prompt_tokens": 2**70, "completion_tokens": 1}}),
        answer({**whole("x"), "usage": {"prompt_tokens": float("nan"), "completion_tokens": 1}}),
        answer(whole("not compressed at all"), **{"content-encoding": "gzip"}),
    ],
)
async def test_an_answer_that_would_overwhelm_its_reader_is_told_of_and_the_agent_lives_on(script: Script) -> None:
    async with scripted(script, say("fine")) as server, open_node([model(server)]) as node:
        gpt = node.ref("gpt", Model)
        assert (await failure(gpt)).kind == "rubbish"
        assert (await gpt.ask(Complete("Hi"))).text == "fine"
        assert (await gpt.ask(ReadStatistics())).failed == 1, "it is the same agent as before"


async def test_events_that_would_overwhelm_their_reader_are_told_of_and_the_agent_lives_on() -> None:
    async with scripted(events(DEEP), say("fine")) as server, open_node([model(server)]) as node:
        gpt = node.ref("gpt", Model)
        with pytest.raises(ModelFailed) as caught:
            await read(gpt)
        assert caught.value.kind == "rubbish"
        assert (await gpt.ask(Complete("Hi"))).text == "fine"
        assert (await gpt.ask(ReadStatistics())).failed == 1, "it is the same agent as before"


async def test_half_a_surrogate_pair_is_replaced() -> None:
    call = ("c1", "look", '{"order": "\ud83d"}')
    async with scripted(say("odd \ud83d", call)) as server, open_node([model(server)]) as node:
        gpt = node.ref("gpt", Model)
        found = await gpt.ask(Complete("Hi"))
        assert (found.text, found.calls) == ("odd \ufffd", (ToolCall("c1", "look", '{"order": "\ufffd"}'),))
        assert (await read(gpt))[-1] == found


async def test_names_and_ids_of_calls_count_for_what_fits_a_message() -> None:
    calls = [(f"c{index}" + "x" * 100, "look", "{}") for index in range(1000)]
    found, _ = await failure_of(say("", *calls))
    assert found.kind == "too long"


async def test_an_answer_without_end_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies_module, "MOST_BODY", 1000)
    found, _ = await failure_of(answer(whole("x" * 2000)))
    assert found.kind == "rubbish"
    assert "answered more than 1,000 bytes" in found.why


async def test_a_text_that_fits_no_message_is_told_of() -> None:
    found, _ = await failure_of(say("x" * (model_module.MOST_TEXT + 1)))
    assert found.kind == "too long"
    assert "give it fewer most_tokens" in found.why


# Tries.


async def test_a_server_that_fails_once_is_asked_again_and_a_stream_too(mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    async with (
        scripted(refuse(500), say("one"), refuse(502), say("two")) as server,
        open_node([model(server)]) as node,
    ):
        assert (await node.ref("gpt", Model).ask(Complete("Hi"))).text == "one"
        assert (await read(node.ref("gpt", Model)))[0] == Text("two")


@pytest.mark.parametrize("as_date", [False, True])
async def test_it_waits_as_long_as_retry_after_says(as_date: bool, mock_clock: MockClock) -> None:
    mock_clock.rate = 10
    header = email.utils.formatdate(time.time() + 8, usegmt=True) if as_date else "7"
    async with scripted(refuse(429, retry_after=header), say("one")) as server, open_node([model(server)]) as node:
        begun = trio.current_time()
        await node.ref("gpt", Model).ask(Complete("Hi"))
        assert trio.current_time() - begun >= 6


async def test_it_does_not_wait_for_what_the_asker_would_not_live_to_see() -> None:
    async with scripted(refuse(429, retry_after="30"), say("one")) as server, open_node([model(server)]) as node:
        with trio.fail_after(20):
            found = await failure(node.ref("gpt", Model))
    assert found.kind == "rate"
    assert len(server.seen) == 1


# Limits, and cancellation.


async def test_so_many_requests_run_at_once_and_the_next_waits() -> None:
    gate = trio.Event()

    async def wait(exchange: Exchange) -> None:
        await gate.wait()
        await exchange.answer(whole("done"))

    async with scripted(wait) as server, open_node([model(server, at_once=2)]) as node, trio.open_nursery() as nursery:
        gpt = node.ref("gpt", Model)
        for _ in range(5):
            nursery.start_soon(gpt.ask, Complete("Hi"))
        await server.wait_seen(2)
        await trio.testing.wait_all_tasks_blocked(0.1)
        found = await gpt.ask(ReadStatistics())
        assert (len(server.seen), found.running, found.waiting) == (2, 2, 3)
        gate.set()
    assert len(server.seen) == 5


async def test_one_more_than_may_wait_is_refused_as_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "MOST_WAITING", 2)
    async with scripted(hang) as server, open_node([model(server, at_once=1)]) as node, trio.open_nursery() as nursery:
        gpt = node.ref("gpt", Model)
        for _ in range(3):
            nursery.start_soon(partial(gpt.ask, Complete("Hi")))
        await server.wait_seen(1)
        await trio.testing.wait_all_tasks_blocked(0.1)
        found = await failure(gpt)
        nursery.cancel_scope.cancel()
    assert found.kind == "busy"


async def test_a_stream_that_is_read_late_holds_up_no_agent_but_only_its_place() -> None:
    async with scripted(say("word " * 100)) as server, open_node([model(server, at_once=1)]) as node:
        gpt = node.ref("gpt", Model)
        async with gpt.stream(CompleteInParts("Hi")) as parts:
            await anext(parts)
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(gpt.ask, Complete("Hi"))
                await trio.testing.wait_all_tasks_blocked(0.1)
                assert (await gpt.ask(ReadStatistics())).waiting == 10
                assert len([part async for part in parts]) == 100
        assert len(server.seen) == 11


async def test_cancelling_who_asks_ends_the_request_within_a_second() -> None:
    async with scripted(hang) as server, open_node([model(server)]) as node:
        with trio.move_on_after(0.5):
            await node.ref("gpt", Model).ask(Complete("Hi"))
        await expect_hang_up(server, 1)
        assert (await node.ref("gpt", Model).ask(ReadStatistics())).running == 0


async def test_leaving_a_stream_ends_the_request_within_a_second() -> None:
    async with scripted(then_hang("one")) as server, open_node([model(server)]) as node:
        async with node.ref("gpt", Model).stream(CompleteInParts("Hi")) as parts:
            assert await anext(parts) == Text("one")
        await expect_hang_up(server, 1)


async def test_stopping_the_node_ends_the_requests() -> None:
    async with scripted(hang) as server, trio.open_nursery() as nursery:
        async with open_node([model(server)], grace=0.1) as node:

            async def ask(node: Node) -> None:
                with pytest.raises(DeliveryError):
                    await node.ref("gpt", Model).ask(Complete("Hi"))

            nursery.start_soon(ask, node)  # noqa: ASYNC111 - it outlives the node on purpose
            await server.wait_seen(1)
        await expect_hang_up(server, 1)


async def expect_hang_up(server: Scripted, number: int) -> None:
    exchange = await server.wait_seen(number)
    with trio.fail_after(1):
        await exchange.hung_up.wait()


async def test_a_model_that_takes_long_is_no_agent_in_trouble(mock_clock: MockClock) -> None:
    mock_clock.rate = 40
    async with scripted(hang) as server, open_node([model(server)]) as node:
        with capture_logs() as logs, trio.move_on_after(25):
            await node.ref("gpt", Model).ask(Complete("Hi"))
        assert node.statistics().troubled == {}
    assert [each for each in logs if each["event"] == "agent in trouble"] == []


# Keys.


async def test_a_key_comes_from_a_variable_or_a_file_and_stands_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    (tmp_path / "key").write_text(f"{KEY}2\n", encoding="utf-8")
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with scripted(say("one"), say("two"), refuse(401, KEY), refuse(400, f"{KEY}2")) as server:
            by_variable = Model("openai:m", name="a", base_url=server.url, key_variable="TEST_KEY")
            by_file = Model("openai:m", name="b", base_url=server.url, key_file=tmp_path / "key")
            async with open_node([by_variable, by_file]) as node:
                await node.ref("a", Model).ask(Complete("Hi"))
                await node.ref("b", Model).ask(Complete("Hi"))
                failures = [await failure(node.ref("a", Model)), await failure(node.ref("b", Model))]
                instances = [each.instance for each in node._runtime.cells()]
    assert [each.headers["authorization"] for each in server.seen[:2]] == [f"Bearer {KEY}", f"Bearer {KEY}2"]
    shown = [repr(each) for each in (by_variable, by_file, failures, instances, logs)] + [caplog.text]
    shown += [repr(each._vendor) for each in instances] + [repr(each.__context__) for each in failures]
    assert not any(KEY in each for each in shown)


async def test_the_vendors_own_key_goes_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    async with (
        scripted(refuse(401)) as server,
        open_node([model(server), Model("anthropic:m", name="c", base_url=server.url)]) as node,
    ):
        await failure(node.ref("gpt", Model))
        await failure(node.ref("c", Model))
    assert not any(KEY in json.dumps(dict(each.headers)) for each in server.seen)


@pytest.mark.parametrize(("vendor", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
async def test_a_key_that_is_missing_stops_the_node_with_a_word_on_how_to_give_it(
    vendor: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        ConfigurationError, match=f"{vendor}:m has no key: put it into the environment variable {variable}"
    ):
        async with open_node([Model(f"{vendor}:m")]):
            pass


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"", "has no key"),
        (b"a\nb", "holds no key"),
        ("é".encode(), "holds no key"),
        (b"\xff", "no text"),
    ],
)
async def test_a_file_that_holds_no_key_stops_the_node(content: bytes | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=why):
        async with open_node([Model("openai:m", key_file=file)]):
            pass


# What cannot be right.


@pytest.mark.parametrize("name", ["gpt", "openai:", "mistral:x", ""])
def test_a_model_names_its_vendor(name: str) -> None:
    with pytest.raises(ConfigurationError, match='write "openai:NAME" or "anthropic:NAME"'):
        Model(name)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"at_once": 0}, "at_once=0"),
        ({"patience": 0}, "patience=0"),
        ({"base_url": "localhost:8000"}, "base_url is no http:// or https:// address"),
        ({"base_url": "http://[::1"}, "base_url is no http"),
        ({"base_url": "http://me:secret@host/"}, "base_url has a secret in it"),
        ({"base_url": "http://host/?key=secret"}, "base_url has a secret in it"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused_without_saying_secrets(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Model("openai:m", **options)
    assert why in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_a_role_that_nobody_has_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="bogus"):
        Said("bogus", "x")  # type: ignore[arg-type]


def test_a_missing_library_is_told_of_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigurationError, match=r'pip install "autonomy-trio\[models\]"'):
        Model("openai:m")()


async def test_a_model_that_is_built_beside_its_declaration_is_refused() -> None:
    with capture_logs() as logs:
        async with open_node([partial(Model, "openai:m", base_url="http://127.0.0.1:9")]) as node:
            with trio.fail_after(10):
                await node.ref("model").stopped()
    assert any("list the Model itself" in str(each.get("exc_info")) for each in logs)
