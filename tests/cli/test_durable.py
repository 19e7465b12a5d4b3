"""Durable messages between processes that crash, and from the command line: what was stored is handled."""

import json
from collections import Counter
from pathlib import Path

import trio
from attrs import frozen

from autonomy_trio import AgentRef, Context, Request, agent, on, open_node
from tests.cli.conftest import Call, credential_for
from tests.support.neighbours import eventually
from tests.support.processes import PATIENCE, Process, environment, free_port

FATAL = 666
DURABLE = """
import os
from attrs import frozen
from pathlib import Path
from autonomy_trio import Request, agent, on

@frozen
class Note:
    number: int

@frozen
class Hello(Request[str]):
    pass

@agent
class Writer:
    @on(Note, allow='principal.team == "payments"')
    def note(self, message: Note) -> None:
        if message.number == 666:
            os._exit(9)
        with Path("notes").open("a") as notes:
            notes.write(f"{message.number}\\n")

    @on(Hello, allow="true")
    def hello(self, message: Hello) -> str:
        return "hello"

agents = [Writer]
"""


@frozen
class Note:
    number: int


@frozen
class Hello(Request[str]):
    pass


@agent
class Writer:
    """What the other process has, for type checkers."""

    @on(Note)
    def note(self, message: Note, context: Context) -> None: ...


async def test_what_was_stored_outlives_a_kill_9_of_the_relay_and_of_its_reader(tmp_path: Path) -> None:
    env = environment(tmp_path)
    (tmp_path / "writing.py").write_text(DURABLE)
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    relay_options = ("relay", "--listen", f"127.0.0.1:{port}", "--home", str(tmp_path / "relay"))
    relay_options = (*relay_options, "--store", f"sqlite:{tmp_path / 'box'}")
    node_options = ("run", "writing:agents", "--relay", url, "--home", str(tmp_path / "server"))
    alice = tmp_path / "alice"
    (tmp_path / "payments").write_text(credential_for(alice, tmp_path / "server"))

    def start(*options: str) -> Process:
        return Process(*options, env=env, cwd=tmp_path)

    def notes() -> list[int]:
        written = tmp_path / "notes"
        return sorted(map(int, written.read_text().splitlines())) if written.exists() else []

    async def wait_line(process: Process, part: str) -> str:
        return await trio.to_thread.run_sync(process.wait_line, part)

    with start(*relay_options) as relay:
        await wait_line(relay, "to pin it")
        async with open_node(relay=url, home=alice, credentials=[tmp_path / "payments"]) as node:
            with start(*node_options) as server:
                address = await wait_line(server, "/writer")
                address = next(part for part in address.split() if part.endswith("/writer"))
                ref = node.ref(address, Writer)
                with trio.fail_after(PATIENCE):
                    assert await ref.ask(Hello()) == "hello"
                server.kill()
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(tell, ref, number)
            relay.kill()
            with start(*relay_options) as again:
                await wait_line(again, "to pin it")
                await tell(ref, 100)
                with start(*node_options) as server:
                    await wait_line(server, "/writer")
                    await eventually(lambda: len(notes()) >= 50, PATIENCE)
                    server.kill()
                with start(*node_options) as server:
                    await wait_line(server, "/writer")
                    await eventually(lambda: set(notes()) == set(range(101)), PATIENCE)
                with start(*node_options) as server:
                    await wait_line(server, "/writer")
                    await tell(ref, 101)
                    await eventually(lambda: 101 in notes(), PATIENCE)
                # What was in flight at the kill may have come twice; what a node had ended with comes no more.
                assert max(Counter(notes()).values()) <= 2


async def tell(ref: AgentRef[Writer], number: int) -> None:
    with trio.fail_after(PATIENCE):
        await ref.tell(Note(number), durable=True)


