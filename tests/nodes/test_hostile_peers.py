"""What an authenticated peer, a restarted one, a named relay or a program's own classes cannot do to a node."""

import itertools
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog
import trio
from attrs import field, frozen

from autonomy_trio import Node, Request, agent, on
from autonomy_trio.actors.delivery import PendingReply
from autonomy_trio.errors import (
    ConfigurationError,
    DeliveryError,
    Denied,
    HandlerFailed,
    MessageError,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    PolicyError,
)
from autonomy_trio.fabric import opening
from autonomy_trio.fabric.links.addresses import Address
from autonomy_trio.fabric.peers.asks import MOST_ANSWER_BYTES, OpenAsk
from autonomy_trio.fabric.peers.outcomes import Expected
from autonomy_trio.fabric.peers.peer import MOST_SERVED, MOST_UNSENT
from autonomy_trio.messages import Untyped, encode_payload
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import INTRODUCTIONS_BYTES
from autonomy_trio.wire.entries import Ask, Cancel, Close, Error, Presentations, Tell, Watch
from autonomy_trio.wire.frames import Nack, Send, encode_frame, join_frames
from autonomy_trio.wire.introductions import Speaker
from tests.support.net import Add, Counter, Hold, Net, Note, Notes, Total, World, open_net, say, virtual_now


def hold(number: int, seconds: float) -> Ask:
    return Ask(number, "counter", "Hold", encode_payload(Hold(seconds)), None, 0, 0)


