from typing import Any

import pytest

from autonomy_trio.connect.mcp.gate import Gate, is_loopback

TOKEN = "correct horse battery staple"


def judged(gate: Gate, path: str = "/mcp", *more: tuple[bytes, bytes], **headers: str) -> int | None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    refused = gate.judge({"path": path, "headers": [*pairs, *more]})
    return None if refused is None else refused.status


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000"])
def test_on_this_machine_it_answers_to_this_machines_names(host: str) -> None:
    assert judged(Gate("127.0.0.1"), host=host) is None
    assert judged(Gate("127.0.0.1"), host=host, origin=f"http://{host}") is None


@pytest.mark.parametrize("host", ["evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "", "[", "a@b"])
def test_on_this_machine_it_answers_to_no_other_name(host: str) -> None:
    assert judged(Gate("127.0.0.1"), host=host) == 421


def test_on_this_machine_a_request_without_a_name_is_refused() -> None:
    assert judged(Gate("127.0.0.1")) == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example.com", "https://localhost.evil.com", "null", "http://[", "file://"]
)
def test_pages_of_other_servers_are_refused(origin: str) -> None:
    assert judged(Gate("127.0.0.1"), host="localhost", origin=origin) == 403
    assert judged(Gate("192.0.2.1", TOKEN), host="x", origin=origin, authorization=f"Bearer {TOKEN}") == 403


def test_beyond_this_machine_the_token_counts_and_not_the_name() -> None:
    gate = Gate("192.0.2.1", TOKEN)
    assert judged(gate, host="mcp.example.com", authorization=f"Bearer {TOKEN}") is None
    assert judged(gate, host="mcp.example.com", authorization=f"bearer  {TOKEN} ") is None


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer no", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"])
def test_without_the_token_there_is_no_answer(shown: str) -> None:
    refused = Gate("127.0.0.1", TOKEN).judge(
        {"path": "/mcp", "headers": [(b"host", b"localhost"), (b"authorization", shown.encode("latin-1"))]}
    )
    assert refused is not None
    assert (refused.status, refused.headers) == (401, {b"www-authenticate": b"Bearer"})


def test_a_header_that_comes_twice_is_refused() -> None:
    assert judged(Gate("127.0.0.1"), "/mcp", (b"host", b"evil.example.com"), host="localhost") == 400


def test_there_is_one_path() -> None:
    assert judged(Gate("127.0.0.1"), "/", host="localhost") == 404


def test_a_token_is_not_shown() -> None:
    assert TOKEN not in repr(Gate("127.0.0.1", TOKEN))


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("box", False)]
)
def test_what_others_cannot_reach(host: str, loopback: Any) -> None:  # noqa: ANN401 - a flag
    assert is_loopback(host) is loopback
