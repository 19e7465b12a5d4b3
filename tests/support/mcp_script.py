"""An MCP server that does as a test wants, of the standard library alone: ``python mcp_script.py [MODE] [LOG]``.

Over standard input and output, or with MODE ``http`` over streamable HTTP at a port that it prints. What it is told
beside requests, and that it began, goes to the file LOG, a line each.
"""

import base64
import gzip
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

Json = dict[str, Any]

MODE: Final = sys.argv[1] if len(sys.argv) > 1 else "well"
LOG: Final = Path(sys.argv[2]) if len(sys.argv) > 2 else None
IMAGE: Final = base64.b64encode(b"\x89PNG").decode()
ABOUT: Final = {"name": "script", "version": "1.0", "title": "A script"}
CAPABILITIES: Final = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True},
    "prompts": {},
    "completions": {},
    "logging": {},
}
NAMES: Final = "echo wait release die exit big progress strange bad_image kinds fail error change about"


def note(text: str) -> None:
    if LOG is not None:
        with LOG.open("a") as file:
            file.write(f"{text}\n")


def text(written: str, **more: object) -> Json:
    return {"content": [{"type": "text", "text": written}], **more}


class Problem(Exception):
    """A JSON-RPC error."""


def kinds(_: Json) -> Json:
    return {
        "content": [
            {"type": "text", "text": "one", "annotations": {"priority": 0.5}},
            {"type": "image", "data": IMAGE, "mimeType": "image/png"},
            {"type": "audio", "data": IMAGE, "mimeType": "audio/wav"},
            {"type": "resource_link", "uri": "note://1", "name": "one", "size": 3},
            {"type": "resource", "resource": {"uri": "note://1", "text": "hi", "mimeType": "text/plain"}},
            {"type": "resource", "resource": {"uri": "note://2", "blob": IMAGE}},
            {"type": "text", "text": "two"},
        ],
        "structuredContent": {"value": 1, "nothing": None},
        "_meta": {"k": "v"},
    }


def error(_: Json) -> Json:
    raise Problem({"code": -32055, "message": "no such luck", "data": {"why": "bad day"}})


def big_error(_: Json) -> Json:
    raise Problem({"code": -32055, "message": "m" * 10_000, "data": "d" * 200_000})


def die(_: Json) -> Json:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def hush(_: Json) -> Json:
    os.close(1)
    time.sleep(60)
    return {}


SIMPLE: Final[dict[str, Callable[[Json], Json]]] = {
    "echo": lambda given: text(given["text"], structuredContent=given),
    "exit": lambda given: os._exit(given["code"]),
    "die": die,
    "hush": hush,
    "big": lambda given: text("x" * given["size"]),
    "strange": lambda _: {"content": [{"type": "text"}]},
    "bad_image": lambda _: {"content": [{"type": "image", "data": "no base64!", "mimeType": "image/png"}]},
    "kinds": kinds,
    "fail": lambda _: text("it did not work", isError=True),
    "error": error,
    "big_error": big_error,
    "about": lambda _: text(json.dumps({"pid": os.getpid(), "cwd": str(Path.cwd()), "env": dict(os.environ)})),
}


