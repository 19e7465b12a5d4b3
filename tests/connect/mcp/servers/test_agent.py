"""An MCP server as an agent: what it is asked, how large answers come, and what follows its end."""

import functools
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from structlog.testing import capture_logs

from autonomy_trio import AgentRef, Context, agent, on, pool
from autonomy_trio.connect.mcp import (
    Audio,
    BlobResource,
    CallTool,
    CallToolInParts,
    CompletePrompt,
    CompleteResource,
    Completion,
    Describe,
    EmbeddedResource,
    GetPrompt,
    GetPromptInParts,
    Image,
    ListChanged,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    McpError,
    McpServer,
    Part,
    Ping,
    Progress,
    ReadResource,
    ReadResourceInParts,
    Resource,
    Text,
    TextResource,
    ToolResult,
    ask_in_parts,
)
from autonomy_trio.connect.mcp.servers import lines, processes, sessions
from autonomy_trio.errors import (
    ConfigurationError,
    DeclarationError,
    HandlerFailed,
    MessageError,
    NotDelivered,
    OutcomeUnknown,
)
from autonomy_trio.messages import MOST_PAYLOAD
from autonomy_trio.testing import open_test_node
from tests.support.mcp_agents import Script, is_gone
from tests.support.processes import PATIENCE

About = Callable[[AgentRef[McpServer]], Awaitable[Any]]


async def test_it_says_who_the_server_is(script: Script) -> None:
    async with open_test_node() as node:
        found = await node.spawn(script.agent()).ask(Describe())
    assert (found.name, found.version, found.title, found.instructions) == ("script", "1.0", "A script", "be kind")
    assert found.protocol == "2025-11-25"
    assert found.capabilities["tools"] == {"listChanged": True}


async def test_a_server_that_speaks_only_the_newest_protocol_is_spoken_with_too(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent("modern"))
        assert (await server.ask(Describe())).protocol == "2026-07-28"
        assert (await server.ask(CallTool("echo", {"text": "hi"}))).text == "hi"
        assert len((await server.ask(ListTools())).tools) > 1


async def test_tools_resources_prompts_and_completions_are_messages(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent())
        await server.ask(Ping())
        tools = await server.ask(ListTools())
        assert tools.tools[0].name == "echo"
        assert tools.tools[0].input_schema == {"type": "object"}
        assert tools.tools[0].annotations == {"readOnlyHint": True}
        following = await server.ask(ListTools(tools.next_cursor))
        assert ([each.name for each in following.tools], following.next_cursor) == (["last"], None)
        result = await server.ask(CallTool("echo", {"text": "hi", "deep": [{"a": None}]}))
        assert result == ToolResult((Text("hi"),), {"text": "hi", "deep": [{"a": None}]})
        (resource, *_) = (await server.ask(ListResources())).resources
        assert (resource.uri, resource.size, resource.icons) == ("note://one", 3, ({"src": "data:,"},))
        (template, *_) = (await server.ask(ListResourceTemplates())).resource_templates
        assert template.uri_template == "note://{name}"
        contents = (await server.ask(ReadResource("note://one"))).contents
        assert contents == (TextResource("note://one", "xx"), BlobResource("note://one", b"\x89PNG"))
        (prompt, *_) = (await server.ask(ListPrompts())).prompts
        assert prompt.arguments == ({"name": "who", "required": True},)
        greeting = await server.ask(GetPrompt("one", {"who": "Ann"}))
        assert greeting.description == "a greeting"
        assert [(each.role, each.content) for each in greeting.messages] == [("user", Text("greet Ann"))]
        found = await server.ask(CompletePrompt("one", "who", "An", {"before": "x"}))
        assert found == Completion(("one who An", "before"), 2, has_more=False)
        assert (await server.ask(CompleteResource("note://{name}", "name", "o"))).values == ("note://{name} name o",)