def test_send_durable_stores_for_a_node_that_is_away(tmp_path: Path, call: Call) -> None:
    env = environment(tmp_path)
    (tmp_path / "writing.py").write_text(DURABLE)
    relay_options = ("relay", "--listen", "127.0.0.1:0", "--home", str(tmp_path / "relay"))
    node_options = ("run", "writing:agents", "--home", str(tmp_path / "server"))
    alice = ("--home", tmp_path / "alice", "--credential", tmp_path / "payments")
    (tmp_path / "payments").write_text(credential_for(tmp_path / "alice", tmp_path / "server"))
    with Process(*relay_options, "--store", f"sqlite:{tmp_path / 'box'}", env=env) as relay:
        url = relay.wait_line("relay ws://").removeprefix("relay ")
        with Process(*node_options, "--relay", url, env=env, cwd=tmp_path) as server:
            line = server.wait_line("/writer")
            address = next(part for part in line.split() if part.endswith("/writer"))
            stranger = call("send", address, '{"Note": {"number": 1}}', "--home", tmp_path / "bob")
            assert stranger.code == 0
            assert call("ask", address, '{"Hello": {}}', *alice).out == '"hello"\n'
        sent = call("send", address, '{"Note": {"number": 7}}', "--durable", *alice)
        assert (sent.code, sent.err) == (0, f"stored Note for {address}\n")
        carol = ("--home", tmp_path / "carol", "--credential", tmp_path / "carols")
        (tmp_path / "carols").write_text(credential_for(tmp_path / "carol", tmp_path / "server"))
        unmet = call("send", address, '{"Note": {"number": 8}}', "--durable", *carol)
        assert (unmet.code, unmet.err) == (0, f"stored Note for {address}\n")
        with Process(*node_options, "--relay", url, env=env, cwd=tmp_path) as server:
            server.wait_line("/writer")
            notes = tmp_path / "notes"
            trio.run(eventually, lambda: notes.exists() and sorted(notes.read_text().split()) == ["7", "8"], PATIENCE)


def test_a_message_that_kills_its_process_is_given_up_the_third_time_and_no_other_is(
    tmp_path: Path, call: Call
) -> None:
    env = environment(tmp_path)
    (tmp_path / "writing.py").write_text(DURABLE)
    relay_options = ("relay", "--listen", "127.0.0.1:0", "--home", str(tmp_path / "relay"))
    node_options = ("run", "writing:agents", "--home", str(tmp_path / "server"))
    alice = ("--home", tmp_path / "alice", "--credential", tmp_path / "payments")
    (tmp_path / "payments").write_text(credential_for(tmp_path / "alice", tmp_path / "server"))
    with Process(*relay_options, "--store", f"sqlite:{tmp_path / 'box'}", env=env) as relay:
        url = relay.wait_line("relay ws://").removeprefix("relay ")
        with Process(*node_options, "--relay", url, env=env, cwd=tmp_path) as server:
            line = server.wait_line("/writer")
            address = next(part for part in line.split() if part.endswith("/writer"))
        for number in (1, FATAL, 2):
            sent = call("send", address, json.dumps({"Note": {"number": number}}), "--durable", *alice)
            assert sent.code == 0
        for _ in range(3):
            with Process(*node_options, "--relay", url, env=env, cwd=tmp_path) as server:
                assert server.wait() == 9
        with Process(*node_options, "--relay", url, env=env, cwd=tmp_path) as server:
            server.wait_line("/writer")
            notes = tmp_path / "notes"
            trio.run(eventually, lambda: set(notes.read_text().split()) == {"1", "2"}, PATIENCE)
            server.wait_line("durable message given up")


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path, call: Call) -> None:
    (tmp_path / "box").write_bytes(b"no database" * 1000)
    options = ("relay", "--listen", "127.0.0.1:0", "--home", tmp_path / "relay", "--store")
    assert call(*options, f"sqlite:{tmp_path / 'box'}").is_one_sentence(2)
    assert call(*options, f"sqlite:{tmp_path / 'nowhere' / 'box'}").is_one_sentence(2)
    assert call(*options, "box").is_one_sentence(2)
