"""``relay``: what it prints, how it ends, and that nodes come back to it."""

import re
import signal
import urllib.request
from pathlib import Path

import pytest
import trio

from autonomy_trio import Node, open_node
from autonomy_trio.errors import DeliveryError, RelayRefused
from autonomy_trio.messages import Untyped
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.vault import Vault
from tests.cli.conftest import Call, Served, credential_for
from tests.support.neighbours import eventually
from tests.support.processes import PATIENCE, Process, environment, free_port, run_once, serving_node

COME_BACK = 60.0
"""Seconds in which a test sees the nodes back after a relay was killed; what was promised is 10."""


def test_it_prints_its_address_and_the_one_that_pins_it_to_be_pasted(served: Served) -> None:
    assert served.relay.out == f"relay {served.url}\nto pin it: {served.pinned}\n"
    assert served.pinned.startswith(f"{served.url}#I")
    assert len(served.pinned) == len(served.url) + 66


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_it_clean(tmp_path: Path, number: signal.Signals) -> None:
    with Process("relay", "--listen", "127.0.0.1:0", env=environment(tmp_path)) as relay:
        relay.wait_line("to pin it")
        relay.signal(number)
        assert relay.wait() == 0
        assert relay.err == "stopped\n"


def test_its_home_is_apart_from_that_of_the_nodes(call: Call, tmp_path: Path) -> None:
    with Process(
        "relay", "--listen", "127.0.0.1:0", env=environment(tmp_path, AUTONOMY_HOME=str(tmp_path / "a" / "home"))
    ) as relay:
        pinned = relay.wait_line("to pin it")
        assert (tmp_path / "a" / "relay" / "vault").exists()
        own = call("identity", "show", "--home", tmp_path / "a" / "relay").out.strip()
        assert pinned.endswith(f"#{own}")


def test_a_home_in_use_is_named(call: Call, served: Served) -> None:
    found = call("relay", "--listen", "127.0.0.1:0", "--home", served.server.with_name("relay"))
    assert found.is_one_sentence(1)
    assert "is in use already" in found.err


async def test_after_a_kill_9_of_the_relay_the_nodes_come_back_and_ask_again(tmp_path: Path) -> None:
    env = environment(tmp_path)
    listen = f"127.0.0.1:{free_port()}"
    relay_options = ("relay", "--listen", listen, "--home", str(tmp_path / "relay"))
    server, alice = tmp_path / "server", tmp_path / "alice"
    (tmp_path / "payments").write_text(credential_for(alice, server))
    with Process(*relay_options, env=env) as relay:
        await trio.to_thread.run_sync(relay.wait_line, "to pin it")
        options = ("tests.support.app:agents", "--relay", f"ws://{listen}", "--home", str(server))
        with serving_node(*options, env=env) as (_, address):
            async with open_node(relay=f"ws://{listen}", home=alice, credentials=[tmp_path / "payments"]) as node:
                with trio.fail_after(PATIENCE):
                    assert await node.ref(address).ask(Untyped("Add", {"amount": 1})) == {"value": 1}
                relay.kill()
                with Process(*relay_options, env=env) as again:
                    await trio.to_thread.run_sync(again.wait_line, "to pin it")
                    began = trio.current_time()
                    with trio.fail_after(COME_BACK):
                        total = await _ask_until_answered(node, address)
                    print(f"back and asking {trio.current_time() - began:.1f} s after the new relay listened")  # noqa: T201 - measured
                    assert total["value"] >= 2


async def _ask_until_answered(node: Node, address: str) -> dict[str, int]:
    while True:
        try:
            with trio.fail_after(2):
                return await node.ref(address).ask(Untyped("Add", {"amount": 1}))
        except (DeliveryError, trio.TooSlowError):
            await trio.sleep(0.1)


