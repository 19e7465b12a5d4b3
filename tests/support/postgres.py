"""A PostgreSQL server of a test's own, which it can stop and start again."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import attrs
import pytest

from tests.support.processes import PATIENCE, ROOT, free_port

CERTIFICATE: Final = ROOT / "tests" / "fabric" / "localhost.pem"
PASSWORD: Final = "a secret/of:theirs"
_PACKAGES: Final = {"initdb": "postgresql", "postgres": "postgresql", "pgbench": "postgresql"}


def program(name: str) -> str:
    """Where a program is, also where Debian keeps those of a server, off PATH; without it the test is skipped."""
    servers = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(servers))
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {_PACKAGES.get(name, 'postgresql-client')}")
    return found


@attrs.define(eq=False)
class PostgresServer:
    """A server with a superuser ``postgres`` and a password, on loopback and on a Unix socket in its folder."""

    folder: Path
    tls: bool
    port: int = attrs.field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/postgres"

    @property
    def socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    @property
    def log(self) -> str:
        """What it has written."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def connections(self) -> int:
        """How many connections it has seen since it was made."""
        return self.log.count("connection received")

    def make(self) -> None:
        """Make its data."""
        (self.folder / "password").write_text(PASSWORD, encoding="utf-8")
        for name in ("server.pem", "server.key"):
            (self.folder / name).write_bytes(CERTIFICATE.read_bytes())
            (self.folder / name).chmod(0o600)
        for path in (self.folder, *self.folder.iterdir()):
            _hand_over(path)
        data, secret = f"--pgdata={self.folder / 'data'}", f"--pwfile={self.folder / 'password'}"
        command = [program("initdb"), data, secret, "--username=postgres", "--auth=scram-sha-256", "--no-sync"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False, timeout=PATIENCE, **_user())
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, and return once it lets clients in."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "shared_buffers": "16MB",
            "log_connections": "on",
            "ssl": "on" if self.tls else "off",
            "ssl_cert_file": f"{self.folder}/server.pem",
            "ssl_key_file": f"{self.folder}/server.key",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program("postgres"), "-D", str(self.folder / "data"), *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **_user(),
            )
        until = time.monotonic() + PATIENCE
        while self.psql("select 1").returncode != 0:
            assert self._process.poll() is None, f"postgres has ended: {self.log}"
            assert time.monotonic() < until, f"postgres does not answer in {PATIENCE:g} s: {self.log}"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it, its connections first; with SIGQUIT as after a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def run(self, sql: str) -> str:
        """Run SQL beside the test, and return what it prints."""
        done = self.psql(sql)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def psql(self, sql: str) -> subprocess.CompletedProcess[str]:
        """Run SQL over the Unix socket."""
        return subprocess.run(
            [program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql],
            env=self.environment(PGHOST=str(self.folder), PGPORT=str(self.port)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """What a client needs to be let in, wherever it connects to."""
        return {**os.environ, "PGUSER": "postgres", "PGPASSWORD": PASSWORD, "PGDATABASE": "postgres", **more}


def _user() -> dict[str, Any]:
    """As whom a server runs: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _hand_over(path: Path) -> None:
    user = _user()
    if user:
        os.chown(path, user["user"], user["group"])


@contextmanager
def postgres_server(*, tls: bool = False) -> Generator[PostgresServer]:
    """A server that runs; its folder is none of the test's, which only the test enters, and whose path may be long."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder), tls)
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.stop()
