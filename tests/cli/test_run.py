"""``run``: what it shows, what it refuses, and how it ends."""

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
import trio

from autonomy_trio import open_node
from autonomy_trio.errors import Denied
from autonomy_trio.messages import Untyped
from tests.cli.conftest import Call, Served, credential_for
from tests.support.processes import PATIENCE, Process, environment, free_port, run_once, serving_node

APP = "tests.support.app:agents"


@pytest.fixture
def busy_port() -> Generator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_the_first_screen_lists_each_agent_what_it_handles_and_from_where_it_can_be_reached(served: Served) -> None:
    assert served.node.out == (
        f"node  {served.identifier}\n"
        f"home  {served.server}\n"
        f"relay {served.url}\n"
        "\n"
        f"{served.address}\n"
        '  Add -> Total   from other nodes if principal.team == "payments" && context.message.amount <= 100\n'
        '  Echo -> str    from other nodes if principal.team == "payments"\n'
        '  Hold -> str    from other nodes if principal.team == "payments"\n'
        '  Note           from other nodes if principal.team == "payments"\n'
        '  Read -> int    from other nodes if principal.team == "payments"\n'
        '  Scan -> bytes  from other nodes if principal.team == "payments"\n'
        "\n"
        f"{served.of('clumsy')}\n"
        '  Fail -> None  from other nodes if principal.team == "payments"\n'
        "\n"
        f"{served.of('meter')}\n"
        '  Count -> stream of Total  from other nodes if principal.team == "payments"\n'
        '  Tick -> stream of str     from other nodes if principal.team == "payments"\n'
        "\n"
    )


def test_check_lists_what_can_be_reached_opens_nothing_and_makes_no_home(call: Call, tmp_path: Path) -> None:
    found = call("run", APP, "--check", "--home", tmp_path / "home", "--relay", "ws://127.0.0.1:1")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("counter\n  Add -> Total   from other nodes if ")
    assert not (tmp_path / "home").exists()


def test_what_is_open_to_no_other_node_is_listed_as_such(call: Call) -> None:
    assert "  Read -> int  from this node only\n" in call("run", "tests.support.app:hopeless", "--check").out


def test_without_relay_and_listen_it_has_a_relay_of_its_own(tmp_path: Path) -> None:
    with serving_node(APP, env=environment(tmp_path)) as (node, address):
        assert ", in this process" in node.wait_line("relay ws://127.0.0.1:")
        assert address.startswith("ws://127.0.0.1:")
        node.signal(signal.SIGTERM)
        assert node.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_it_clean(tmp_path: Path, number: signal.Signals) -> None:
    with serving_node(APP, "--listen", "127.0.0.1:0", env=environment(tmp_path)) as (node, _):
        node.signal(number)
        assert node.wait() == 0
        assert node.err.endswith("stopped\n")
        assert "Traceback" not in node.err


@pytest.mark.parametrize("own_relay", [False, True])
async def test_one_signal_lets_a_handler_finish_and_its_asker_gets_the_reply(
    served: Served, tmp_path: Path, own_relay: bool
) -> None:
    home, proof = tmp_path / "server", tmp_path / "proof"
    proof.write_text(credential_for(served.alice, home))
    where = ("--listen", "127.0.0.1:0") if own_relay else ("--relay", served.url)
    with serving_node(APP, *where, "--home", str(home), env=served.env) as (node, address):
        async with open_node(home=served.alice, credentials=[proof]) as alice, trio.open_nursery() as nursery:
            nursery.start_soon(_stop_while_it_holds, node)
            with trio.fail_after(PATIENCE):
                assert await alice.ref(address).ask(Untyped("Hold", {"seconds": 1.0})) == "held"
        assert await trio.to_thread.run_sync(node.wait) == 0


async def _stop_while_it_holds(node: Process) -> None:
    await trio.to_thread.run_sync(node.wait_line, "holding")
    node.signal(signal.SIGINT)


async def test_a_second_signal_stops_at_once(served: Served, tmp_path: Path) -> None:
    home = tmp_path / "server"
    alice = tmp_path / "alice's"
    alice.write_text(credential_for(served.alice, home))
    with serving_node(APP, "--relay", served.url, "--home", str(home), env=served.env) as (node, address):
        async with open_node(relay=served.url, home=served.alice, credentials=[alice]) as asker:
            await asker.ref(address).tell(Untyped("Hold", {"seconds": 3600.0}))
            await trio.to_thread.run_sync(node.wait_line, "holding")
            node.signal(signal.SIGINT)
            await trio.to_thread.run_sync(node.wait_line, "once more to stop at once")
            node.signal(signal.SIGINT)
            assert await trio.to_thread.run_sync(node.wait) == 0
        assert "dead letter" in node.err
        assert "Traceback" not in node.err


def test_it_ends_when_every_agent_has_given_up_and_says_so(tmp_path: Path) -> None:
    found = run_once("run", "tests.support.app:hopeless", "--listen", "127.0.0.1:0", env=environment(tmp_path))
    assert found.returncode == 1
    assert "RuntimeError: no database" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("Error: no agent is left")


def test_an_agent_that_leaves_the_process_ends_it_without_a_traceback(tmp_path: Path) -> None:
    found = run_once("run", "tests.support.app:leaving", "--listen", "127.0.0.1:0", env=environment(tmp_path))
    assert found.returncode == 3
    assert "Traceback" not in found.stderr


def test_a_factory_that_raises_is_one_sentence(call: Call, tmp_path: Path) -> None:
    found = call("run", "tests.support.app:unbuildable", "--listen", "127.0.0.1:0", "--home", tmp_path / "home")
    assert found.is_one_sentence(1)
    assert "no disk" in found.err