def test_it_tells_its_metrics_and_its_health(tmp_path: Path) -> None:
    options = ("relay", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    with Process(*options, env=environment(tmp_path)) as relay:
        url = relay.wait_line("metrics http://").removeprefix("metrics ")
        assert "autonomy_relay_nodes 0\n" in fetch(url)
        assert fetch(url.replace("/metrics", "/healthz")) == "ok\n"
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0


def test_a_port_for_metrics_that_is_in_use_is_one_sentence(call: Call, served: Served, tmp_path: Path) -> None:
    taken = served.url.removeprefix("ws://")
    found = call("relay", "--listen", "127.0.0.1:0", "--home", tmp_path / "own", "--metrics", taken)
    assert found.is_one_sentence(2)
    assert "in use" in found.err
    assert "--metrics" in found.err


async def test_a_private_relay_admits_who_has_a_credential_of_its_authority_and_nobody_else(tmp_path: Path) -> None:
    authority, alice, anchors, policy = (tmp_path / name for name in ("authority", "alice", "anchors.toml", "p.cedar"))
    (tmp_path / "payments").write_text(credential_for(alice, authority))
    with Vault.open_beside(authority) as vault:
        anchors.write_text(to_toml(Anchor(vault.identifier, {"team": "string"})))
    policy.write_text(
        'permit(principal, action == Action::"Register", resource)\n'
        'when { principal has team && principal.team == "payments" };'
    )
    options = ("relay", "--listen", "127.0.0.1:0", "--policy", str(policy), "--anchors", str(anchors))
    with Process(*options, env=environment(tmp_path)) as relay:
        url = (await trio.to_thread.run_sync(relay.wait_line, "relay ws://")).removeprefix("relay ")
        async with open_node(relay=url, home=alice, credentials=[tmp_path / "payments"]):
            pass
        with pytest.raises(RelayRefused, match="it asks for a credential of I"):
            async with open_node(relay=url):
                pass
        await trio.to_thread.run_sync(relay.wait_line, "node not let in")


async def test_at_sighup_a_private_relay_asks_every_node_anew(tmp_path: Path) -> None:
    authority, alice, anchors, policy = (tmp_path / name for name in ("authority", "alice", "anchors.toml", "p.cedar"))
    (tmp_path / "payments").write_text(credential_for(alice, authority))
    with Vault.open_beside(authority) as vault:
        anchors.write_text(to_toml(Anchor(vault.identifier, {"team": "string"})))

    def let_in(team: str) -> None:
        policy.write_text(
            'permit(principal, action == Action::"Register", resource)\n'
            f'when {{ principal has team && principal.team == "{team}" }};'
        )

    let_in("payments")
    options = ("relay", "--listen", "127.0.0.1:0", "--policy", str(policy), "--anchors", str(anchors))
    with Process(*options, env=environment(tmp_path)) as relay:
        url = (await trio.to_thread.run_sync(relay.wait_line, "relay ws://")).removeprefix("relay ")
        async with open_node(relay=url, home=alice, credentials=[tmp_path / "payments"]) as node:
            let_in("kitchen")
            relay.signal(signal.SIGHUP)
            await trio.to_thread.run_sync(relay.wait_line, "node not let in")
            assert node.statistics().relays == 0
            policy.write_text("permit(")
            relay.signal(signal.SIGHUP)
            await trio.to_thread.run_sync(relay.wait_line, "what was in force stays")
            let_in("payments")
            relay.signal(signal.SIGHUP)
            await eventually(lambda: node.statistics().relays == 1, PATIENCE)


def test_a_policy_that_cannot_be_right_is_one_sentence(call: Call, tmp_path: Path) -> None:
    policy = tmp_path / "p.cedar"
    policy.write_text('permit(principal, action == Action::"Enter", resource);')
    found = call("relay", "--listen", "127.0.0.1:0", "--home", tmp_path / "own", "--policy", policy)
    assert found.is_one_sentence(2)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return str(response.read().decode())


def test_a_redis_that_is_not_there_is_named_in_one_sentence_without_its_password(tmp_path: Path) -> None:
    store = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    found = run_once(
        *("relay", "--listen", "127.0.0.1:0", "--home", str(tmp_path / "relay")),
        env=environment(tmp_path, AUTONOMY_STORE=store),
    )
    assert found.returncode == 2
    assert re.fullmatch(
        r"Error: redis://127.0.0.1:\d+/0 cannot be used \(connection refused\): is it running there\?\n", found.stderr
    )
