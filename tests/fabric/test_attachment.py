"""A node's place at a relay: with relays in memory where time matters, and behind sockets where the network does."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from autonomy_trio.errors import LinkBroken, RelayRefused, RelayUnreachable
from autonomy_trio.fabric import attachment as attachment_module
from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.fabric.links import websocket
from autonomy_trio.fabric.links.addresses import ListenAddress, RelayAddress
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.fabric.links.memory import MemoryLink, open_memory_links
from autonomy_trio.fabric.relays.relay import Relay
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import (
    Deliver,
    Frame,
    Nack,
    Parameters,
    Ping,
    Pong,
    Send,
    decode_frame,
    encode_frame,
    join_frames,
    split_frames,
)
from autonomy_trio.wire.registration import (
    make_hello,
    make_welcome,
)
from tests.support.neighbours import NONCE, NOW, eventually

pytestmark = pytest.mark.usefixtures("calm")

URL = "ws://relay:4000"
STRANGER = bytes(32)

Serve = Callable[[Link], Awaitable[None]]


@attrs.define(eq=False)
class World:
    """What an attachment connects to, and what came of it."""

    nursery: trio.Nursery
    serve: Serve | None
    """Serves each connection; None when nothing is there."""
    vault: Vault = attrs.field(factory=Vault.in_memory)
    attempts: list[float] = attrs.field(factory=list)
    attached: list[float] = attrs.field(factory=list)
    delivered: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    open_links: int = 0

    async def connect(self, url: str, nursery: trio.Nursery) -> Link:
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        if self.serve is None:
            raise RelayUnreachable(f"{url} cannot be reached")
        mine, theirs = open_memory_links()
        self.nursery.start_soon(self._serve, self.serve, theirs)
        return mine

    async def _serve(self, serve: Serve, link: Link) -> None:
        self.open_links += 1
        try:
            await serve(link)
        except LinkBroken:
            pass
        finally:
            self.open_links -= 1
            await link.aclose()

    def attachment(self, pin: bytes | None = None, vault: Vault | None = None) -> Attachment:
        return Attachment(
            RelayAddress(URL, pin),
            vault or self.vault,
            self.connect,
            lambda _, source, packet: self.delivered.append((source, packet)),
            lambda: self.attached.append(trio.current_time()),
            lambda: NOW,
        )


@attrs.define(eq=False)
class HandRelay:
    """A relay that lets every node in and then does what a test says."""

    then: Callable[["HandRelay", Link], Awaitable[None]]
    parameters: Parameters = attrs.field(factory=Parameters)
    vault: Vault = attrs.field(factory=Vault.in_memory)

    async def __call__(self, link: Link) -> None:
        hello = make_hello(self.vault, NONCE, (), NOW)
        await link.send(join_frames([hello]))
        register = (await link.receive())[4:]
        await link.send(join_frames([make_welcome(self.vault, hello, register, self.parameters)]))
        await self.then(self, link)


def frames(message: bytes) -> list[Frame]:
    return [decode_frame(frame) for frame in split_frames(message)]


async def stay(relay: HandRelay, link: Link) -> None:
    await trio.sleep_forever()


async def leave(relay: HandRelay, link: Link) -> None:
    """Let a node in and close at once."""


@pytest.fixture
def relay() -> Relay:
    return Relay(Vault.in_memory(), now=lambda: NOW)


async def test_a_node_is_attached_when_run_has_started(nursery: trio.Nursery, relay: Relay) -> None:
    world = World(nursery, relay.serve_link)
    attachment = world.attachment()
    assert not attachment.is_attached
    await nursery.start(attachment.run)
    assert attachment.is_attached
    assert len(world.attached) == 1
    assert relay.statistics().nodes == 1


async def test_packets_go_out_and_come_in_with_a_hint_where_from(nursery: trio.Nursery, relay: Relay) -> None:
    one, two = World(nursery, relay.serve_link), World(nursery, relay.serve_link)
    first, second = one.attachment(), two.attachment()
    await nursery.start(first.run)
    await nursery.start(second.run)
    assert first.carry(two.vault.identifier, b"there")
    assert second.carry(one.vault.identifier, b"back")
    assert second.carry(STRANGER, b"to nobody")
    await trio.testing.wait_all_tasks_blocked()
    assert two.delivered == [(one.vault.identifier, b"there")]
    assert one.delivered == [(two.vault.identifier, b"back")]
    assert second.is_attached


async def test_the_pinned_relay_is_accepted_and_another_is_refused(nursery: trio.Nursery, relay: Relay) -> None:
    world, pinned = World(nursery, relay.serve_link), Vault.in_memory()
    with pytest.raises(RelayRefused) as raised:
        await nursery.start(world.attachment(pinned.identifier).run)
    assert URL in str(raised.value)
    assert "as pinned" in str(raised.value)
    await trio.testing.wait_all_tasks_blocked()
    assert relay.statistics().nodes == 0
    await nursery.start(world.attachment(relay._vault.identifier).run)


async def test_a_relay_that_changes_its_identity_later_is_not_attached_to(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    first = HandRelay(leave)
    world = World(nursery, first)
    attachment = world.attachment(first.vault.identifier)
    await nursery.start(attachment.run)
    world.serve = HandRelay(stay)
    await trio.sleep(30)
    assert len(world.attached) == 1
    assert not attachment.is_attached
    world.serve = HandRelay(stay, vault=first.vault)
    await trio.sleep(6)
    assert attachment.is_attached


async def hello_of_the_past(link: Link) -> None:
    await link.send(join_frames([make_hello(Vault.in_memory(), NONCE, (), NOW - 8 * 86_400)]))
    await trio.sleep_forever()


async def no_hello(link: Link) -> None:
    await link.send(join_frames([encode_frame(Ping())]))
    await trio.sleep_forever()


async def hello_and_more(link: Link) -> None:
    await link.send(join_frames([make_hello(Vault.in_memory(), NONCE, (), NOW), encode_frame(Ping())]))
    await trio.sleep_forever()


async def garbage(link: Link) -> None:
    await link.send(b"garbage")
    await trio.sleep_forever()


async def welcome_of_another(link: Link) -> None:
    hello = make_hello(Vault.in_memory(), NONCE, (), NOW)
    await link.send(join_frames([hello]))
    register = (await link.receive())[4:]
    await link.send(join_frames([make_welcome(Vault.in_memory(), hello, register, Parameters())]))
    await trio.sleep_forever()


async def welcome_of_another_connection(link: Link) -> None:
    vault = Vault.in_memory()
    hello = make_hello(vault, NONCE, (), NOW)
    await link.send(join_frames([hello]))
    register = (await link.receive())[4:]
    await link.send(join_frames([make_welcome(vault, make_hello(vault, bytes(32), (), NOW), register, Parameters())]))
    await trio.sleep_forever()


async def no_welcome(link: Link) -> None:
    await link.send(join_frames([make_hello(Vault.in_memory(), NONCE, (), NOW)]))
    await link.receive()
    await link.send(join_frames([encode_frame(Nack("unknown", STRANGER))]))
    await trio.sleep_forever()


async def closes_at_once(link: Link) -> None:
    pass


@pytest.mark.parametrize(
    "serve",
    [
        hello_of_the_past,
        no_hello,
        hello_and_more,
        garbage,
        welcome_of_another,
        welcome_of_another_connection,
        no_welcome,
        closes_at_once,
    ],
)
async def test_a_relay_that_does_not_prove_who_it_is_is_refused(nursery: trio.Nursery, serve: Serve) -> None:
    world = World(nursery, serve)
    with pytest.raises(RelayRefused) as raised:
        await nursery.start(world.attachment().run)
    assert str(raised.value).startswith(f"{URL} did not let this node in (")
    assert str(raised.value).endswith("): is it a relay with room for more, and is the clock right?")
    nursery.cancel_scope.cancel()


async def test_a_relay_that_says_nothing_is_unreachable_after_five_seconds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def silent(link: Link) -> None:
        await trio.sleep_forever()

    world = World(nursery, silent)
    with pytest.raises(RelayUnreachable) as raised:
        await nursery.start(world.attachment().run)
    assert trio.current_time() == pytest.approx(5)
    assert str(raised.value) == f"{URL} did not welcome this node in 5 s: is it a relay?"
    nursery.cancel_scope.cancel()


async def test_while_the_relay_is_away_attempts_become_rarer_and_never_stop(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(nursery, HandRelay(leave))
    await nursery.start(world.attachment().run)
    world.serve = None
    await trio.sleep(300)
    pauses = [after - before for before, after in zip(world.attempts, world.attempts[1:], strict=False)]
    for number, pause in enumerate(pauses):
        most = min(0.1 * 2**number, 5.0)
        assert most / 2 - 1e-6 <= pause <= most + 1e-6
    assert 300 / 5 < len(world.attempts) < 300 / 2.5 + 10
    assert len({round(pause, 6) for pause in pauses[10:]}) > 10


async def test_after_a_loss_the_node_comes_back_at_once_when_it_had_stayed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, log: list[MutableMapping[str, Any]]
) -> None:
    async def stay_a_while(relay: HandRelay, link: Link) -> None:
        await trio.sleep(8)

    world = World(nursery, HandRelay(stay_a_while))
    await nursery.start(world.attachment().run)
    await trio.sleep(60)
    pauses = [after - before - 8 for before, after in zip(world.attached, world.attached[1:], strict=False)]
    assert len(pauses) >= 6
    assert all(0.05 <= round(pause, 6) <= 0.1 for pause in pauses)
    assert [line["event"] for line in log if "TLS" not in line["event"]][:2] == ["relay lost", "relay back"]


@pytest.mark.parametrize(
    ("url", "told"), [(URL, 1), ("wss://relay", 0), ("ws://127.0.0.1:4000", 0), ("tcp://relay:4000", 1)]
)
async def test_a_relay_that_the_network_could_replace_is_told_of_once(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    log: list[MutableMapping[str, Any]],
    url: str,
    told: int,
) -> None:
    world = World(nursery, HandRelay(leave))
    attachment = world.attachment()
    attachment.relay = RelayAddress.parse(url)
    await nursery.start(attachment.run)
    await trio.sleep(60)
    assert attachment.times_attached > 2
    assert [line["event"] for line in log].count("relay is neither pinned nor behind TLS") == told


async def test_two_nodes_with_one_identity_do_not_chase_each_other_without_rest(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, relay: Relay
) -> None:
    world = World(nursery, relay.serve_link)
    await nursery.start(world.attachment().run)
    await nursery.start(world.attachment().run)
    await trio.sleep(100)
    assert len(world.attached) < 100


async def test_a_silent_relay_is_pinged_after_ten_seconds_and_gone_after_twenty_five(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    heard: list[tuple[float, list[Frame]]] = []

    async def listen(relay: HandRelay, link: Link) -> None:
        while True:
            message = await link.receive()
            heard.append((trio.current_time(), frames(message)))

    world = World(nursery, HandRelay(listen))
    attachment = world.attachment()
    await nursery.start(attachment.run)
    await trio.sleep(24.9)
    assert heard == [(pytest.approx(10), [Ping()])]
    assert attachment.is_attached
    await trio.sleep(0.11)
    assert not attachment.is_attached
    await trio.sleep(0.1)
    assert attachment.is_attached


async def test_a_relay_that_pings_is_answered_and_kept(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def ping(relay: HandRelay, link: Link) -> None:
        while True:
            await trio.sleep(9)
            await link.send(join_frames([encode_frame(Ping()), encode_frame(Pong())]))
            assert frames(await link.receive()) == [Pong()]

    world = World(nursery, HandRelay(ping))
    await nursery.start(world.attachment().run)
    await trio.sleep(100)
    assert len(world.attached) == 1


@pytest.mark.parametrize(("ping_after", "gone_after", "gone"), [(0, 0, 2), (10**9, 10**9, 60), (50, 5, 5)])
async def test_what_a_relay_asks_for_is_kept_in_bounds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, ping_after: int, gone_after: int, gone: float
) -> None:
    world = World(nursery, HandRelay(stay, Parameters(ping_after, gone_after)))
    attachment = world.attachment()
    await nursery.start(attachment.run)
    await trio.sleep(gone - 0.01)
    assert attachment.is_attached
    await trio.sleep(0.02)
    assert not attachment.is_attached


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"garbage",
        join_frames([b"\xc1"]),
        join_frames([encode_frame(Send(STRANGER, 0, 30, b""))]),
        join_frames([make_hello(Vault.in_memory(), NONCE, (), NOW)]),
    ],
    ids=["nothing", "garbage", "no frame", "a node's frame", "a node's hello"],
)
async def test_a_relay_that_breaks_the_protocol_is_left_and_tried_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, message: bytes
) -> None:
    async def wicked(relay: HandRelay, link: Link) -> None:
        await link.send(message)
        await trio.sleep_forever()

    world = World(nursery, HandRelay(wicked))
    await nursery.start(world.attachment().run)
    await trio.sleep(0.1)
    world.serve = HandRelay(stay)
    await trio.sleep(3)
    assert len(world.attached) >= 2


async def test_a_relay_that_takes_nothing_is_left_after_ten_seconds(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, log: list[MutableMapping[str, Any]]
) -> None:
    world = World(nursery, HandRelay(stay))
    attachment = world.attachment()
    await nursery.start(attachment.run)
    for _ in range(3):
        assert attachment.carry(STRANGER, bytes(100_000))
    await trio.sleep(9.9)
    assert attachment.is_attached
    await trio.sleep(0.15)
    (lost,) = [line for line in log if line["event"] == "relay lost"]
    assert lost["reason"] == "memory took nothing for 10 s"


async def test_what_a_relay_said_last_is_delivered_though_it_takes_nothing_any_more(nursery: trio.Nursery) -> None:
    async def farewell(relay: HandRelay, link: Link) -> None:
        assert isinstance(link, MemoryLink)
        await trio.testing.wait_all_tasks_blocked()
        link._receive.close()
        # The node fails to answer the first, and has the second already.
        link._send.send_nowait(join_frames([encode_frame(Ping())]))
        link._send.send_nowait(join_frames([encode_frame(Deliver(STRANGER, b"farewell"))]))

    world = World(nursery, HandRelay(farewell))
    await nursery.start(world.attachment().run)
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert world.delivered[:1] == [(STRANGER, b"farewell")]


async def test_while_the_relay_is_away_packets_are_dropped_and_nobody_waits(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(nursery, HandRelay(leave))
    attachment = world.attachment()
    await nursery.start(attachment.run)
    world.serve = None
    await trio.sleep(1)
    assert not attachment.carry(STRANGER, b"packet")
    began = trio.current_time()
    await attachment.wait_room()
    await attachment.flush()
    assert trio.current_time() == began


async def test_what_waits_is_bounded_and_who_waits_for_room_goes_on_after_a_loss(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    world = World(nursery, HandRelay(stay))
    attachment = world.attachment()
    await nursery.start(attachment.run)
    carried = 0
    while attachment.carry(STRANGER, bytes(100_000)):
        carried += 1
    assert carried * 100_000 <= attachment_module.OUTBOX_BYTES
    with trio.fail_after(11):
        await attachment.wait_room()
    assert trio.current_time() == pytest.approx(10, abs=0.2)


async def test_flush_waits_for_what_leaves_and_a_second_for_what_does_not(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def read_slowly(relay: HandRelay, link: Link) -> None:
        while True:
            await trio.sleep(0.1)
            await link.receive()

    world = World(nursery, HandRelay(read_slowly))
    attachment = world.attachment()
    await nursery.start(attachment.run)
    for _ in range(5):
        assert attachment.carry(STRANGER, bytes(100_000))
    began = trio.current_time()
    await attachment.flush()
    assert trio.current_time() - began == pytest.approx(0.4, abs=0.11)
    for _ in range(20):
        assert attachment.carry(STRANGER, bytes(100_000))
    began = trio.current_time()
    await attachment.flush()
    assert trio.current_time() - began == pytest.approx(1)


async def test_nothing_is_left_running_when_an_attachment_is_cancelled(relay: Relay) -> None:
    async with trio.open_nursery() as network:
        world = World(network, relay.serve_link)
        attachment = world.attachment()
        async with trio.open_nursery() as nursery:
            await nursery.start(attachment.run)
            nursery.cancel_scope.cancel()
        assert not attachment.is_attached
        await eventually(lambda: world.open_links == 0)


async def test_a_node_comes_back_to_a_new_relay_on_the_same_port(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(websocket, "CLOSE_LIMIT", 0.1)
    attached: list[None] = []
    address = ListenAddress("127.0.0.1", 0)
    async with trio.open_nursery() as first:
        listener = await websocket.listen(address)
        address = listener.address
        first.start_soon(Relay(Vault.in_memory(), now=lambda: NOW).serve, listener)
        attachment = Attachment(
            RelayAddress.parse(address.url),
            Vault.in_memory(),
            websocket.connect,
            lambda *_: None,
            lambda: attached.append(None),
            lambda: NOW,
        )
        await nursery.start(attachment.run)
        first.cancel_scope.cancel()
    await eventually(lambda: not attachment.is_attached)
    listener = await websocket.listen(address)
    relay = Relay(Vault.in_memory(), now=lambda: NOW)
    nursery.start_soon(relay.serve, listener)
    await eventually(lambda: attachment.is_attached)
    assert len(attached) == attachment.times_attached == 2
    assert relay.statistics().nodes == 1


async def http_server(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")


async def silent_server(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http_server, "is no relay, for what answers there speaks no websocket: check the host and the port"),
        (silent_server, "did not answer in 0.2 s: is a relay running there?"),
        (None, "cannot be reached (connection refused): is a relay running there?"),
    ],
)
async def test_a_first_attempt_that_meets_no_relay_says_where_and_what_to_do(
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[trio.SocketStream], Awaitable[None]] | None,
    why: str,
) -> None:
    monkeypatch.setattr(websocket, "UPGRADE_LIMIT", 0.2)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
    if answer is None:
        await listener.aclose()
    else:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
    with pytest.raises(RelayUnreachable) as raised:
        await nursery.start(real_attachment(url).run)
    assert str(raised.value) == f"{url} {why}"


async def test_a_first_attempt_at_a_name_that_nothing_has_says_so(nursery: trio.Nursery) -> None:
    with pytest.raises(RelayUnreachable, match=r"ws://no-such-host.invalid cannot be reached, .*is it spelt right"):
        await nursery.start(real_attachment("ws://no-such-host.invalid").run)


def real_attachment(url: str) -> Attachment:
    return Attachment(
        RelayAddress.parse(url), Vault.in_memory(), websocket.connect, lambda *_: None, lambda: None, lambda: NOW
    )
