"""Tunnels that others use, ``ssh -L`` and stunnel: instances of our own, with keys of their own, on free ports."""

import getpass
import io
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import attrs

from benchmarks.measure import WrongResultError
from benchmarks.processes import Running, running

LOCAL: Final = "127.0.0.1"
PATIENCE: Final = 20.0
"""Seconds until a tunnel must stand."""


@attrs.frozen
class Way:
    """A port that leads to the target, and what carries it there; or what is not installed."""

    port: int = 0
    processes: tuple[Running, ...] = ()
    missing: str = ""

    def cpu_seconds(self) -> float:
        """Return the CPU time its processes have taken so far."""
        return sum(each.cpu_seconds() for each in self.processes)


@contextmanager
def ssh(target: int, folder: Path) -> Generator[Way]:
    """Lead to a port by ``ssh -L`` and an sshd of our own, where both are installed."""
    server, client = program("sshd", "/usr/sbin"), program("ssh")
    if server is None or client is None:
        yield Way(missing="openssh-server and openssh-client are not installed")
        return
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)  # noqa: S603, S607
    far, near = free_port(), free_port()
    known = (folder / "host.pub").read_text(encoding="ascii")
    (folder / "known").write_text(f"[{LOCAL}]:{far} {known}", encoding="ascii")
    options = {
        "ListenAddress": f"{LOCAL}:{far}",
        "HostKey": str(folder / "host"),
        "AuthorizedKeysFile": str(folder / "user.pub"),
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
    }
    given = [f"-o{name}={value}" for name, value in options.items()]
    _make_separation_folder()
    with ExitStack() as stack:
        daemon = stack.enter_context(running([server, "-D", "-e", "-f", "/dev/null", *given]))
        wait_listening(far)
        own = [f"-oUserKnownHostsFile={folder / 'known'}", "-F/dev/null", "-oIdentitiesOnly=yes", "-oBatchMode=yes"]
        forward = ["-N", "-L", f"{LOCAL}:{near}:{LOCAL}:{target}", "-oExitOnForwardFailure=yes"]
        who = ["-i", str(folder / "user"), "-p", str(far), f"{getpass.getuser()}@{LOCAL}"]
        connected = stack.enter_context(running([client, *own, *forward, *who]))
        wait_listening(near)
        # The connection is served by children of the daemon; those that are not this user's still tell their time.
        yield Way(near, (connected, daemon, *map(_child, _descendants(daemon.pid))))


@contextmanager
def stunnel(target: int, folder: Path) -> Generator[Way]:
    """Lead to a port by two stunnels, TLS between them, where it is installed."""
    found = program("stunnel4") or program("stunnel")
    if found is None or shutil.which("openssl") is None:
        yield Way(missing="stunnel4 is not installed")
        return
    key = folder / "stunnel.pem"
    subject = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(folder / "cert.pem")]
    subprocess.run(  # noqa: S603 - nothing of it is a stranger's
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject],  # noqa: S607
        check=True,
        capture_output=True,
    )
    with key.open("a", encoding="ascii") as file:
        file.write((folder / "cert.pem").read_text(encoding="ascii"))
    middle, near = free_port(), free_port()
    with ExitStack() as stack:
        processes: list[Running] = []
        for name, client, accept, connect in (("far", "no", middle, target), ("near", "yes", near, middle)):
            settings = folder / f"{name}.conf"
            settings.write_text(
                f"foreground = yes\npid =\n[{name}]\nclient = {client}\naccept = {LOCAL}:{accept}\n"
                f"connect = {LOCAL}:{connect}\n" + (f"cert = {key}\n" if client == "no" else ""),
                encoding="ascii",
            )
            processes.append(stack.enter_context(running([found, str(settings)])))
            wait_listening(accept)
        yield Way(near, tuple(processes))


def program(name: str, folder: str = "") -> str | None:
    """Return where a program is, off PATH too where Debian keeps it there."""
    return shutil.which(name) or shutil.which(name, path=folder)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with closing(socket.create_server((LOCAL, 0))) as probe:
        return int(probe.getsockname()[1])


def wait_listening(port: int) -> None:
    """Return once somebody listens on a port.

    Raises:
        WrongResultError: nobody does in time.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with closing(socket.socket()) as probe:
            if probe.connect_ex((LOCAL, port)) == 0:
                return
        time.sleep(0.02)
    raise WrongResultError(f"nobody listens on port {port}")


def _make_separation_folder() -> None:
    """Make the folder that an sshd of root's confines itself to; Debian's service makes it at its start."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [each for child in map(int, children) for each in (child, *_descendants(child))]


def _child(pid: int) -> Running:
    return Running(pid, io.StringIO())