def page(key: str, cursor: str | None) -> Json:
    """Two pages of the server's own, the first with as much as MODE says."""
    size = 200_000 if MODE == "large" else 10
    if cursor == "second":
        return {key: [entry(key, "last", 10)]}
    if MODE == "huge":
        return {key: [entry(key, "huge", 200_000)]}
    names = NAMES.split() if key == "tools" else ["one", "two", "three"]
    return {key: [entry(key, name, size // len(names)) for name in names], "nextCursor": "second"}


def entry(key: str, name: str, size: int) -> Json:
    more: Json = {
        "tools": {"inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
        "resources": {"uri": f"note://{name}", "size": 3, "icons": [{"src": "data:,"}]},
        "resourceTemplates": {"uriTemplate": "note://{name}"},
        "prompts": {"arguments": [{"name": "who", "required": True}]},
    }[key]
    return {"name": name, "description": "d" * size, **more}


def prompt(params: Json) -> Json:
    who = params["arguments"].get("who", "nobody")
    size = int(params["arguments"].get("size", "0"))
    content = {"type": "text", "text": f"greet {who}{'x' * size}"}
    return {"description": "a greeting", "messages": [{"role": "user", "content": content}]}


def completion(params: Json) -> Json:
    subject = params["ref"].get("name") or params["ref"]["uri"]
    known = (params.get("context") or {}).get("arguments", {})
    values = [f"{subject} {params['argument']['name']} {params['argument']['value']}", *sorted(known)]
    return {"completion": {"values": values, "total": len(values), "hasMore": False}}


def resource(params: Json) -> Json:
    size = int(params["uri"].rpartition("/")[2] or 0) if params["uri"].startswith("size://") else 2
    return {"contents": [{"uri": params["uri"], "text": "x" * size}, {"uri": params["uri"], "blob": IMAGE}]}


METHODS: Final[dict[str, Callable[[Json], Json]]] = {
    "ping": lambda _: {},
    "tools/list": lambda params: page("tools", params.get("cursor")),
    "resources/list": lambda params: page("resources", params.get("cursor")),
    "resources/templates/list": lambda params: page("resourceTemplates", params.get("cursor")),
    "prompts/list": lambda params: page("prompts", params.get("cursor")),
    "resources/read": resource,
    "prompts/get": prompt,
    "completion/complete": completion,
    "tools/call": lambda params: SIMPLE[params["name"]](params.get("arguments") or {}),
}


def handshake(method: str, params: Json) -> Json:
    if MODE == "refuses":
        raise Problem({"code": -32001, "message": "not today"})
    if MODE == "wrong":
        return {"colour": "green"}
    if MODE == "modern":
        if method == "initialize":
            raise Problem({"code": -32601, "message": "Method not found"})
        return {
            "supportedVersions": ["2026-07-28"],
            "capabilities": CAPABILITIES,
            "instructions": "be kind",
            "ttlMs": 0,
            "cacheScope": "private",
            "resultType": "complete",
        }
    version = "1999-01-01" if MODE == "ancient" else params["protocolVersion"]
    return {
        "protocolVersion": version,
        "capabilities": CAPABILITIES,
        "serverInfo": ABOUT,
        "instructions": "be kind",
    }


def answer(message: Json, send: Callable[[Json], None]) -> None:
    """Answer a request by `send`, unless it is one to wait for."""
    params, method, number = message.get("params") or {}, message["method"], message["id"]
    try:
        if method in ("initialize", "server/discover"):
            result = handshake(method, params)
        else:
            result = METHODS[method](params)
            if MODE == "modern":
                result |= {"resultType": "complete"}
                result |= {"ttlMs": 0, "cacheScope": "private"} if "list" in method or "read" in method else {}
    except Problem as problem:
        send({"jsonrpc": "2.0", "id": number, "error": problem.args[0]})
    except KeyError:
        send({"jsonrpc": "2.0", "id": number, "error": {"code": -32602, "message": f"Unknown: {method}"}})
    else:
        send({"jsonrpc": "2.0", "id": number, "result": result})


class Stdio:
    """The loop over standard input."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def send(self, message: Json) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def take(self, message: Json) -> None:
        if "id" not in message:
            note(f"{message['method']} {json.dumps(message.get('params'))}")
            return
        params = message.get("params") or {}
        match params.get("name") if message.get("method") == "tools/call" else None:
            case "wait":
                self.waiting.append(message["id"])
                note("waits")
            case "release":
                for number in (*self.waiting, message["id"]):
                    self.send({"jsonrpc": "2.0", "id": number, "result": text("released")})
                self.waiting.clear()
            case "progress":
                token = params["_meta"]["progressToken"]
                for count in range(1, params["arguments"]["count"] + 1):
                    told = {"progressToken": token, "progress": count, "total": 3, "message": f"step {count}"}
                    self.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
                if params["arguments"].get("stay"):
                    self.waiting.append(message["id"])
                else:
                    self.send({"jsonrpc": "2.0", "id": message["id"], "result": text("done")})
            case "change":
                for what in ("tools", "resources", "prompts"):
                    self.send({"jsonrpc": "2.0", "method": f"notifications/{what}/list_changed"})
                said = {"level": "info", "data": "a word"}
                self.send({"jsonrpc": "2.0", "method": "notifications/message", "params": said})
                self.send({"jsonrpc": "2.0", "id": message["id"], "result": text("changed")})
            case _:
                answer(message, self.send)

    def run(self) -> None:
        for line in sys.stdin:
            if MODE == "silent":
                continue
            self.take(json.loads(line))
        note("ended")


ODD: Final = {"no_json": b"<html>", "compressed": gzip.compress(b"{}")}
"""Bodies that are no answer."""


class Web(BaseHTTPRequestHandler):
    """A session over HTTP; ``401`` and ``moody`` as MODE's second word make it refuse, and forget sessions."""

    protocol_version = "HTTP/1.1"
    session = "s1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        message = json.loads(body)
        note(f"authorization {self.headers.get('Authorization')}")
        if self.headers.get("Authorization") == "Bearer wrong":
            self.reply(401, b"", "text/plain")
            return
        if message.get("method") != "initialize" and self.headers.get("Mcp-Session-Id") != Web.session:
            self.reply(404, b"", "text/plain")
            return
        if "id" not in message:
            note(f"{message['method']} {json.dumps(message.get('params'))}")
            self.reply(202, b"", "text/plain")
            return
        name = (message.get("params") or {}).get("name")
        if name == "wait":
            note("waits")
            time.sleep(60)
        if name == "forget":
            Web.session = "s2"
            self.reply(404, b"", "text/plain")
            return
        if name in ODD:
            self.reply(
                200, ODD[name], "application/json", **{"Content-Encoding": "gzip"} if name == "compressed" else {}
            )
            return
        events: list[Json] = []
        if name == "progress":
            token = message["params"]["_meta"]["progressToken"]
            told = {"progressToken": token, "progress": 1, "total": 3, "message": "step 1"}
            events.append({"jsonrpc": "2.0", "method": "notifications/progress", "params": told})
            events.append({"jsonrpc": "2.0", "id": message["id"], "result": text("done")})
            body = "".join(f"event: message\ndata: {json.dumps(each)}\n\n" for each in events).encode()
            self.reply(200, body, "text/event-stream")
            return
        answer(message, events.append)
        self.reply(200, json.dumps(events[0]).encode(), "application/json")

    def do_GET(self) -> None:
        self.reply(405, b"", "text/plain")

    def do_DELETE(self) -> None:
        note("deleted")
        self.reply(200, b"", "text/plain")

    def reply(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Mcp-Session-Id", Web.session)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def flood() -> None:
    sys.stderr.write("".join(f"line {number}\n" for number in range(1000)))
    sys.stderr.flush()
    note("said all")


def refuse_to_end() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Stdio().run()
    while True:
        time.sleep(60)


def have_a_child() -> None:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    note(f"child {child}")


def write_no_end() -> None:
    sys.stdin.readline()
    sys.stdout.write("x" * 1_000_000)
    sys.stdout.flush()


def fail() -> None:
    sys.stderr.write("I have no settings\n")
    sys.exit(3)


def serve_http() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


FIRST: Final[dict[str, Callable[[], None]]] = {
    "chatty": flood,
    "deaf": refuse_to_end,
    "dies": fail,
    "endless": write_no_end,
    "http": serve_http,
    "parent": have_a_child,
}


def main() -> None:
    note(f"began {os.getpid()}")
    if MODE in ("rubbish", "chatty"):
        sys.stdout.write("Welcome!\nreading {settings}\n\n")
        sys.stdout.flush()
    if MODE == "rubbish":
        sys.stdin.read()
        return
    if MODE in FIRST:
        FIRST[MODE]()
    Stdio().run()


if __name__ == "__main__":
    main()