async def test_a_name_without_bytes_or_too_long_is_refused_and_costs_no_session(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    assert await counter.ask(Add(1)) == Total(1)
    for name in ("\ud800", "x" * 256):
        nobody, sent = world.alice.ref(f"{world.server.identifier}/{name}"), Untyped(name, {})
        for call in (nobody.tell(Note("x")), nobody.ask(Add(1)), world.alice.ref(world.address).tell(sent)):
            with pytest.raises(MessageError):
                await call
        with pytest.raises(MessageError):
            nobody.tell_nowait(Note("x"))
    await trio.sleep(1)
    assert await counter.ask(Add(1)) == Total(2)
    assert world.net.packets(0x01) == 1


async def test_an_agent_whose_policy_is_refused_is_not_there(net: Net, tmp_path: Path, autojump_clock: object) -> None:
    @agent
    class Typo:
        @on(Add, allow='principal.taem == "payments"')
        def add(self, message: Add) -> Total:
            return Total(1)

    anchors = tmp_path / "anchors.toml"
    anchors.write_text(f'[[anchor]]\nidentifier = "I{"0" * 64}"\nattributes = {{ team = "string" }}\n')
    async with net.node(anchors=anchors) as node, net.node() as bob:
        with pytest.raises(PolicyError):
            node.spawn(lambda: Typo())  # noqa: PLW0108 - a callable that is no class
        assert node.agents() == {}
        with pytest.raises(Denied):
            await bob.ref(node.address("typo")).ask(Add(1))


class Wordless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def refuse(*_: object) -> None:
    raise ValueError(Wordless())


def refuse_half_a_character(*_: object) -> None:
    raise ValueError("\ud800\x1b[2J")


@frozen
class Checked(Request[int]):
    text: str = field(validator=refuse)


@frozen
class HalfChecked(Request[int]):
    text: str = field(validator=refuse_half_a_character)


@frozen(eq=False)
class Key:
    number: int

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


@frozen
class Keys(Request[int]):
    keys: frozenset[Key]


class Broken(dict[str, int]):
    def items(self) -> NoReturn:
        raise RuntimeError("no items")


@frozen
class Get(Request[dict[str, int]]):
    pass


@agent
class Open:
    @on(Checked, allow="true")
    def checked(self, message: Checked) -> int:
        return 1

    @on(HalfChecked, allow="true")
    def half_checked(self, message: HalfChecked) -> int:
        return 1

    @on(Keys, allow="true")
    def keys(self, message: Keys) -> int:
        return 1

    @on(Get, allow="true")
    def get(self, message: Get) -> dict[str, int]:
        return Broken(a=1)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (Untyped("Checked", {"text": "x"}), NotHandled),
        (Untyped("HalfChecked", {"text": "x"}), NotHandled),
        (Untyped("Keys", {"keys": [{"number": 1}]}), NotHandled),
        (Untyped("Get", {}), HandlerFailed),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
async def test_what_a_programs_classes_raise_ends_no_node_and_answers_the_asker(
    net: Net, sent: Untyped, kind: type[Exception], autojump_clock: object
) -> None:
    async with net.node([Open]) as server, net.node() as bob:
        with trio.fail_after(5), pytest.raises(kind) as caught:
            await bob.ref(server.address("open")).ask(sent)
        assert str(caught.value).isprintable()
        assert all(letter.why.isprintable() for letter in server.dead_letters)
        assert server.statistics().relays == 1


async def test_a_reply_that_its_class_cannot_take_ends_no_node(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    def decode(*_: object) -> None:
        raise RuntimeError("from a program's class")

    counter = world.alice.ref(world.address, Counter)
    assert await counter.ask(Add(1)) == Total(1)
    with monkeypatch.context() as patched:
        patched.setattr("autonomy_trio.fabric.peers.outcomes.decode_payload", decode)
        with pytest.raises(MessageError, match="cannot be read: RuntimeError"):
            await counter.ask(Add(1))
    assert await counter.ask(Add(1)) == Total(3)


@frozen
class Reborn:
    """A node with one identity however often it starts, and the credential it shows."""

    net: Net
    credential: str

    async def vanish_while(self, server: Node, asked: Request[Any], moment: float) -> None:
        """Open the node, have it ask, and let it die without a word."""
        async with self.net.node() as alice, trio.open_nursery() as nursery:
            alice.add_credential(self.credential)
            nursery.start_soon(alice.ref(server.address("counter"), Counter).ask, asked)
            await trio.sleep(moment)
            self.net.loses = lambda frame: True
            nursery.cancel_scope.cancel()


def same_each_time() -> Callable[[int], bytes]:
    numbers = itertools.count()
    return lambda size: next(numbers).to_bytes(size, "big")


async def make_reborn(net: Net, server: Node, monkeypatch: pytest.MonkeyPatch) -> Reborn:
    async def open_vault(home: Path | None, *_: object) -> Vault:
        assert home is None
        await trio.lowlevel.checkpoint()
        return Vault.in_memory(random=same_each_time())

    monkeypatch.setattr(opening, "_open_vault", open_vault)
    async with net.node(relay=()) as alice:
        return Reborn(net, server.issue(alice.identifier, team="payments"))


async def test_an_answer_that_waits_for_a_process_is_not_its_successors(
    net: Net, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Both count their asks from 1, so the answer to the one's first would be taken for that to the other's."""
    async with net.node([Counter]) as server:
        reborn = await make_reborn(net, server, monkeypatch)
        await reborn.vanish_while(server, Hold(17), 0.5)
        await trio.sleep(18)  # the answer waits, for who asked is silent
        net.loses = lambda frame: False
        async with net.node() as alice:
            alice.add_credential(reborn.credential)
            start = trio.current_time()
            await alice.ref(server.address("counter"), Counter).ask(Hold(3))
            assert trio.current_time() - start >= 3, "it got the answer of another ask"


@frozen
class Stubborn(Request[str]):
    seconds: float


@agent
class Shielded(Counter):
    @on(Stubborn, allow="true")
    async def stubborn(self, message: Stubborn) -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(message.seconds)
        return f"after {message.seconds}"


@agent
class Second:
    @on(Stubborn, allow="true")
    async def stubborn(self, message: Stubborn) -> str:
        await trio.sleep(message.seconds)
        return f"second, after {message.seconds}"


async def test_a_handler_of_a_former_process_does_not_answer_its_successor(
    net: Net, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    async with net.node([lambda: Shielded(), Second]) as server:  # noqa: PLW0108
        server.spawn(Shielded, "counter")
        reborn = await make_reborn(net, server, monkeypatch)
        await reborn.vanish_while(server, Stubborn(10), 0.5)
        await trio.sleep(1)
        net.loses = lambda frame: False
        async with net.node() as alice:
            assert await alice.ref(server.address("second"), Second).ask(Stubborn(15)) == "second, after 15.0"


async def test_a_peer_that_was_restarted_is_left_in_peace(
    net: Net, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    async with net.node([Counter]) as server:
        reborn = await make_reborn(net, server, monkeypatch)
        await reborn.vanish_while(server, Hold(900), 0.5)
        await trio.sleep(1)
        net.loses = lambda frame: False
        async with net.node() as alice:
            alice._peers.sessions.endpoint.connect(server._vault.identifier, virtual_now(), trio.current_time())
            alice._peers.sessions._carry_out()
            await trio.sleep(400)
            assert server.statistics().peers == 0


async def test_a_request_number_used_again_does_not_mix_two_asks_up(world: World, autojump_clock: object) -> None:
    await world.alice.ref(world.address, Counter).ask(Add(1))
    world.server.spawn(Shielded)
    ask = Ask(77, "shielded", "Stubborn", encode_payload(Stubborn(5)), None, 0, 0)
    say(world.alice, world.server, ask)
    await trio.sleep(0.1)
    say(world.alice, world.server, Cancel(77), hold(77, 100))
    await trio.sleep(10)
    (peer,) = world.server._peers.sessions.peers.values()
    assert list(peer.served) == [77], "the first one's end was taken for the second's"


async def test_an_agent_that_inherits_nothing_or_was_not_introduced_has_none_of_its_nodes_rights(
    world: World, autojump_clock: object
) -> None:
    counter = world.alice.ref(world.address, Counter)
    assert await counter.ask(Add(1)) == Total(1)
    vault, peers, to = world.alice._vault, world.alice._peers, world.server._vault.identifier
    agent = Speaker(vault.introduce("agent", virtual_now()), inherits=False)
    add = encode_payload(Add(1))
    introduced = Ask(77, "counter", "Add", add, None, 0, 0)
    say(world.alice, world.server, introduced, speakers={0: agent})
    say(world.alice, world.server, Tell("counter", "Add", add, 9, 0), Watch(79, "counter", 9))
    expected = Expected("Add", None, Address.parse(world.address))
    ask = OpenAsk(Ask(78, "counter", "Add", add, None, 9, 0), PendingReply(), expected, math.inf)
    with pytest.raises(NotDelivered, match="not known here"):
        await peers.ask(to, ask)
    assert await counter.ask(Add(1)) == Total(2), "an agent spoke with its node's rights"


async def test_nothing_is_kept_of_a_peer_that_has_gone(net: Net, autojump_clock: object) -> None:
    async with net.node([Shielded]) as server:
        for _ in range(3):
            async with net.node() as bob, trio.open_nursery() as nursery:
                nursery.start_soon(bob.ref(server.address("shielded"), Shielded).ask, Stubborn(5))
                await trio.sleep(0.5)
                say(bob, server, Close("for a new identity"))
                nursery.cancel_scope.cancel()
        await trio.sleep(60)
        assert server.statistics().peers == 0
        assert server._peers.sessions.endpoint._roster._expected == {}


async def test_what_is_kept_of_a_nodes_agents_is_bounded_in_bytes(world: World, autojump_clock: object) -> None:
    assert await world.alice.ref(world.address, Counter).ask(Add(1)) == Total(1)
    vault, sessions, to = world.alice._vault, world.alice._peers.sessions, world.server._vault.identifier
    for number in range(120):
        agent = Speaker(vault.introduce(str(number), virtual_now()), inherits=True, presentations=(bytes(20_000),))
        sessions.endpoint.send(to, [Watch(number, "none", 0)], virtual_now(), trio.current_time(), {0: agent})
        sessions._carry_out()
    await trio.sleep(0.5)
    (peer,) = world.server._peers.sessions.peers.values()
    sizes = [known.size for known, _ in peer.proof.agents.values()]
    assert 0.9 * INTRODUCTIONS_BYTES < sum(sizes) == peer.proof.size <= INTRODUCTIONS_BYTES


async def test_a_flood_of_agents_credentials_is_not_looked_at(world: World, autojump_clock: object) -> None:
    assert await world.alice.ref(world.address, Counter).ask(Add(1)) == Total(1)
    vault, proofs = world.alice._vault, world.server._admission.proofs
    tell = Tell("counter", "Add", encode_payload(Add(1)), 0, 0)
    for number in range(40):
        shown = tuple(bytes((number, each)) for each in range(16))
        agent = Speaker(vault.introduce(str(number), virtual_now()), inherits=True, presentations=shown)
        say(world.alice, world.server, tell, Watch(number, "counter", 0), speakers={0: agent, 1: agent})
    await trio.sleep(0.5)
    assert proofs.unproven == 256
    assert sum("more credentials than are looked at" in letter.why for letter in world.server.dead_letters) == 24
    (peer,) = world.server._peers.sessions.peers.values()
    assert len(peer.watched) == 16


async def test_a_flood_of_credentials_fills_no_log_and_is_not_looked_at(world: World, autojump_clock: object) -> None:
    with pytest.raises(Denied):
        await world.bob.ref(world.address).ask(Add(1))
    with structlog.testing.capture_logs() as lines:
        for _ in range(10):
            say(world.bob, world.server, *[Presentations((bytes([number]),)) for number in range(250)])
        await trio.sleep(1)
    assert len(lines) < 20
    assert world.server._admission.proofs.unproven <= 65


@pytest.mark.parametrize("sender", [0, 99], ids=["a node", "an agent that nobody introduced"])
async def test_who_asks_and_takes_no_answers_does_not_fill_the_memory(
    world: World, sender: int, autojump_clock: object
) -> None:
    server, bob = world.server, world.bob
    with pytest.raises(Denied):
        await bob.ref(world.address).ask(Add(1))
    # Bob ends the session that the server sends on, goes on with an older one, and takes part in no handshake.
    world.net.loses = lambda frame: isinstance(frame, Send) and frame.packet[1] in (1, 2, 3)
    state = server._peers.sessions.endpoint._roster.get(bob._vault.identifier)
    assert state is not None
    state.current = None
    (peer,) = server._peers.sessions.peers.values()
    for first in range(0, 256 * 100, 256):
        say(bob, server, *[Ask(first + number, "", "", b"", None, sender, 0) for number in range(256)])
        await trio.sleep(0.02)
    assert len(peer.waiting) <= MOST_UNSENT + MOST_SERVED
    assert server.statistics().lost > 256 * 50


@frozen
class Fetch(Request[bytes]):
    pass


@agent
class Library:
    @on(Fetch, allow="true")
    def fetch(self, message: Fetch) -> bytes:
        return bytes(100_000)


async def test_replies_that_nobody_takes_do_not_fill_the_memory(net: Net, autojump_clock: object) -> None:
    async with net.node([Library]) as server, net.node() as bob:
        assert len(await bob.ref(server.address("library"), Library).ask(Fetch())) == 100_000
        net.loses = lambda frame: isinstance(frame, Send) and frame.packet[1] in (1, 2, 3)
        state = server._peers.sessions.endpoint._roster.get(bob._vault.identifier)
        assert state is not None
        (peer,) = server._peers.sessions.peers.values()
        state.current, first = None, 1000
        # What asks is looked at while little waits, so all of it comes at once.
        asks = [Ask(first + number, "library", "Fetch", encode_payload(Fetch()), None, 0, 0) for number in range(1000)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("autonomy_trio.fabric.peers.peer.MOST_UNSENT_BYTES", 2**40)
            for start in range(0, 1000, 200):
                say(bob, server, *asks[start : start + 200])
                await trio.sleep(0.5)
        assert peer.waiting_bytes <= MOST_ANSWER_BYTES + 400_000
        assert sum(isinstance(entry, Error) for entry in peer.waiting) > 500


async def test_credentials_renewed_for_long_are_still_shown(net: Net, autojump_clock: object) -> None:
    async with net.node([Counter]) as server, net.node() as alice:
        for _ in range(20):  # 16 are shown
            alice.add_credential(server.issue(alice.identifier, validity=60, team="payments"))
            await trio.sleep(50)
        assert await alice.ref(server.address("counter"), Counter).ask(Add(1)) == Total(1)
        assert len(alice._wallet._held) <= 2, "expired ones pile up"


async def test_strange_things_among_the_credentials_do_not_keep_a_node_from_starting(net: Net, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "credentials"
    async with net.node(home=tmp_path / "home"):
        folder.mkdir()
    (folder / "folder").mkdir()
    (folder / "text").write_text("no credential")
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe")
    async with net.node(home=tmp_path / "home") as node:
        assert node.statistics().relays == 1


async def test_who_waits_outside_a_block_that_failed_is_told(net: Net, autojump_clock: object) -> None:
    ended: list[type] = []

    async def expect_end(call: Callable[[], Any]) -> None:
        try:
            await call()
        except DeliveryError as error:
            ended.append(type(error))

    async with net.node([Counter]) as server, trio.open_nursery() as outside:
        with pytest.raises(KeyError):  # noqa: PT012 - of the block
            async with net.node() as alice:
                alice.add_credential(server.issue(alice.identifier, team="payments"))
                counter, nowhere = alice.ref(server.address("counter")), alice.ref(f"I{'0' * 64}/counter")

                async def tell_for_ever() -> None:
                    while True:
                        await nowhere.tell(Note("x"))

                outside.start_soon(expect_end, lambda: counter.ask(Hold(25)))
                outside.start_soon(expect_end, tell_for_ever)
                await trio.sleep(1)
                raise KeyError
        await trio.sleep(1)
        assert set(ended) == {OutcomeUnknown, NotDelivered}
        assert len(ended) == 2


async def test_a_relay_named_in_an_address_ends_no_node_whatever_it_is(net: Net, autojump_clock: object) -> None:
    async def connect(url: str, nursery: trio.Nursery) -> object:
        if url == net.url:
            return await net.connect(url, nursery)
        await trio.lowlevel.checkpoint()
        raise ValueError(url)  # as a resolver may of a name

    async with net.node([Counter]) as server, net.node(connect=connect) as alice:
        await alice.ref(f"ws://elsewhere:1/{server.identifier}/counter").tell(Note("x"))
        await trio.sleep(1)
        assert alice.relays == [net.url]
        with pytest.raises(Denied):
            await alice.ref(server.address("counter")).ask(Notes())


async def test_a_pin_is_not_passed_over_where_the_relay_is_known_without_one(net: Net, autojump_clock: object) -> None:
    async with net.node() as node:
        await node.attach(net.url)
        with pytest.raises(ConfigurationError, match="cannot be pinned"):
            await node.attach(f"{net.url}#I{'0' * 64}")
        with pytest.raises(ConfigurationError, match="cannot be pinned"):
            await node.ref(f"{net.url}#I{'0' * 64}/I{'1' * 64}/x").tell(Note("x"))


async def test_the_word_of_a_relay_that_does_not_carry_an_ask_does_not_end_it(autojump_clock: object) -> None:
    async with open_net("ws://one:1") as one, open_net("ws://two:1") as two:

        async def connect(url: str, inner: trio.Nursery) -> object:
            return await (one if url == one.url else two).connect(url, inner)

        options: Mapping[str, Any] = {"connect": connect}
        async with (
            two.node([Counter], **options) as server,
            two.node(**options, relay=[one.url, two.url]) as alice,
            trio.open_nursery() as asking,
        ):
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            counter = alice.ref(f"{server.identifier}/counter", Counter)
            assert await counter.ask(Add(1)) == Total(1)
            asking.start_soon(counter.ask, Hold(5))
            await trio.sleep(1)
            assert one.relay is not None
            nack = Nack("unknown", server._vault.identifier)
            one.relay._members[alice._vault.identifier].outbox.put(join_frames([encode_frame(nack)]))
