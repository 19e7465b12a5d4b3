"""What `mcp_server` takes and refuses, and that its conditions are each message's own."""

from typing import Any

import pytest

from autonomy_trio.actors.spec import spec_of
from autonomy_trio.connect.mcp import (
    CallTool,
    CallToolInParts,
    GetPrompt,
    ListTools,
    McpServer,
    ReadResource,
    mcp_server,
)
from autonomy_trio.errors import DeclarationError, PolicyError
from autonomy_trio.fabric.opening import check_agents
from autonomy_trio.messages import check_sendable


def conditions(server: type[McpServer]) -> dict[type, str | None]:
    return {message: handler.allow for message, handler in spec_of(server).handlers.items()}


def test_every_message_and_answer_can_travel() -> None:
    for message in spec_of(McpServer).handlers:
        check_sendable(message)


def test_a_class_is_called_as_its_agent_and_serves_its_own_node_alone_by_default() -> None:
    server = mcp_server(name="read_only_files", command=["x"])
    spec = spec_of(server)
    assert (spec.agent, spec.name, spec.concurrency) == ("ReadOnlyFiles", "read_only_files", 16)
    assert set(conditions(server).values()) == {None}
    assert not spec.topics


def test_allow_is_the_condition_on_all_and_the_others_narrow_it() -> None:
    server = mcp_server(
        name="files",
        command=["x"],
        allow='principal.role == "reader"',
        tools='context.message.name == "read_file" || principal.role == "admin"',
        resources='context.message.uri like "notes://*"',
    )
    found = conditions(server)
    allow = 'principal.role == "reader"'
    assert found[ListTools] == found[GetPrompt] == allow
    tools = f'({allow}) && (context.message.name == "read_file" || principal.role == "admin")'
    assert found[CallTool] == found[CallToolInParts] == tools
    assert found[ReadResource] == f'({allow}) && (context.message.uri like "notes://*")'
    assert spec_of(server).topics == {"#files": allow}
    agents, _ = check_agents([server, mcp_server(name="other", command=["y"], allow="true")], None)
    assert set(agents) == {"files", "other"}
    assert set(conditions(McpServer).values()) == {None}, "a condition of one class is another's too"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, r"give command=\[…\] or url=…, and not both"),
        ({"command": ["x"], "url": "http://x"}, "and not both"),
        ({"command": "uvx mcp-server-time"}, "as a list of words"),
        ({"command": []}, "as a list of words"),
        ({"command": ["x", 1]}, "as a list of words"),
        ({"command": ["x"], "headers": {}}, "headers= is for url="),
        ({"url": "http://x", "env": {}}, "env= and cwd= are for command="),
        ({"url": "http://x", "cwd": "."}, "env= and cwd= are for command="),
        ({"url": "ftp://x"}, "no http:// or https:// URL"),
        ({"url": "http://"}, "no http:// or https:// URL"),
        ({"name": "Files", "command": ["x"]}, "write it in snake_case"),
        ({"name": "a-b", "command": ["x"]}, "write it in snake_case"),
        ({"name": "", "command": ["x"]}, "write it in snake_case"),
        ({"command": ["x"], "tools": "true"}, "narrow allow=: give that too"),
        ({"command": ["x"], "concurrency": 0}, "concurrency=0"),
    ],
)
def test_what_cannot_be_right_is_refused_with_the_mend(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        mcp_server(**{"name": "files", **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allow": "principal.role =="}, "does not parse"),
        ({"allow": 'context.message.name == "read_file"'}, "no field 'name'.*goes into its own"),
        ({"allow": "true", "tools": 'context.message.nme == "read_file"'}, "did you mean 'name'.*tools="),
        ({"allow": "true", "tools": "true) || (true"}, "does not parse"),
        ({"allow": "true", "tools": 'context.message.arguments.path == "x"'}, "which Cedar has no type for"),
    ],
)
def test_a_condition_that_cannot_hold_names_the_server_and_the_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError, match=r"mcp_server\('files'\)") as caught:
        mcp_server(name="files", command=["x"], **options)
    assert pytest.RaisesExc(PolicyError, match=words).matches(caught.value)


def test_no_secret_is_in_what_a_class_shows() -> None:
    server = mcp_server(name="files", command=["x", "postgres://u:secret@db/d"], env={"TOKEN": "secret"})
    assert "secret" not in f"{server!r} {server.place!r} {server()!r}"
    web = mcp_server(name="web", url="https://u:secret@x/secret?secret", headers={"Authorization": "secret"})
    assert "secret" not in f"{web!r} {web.place!r} {web()!r}"
