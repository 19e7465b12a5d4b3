"""``stream``, against a node that serves."""

import fcntl
import json
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import IO, Final

import pytest

from tests.cli.conftest import Call, Result, Served
from tests.support.processes import PATIENCE, ROOT, Process

pytestmark = pytest.mark.usefixtures("still_serves")

EVER: Final = 1_000_000_000
"""Items that nobody reads to their end."""
A_PIPE: Final = 60_000
"""Bytes that fill a pipe, nearly."""


def unmeasured(env: Mapping[str, str]) -> dict[str, str]:
    """Leave out what has a process measured: coverage hangs where a signal comes while it writes for the one before."""
    return {name: value for name, value in env.items() if not name.startswith("COVERAGE_")}


@contextmanager
def streaming(served: Served, message: object, *, until: str = "") -> Generator[subprocess.Popen[str]]:
    """A process that streams into a pipe, or through a command that reads it."""
    command = [sys.executable, "-m", "autonomy_trio", "stream", served.of("meter"), json.dumps(message)]
    command += ["--home", str(served.alice)]
    if until:
        command = ["bash", "-c", f'set -o pipefail; "$@" | {until}', "bash", *command]
    process = subprocess.Popen(
        command, cwd=ROOT, env=unmeasured(served.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    with process:
        try:
            yield process
        finally:
            process.kill()  # where it goes on; one that is read to its end has ended


def test_it_prints_each_item_as_a_line_of_json_and_ends_with_the_stream(call: Call, served: Served) -> None:
    found = call("stream", served.of("meter"), '{"Count": {"to": 3}}', "--home", served.alice)
    assert found == Result(0, '{"value": 0}\n{"value": 1}\n{"value": 2}\n', "")
    assert call("stream", served.of("meter"), '{"Count": {"to": 0}}', "--home", served.alice) == Result(0, "", "")


def test_an_item_is_printed_when_it_comes(served: Served) -> None:
    with streaming(served, {"Tick": {"name": "at once"}}) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ['"at once"\n', '"at once once more"\n']


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_a_word_and_the_agent_is_told_at_once(served: Served, number: signal.Signals) -> None:
    name = f"until {number.name}"
    message = json.dumps({"Tick": {"name": name}})
    with Process("stream", served.of("meter"), message, "--home", str(served.alice), env=served.env) as reader:
        reader.wait_line("once more")
        reader.signal(number)
        assert reader.wait() == 130
        assert (reader.out, reader.err.strip()) == (f'"{name}"\n"{name} once more"\n', "stopped")
    served.node.wait_line(f"name='{name}'")


@pytest.mark.parametrize("message", [{"Count": {"to": EVER}}, {"Tick": {"name": "one is enough"}}])
def test_a_reader_that_has_enough_ends_it_without_a_word(served: Served, message: dict[str, object]) -> None:
    with streaming(served, message, until="head -1") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert out == ('{"value": 0}\n' if "Count" in message else '"one is enough"\n')
    if "Tick" in message:
        served.node.wait_line("name='one is enough'")


def test_a_reader_that_is_slow_loses_nothing(served: Served) -> None:
    # More than a pipe and a stream hold, so that the process waits to write while its reader sleeps.
    with streaming(served, {"Count": {"to": 6000}}, until="(sleep 1; wc -l)") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out.strip(), err) == (0, "6000", "")


def test_a_reader_that_never_reads_does_not_keep_it_from_being_stopped(served: Served) -> None:
    with streaming(served, {"Count": {"to": EVER}}) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while _waiting_bytes(process.stdout) < A_PIPE:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while process.poll() is None:
            assert time.monotonic() < deadline
            process.send_signal(signal.SIGTERM)
            time.sleep(0.1)


def _waiting_bytes(pipe: IO[str]) -> int:
    """How much a process has written that was not read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_one_who_can_prove_nothing_is_denied(call: Call, served: Served) -> None:
    found = call("stream", served.of("meter"), '{"Count": {"to": 3}}', "--home", served.bob)
    assert found.is_one_sentence(1)
    assert f"{served.of('meter')} denied Count" in found.err


@pytest.mark.parametrize(
    ("opened", "message", "said"),
    [
        ("stream counter", '{"Read": {}}', "Read is no Stream"),
        ("ask meter", '{"Count": {"to": 3}}', "Count is a Stream"),
        ("stream meter", '{"Cout": {"to": 3}}', "you may send it Count, Tick"),
    ],
)
def test_what_is_no_stream_there_is_one_sentence(
    call: Call, served: Served, opened: str, message: str, said: str
) -> None:
    command, agent = opened.split()
    found = call(command, served.of(agent), message, "--home", served.alice)
    assert found.is_one_sentence(1)
    assert said in found.err


@pytest.mark.parametrize("message", ["", "{", "[]", "{}", '{"Count": 3}', '{"Count": {"to": NaN}}'])
def test_what_cannot_be_sent_is_one_short_sentence(call: Call, served: Served, message: str) -> None:
    assert call("stream", served.of("meter"), message, "--home", served.alice).is_one_sentence(2)


def test_a_home_cannot_stream_from_itself(call: Call, served: Served) -> None:
    own = call("identity", "show", "--home", served.alice).out.strip()
    message = '{"Count": {"to": 3}}'
    assert call("stream", f"{served.url}/{own}/meter", message, "--home", served.alice).is_one_sentence(2)
