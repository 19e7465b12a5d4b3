"""The main job over processes: one sender allowed, one denied, a relay that learns who talks to whom and no more."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import attrs
import msgspec
import pytest
import trio

from autonomy_trio import Node, open_node
from autonomy_trio.errors import Denied
from autonomy_trio.fabric.links.addresses import ListenAddress
from autonomy_trio.fabric.links.websocket import listen
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.credentials import from_text
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import DATA, XX1, XX3
from autonomy_trio.wire.frames import Hello, Register, Send, Welcome, decode_frame, split_frames
from examples.counter import Add, Counter, Total
from tests.support.neighbours import eventually
from tests.support.processes import PATIENCE, ROOT, free_port
from tests.support.recorder import Recorder, recording
from tests.support.scripts import homes_in, normal, run_script

SCRIPT: Final = "two_machines.sh"

TOLD: Final = ("counter", "Counter", "team", "payments", "Add", "amount", "Total", "value", "not proven", "denied")
"""What agents, credentials, messages and answers say in that run."""


def readme_block() -> str:
    """Return the block of the README that shows the script's output."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [
        block for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if "alice asks" in block
    ]
    assert len(blocks) == 1, "README.md shows the output of examples/two_machines.sh in one block, from 'alice asks' on"
    return normal(blocks[0])


async def test_alice_gets_her_total_bob_is_denied_and_the_readme_shows_it(tmp_path: Path) -> None:
    found = await run_script(SCRIPT, tmp_path, LISTEN=f"127.0.0.1:{free_port()}")
    output = normal(found.stdout.decode())
    assert found.returncode == 0, output
    asked = [line for line in output.splitlines() if " asks " in line]
    assert asked == [f"{name} asks ws://127.0.0.1:4100/I…/counter for Add(3)" for name in ("alice", "bob")]
    assert '\n{"value": 3}\n' in output
    assert "\nError: ws://127.0.0.1:4100/I…/counter denied Add: " in output
    assert "\n(exit code 1)\n" in output
    assert "not proven: principal.team" in output
    assert homes_in(tmp_path) == [], "its homes are left behind"
    assert readme_block() == output


async def test_the_recorded_traffic_of_that_run_tells_nothing_but_who_talks_to_whom(tmp_path: Path) -> None:
    port = free_port()
    async with recording(f"ws://127.0.0.1:{port}") as recorder:
        found = await run_script(SCRIPT, tmp_path, LISTEN=f"127.0.0.1:{port}", RELAY=recorder.url)
    assert found.returncode == 0, found.stdout.decode()
    traffic = b"\x00".join(recorder.messages)
    server = re.search(rb"/I([0-9a-f]{64})/counter", found.stdout)
    assert server is not None
    assert bytes.fromhex(server[1].decode()) in traffic, "a relay must know where packets go: was anything recorded?"
    assert recorder.sent(DATA) >= 4, "a request and an answer for each of the two"
    for text in TOLD:
        assert msgspec.msgpack.encode(text) not in traffic
        assert len(text) < 6 or text.encode() not in traffic, "a short text may be there by chance"


@attrs.frozen
class Scene:
    """That run with all its nodes alive: alice has her total of 3, bob was denied, and all of it was recorded."""

    recorder: Recorder
    server: Node
    alice: Node
    bob: Node
    credential: bytes

    @property
    def counter(self) -> str:
        return self.server.address("counter")

    @property
    def identifiers(self) -> list[bytes]:
        return [bytes.fromhex(node.identifier[1:]) for node in (self.server, self.alice, self.bob)]

    async def ask_once_more(self, expected: int) -> None:
        """Let alice add 1 and bob try to: nothing but that has changed the total, was decoded or was denied."""
        with trio.fail_after(PATIENCE):
            assert await self.alice.ref(self.counter, Counter).ask(Add(1)) == Total(expected), "a replay was handled"
            with pytest.raises(Denied):
                await self.bob.ref(self.counter, Counter).ask(Add(1))
        assert self.server.statistics().decoded == expected - 2, "a replay was decoded"
        assert self.server.dead_letters.counts() == {"denied": expected - 2}, "a replay was judged"


@pytest.fixture
async def scene() -> AsyncGenerator[Scene]:
    async with trio.open_nursery() as nursery:
        listener = await listen(ListenAddress("127.0.0.1", 0))
        nursery.start_soon(Relay(Vault.in_memory()).serve, listener)
        async with (
            recording(listener.address.url) as recorder,
            open_node([Counter], relay=recorder.url) as server,
            open_node(relay=recorder.url) as alice,
            open_node(relay=recorder.url) as bob,
        ):
            credential = server.issue(alice.identifier, team="payments")
            alice.add_credential(credential)
            scene = Scene(recorder, server, alice, bob, from_text(credential))
            with trio.fail_after(PATIENCE):
                assert await alice.ref(scene.counter, Counter).ask(Add(3)) == Total(3)
                with pytest.raises(Denied):
                    await bob.ref(scene.counter, Counter).ask(Add(3))
            yield scene
        nursery.cancel_scope.cancel()


async def test_no_part_of_a_credential_is_in_the_traffic(scene: Scene) -> None:
    traffic = b"\x00".join(scene.recorder.messages)
    (body, signature), *_ = msgspec.msgpack.decode(scene.credential)
    # The identifiers that stand in it are no secret: a relay knows those from the nodes themselves.
    own_identifier = msgspec.msgpack.decode(body)[5]
    for part in (scene.credential, body, signature, signature[:16], own_identifier):
        assert len(part) >= 16
        assert part not in traffic


async def test_a_replay_of_each_packet_dispatches_nothing_and_the_sessions_live_on(scene: Scene) -> None:
    handshakes = [scene.recorder.sent(kind) for kind in (XX1, XX3)]
    assert handshakes == [2, 2]
    for node in scene.identifiers:
        conversation = scene.recorder.of(node)
        for delivery in conversation.deliveries():
            await conversation.inject(delivery)
    await scene.ask_once_more(expected=4)
    assert [scene.recorder.sent(kind) for kind in (XX1, XX3)] == handshakes, "a new handshake was necessary"


async def test_a_replay_of_each_packet_to_every_node_dispatches_nothing(scene: Scene) -> None:
    conversations = [scene.recorder.of(node) for node in scene.identifiers]
    deliveries = [delivery for each in conversations for delivery in each.deliveries()]
    for conversation in conversations:
        for delivery in deliveries:
            await conversation.inject(delivery)
    await scene.ask_once_more(expected=4)


async def test_a_replay_of_what_only_relays_and_newcomers_get_costs_the_link_and_dispatches_nothing(
    scene: Scene,
) -> None:
    kinds = {type(decode_frame(split_frames(message)[0])): message for message in scene.recorder.messages}

    async def replay(node: bytes) -> None:
        for kind in (Hello, Register, Welcome, Send):
            conversation = scene.recorder.of(node)
            await conversation.inject(kinds[kind])
            await eventually(lambda: conversation.ended, PATIENCE)  # noqa: B023 - it is awaited before the next turn
            await eventually(lambda: scene.recorder.find(node) is not None, PATIENCE)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as replays:
            for node in scene.identifiers:
                replays.start_soon(replay, node)
        await eventually(
            lambda: all(node.statistics().relays == 1 for node in (scene.server, scene.alice, scene.bob)), PATIENCE
        )
    await scene.ask_once_more(expected=4)
