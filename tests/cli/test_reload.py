"""``run --reload``: a node that starts again with each change of its code, as a process that is watched."""

import os
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autonomy_trio.cli.run import _listen
from autonomy_trio.fabric.links.addresses import ListenAddress
from tests.cli.conftest import Call
from tests.support.processes import Process, environment

APP = """
from autonomy_trio import Context, agent

@agent
class Greeter:
    async def on_start(self, context: Context) -> None:
        context.log.info("{greeting}")

    async def on_stop(self, context: Context) -> None:
        context.log.info("drained")

agents = [Greeter]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    (folder / "parts").mkdir(parents=True)
    write(folder / "app.py", "first")
    return folder


def write(file: Path, greeting: str) -> None:
    file.write_text(APP.format(greeting=greeting))


@contextmanager
def reloading(folder: Path, *options: str) -> Generator[Process]:
    """A ``run --reload`` whose node has started."""
    arguments = ("run", "--reload", "--listen", "127.0.0.1:0", *options, "--", "app:agents")
    with Process(*arguments, env=environment(folder.parent), cwd=folder) as process:
        process.wait_line("first")
        yield process


def test_a_changed_file_drains_the_node_and_starts_it_with_the_new_code(folder: Path) -> None:
    with reloading(folder) as process:
        (folder / "notes.txt").write_text("no code")
        write(folder / "app.py", "second")
        process.wait_line("second")
        (folder / "parts" / "more.py").write_text("ANSWER = 42\n")
        process.wait_line("second", times=2)
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.out.count("/greeter\n") == 3
        changes = [line for line in process.err.splitlines() if line.endswith(": starting again")]
        assert changes == ["app.py changed: starting again", "parts/more.py changed: starting again"]
        assert process.err.count("drained") == 3
        assert process.err.endswith("stopped\n")
        assert "Traceback" not in process.err


def test_code_that_cannot_be_read_is_one_sentence_and_the_next_change_is_waited_for(folder: Path) -> None:
    with reloading(folder) as process:
        (folder / "app.py").write_text("def broken(:")
        assert "SyntaxError" in process.wait_line("Error: ")
        process.wait_line("waiting for a change")
        write(folder / "app.py", "mended")
        process.wait_line("mended")
        (folder / "app.py").write_text("agents = []")
        process.wait_line("waiting for a change", times=2)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert process.err.endswith("stopped\n")
        assert "Traceback" not in process.err


def test_a_second_signal_ends_a_node_that_does_not_drain(folder: Path) -> None:
    text = APP.format(greeting="first").replace('context.log.info("drained")', "await trio.sleep(3600)")
    (folder / "app.py").write_text(f"import trio\n{text}")
    with reloading(folder) as process:
        process.signal(signal.SIGINT)
        process.wait_line("once more to stop at once")
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.err.endswith("stopped\n")


def test_a_node_whose_watcher_is_killed_drains_and_ends(folder: Path) -> None:
    with reloading(folder) as process:
        process.kill()
        process.wait_line("drained")
        process.wait()
        assert process._open_streams == 0, "the node writes to them as long as it lives"


def test_ctrl_c_at_a_terminal_reaches_both_processes_and_drains_once(folder: Path) -> None:
    text = APP.format(greeting="first").replace('info("first")', 'info("first", process=os.getpid())')
    (folder / "app.py").write_text(f"import os\n{text}")
    with reloading(folder) as process:
        node = int(process.wait_line("first").partition("process=")[2])
        assert os.getpgid(node) == os.getpgid(0), "a terminal's Ctrl-C goes to a group"
        os.kill(node, signal.SIGINT)
        process.signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.err.count("drained") == 1


def test_without_the_extra_it_names_what_to_install(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.delitem(sys.modules, "autonomy_trio.cli.reload", raising=False)
    found = call("run", "tests.support.app:agents", "--reload")
    assert found.is_one_sentence(2)
    assert 'pip install "autonomy-trio[reload]"' in found.err


def test_without_an_address_of_its_own_it_keeps_one_over_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        usual = busy.getsockname()[1]
        monkeypatch.setattr(sys.modules[_listen.__module__], "DEFAULT_LISTEN", f"127.0.0.1:{usual}")
        assert _listen((), None) == "127.0.0.1:0"
        found = _listen((), None, fixed=True)
    assert found is not None
    assert ListenAddress.parse(found).port not in {0, usual}
