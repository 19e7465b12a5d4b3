"""What MCP clients are answered, with the SDK's client in the same process: each promise in both of its protocols."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import mcp_types as types
import pytest
import trio
from mcp import Client
from mcp.shared.exceptions import MCPError
from structlog.testing import capture_logs

from autonomy_trio import Node, open_node
from autonomy_trio.connect.mcp import service as service_module
from autonomy_trio.connect.mcp import speaking
from autonomy_trio.connect.mcp.offers import AGENT
from autonomy_trio.connect.mcp.service import MOST_REQUESTS, MOST_SESSIONS, MOST_SUBSCRIPTIONS, Service, open_service
from autonomy_trio.errors import NameTaken
from tests.support.desk import Desk

HANDSHAKE: Final = "legacy"
ERAS: Final = (HANDSHAKE, "2026-07-28")


@asynccontextmanager
async def served(mode: Any = HANDSHAKE, **options: Any) -> AsyncGenerator[Client]:  # noqa: ANN401 - the client's own
    async with desk() as (_, service), Client(service.server, mode=mode, **options) as client:
        yield client


@asynccontextmanager
async def desk(agent: Desk | None = None, **attributes: Any) -> AsyncGenerator[tuple[Node, Service]]:  # noqa: ANN401
    found = agent or Desk()
    async with (
        open_node([lambda: found]) as node,
        open_service(node, name="desk", attributes=attributes) as service,
    ):
        yield node, service


def text(result: types.CallToolResult) -> str:
    (part,) = result.content
    assert isinstance(part, types.TextContent)
    return part.text


@pytest.mark.parametrize("mode", ERAS)
async def test_a_handler_that_policies_open_is_a_tool_with_its_docstring_and_its_schemas(mode: str) -> None:
    async with served(mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools["add"].description == "Add, and tell the total."
    assert tools["add"].input_schema["properties"]["amount"]["type"] == "integer"
    assert tools["add"].input_schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (tools["add"].output_schema or {})["required"] == ["value"]
    assert tools["picture"].output_schema is None


@pytest.mark.parametrize("mode", ERAS)
async def test_a_tool_is_called_and_its_reply_is_structured(mode: str) -> None:
    async with served(mode) as client:
        result = await client.call_tool("add", {"amount": 3})
    assert result.structured_content == {"value": 3}
    assert text(result) == '{"value": 3}'
    assert not result.is_error


async def test_what_no_policy_opens_is_not_shown_and_cannot_be_called() -> None:
    async with served() as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names.isdisjoint({"secret", "payroll"})
        for name in ("secret", "payroll", "nothing_of_the_kind"):
            with pytest.raises(MCPError, match=f"there is no tool '{name}'"):
                await client.call_tool(name, {})
        with pytest.raises(MCPError, match="there is no resource"):
            await client.read_resource("safe://hidden")


async def test_a_client_has_the_attributes_that_who_serves_it_says() -> None:
    async with desk(team="payments") as (_, service), Client(service.server, mode=HANDSHAKE) as client:
        assert text(await client.call_tool("payroll", {})) == "for payments only"


async def test_a_message_that_its_policy_denies_is_a_result_that_says_so_and_a_dead_letter() -> None:
    async with desk() as (node, service), Client(service.server, mode=HANDSHAKE) as client:
        assert not (await client.call_tool("small", {"amount": 3})).is_error
        result = await client.call_tool("small", {"amount": 30})
        assert result.is_error
        assert text(result) == "the policy of desk does not allow it"
        assert node.dead_letters.counts() == {"denied": 1}


async def test_wrong_arguments_are_told_to_the_model_in_words_that_it_can_mend() -> None:
    async with served() as client:
        result = await client.call_tool("add", {"amount": "three"})
    assert result.is_error
    assert text(result) == "expected int, got str @ Add.amount"


async def test_a_handler_that_fails_tells_nothing_of_why() -> None:
    async with served() as client:
        failed, foreseen = await client.call_tool("fail", {}), await client.call_tool("overdraw", {})
    assert text(failed) == "desk failed: it may have done a part of it, and its log says why"
    assert text(foreseen) == "Insufficient: balance=-3"
    assert failed.is_error
    assert foreseen.is_error


async def test_to_a_handler_the_agent_mcp_has_asked() -> None:
    async with served() as client:
        assert text(await client.call_tool("who_asks", {})) == AGENT


@pytest.mark.parametrize("mode", ERAS)
async def test_a_stream_reports_each_item_and_returns_them_all(mode: str) -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        told.append((done, text))

    async with served(mode) as client:
        result = await client.call_tool("count", {"upto": 3}, progress_callback=progress)
    assert result.structured_content == {"items": [0, 1, 2], "complete": True}
    assert sorted(told) == [(1, "0"), (2, "1"), (3, "2")]


@pytest.mark.parametrize("mode", ERAS)
async def test_a_handler_tells_of_its_progress(mode: str) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        told.append((done, total, text))

    async with served(mode) as client:
        await client.call_tool("steps", {}, progress_callback=progress)
        await client.call_tool("steps", {})
    assert sorted(told) == [(1, 2, "half of it"), (2, 2, None)]


async def test_content_is_shown_as_what_it_is() -> None:
    async with served() as client:
        result = await client.call_tool("show", {})
        picture = await client.call_tool("picture", {})
    assert [part.type for part in result.content] == ["text", "text", "image", "audio", "resource", "resource_link"]
    assert picture.content == [types.ImageContent(data="cA==", mime_type="image/png")]


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_cancels_ends_the_handler(mode: str) -> None:
    agent = Desk()
    async with desk(agent) as (_, service), Client(service.server, mode=mode) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.call_tool, "wait", {})
        await until(lambda: agent.waiting == 1)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until(lambda: agent.cancelled == 1)


async def test_a_client_that_goes_ends_its_handlers() -> None:
    agent = Desk()
    async with desk(agent) as (_, service):
        async with trio.open_nursery() as nursery:

            async def use() -> None:
                async with Client(service.server, mode=HANDSHAKE) as client:
                    await client.call_tool("wait", {})

            nursery.start_soon(use)
            await until(lambda: agent.waiting == 1)
            nursery.cancel_scope.cancel()
        await until(lambda: agent.cancelled == 1)


async def test_one_client_has_so_many_calls_under_way_and_no_more() -> None:
    agent = Desk()
    async with desk(agent) as (_, service), Client(service.server, mode=HANDSHAKE) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(MOST_REQUESTS):
                nursery.start_soon(client.call_tool, "wait", {})
            await until(lambda: agent.waiting == MOST_REQUESTS)
            result = await client.call_tool("add", {"amount": 1})
            assert text(result) == "32 calls are under way already: wait for one to end"
            nursery.cancel_scope.cancel()
        await until(lambda: agent.cancelled == MOST_REQUESTS)
        assert not (await client.call_tool("add", {"amount": 1})).is_error


async def test_a_call_that_takes_too_long_ends_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaking, "CALL_LIMIT", 0.01)
    async with served() as client:
        assert text(await client.call_tool("wait", {})) == "desk did not answer in 0.01 s: it may have done it"


async def test_a_server_that_stops_lets_calls_end_and_takes_no_more(autojump_clock: trio.abc.Clock) -> None:
    agent = Desk()
    async with (
        desk(agent) as (_, service),
        Client(service.server, mode=HANDSHAKE) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call_tool, "wait", {})
        await until(lambda: agent.waiting == 1)
        start = trio.current_time()
        nursery.start_soon(service.drain)
        await trio.testing.wait_all_tasks_blocked()
        assert text(await client.call_tool("add", {"amount": 1})) == "the server is stopping: nothing was done"
        await service.drain()
        assert trio.current_time() - start == pytest.approx(service_module.DRAIN)
        nursery.cancel_scope.cancel()


async def test_a_server_with_nothing_under_way_stops_at_once(autojump_clock: trio.abc.Clock) -> None:
    agent = Desk()
    async with desk(agent) as (_, service), Client(service.server, mode=HANDSHAKE) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.call_tool, "wait", {})
                await until(lambda: agent.waiting == 1)
                nursery.start_soon(service.drain)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        start = trio.current_time()
        await service.drain()
        assert trio.current_time() == start


async def test_what_fails_in_here_is_told_as_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk() as (node, service), Client(service.server, mode=HANDSHAKE) as client:
        with monkeypatch.context() as patch:
            patch.setattr(type(node), "agents", lambda _: 1 / 0)
            with pytest.raises(MCPError, match=r"^the server failed: its log says why$"):
                await client.list_tools()
        node.ref(AGENT).stop()
        await node.ref(AGENT).stopped()
        assert text(await client.call_tool("add", {"amount": 1})) == "the server cannot do it now"


async def test_log_messages_reach_the_client_from_the_level_that_it_wants() -> None:
    logged: list[tuple[str, Any]] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append((params.level, params.data))

    async with served(logging_callback=log) as client:
        await client.call_tool("log", {})
        await client.session.send_request(
            types.SetLevelRequest(params=types.SetLevelRequestParams(level="debug")), types.EmptyResult
        )
        await client.call_tool("log", {})
        await until(lambda: len(logged) == 3)
    assert sorted(logged, key=str) == [("debug", "small"), ("error", {"grave": True}), ("error", {"grave": True})]


async def test_in_the_newer_protocol_only_who_asks_for_log_messages_gets_them() -> None:
    logged: list[str] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append(params.level)

    async with served("2026-07-28", logging_callback=log) as client:
        await client.call_tool("log", {})
    assert not logged
    async with served("2026-07-28", logging_callback=log, log_level="error") as client:
        await client.call_tool("log", {})
        await until(lambda: logged == ["error"])


async def test_a_handler_can_have_the_clients_model_answer() -> None:
    asked: list[types.CreateMessageRequestParams] = []

    async def sample(_: object, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        asked.append(params)
        return types.CreateMessageResult(role="assistant", content=types.TextContent(text="42"), model="m")

    async with served(sampling_callback=sample) as client:
        assert text(await client.call_tool("guess", {"prompt": "six times seven"})) == "42"
    assert (asked[0].max_tokens, asked[0].system_prompt) == (10, "be brief")


async def test_a_handler_learns_that_the_client_lends_no_model_or_refuses() -> None:
    async def refuse(_: object, __: object) -> types.ErrorData:
        return types.ErrorData(code=1, message="no, thanks")

    async def draw(_: object, __: object) -> types.CreateMessageResult:
        image = types.ImageContent(data="", mime_type="image/png")
        return types.CreateMessageResult(role="assistant", content=image, model="m")

    async with served() as client:
        result = await client.call_tool("guess", {"prompt": ""})
        assert text(result) == "Unsupported: what='the MCP client lends no model'"
    async with served(sampling_callback=refuse) as client:
        result = await client.call_tool("guess", {"prompt": ""})
        assert text(result) == "Unsupported: what='the MCP client refused: no, thanks'"
    async with served(sampling_callback=draw) as client:
        result = await client.call_tool("guess", {"prompt": ""})
        assert "something that is no text" in text(result)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            types.ElicitResult(action="accept", content={"name": "Ada", "age": 36, "status": "off", "tags": ["a"]}),
            '{"name": "Ada", "age": 36, "status": "off", "tags": ["a"]}',
        ),
        (
            types.ElicitResult(action="accept", content={"age": 36}),
            "Unsupported: what=\"what was filled in does not fit: 'name' is missing @ Profile\"",
        ),
    ],
)
async def test_a_handler_can_ask_the_clients_person(answer: types.ElicitResult, said: str) -> None:
    schemas: list[Any] = []

    async def elicit(_: object, params: Any) -> types.ElicitResult:  # noqa: ANN401 - the SDK's own
        schemas.append(params.requested_schema)
        return answer

    async with served(elicitation_callback=elicit) as client:
        assert text(await client.call_tool("ask_person", {})) == said
    assert schemas == [
        {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer", "default": 30},
                "status": {"type": "string", "enum": ["on", "off"], "default": "on"},
                "tags": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
            },
            "required": ["name"],
        }
    ]


async def test_a_form_can_be_a_schema_of_ones_own() -> None:
    async def elicit(_: object, params: Any) -> types.ElicitResult:  # noqa: ANN401 - the SDK's own
        return types.ElicitResult(action="accept", content={"x": str(params.requested_schema["properties"])})

    async with served(elicitation_callback=elicit) as client:
        assert "{'type': 'string'}" in text(await client.call_tool("form", {}))


async def test_a_person_who_declines_is_nothing() -> None:
    async def decline(_: object, __: object) -> types.ElicitResult:
        return types.ElicitResult(action="decline")

    async with served(elicitation_callback=decline) as client:
        assert (await client.call_tool("ask_person", {})).content == []


async def test_a_handler_learns_that_the_client_has_nobody_to_ask() -> None:
    async with served() as client:
        result = await client.call_tool("ask_person", {})
    assert text(result) == "Unsupported: what='the MCP client has no person to ask'"


async def test_resources_are_listed_and_read_by_their_addresses() -> None:
    async with served() as client:
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        page = (await client.read_resource("book://12")).contents
        front = (await client.read_resource("book://front")).contents
        facts = (await client.read_resource("book://facts")).contents
        with pytest.raises(MCPError, match=r"expected int, got str @ Page.number"):
            await client.read_resource("book://twelve")
        with pytest.raises(MCPError, match="there is no resource"):
            await client.read_resource("book://1/2")
    assert {(each.uri, each.mime_type) for each in resources} == {
        ("book://front", "text/html"),
        ("book://facts", "application/json"),
    }
    assert [each.uri_template for each in templates] == ["book://{number}"]
    assert page == [types.TextResourceContents(uri="book://12", mime_type="text/plain", text="page 12")]
    assert front == [
        types.TextResourceContents(uri="book://front/a", mime_type="text/plain", text="a"),
        types.BlobResourceContents(uri="book://b", mime_type="b/b", blob="Yg=="),
        types.BlobResourceContents(uri="book://front", mime_type="text/html", blob="Yw=="),
    ]
    assert facts == [types.TextResourceContents(uri="book://facts", mime_type="application/json", text='{"value": 3}')]


async def test_prompts_are_listed_and_made_of_their_arguments() -> None:
    async with served() as client:
        prompts = {each.name: each for each in (await client.list_prompts()).prompts}
        greet = await client.get_prompt("greet", {"whom": "Ada", "times": "3"})
        talk = await client.get_prompt("talk")
        numbers = await client.get_prompt("numbers")
        with pytest.raises(MCPError, match="'whom' is missing @ Greet"):
            await client.get_prompt("greet", {})
        with pytest.raises(MCPError, match="expected int, got str"):
            await client.get_prompt("greet", {"whom": "Ada", "times": "often"})
        with pytest.raises(MCPError, match="there is no prompt"):
            await client.get_prompt("none")
    assert prompts["greet"].description == "Greet somebody."
    assert [(each.name, each.required) for each in prompts["greet"].arguments or ()] == [
        ("whom", True),
        ("tone", False),
        ("times", False),
    ]
    assert greet.messages == [
        types.PromptMessage(role="user", content=types.TextContent(text="Greet Ada, warm, 3 times"))
    ]
    assert [(each.role, each.content.type) for each in talk.messages] == [("user", "text"), ("assistant", "image")]
    assert numbers.messages == [types.PromptMessage(role="user", content=types.TextContent(text='{"value": 1}'))]


async def test_a_choice_is_completed_and_anything_else_is_not() -> None:
    greet = types.PromptReference(name="greet")
    page = types.ResourceTemplateReference(uri="book://{number}")
    async with served() as client:
        tone = await client.complete(greet, {"name": "tone", "value": "w"})
        whom = await client.complete(greet, {"name": "whom", "value": "A"})
        number = await client.complete(page, {"name": "number", "value": "1"})
        with pytest.raises(MCPError, match="there is no resource"):
            await client.complete(types.ResourceTemplateReference(uri="x:y"), {"name": "a", "value": ""})
    assert tone.completion.values == ["warm"]
    assert whom.completion.values == number.completion.values == []


async def test_who_has_subscribed_to_a_resource_learns_that_it_changed() -> None:
    seen: list[str] = []

    async def notice(message: Any) -> None:  # noqa: ANN401 - the SDK's own
        if isinstance(message, types.ResourceUpdatedNotification):
            seen.append(message.params.uri)

    async with served(message_handler=notice) as client:
        await subscribe(client, "book://7")
        await client.call_tool("change", {})
        await until(lambda: seen == ["book://7"])
        await client.session.send_request(
            types.UnsubscribeRequest(params=types.UnsubscribeRequestParams(uri="book://7")), types.EmptyResult
        )
        await client.call_tool("change", {})
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(MCPError, match="there is no resource"):
            await subscribe(client, "nothing:7")
    assert seen == ["book://7"]


async def test_a_client_subscribes_to_so_many_resources_and_no_more() -> None:
    async with served() as client:
        for number in range(MOST_SUBSCRIPTIONS):
            await subscribe(client, f"book://{number}")
        await subscribe(client, "book://0")
        with pytest.raises(MCPError, match="at most 64 resources"):
            await subscribe(client, "book://64")


async def test_a_client_that_cannot_be_told_misses_the_news_and_the_others_do_not() -> None:
    told: list[str] = []

    class _Gone:
        async def send_resource_updated(self, uri: str) -> None:
            raise OSError("gone")

    class _There:
        async def send_resource_updated(self, uri: str) -> None:
            told.append(uri)

    async with desk() as (_, service):
        look: Any = service
        for key, session in (("1", _Gone()), ("2", _There())):
            look._sessions[key] = service_module._Session()
            look._sessions[key].subscriptions["book://7"] = session
        service.updated("book://7")
        await until(lambda: told == ["book://7"])


async def test_what_the_sdk_warns_of_is_a_line_of_the_log_without_a_traceback() -> None:
    with capture_logs() as lines:
        logging.getLogger("mcp.server.anything").error("it crashed\n", exc_info=ValueError("in the SDK"))
        logging.getLogger("mcp.server.anything").info("nothing of note")
    assert [(each["event"], each["said"], each["why"], each["detail"]) for each in lines] == [
        ("the MCP SDK warns", "it crashed?", "ValueError", "in the SDK")
    ]


async def test_news_of_changes_that_nobody_takes_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MOST_UPDATES", 1)
    async with desk() as (_, service):
        for _ in range(3):
            service.updated("book://7")  # without a checkpoint nobody takes them; it raises nothing


async def test_of_too_many_clients_the_one_that_was_silent_longest_is_forgotten() -> None:
    class _Request:
        def __init__(self, number: int) -> None:
            self.headers = {"mcp-session-id": str(number)}

    class _Context:
        def __init__(self, number: int) -> None:
            self.request = _Request(number)

    async with desk() as (_, service):
        look: Any = service
        first = look._session(_Context(0))
        for number in range(1, MOST_SESSIONS + 1):
            look._session(_Context(number))
        assert look._session(_Context(0)) is first
        for number in range(MOST_SESSIONS + 1, 2 * MOST_SESSIONS + 2):
            look._session(_Context(number))
        assert look._session(_Context(0)) is not first


async def test_an_agent_of_that_name_is_in_the_way() -> None:
    async with open_node() as node:
        node.spawn(Desk, AGENT)
        with pytest.raises(NameTaken):
            async with open_service(node, name="x"):
                pass


async def subscribe(client: Client, uri: str) -> None:
    await client.session.send_request(
        types.SubscribeRequest(params=types.SubscribeRequestParams(uri=uri)), types.EmptyResult
    )


async def until(reached: Any) -> None:  # noqa: ANN401 - a callable
    with trio.fail_after(30):
        while True:
            if reached():
                return
            await trio.lowlevel.checkpoint()