async def test_each_kind_of_content_is_a_class_of_its_own(script: Script) -> None:
    async with open_test_node() as node:
        result = await node.spawn(script.agent()).ask(CallTool("kinds"))
    assert result.content == (
        Text("one", {"priority": 0.5}),
        Image(b"\x89PNG", "image/png"),
        Audio(b"\x89PNG", "audio/wav"),
        Resource("note://1", "one", size=3),
        EmbeddedResource(TextResource("note://1", "hi", "text/plain")),
        EmbeddedResource(BlobResource("note://2", b"\x89PNG")),
        Text("two"),
    )
    assert (result.structured, result.meta) == ({"value": 1, "nothing": None}, {"k": "v"})
    assert result.text == "one\ntwo"


async def test_a_tool_that_fails_is_a_result_and_an_error_of_the_server_is_raised(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent())
        assert (await server.ask(CallTool("fail"))).is_error
        with pytest.raises(McpError) as caught:
            await server.ask(CallTool("error"))
        error = caught.value
        assert (error.code, error.message, error.data) == (-32055, "no such luck", {"why": "bad day"})
        assert str(caught.value) == "no such luck (-32055)"
        with pytest.raises(McpError) as caught:
            await ask_in_parts(server, CallToolInParts("error"))
        assert caught.value.code == -32055
        with pytest.raises(McpError) as caught:
            await server.ask(CallTool("big_error"))
        assert len(caught.value.message) == sessions.MOST_QUOTED
        assert caught.value.data is None
    assert len(script.pids()) == 1, "an error of the server restarted it"


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("strange", r"answered tools/call with what is no such result: content\.0\.\w+\.text: Field required"),
        ("bad_image", "answered CallTool with what cannot be read"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_and_no_failure(script: Script, tool: str, words: str) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent())
        with pytest.raises(McpError, match=words):
            await server.ask(CallTool(tool))
        assert (await server.ask(CallTool("echo", {"text": "still here"}))).text == "still here"


async def test_bytes_of_parts_that_are_no_answer_are_said_to_be_none(script: Script) -> None:
    async with open_test_node() as node:
        with pytest.raises(MessageError, match="script answered with what is no such result"):
            await ask_in_parts(node.spawn(script.agent()), CallToolInParts("bad_image"))


@agent
class Liar:
    """Answers in parts with what is no answer."""

    data: bytes

    @on(CallToolInParts)
    async def call(self, _: CallToolInParts) -> AsyncGenerator[Progress | Part]:
        yield Part(self.data)


@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b'"x"', b'{"content": ["x"]}', b'{"content": 1}', b"\xff", b"[" * 100_000]
)
async def test_what_another_node_answers_in_parts_is_checked(data: bytes) -> None:
    async with open_test_node() as node:
        with pytest.raises(MessageError, match="answered with what is no such result"):
            await ask_in_parts(node.spawn(lambda: Liar(data)), CallToolInParts("any"))


async def test_an_answer_larger_than_a_message_says_what_to_ask_and_comes_in_parts(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent())
        fits = await server.ask(CallTool("big", {"size": MOST_PAYLOAD - 200}))
        assert len(fits.text) == MOST_PAYLOAD - 200
        with pytest.raises(McpError, match=r"the answer to CallTool does not fit one message: .*CallToolInParts"):
            await server.ask(CallTool("big", {"size": 3_000_000}))
        assert (await ask_in_parts(server, CallToolInParts("big", {"size": 3_000_000}))).text == "x" * 3_000_000
        with pytest.raises(McpError, match="ReadResourceInParts"):
            await server.ask(ReadResource("size://200000"))
        found = await ask_in_parts(server, ReadResourceInParts("size://200000"))
        assert found.contents[0] == TextResource("size://200000", "x" * 200_000)
        with pytest.raises(McpError, match="GetPromptInParts"):
            await server.ask(GetPrompt("one", {"size": "200000"}))
        prompt = await ask_in_parts(server, GetPromptInParts("one", {"size": "200000"}))
        assert prompt.messages[0].content == Text("greet nobody" + "x" * 200_000)


