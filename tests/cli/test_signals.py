"""Ctrl-C and SIGTERM, at odd moments too; SIGHUP."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from autonomy_trio.cli.signals import HANGING, stoppable
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call, Served, credential_for
from tests.support.processes import PATIENCE, ROOT, Process, environment, serving_node


async def test_a_signal_before_there_is_anything_to_drain_cancels_the_block() -> None:
    with trio.fail_after(PATIENCE):
        async with stoppable() as stop:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
    assert stop.scope.cancelled_caught


async def test_the_first_signal_asks_and_the_second_cancels() -> None:
    asked = False
    with trio.fail_after(PATIENCE):
        async with stoppable() as stop:
            stop.drains = True
            signal.raise_signal(signal.SIGTERM)
            await stop.asked.wait()
            asked = True
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
    assert asked
    assert stop.scope.cancelled_caught


async def test_a_signal_that_comes_twice_at_once_is_one_request() -> None:
    async with stoppable() as stop:
        stop.drains = True
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        await stop.asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not stop.scope.cancel_called


async def test_behind_the_block_signals_do_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with stoppable():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


HANGS = """
import time
import trio
from autonomy_trio import Context, agent

@agent
class Hangs:
    async def on_start(self, context: Context) -> None:
        await trio.sleep(0.2)  # the first screen is there
        context.log.info("hanging")
        {hang}

agents = [Hangs]
"""


@pytest.mark.parametrize("hang", ["time.sleep(3600)", "await trio.to_thread.run_sync(time.sleep, 3600)"])
def test_a_further_signal_ends_a_process_whose_agent_hangs(tmp_path: Path, hang: str) -> None:
    (tmp_path / "app.py").write_text(HANGS.format(hang=hang))
    arguments = ("run", "app:agents", "--listen", "127.0.0.1:0")
    with Process(*arguments, env=environment(tmp_path), cwd=tmp_path) as process:
        process.wait_line("hanging")
        process.signal(signal.SIGINT)
        if "thread" in hang:
            process.wait_line("once more to stop at once")
            process.signal(signal.SIGINT)
        time.sleep(HANGING * 1.5)  # so long it is not taken for the same signal, come twice
        process.signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
        assert "Traceback" not in process.err


def test_a_signal_while_the_module_is_imported_ends_it_with_a_word(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(3600)\n")
    with Process("run", "app:agents", env=environment(tmp_path), cwd=tmp_path) as process:
        process.wait_line("importing")
        process.signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.err.strip() == "stopped"


def test_a_signal_while_the_command_line_is_imported_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    with Process("--help", env=environment(tmp_path), cwd=tmp_path) as process:
        assert process.wait() == 130
        assert (process.out, process.err) == ("", "")


def test_at_sighup_a_node_reads_its_anchors_again_and_what_cannot_be_right_changes_nothing(
    call: Call, served: Served, tmp_path: Path
) -> None:
    home, alice, anchors = tmp_path / "server", tmp_path / "alice", tmp_path / "server" / "anchors.toml"
    file = tmp_path / "credential"
    file.write_text(credential_for(alice, home))
    with serving_node("tests.support.app:agents", "--relay", served.url, "--home", str(home), env=served.env) as (
        node,
        address,
    ):

        def code() -> int:
            return call("ask", address, '{"Read": {}}', "--home", alice, "--credential", file).code

        assert code() == 0
        anchors.write_text(to_toml(Anchor(Vault.in_memory().identifier, {"team": "string"})))
        node.signal(signal.SIGHUP)
        node.wait_line("were read again")
        assert code() == 1
        anchors.write_text("[[anchor]]")
        node.signal(signal.SIGHUP)
        assert "anchors.toml" in node.wait_line("; what was in force stays")
        assert code() == 1
        anchors.unlink()
        node.signal(signal.SIGHUP)
        node.wait_line("were read again", times=2)
        assert code() == 0


def test_when_its_terminal_has_gone_sighup_stops_a_node(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "autonomy_trio", "run", "tests.support.app:agents", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(tmp_path), stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as node:
        os.close(theirs)
        assert node.stdout is not None
        assert node.stderr is not None
        assert node.stdout.readline().startswith(b"node")
        node.send_signal(signal.SIGHUP)
        assert b"were read again" in node.stderr.readline()
        os.close(ours)
        node.send_signal(signal.SIGHUP)
        assert node.wait(PATIENCE) == 0
        assert node.stderr.read().endswith(b"stopped\n")