def test_a_reader_that_leaves_after_the_first_line_hinders_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "autonomy_trio", "run", APP, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as node:
        assert node.stdout is not None
        assert node.stdout.readline().startswith("node  I")
        node.stdout.close()
        node.terminate()
        assert node.wait(PATIENCE) == 0
        assert node.stderr is not None
        assert "Traceback" not in node.stderr.read()


@pytest.mark.parametrize("command", [["run", APP], ["relay"]])
def test_a_port_in_use_is_named(call: Call, busy_port: int, command: list[str], tmp_path: Path) -> None:
    found = call(*command, "--listen", f"127.0.0.1:{busy_port}", "--home", tmp_path / "home")
    assert found.is_one_sentence(2)
    assert f"127.0.0.1:{busy_port} (address already in use): choose another" in found.err


@pytest.mark.parametrize("command", [["run", APP], ["relay"]])
@pytest.mark.parametrize(
    "listen", ["", "x", "4000", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "ws://127.0.0.1:1", "[x]:1"]
)
def test_what_cannot_be_listened_on_is_one_sentence(
    call: Call, command: list[str], listen: str, tmp_path: Path
) -> None:
    found = call(*command, "--listen", listen, "--home", tmp_path / "home")
    assert found.is_one_sentence(2)
    assert repr(listen) in found.err


@pytest.mark.parametrize(
    "relay", ["", "x", "127.0.0.1:4000", "http://127.0.0.1:4000", "ws://127.0.0.1:0", "ws://x#I12"]
)
def test_what_is_no_relay_is_one_sentence(call: Call, relay: str, tmp_path: Path) -> None:
    assert call("run", APP, "--relay", relay, "--home", tmp_path / "home").is_one_sentence(2)


def test_a_relay_that_is_not_there_is_named(call: Call, tmp_path: Path) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    found = call("run", APP, "--relay", url, "--home", tmp_path / "home")
    assert found.is_one_sentence(1)
    assert f"{url} cannot be reached (connection refused): is a relay running there?" in found.err


def test_a_relay_that_answers_nothing_is_given_up(call: Call, busy_port: int, tmp_path: Path) -> None:
    found = call("run", APP, "--relay", f"ws://127.0.0.1:{busy_port}", "--home", tmp_path / "home")
    assert found.is_one_sentence(1)
    assert f"ws://127.0.0.1:{busy_port} did not answer" in found.err


def test_a_home_in_use_is_named(call: Call, served: Served) -> None:
    found = call("run", APP, "--relay", served.url, "--home", served.server)
    assert found.is_one_sentence(1)
    assert "is in use already" in found.err


@pytest.mark.parametrize(
    "content", [b"", b"anchors", b"\xff", b"[[anchor]]", b'[[anchor]]\nidentifier = "I12"\n', b"[anchors]\n"]
)
def test_an_anchors_file_that_cannot_be_right_is_named(call: Call, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "anchors.toml"
    file.write_bytes(content)
    for check in (["--check"], ["--listen", "127.0.0.1:0"]):
        found = call("run", APP, "--anchors", file, "--home", tmp_path / "home", *check)
        assert found.is_one_sentence(2)
        assert str(file) in found.err


def test_an_anchors_file_that_is_not_there_is_a_wrong_use(call: Call, tmp_path: Path) -> None:
    found = call("run", APP, "--anchors", tmp_path / "missing", "--check")
    assert found.is_one_sentence(2)
    assert "does not exist" in found.err


def test_an_anchors_file_that_lacks_what_a_condition_reads_is_told_before_anything_starts(
    call: Call, tmp_path: Path
) -> None:
    anchor = call("authority", "init", "--attribute", "level=long")
    (tmp_path / "anchors.toml").write_text(anchor.out)
    found = call("run", APP, "--check", "--anchors", tmp_path / "anchors.toml")
    assert found.is_one_sentence(2)
    assert "team" in found.err


async def test_a_home_trusts_another_authority_by_its_anchor_and_then_no_longer_itself(
    call: Call, served: Served, tmp_path: Path
) -> None:
    authority, server = tmp_path / "authority", tmp_path / "server"
    anchor = await trio.to_thread.run_sync(_in_a_process, served, "authority", "init", "--home", authority)
    (tmp_path / "anchors.toml").write_text(anchor)
    (tmp_path / "theirs").write_text(credential_for(served.alice, authority))
    (tmp_path / "own").write_text(credential_for(served.alice, server))
    options = ("--relay", served.url, "--home", str(server), "--anchors", str(tmp_path / "anchors.toml"))
    with serving_node(APP, *options, env=served.env) as (_, address):
        async with open_node(relay=served.url, home=tmp_path / "nobody") as stranger:
            with pytest.raises(Denied):
                await stranger.ref(address).ask(Untyped("Read", {}))
        async with open_node(relay=served.url, home=served.alice, credentials=[tmp_path / "own"]) as alice:
            with pytest.raises(Denied):
                await alice.ref(address).ask(Untyped("Read", {}))
        async with open_node(relay=served.url, home=served.alice, credentials=[tmp_path / "theirs"]) as alice:
            assert await alice.ref(address).ask(Untyped("Read", {})) == 0


def _in_a_process(served: Served, *arguments: str | Path) -> str:
    return run_once(*map(str, arguments), "--attribute", "team=string", env=served.env).stdout


def test_a_node_tells_its_metrics(tmp_path: Path) -> None:
    options = (APP, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with serving_node(*options, env=environment(tmp_path)) as (node, _):
        url = node.wait_line("metrics http://").removeprefix("metrics ")
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            assert "autonomy_node_relays 1\n" in response.read().decode()
