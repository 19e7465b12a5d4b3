"""The pages about what goes on between nodes: their files are written, their commands run, what they print compared."""

import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from tests.docs.test_tutorial import STEP, commands
from tests.support.processes import PATIENCE, ROOT, Process, environment, free_port

DOCS: Final = ROOT / "docs"
CERTIFICATE: Final = ROOT / "tests" / "fabric" / "localhost.pem"
PAGES: Final = {
    "tutorial-between": 14,
    "how-to/private-relay": 7,
    "how-to/rotation": 7,
    "how-to/revocation": 6,
    "how-to/tls": 4,
}
"""How many commands each page shows."""
STOP: Final = "Stop the (?P<what>bank|node) with Ctrl-C"
ADDRESS: Final = re.compile(r"^(?:ws|wss|tcp)://\S+/I[0-9a-f]{64}/\S+$", re.MULTILINE)


@attrs.define
class Reader:
    """Somebody who does what a page says, with a terminal for whatever goes on running."""

    folder: Path
    stack: ExitStack
    env: dict[str, str]
    hosts: dict[str, str]
    """What the page calls a host and port, and what it is here."""
    address: str
    ticket: str = "ticket-…"
    running: dict[str, Process] = attrs.field(factory=dict[str, Process])

    def type(self, command: str, expected: str) -> None:
        command = re.sub(r"\w+://[^/\s]+/I…/counter|ws://[^/\s]+/I…/account", lambda _: self.address, command)
        command = self.here(command.replace("ticket-…", self.ticket))
        arguments = command.removeprefix("python -m autonomy_trio ").split()
        serves = arguments[0] in {"relay", "run"} or arguments[:2] == ["authority", "serve"]
        found = self.start(arguments, expected) if serves else self.run(command)
        assert re.fullmatch(self.pattern(expected), found.strip()), f"{command}\n{found}"
        if serves and (address := ADDRESS.search(found)):
            self.address = address[0]
        if made := re.search(r"^ticket-\S+$", found, re.MULTILINE):
            self.ticket = made[0]

    def here(self, text: str) -> str:
        for shown, real in self.hosts.items():
            text = text.replace(shown, real)
        return text

    def pattern(self, expected: str) -> str:
        return re.escape(self.here(expected.strip())).replace("…", ".*")

    def run(self, command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        ).stdout

    def start(self, arguments: list[str], expected: str) -> str:
        process = self.stack.enter_context(Process(*arguments, env=self.env, cwd=self.folder))
        process.wait_line(self.here(expected.strip().splitlines()[-1].split("…")[0].strip()))
        self.running[arguments[0]] = process
        return process.out

    def stop(self) -> None:
        node = self.running.pop("run")
        node.signal(signal.SIGINT)
        assert node.wait() == 0


@contextmanager
def tls_at(port: int, onward: int) -> Generator[None]:
    """What a web server does for a relay: a process that takes TLS off."""
    with subprocess.Popen([sys.executable, __file__, str(port), str(onward)], stdout=subprocess.PIPE) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == b"ready\n"
        yield
        proxy.terminate()


def steps(page: str) -> Iterator[re.Match[str]]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    pattern = re.compile(STEP.pattern.replace("Stop the node with Ctrl-C", STOP), re.MULTILINE | re.DOTALL)
    yield from pattern.finditer(text)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_print_what_the_page_shows(page: str, tmp_path: Path) -> None:
    folder, typed = tmp_path / "here", 0
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    relay, secure = free_port(), free_port()
    hosts = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in (4001, 4002)}
    hosts |= {"127.0.0.1:4000": f"127.0.0.1:{relay}", "relay.example.com": f"localhost:{secure}"}
    env = environment(tmp_path, SSL_CERT_FILE=str(CERTIFICATE), PYTHONDONTWRITEBYTECODE="1")
    with ExitStack() as stack:
        if page.endswith("tls"):
            stack.enter_context(tls_at(secure, relay))
        reader = Reader(folder, stack, env, hosts, f"ws://127.0.0.1:{relay}/I{'ab' * 32}/counter")
        for step in steps(page):
            if step["file"]:
                source = (DOCS / page).parent / step["file"]
                (folder / source.name).write_bytes(source.read_bytes())
            elif step["stop"]:
                reader.stop()
            else:
                for command, expected in commands(step["console"]):
                    reader.type(command, expected)
                    typed += 1
    assert typed == PAGES[page]


async def serve_tls(port: int, onward: int) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)

    async def serve(secured: trio.SSLStream[trio.SocketStream]) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", onward) as plain, trio.open_nursery() as nursery:
            nursery.start_soon(carry, secured, plain, nursery.cancel_scope)
            nursery.start_soon(carry, plain, secured, nursery.cancel_scope)

    async def carry(source: trio.abc.Stream, sink: trio.abc.Stream, both: trio.CancelScope) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass  # one of them has gone
        both.cancel()

    listeners = await trio.open_ssl_over_tcp_listeners(port, context, host="127.0.0.1", https_compatible=True)
    print("ready", flush=True)  # noqa: T201 - this process says so to the test
    await trio.serve_listeners(serve, listeners)


if __name__ == "__main__":
    trio.run(serve_tls, int(sys.argv[1]), int(sys.argv[2]))
