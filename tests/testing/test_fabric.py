"""What a test fabric promises: nodes as they are elsewhere, over links that err as asked, the same way for a seed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from autonomy_trio import Request, agent, on, open_node
from autonomy_trio.errors import AutonomyError, Denied, RelayUnreachable, UsageError
from autonomy_trio.fabric.links.memory import open_memory_links
from autonomy_trio.testing import Faults, TestFabric, TestNode, open_test_fabric
from autonomy_trio.testing.fabric import MOST_UNDER_WAY, URL
from autonomy_trio.wire.frames import Ping, Send, decode_frame, encode_frame, join_frames, split_frames


@frozen
class Add(Request[int]):
    amount: int = 1


@frozen
class Note:
    number: int


@frozen
class Fail:
    pass


@agent
class Counter:
    total: int = 0
    notes: list[int] = field(factory=list[int])

    @on(Add, allow='principal.team == "payments"')
    async def add(self, message: Add) -> int:
        self.total += message.amount
        return self.total

    @on(Note, allow="true")
    async def note(self, message: Note) -> None:
        self.notes.append(message.number)

    @on(Fail, allow="true")
    async def fail(self, message: Fail) -> None:
        raise ValueError


async def test_nodes_reach_each_other_with_their_identities_and_policies(autojump_clock: MockClock) -> None:
    async with (
        open_test_fabric() as fabric,
        fabric.open_node([Counter]) as server,
        fabric.open_node() as alice,
        fabric.open_node() as bob,
    ):
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        assert await alice.ref(server.address("counter"), Counter).ask(Add(2)) == 2
        with pytest.raises(Denied):
            await bob.ref(server.address("counter"), Counter).ask(Add(2))
        assert [(each.sender, each.reason) for each in server.dead_letters] == [(bob.identifier, "denied")]


async def test_a_failure_on_either_node_fails_the_test(autojump_clock: MockClock) -> None:
    async with open_test_fabric() as fabric, fabric.open_node() as visitor:
        with pytest.RaisesGroup(ValueError):
            async with fabric.open_node([Counter]) as server:
                await visitor.ref(server.address("counter")).tell(Fail())
                await trio.sleep(1)


async def test_a_ref_to_another_node_cannot_be_injected_here(autojump_clock: MockClock) -> None:
    async with open_test_fabric() as fabric, fabric.open_node([Counter]) as server, fabric.open_node() as visitor:
        counter = visitor.ref(server.address("counter"))
        with pytest.raises(UsageError, match="is on another node"):
            visitor.fail_next(counter, ValueError())
        with pytest.raises(UsageError, match="is on another node"):
            visitor.kill(counter)


async def test_a_home_keeps_an_identity(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with open_test_fabric() as fabric:
        identifiers: set[str] = set()
        for _ in range(2):
            async with fabric.open_node(home=tmp_path / "home") as node:
                identifiers.add(node.identifier)
    assert len(identifiers) == 1


async def test_a_stopped_relay_is_not_there_and_a_new_one_is_found_again(autojump_clock: MockClock) -> None:
    async with open_test_fabric() as fabric, fabric.open_node([Counter]) as server, fabric.open_node() as visitor:
        visitor.add_credential(server.issue(visitor.identifier, team="payments"))
        counter = visitor.ref(server.address("counter"), Counter)
        assert await counter.ask(Add()) == 1
        fabric.stop_relay()
        with pytest.raises(RelayUnreachable):
            async with fabric.open_node():
                pass
        with pytest.raises((AutonomyError, trio.TooSlowError)), trio.fail_after(2):
            await counter.ask(Add())
        fabric.start_relay()
        await trio.sleep(60)
        assert await counter.ask(Add()) >= 2


async def test_no_other_relay_is_reached(autojump_clock: MockClock) -> None:
    async with open_test_fabric() as fabric:
        with pytest.raises(RelayUnreachable):
            async with open_node(relay="ws://elsewhere:1", connect=fabric.connect):
                pass


@pytest.mark.parametrize("faults", [{"drop": 1.5}, {"tamper": -1}, {"delay": -1}, {"delay": float("inf")}])
def test_faults_that_cannot_be_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="give"):
        Faults(**faults)


Tally = tuple[int, Sequence[int]]


async def asked_and_told(fabric: TestFabric, server: TestNode, visitor: TestNode, count: int) -> Tally:
    """How many of so many asks were answered, and which of so many tells arrived."""
    probe = server.probe(takes=[Note], allow="true")
    elsewhere, counter = visitor.ref(server.address("probe")), visitor.ref(server.address("counter"), Counter)
    answered = 0
    for number in range(count):
        await elsewhere.tell(Note(number))
        with trio.move_on_after(5) as scope:
            try:
                await counter.ask(Add())
            except AutonomyError:
                continue
        answered += not scope.cancelled_caught
    fabric.faults = Faults()
    await trio.sleep(120)
    return answered, [each.number for each in probe.messages if isinstance(each, Note)]


async def over_faulty_links(faults: Faults, seed: int, count: int = 40) -> Tally:
    async with (
        open_test_fabric(seed=seed) as fabric,
        fabric.open_node([Counter]) as server,
        fabric.open_node() as visitor,
    ):
        visitor.add_credential(server.issue(visitor.identifier, team="payments"))
        fabric.faults = faults
        return await asked_and_told(fabric, server, visitor, count)


@settings(max_examples=25)
@given(
    st.builds(Faults, *[st.floats(0, 0.4)] * 4, delay=st.floats(0, 2)),
    st.integers(0, 1_000),
)
def test_whatever_links_do_messages_arrive_once_in_order_or_not_at_all(faults: Faults, seed: int) -> None:
    answered, told = trio.run(over_faulty_links, faults, seed, 12, clock=MockClock(autojump_threshold=0))
    assert answered <= 12
    assert list(told) == sorted(set(told))


async def test_links_without_faults_lose_nothing(autojump_clock: MockClock) -> None:
    assert await over_faulty_links(Faults(), 0) == (40, list(range(40)))


async def test_links_that_delay_or_duplicate_lose_nothing(autojump_clock: MockClock) -> None:
    assert await over_faulty_links(Faults(duplicate=0.5, delay=1), 0) == (40, list(range(40)))


@pytest.mark.parametrize("faults", [Faults(drop=0.3), Faults(tamper=0.3)], ids=["drop", "tamper"])
async def test_links_that_drop_or_tamper_lose_some(autojump_clock: MockClock, faults: Faults) -> None:
    answered, told = await over_faulty_links(faults, 0)
    assert 0 < answered < 40
    assert 0 < len(told) < 40


async def send_through(faults: Faults, seed: int, count: int = 200) -> list[tuple[bytes, float]]:
    """What arrives, and when, of so many packets that are sent one each second."""
    arrived: list[tuple[bytes, float]] = []
    async with trio.open_nursery() as nursery:
        fabric = TestFabric(faults, seed, nursery)
        fabric.start_relay()
        links = [open_memory_links()]

        async def listen() -> None:
            while True:
                for frame in split_frames(await links[0][1].receive()):
                    sent = decode_frame(frame)
                    assert isinstance(sent, Send)
                    arrived.append((sent.packet, trio.current_time()))

        link = await fabric.connect(URL, nursery)
        link._link = links[0][0]  # type: ignore[attr-defined]
        nursery.start_soon(listen)
        for number in range(count):
            packet = number.to_bytes(2, "big") * 20
            await link.send(join_frames([encode_frame(Send(bytes(32), 0, 30, packet))]))
            await trio.sleep(0.01)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    return arrived


def packets(count: int = 200) -> list[bytes]:
    return [number.to_bytes(2, "big") * 20 for number in range(count)]


def run(faults: Faults, seed: int = 1) -> list[tuple[bytes, float]]:
    return trio.run(send_through, faults, seed, clock=MockClock(autojump_threshold=0))


def test_packets_suffer_the_same_for_the_same_seed_and_otherwise_for_another() -> None:
    faults = Faults(drop=0.2, duplicate=0.2, tamper=0.2, reorder=0.2, delay=1)
    first, again = run(faults, 7), run(faults, 7)
    assert [packet for packet, _ in first] == [packet for packet, _ in again]
    assert [packet for packet, _ in first] != [packet for packet, _ in run(faults, 8)]


def test_drop_loses_packets_and_changes_no_other() -> None:
    arrived = [packet for packet, _ in run(Faults(drop=0.25))]
    assert 120 < len(arrived) < 180
    assert arrived == [packet for packet in packets() if packet in arrived]


def test_duplicate_brings_packets_twice() -> None:
    arrived = [packet for packet, _ in run(Faults(duplicate=0.25))]
    assert 220 < len(arrived) < 280
    assert sorted(set(arrived)) == packets()


def test_tamper_changes_one_bit() -> None:
    arrived = [packet for packet, _ in run(Faults(tamper=0.25))]
    changed = [
        (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()
        for one, other in zip(arrived, packets(), strict=True)
    ]
    assert set(changed) == {0, 1}
    assert 20 < sum(changed) < 80


def test_reorder_lets_packets_overtake_each_other() -> None:
    arrived = [packet for packet, _ in run(Faults(reorder=0.25))]
    assert sorted(arrived) == packets()
    assert arrived != packets()


def test_delay_keeps_the_order() -> None:
    delayed = run(Faults(delay=2))
    assert [packet for packet, _ in delayed] == packets()
    prompt = run(Faults())
    late = [slow - fast for (_, slow), (_, fast) in zip(delayed, prompt, strict=True)]
    assert 0.5 < max(late) <= 2.001


def test_what_a_node_says_to_its_relay_is_left_alone() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            fabric = TestFabric(Faults(drop=1), 0, nursery)
            near, far = open_memory_links()
            fabric.start_relay()
            link = await fabric.connect(URL, nursery)
            link._link = near  # type: ignore[attr-defined]
            await link.send(join_frames([encode_frame(Ping()), encode_frame(Send(bytes(32), 0, 30, b"packet"))]))
            assert [decode_frame(each) for each in split_frames(await far.receive())] == [Ping()]
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_link_holds_back_a_bounded_number_of_packets() -> None:
    arrived = trio.run(flooded, clock=MockClock(autojump_threshold=0))
    assert arrived == MOST_UNDER_WAY


async def flooded() -> int:
    arrived = 0
    async with trio.open_nursery() as nursery:
        fabric = TestFabric(Faults(delay=1_000), 0, nursery)
        fabric.start_relay()
        near, far = open_memory_links()
        link = await fabric.connect(URL, nursery)
        link._link = near  # type: ignore[attr-defined]
        packet = encode_frame(Send(bytes(32), 0, 30, b"packet"))
        for _ in range(11):
            await link.send(join_frames([packet] * 1_000))
        with trio.move_on_after(3_000):
            while True:
                arrived += len(split_frames(await far.receive()))
        nursery.cancel_scope.cancel()
    return arrived
