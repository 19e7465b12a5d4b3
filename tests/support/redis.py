"""A Redis server of a test's own, which it can kill and start again."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.support.processes import PATIENCE, free_port

PROGRAM: Final = shutil.which("redis-server") or shutil.which("valkey-server")


@attrs.define(eq=False)
class RedisServer:
    """A server that flushes each command to its disk before it answers."""

    folder: Path
    port: int = attrs.field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [
                *(PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "always", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < until, f"redis-server does not answer in {PATIENCE:g} s"
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would (kill -9)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)
            self._process = None

    def say(self, *words: str) -> bytes:
        """Have one command carried out, and return the beginning of the answer as it came."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(b"".join(_bulk(word) for word in (None, *words)).replace(b"*", b"*%d" % len(words), 1))
            return connection.recv(65536)

    def _answers(self) -> bool:
        with suppress(OSError):
            return self.say("PING") == b"+PONG\r\n"
        return False


def _bulk(word: str | None) -> bytes:
    if word is None:
        return b"*\r\n"
    return b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())


@contextmanager
def redis_server(folder: Path) -> Generator[RedisServer]:
    """A server that runs, with its files in a folder."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