async def test_more_than_any_answer_may_have_is_refused_by_the_asker(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autonomy_trio.connect.mcp.servers.asking.MOST_ANSWER", 100_000)
    async with open_test_node() as node:
        with pytest.raises(MessageError, match="script answers with more than 100,000 bytes"):
            await ask_in_parts(node.spawn(script.agent()), CallToolInParts("big", {"size": 200_000}))


async def test_a_list_larger_than_a_message_comes_in_pages_that_fit(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent("large"))
        names: list[str] = []
        cursor: str | None = None
        pages = 0
        while pages == 0 or cursor is not None:
            found = await server.ask(ListTools(cursor))
            names += [each.name for each in found.tools]
            cursor, pages = found.next_cursor, pages + 1
        assert names[:3] == ["echo", "wait", "release"]
        assert names[-1] == "last"
        assert len(names) == len(set(names)) == 15
        assert pages > 2
        with pytest.raises(McpError, match=r"'nonsense' is no cursor that this agent has given"):
            await server.ask(ListTools("nonsense"))
    async with open_test_node() as node:
        with pytest.raises(McpError, match="the server's entry 'huge': Tools has 200,"):
            await node.spawn(script.agent("huge")).ask(ListTools())


async def test_progress_is_heard_in_its_order(script: Script) -> None:
    heard: list[Progress] = []

    async def hear(each: Progress) -> None:
        heard.append(each)

    async with open_test_node() as node:
        server = node.spawn(script.agent())
        result = await ask_in_parts(server, CallToolInParts("progress", {"count": 3}), hear)
        assert result.text == "done"
        assert (await ask_in_parts(server, CallToolInParts("progress", {"count": 3}))).text == "done"
    assert heard
    assert [each.progress for each in heard] == sorted({each.progress for each in heard})
    assert all(each.total == 3 and each.message == f"step {each.progress:g}" for each in heard)


async def test_several_calls_are_under_way_at_once_and_more_wait(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent(concurrency=3))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(server.ask, CallTool("wait"))
            await script.wait_line("waits", 2)
            assert (await server.ask(CallTool("release"))).text == "released"
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(server.ask, CallTool("wait"))
            await script.wait_line("waits", 5)
            with trio.move_on_after(0.2):
                await script.wait_line("waits", 6)
                pytest.fail("more were under way than concurrency= says")
            nursery.cancel_scope.cancel()


async def test_a_call_that_is_withdrawn_is_cancelled_at_the_server(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent())
        for count, asking in enumerate(
            (
                functools.partial(server.ask, CallTool("wait")),
                functools.partial(ask_in_parts, server, CallToolInParts("wait")),
            ),
            1,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asking)
                await script.wait_line("waits", count)
                nursery.cancel_scope.cancel()
            await script.wait_line("notifications/cancelled", count)
        assert (await server.ask(CallTool("echo", {"text": "hi"}))).text == "hi"


async def test_a_server_that_is_killed_in_calls_gives_each_asker_one_clear_error_and_is_started_again(
    script: Script, about: About
) -> None:
    said: list[str] = []

    async def ask(asking: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(McpError) as caught:
            await asking()
        said.append(str(caught.value))

    async with open_test_node(expected=McpError) as node:
        server = node.spawn(script.agent())
        before = (await about(server))["pid"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, functools.partial(server.ask, CallTool("wait")))
            nursery.start_soon(ask, functools.partial(ask_in_parts, server, CallToolInParts("wait")))
            await script.wait_line("waits", 2)
            nursery.start_soon(ask, functools.partial(server.ask, CallTool("die")))
        assert said == ["the MCP server was ended by SIGKILL in this call, which may have had effects (-32000)"] * 3
        assert (await about(server))["pid"] != before
        assert [str(each.error) for each in node.failures] == ["the MCP server was ended by SIGKILL (-32000)"]
        with pytest.raises(McpError, match="ended with exit code 7 in this call"):
            await server.ask(CallTool("exit", {"code": 7}))
        await server.ask(Ping())


async def test_a_server_that_closes_its_output_is_over_though_it_lives(
    script: Script, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_ASKED", 0.1)
    async with open_test_node(expected=McpError) as node:
        server = node.spawn(script.agent())
        with pytest.raises(McpError, match="the MCP server no longer answers in this call"):
            await server.ask(CallTool("hush"))
        await about(server)
    first, _ = script.pids()
    assert await is_gone(first)


async def test_a_call_between_the_end_and_the_restart_waits_and_one_in_parts_is_told(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, may_go_on = trio.Event(), trio.Event()
    wait_over = sessions.Session.wait_over

    async def wait_over_and_more(session: sessions.Session) -> McpError:
        found = await wait_over(session)
        over.set()
        await may_go_on.wait()
        return found

    monkeypatch.setattr(sessions.Session, "wait_over", wait_over_and_more)
    async with open_test_node(expected=McpError) as node:
        server = node.spawn(script.agent())
        with pytest.raises(McpError, match="in this call"):
            await server.ask(CallTool("die"))
        await over.wait()
        with pytest.raises(McpError, match="was ended by SIGKILL and is started again: nothing was asked"):
            await ask_in_parts(server, CallToolInParts("echo", {"text": "hi"}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.ask, CallTool("echo", {"text": "hi"}))
            await trio.testing.wait_all_tasks_blocked()
            may_go_on.set()


async def test_the_log_has_an_end_in_words_and_no_traceback(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_test_node(expected=McpError) as node:
        with pytest.raises(McpError):
            await node.spawn(script.agent()).ask(CallTool("die"))
    said = capsys.readouterr().err
    assert "McpError: the MCP server was ended by SIGKILL (-32000)" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("dies", r"the MCP server ended with exit code 3 before it answered initialize \(-32000\)"),
        ("refuses", r"the MCP server refused initialize: not today \(-32001\)"),
        ("wrong", r"the MCP server answered initialize with what is no such answer \(-32603\)"),
        ("ancient", r"the MCP server answered initialize with what is no such answer \(-32603\)"),
    ],
)
async def test_a_server_that_does_not_begin_as_one_says_how_and_gives_up(
    script: Script, mode: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_test_node(expected=McpError) as node:
        server = node.spawn(script.agent(mode))
        with pytest.raises((NotDelivered, OutcomeUnknown, HandlerFailed)):
            await server.ask(Ping())
        assert len(node.failures) == 4, "its supervisor tries three times more"
    said = capsys.readouterr().err
    assert f"McpError: {words}".replace("\\", "") in said
    assert "Traceback" not in said
    if mode == "dies":
        assert "I have no settings" in said, "the last words of the server are not in the log"
    for pid in script.pids():
        assert await is_gone(pid)


@pytest.mark.parametrize(("mode", "more"), [("silent", ""), ("rubbish", "; lines of it that are no JSON-RPC: 3")])
async def test_a_server_that_never_answers_initialize_is_given_up(
    script: Script, mode: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "START_LIMIT", 0.7)
    async with open_test_node(expected=McpError) as node:
        server = node.spawn(script.agent(mode))
        with pytest.raises((NotDelivered, OutcomeUnknown)):
            await server.ask(Ping())
        said = {str(each.error) for each in node.failures}
    assert said == {f"the MCP server did not answer initialize in 0.7 s{more} (-32000)"}


async def test_a_command_or_folder_that_is_not_there_is_said(script: Script, tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    refused.write_text("")
    async with open_test_node(expected=ConfigurationError) as node:
        for options, words in (
            ({"command": ["no-such-command", "x"]}, "there is no command 'no-such-command' on this machine"),
            ({"cwd": tmp_path / "nowhere"}, f"the folder {tmp_path}/nowhere for "),
            ({"command": [str(refused)]}, f"the command '{refused}' cannot be run: Permission denied"),
        ):
            server = node.spawn(script.agent(**options))
            with pytest.raises((NotDelivered, OutcomeUnknown)):
                await server.ask(Ping())
            await server.stopped()
            assert words in str(node.failures[-1].error)


async def test_lines_that_are_no_json_and_a_flood_on_standard_error_harm_nobody(script: Script) -> None:
    with capture_logs() as logs:
        async with open_test_node() as node:
            server = node.spawn(script.agent("chatty"))
            assert (await server.ask(CallTool("echo", {"text": "hi"}))).text == "hi"
            await script.wait_line("said all")
    said = [each["text"] for each in logs if each["event"] == "the MCP server says"]
    assert said[0] == "line 0"
    assert len(said) <= 100
    strange = [each["text"] for each in logs if each["event"] == "the MCP server writes what is no JSON-RPC"]
    assert strange in (["Welcome!", "reading {settings}"], []), "it was said after too much was"


async def test_a_line_without_end_ends_the_session(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_LINE", 100_000)
    monkeypatch.setattr(processes, "STOP_ASKED", 0.1)
    async with open_test_node(expected=Exception) as node:
        server = node.spawn(script.agent("endless"))
        with pytest.raises((NotDelivered, OutcomeUnknown)):
            await server.ask(Ping())
        assert {str(each.error) for each in node.failures} == {"a line has more than 100,000 bytes"}


async def test_a_stop_ends_the_process_and_so_does_a_cancelled_node(script: Script, about: About) -> None:
    async with open_test_node() as node:
        server = node.spawn(script.agent())
        await about(server)
        server.stop()
        await server.stopped()
    assert "ended" in script.lines(), "its standard input did not end"
    with trio.CancelScope() as scope:
        async with open_test_node() as node:
            await about(node.spawn(script.agent()))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    for pid in script.pids():
        assert await is_gone(pid)


async def test_a_process_that_hears_nothing_is_killed_with_those_it_has_started(
    script: Script, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_ASKED", 0.1)
    monkeypatch.setattr(processes, "STOP_TERMINATED", 0.1)
    for mode in ("deaf", "parent"):
        async with open_test_node() as node:
            await about(node.spawn(script.agent(mode)))
    deaf, parent = script.pids()
    child = int((await script.wait_line("child ")).split()[1])
    for pid in (deaf, parent, child):
        assert await is_gone(pid)


async def test_the_process_gets_its_folder_and_variables_and_none_of_the_nodes_secrets(
    script: Script, about: About, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTONOMY_PASSPHRASE", "secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    async with open_test_node() as node:
        found = await about(node.spawn(script.agent(env={"TOKEN": "t"}, cwd=folder)))
    assert found["cwd"] == str(folder)
    assert found["env"]["TOKEN"] == "t"
    assert "PATH" in found["env"]
    assert "secret" not in json.dumps(found["env"])


async def test_changed_lists_are_published_to_the_topic_of_its_name(script: Script) -> None:
    heard: list[str] = []
    done = trio.Event()

    @agent
    class Listener:
        @on(ListChanged)
        async def hear(self, message: ListChanged) -> None:
            heard.append(message.what)
            if len(heard) == 3:
                done.set()

        async def on_start(self, context: Context) -> None:
            context.subscribe("#script")

    async with open_test_node() as node:
        node.spawn(Listener)
        server = node.spawn(script.agent())
        await server.ask(Ping())  # by then what was spawned before it has begun too
        with trio.fail_after(PATIENCE):
            await server.ask(CallTool("change"))
            await done.wait()
    assert sorted(heard) == ["prompts", "resources", "tools"]


async def test_a_pool_has_a_process_each(script: Script) -> None:
    async with open_test_node() as node:
        server = node.spawn(pool(script.agent(), 2))
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(server.ask, Ping())
        await script.wait_line("began", 2)


async def test_the_class_of_refs_is_not_spawned_itself() -> None:
    async with open_test_node(expected=DeclarationError) as node:
        with pytest.raises((NotDelivered, OutcomeUnknown)):
            await node.spawn(McpServer).ask(Ping())
        assert "spawn what mcp_server(command=…) returns" in str(node.failures[0].error)
