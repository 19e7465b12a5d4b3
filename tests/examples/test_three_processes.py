"""Three processes and all they do over a relay: what the script shows, and what the relay could have learnt of it."""

import re
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import attrs
import msgspec
import pytest
import trio

from autonomy_trio.trust.credentials import from_text
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import DATA, SEALED
from autonomy_trio.wire.frames import Send, Store, decode_frame, split_frames
from tests.support.processes import PATIENCE, ROOT, Process, environment, free_port
from tests.support.recorder import Recorder, recording
from tests.support.scripts import homes_in, normal, run_script

SCRIPT: Final = "three_processes.sh"
SHOWN: Final = ROOT / "examples" / "three_processes.txt"
"""What pages show of it."""

TOLD: Final = (
    *("counter", "Counter", "asker", "Asker", "Add", "amount", "Total", "value", "Count", "team", "payments"),
    *("not proven", "denied", "unknown agent"),
)
"""What agents, messages, credentials and answers say in that run."""


async def test_it_prints_what_the_pages_show_and_leaves_nothing_behind(tmp_path: Path) -> None:
    found = await run_script(SCRIPT, tmp_path, LISTEN=f"127.0.0.1:{free_port()}")
    assert normal(found.stdout.decode()) == SHOWN.read_text(encoding="utf-8")
    assert found.returncode == 0
    assert homes_in(tmp_path) == [], "its homes are left behind"


@attrs.frozen
class Run:
    """The script's run, recorded, with the homes it has used."""

    recorder: Recorder
    homes: Path
    port: int
    env: dict[str, str]

    def identifier(self, name: str) -> bytes:
        with Vault.open_beside(self.homes / name) as vault:
            return vault.identifier


@pytest.fixture
async def run(tmp_path: Path) -> AsyncGenerator[Run]:
    homes, port = tmp_path / "homes", free_port()
    homes.mkdir()
    async with recording(f"ws://127.0.0.1:{port}") as recorder:
        settings = {"LISTEN": f"127.0.0.1:{port}", "RELAY": recorder.url, "HOMES": str(homes)}
        found = await run_script(SCRIPT, tmp_path, **settings)
        assert found.returncode == 0, found.stdout.decode()
        yield Run(recorder, homes, port, environment(tmp_path))


async def test_the_recorded_traffic_tells_nothing_and_replayed_to_both_nodes_it_dispatches_nothing(run: Run) -> None:
    frames = [decode_frame(each) for message in run.recorder.messages for each in split_frames(message)]
    sent = [frame.packet[1] for frame in frames if isinstance(frame, (Send, Store))]
    assert sent.count(DATA) > 20
    assert sent.count(SEALED) == 1
    _tells_nothing(b"\x00".join(run.recorder.messages), run.homes / "asker" / "credentials" / "payments")
    await _replay(run)


def _tells_nothing(record: bytes, credential: Path) -> None:
    for text in TOLD:
        # A shorter text may be there by chance.
        assert len(text) < 4 or msgspec.msgpack.encode(text) not in record
        assert len(text) < 6 or text.encode() not in record
    whole = from_text(credential.read_text(encoding="ascii"))
    (body, signature), *_ = msgspec.msgpack.decode(whole)
    own_identifier = msgspec.msgpack.decode(body)[5]
    for part in (whole, body, signature, signature[:16], own_identifier):
        assert len(part) >= 16
        assert part not in record


async def _replay(run: Run) -> None:
    """Start the three again, where the asker is denied from then on, and send both all that was ever delivered."""
    everything = [delivery for each in run.recorder.conversations for delivery in each.deliveries()]
    counter = f"{run.recorder.url}/I{run.identifier('responder').hex()}/counter"
    async with AsyncExitStack() as stack:

        async def start(name: str, *arguments: str) -> Process:
            options = ("--home", str(run.homes / name), "--metrics", "127.0.0.1:0")
            env = {**run.env, "COUNTER": counter}
            process = stack.enter_context(Process(*arguments, *options, env=env))
            await trio.to_thread.run_sync(process.wait_line, "metrics http://")
            return process

        await start("relay", "relay", "--listen", f"127.0.0.1:{run.port}", "--store", f"sqlite:{run.homes / 'store'}")
        responder = await start("responder", "run", "examples.counter:agents", "--relay", run.recorder.url)
        asker = await start("asker", "run", "examples.asker:agents", "--relay", run.recorder.url)
        await trio.to_thread.run_sync(asker.wait_line, "is denied")
        for name in ("responder", "asker"):
            conversation = run.recorder.of(run.identifier(name))
            for delivery in everything:
                await conversation.inject(delivery)
        denied = await _metric(responder, 'dead_letters_total{reason="denied"}')
        with trio.fail_after(PATIENCE):
            while await _metric(responder, 'dead_letters_total{reason="denied"}') < denied + 3:  # noqa: ASYNC110 - a process
                await trio.sleep(0.1)
        for process in (responder, asker):
            assert await _metric(process, "decoded_total") == 0, "a replay was decoded"
        assert await _metric(responder, "handled_total") == 0, "a replay was handled"


async def _metric(process: Process, name: str) -> int:
    url = re.search(r"^metrics (http://\S+)$", process.err, re.MULTILINE)
    assert url is not None

    def read() -> str:
        with urllib.request.urlopen(url[1], timeout=PATIENCE) as response:
            return response.read().decode()

    found = re.search(rf"^autonomy_node_{re.escape(name)} (\d+)$", await trio.to_thread.run_sync(read), re.MULTILINE)
    assert found is not None, name
    return int(found[1])
