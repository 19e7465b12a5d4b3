"""What a probe promises: it keeps what it receives, answers as it was told, and is wanted wherever a ref is."""

from collections.abc import AsyncIterator

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock

from autonomy_trio import AgentRef, DeadLetter, Down, Request, Stream, agent, on
from autonomy_trio.errors import (
    DeclarationError,
    Denied,
    HandlerFailed,
    NotDelivered,
    NotHandled,
    PolicyError,
    ReplyError,
)
from autonomy_trio.testing import open_test_fabric, open_test_node
from autonomy_trio.testing import probe as probes
from autonomy_trio.testing.probe import Unscripted


@frozen
class Used:
    seconds: int


@frozen
class Price(Request[float]):
    of: str


@frozen
class Special(Price):
    pass


@frozen
class Ticks(Stream[int]):
    pass


@frozen
class Missing(ReplyError):
    of: str


@agent
class Meter:
    @on(Used)
    async def used(self, message: Used) -> None: ...


@frozen
class Report(Request[None]):
    to: AgentRef[Meter]


@agent
class Lamp:
    @on(Report)
    async def report(self, message: Report) -> None:
        await message.to.tell(Used(60))


async def test_its_ref_is_of_use_in_a_message_and_by_name() -> None:
    async with open_test_node([Lamp]) as node:
        probe = node.probe("meter")
        await node.ref("lamp", Lamp).ask(Report(probe.ref))
        assert await probe.receive(Used) == Used(60)
        await node.ref("meter", Meter).tell(Used(2))
        assert await probe.receive(Used) == Used(2)
        assert probe.messages == (Used(60), Used(2))


async def test_a_probe_without_a_name_gets_one() -> None:
    async with open_test_node() as node:
        assert [node.probe().ref.name for _ in range(2)] == ["probe", "probe_2"]


async def test_it_waits_for_the_next_message_of_a_type_and_leaves_the_others(autojump_clock: MockClock) -> None:
    async with open_test_node() as node, trio.open_nursery() as nursery:
        probe = node.probe()

        async def tell() -> None:
            for message in (Used(1), Price("tea"), Used(2)):
                await trio.sleep(5)
                await probe.ref.tell(message)

        nursery.start_soon(tell)
        assert await probe.receive(Price) == Price("tea")
        assert [await probe.receive(Used) for _ in range(2)] == [Used(1), Used(2)]


async def test_two_who_wait_get_a_message_each() -> None:
    received: list[Used] = []
    async with open_test_node() as node:
        probe = node.probe()

        async def receive() -> None:
            received.append(await probe.receive(Used))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await probe.ref.tell(Used(1))
            await probe.ref.tell(Used(2))
    assert sorted(each.seconds for each in received) == [1, 2]


async def test_it_waits_no_longer_than_an_ask_would(autojump_clock: MockClock) -> None:
    async with open_test_node(ask_limit=7) as node:
        probe = node.probe("meter")
        await probe.ref.tell(Price("tea"))
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError, match=r"meter received no Used in time; .* besides: Price"):
            await probe.receive(Used)
        assert trio.current_time() - began == pytest.approx(7)


async def test_its_wait_keeps_to_a_deadline_and_takes_nothing_when_cancelled(autojump_clock: MockClock) -> None:
    async with open_test_node() as node:
        probe = node.probe()
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError), trio.fail_after(2):
            await probe.receive(Used)
        assert trio.current_time() - began == pytest.approx(2)
        await probe.ref.tell(Used(1))
        with trio.CancelScope() as scope:
            scope.cancel()
            await probe.receive(Used)
        assert await probe.receive(Used) == Used(1)


async def test_replies_come_one_after_another_and_the_last_from_then_on() -> None:
    async with open_test_node() as node:
        probe = node.probe()
        probe.on(Price).reply(1.5, 2.5)
        assert [await probe.ref.ask(Price("tea")) for _ in range(3)] == [1.5, 2.5, 2.5]
        probe.on(Price).reply(3)
        assert await probe.ref.ask(Price("tea")) == 3


async def test_a_reply_may_be_made_by_a_function(autojump_clock: MockClock) -> None:
    async def slowly(message: Price) -> float:
        await trio.sleep(3)
        return 1.0

    async with open_test_node() as node:
        probe = node.probe()
        probe.on(Price).reply(lambda message: float(len(message.of)), slowly)
        assert await probe.ref.ask(Price("tea")) == 3
        began = trio.current_time()
        assert await probe.ref.ask(Price("tea")) == 1
        assert trio.current_time() - began == pytest.approx(3)


@pytest.mark.parametrize("error", [Missing("tea"), Denied("no"), NotDelivered("gone"), trio.TooSlowError()])
async def test_what_a_sender_can_be_told_reaches_it_as_it_is(error: Exception) -> None:
    async with open_test_node() as node:
        probe = node.probe()
        probe.on(Price).reply(error)
        with pytest.raises(type(error)) as caught:
            await probe.ref.ask(Price("tea"))
        assert caught.value is error


async def test_any_other_error_is_that_of_a_failed_agent_and_fails_nobody() -> None:
    async with open_test_node() as node:
        probe = node.probe("shop")
        probe.on(Price).reply(OSError("no disk"))
        for _ in range(5):
            with pytest.raises(HandlerFailed, match="shop failed on Price"):
                await probe.ref.ask(Price("tea"))
        assert node.failures == []
        assert len(probe.messages) == 5


async def test_what_it_has_no_reply_for_fails_the_test() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(Unscripted, match=r"asked Price .* probe\.on\(Price\)")):
        async with open_test_node() as node:
            with pytest.raises(HandlerFailed):
                await node.probe().ref.ask(Price("tea"))


async def test_a_reply_of_another_type_fails_the_test() -> None:
    with pytest.RaisesGroup(TypeError):
        async with open_test_node() as node:
            probe = node.probe()
            probe.on(Price).reply("dear")  # type: ignore[arg-type]
            with pytest.raises(HandlerFailed):
                await probe.ref.ask(Price("tea"))


async def test_a_request_that_is_only_told_needs_no_reply() -> None:
    async with open_test_node() as node:
        probe = node.probe()
        await probe.ref.tell(Price("tea"))
        assert await probe.receive(Price) == Price("tea")


async def test_a_script_counts_for_subclasses_and_the_most_derived_one_wins() -> None:
    async with open_test_node() as node:
        probe = node.probe()
        probe.on(Price).reply(1.0)
        assert await probe.ref.ask(Special("tea")) == 1
        probe.on(Special).reply(2.0)
        assert await probe.ref.ask(Special("tea")) == 2
        assert await probe.ref.ask(Price("tea")) == 1


async def test_a_stream_yields_each_reply() -> None:
    async def read(items: AsyncIterator[int]) -> list[int]:
        return [item async for item in items]

    async with open_test_node() as node:
        probe = node.probe()
        probe.on(Ticks).reply(1, 2, 3)
        for _ in range(2):
            async with probe.ref.stream(Ticks()) as ticks:
                assert await read(ticks) == [1, 2, 3]
        probe.on(Ticks).reply(1, Missing("tick"))
        async with probe.ref.stream(Ticks()) as ticks:
            assert await anext(ticks) == 1
            with pytest.raises(Missing):
                await anext(ticks)


async def test_a_stream_that_no_script_is_for_fails_the_test() -> None:
    with pytest.RaisesGroup(Unscripted):
        async with open_test_node() as node, node.probe().ref.stream(Ticks()) as ticks:
            with pytest.raises(HandlerFailed):
                await anext(ticks)


async def test_it_is_told_of_ends_and_of_what_is_published() -> None:
    async with open_test_node([Lamp]) as node:
        probe, lamp = node.probe(), node.ref("lamp", Lamp)
        probe.watch(lamp)
        probe.subscribe("#dead_letters")
        await node.ref("nobody").tell(Used(1))
        assert (await probe.receive(DeadLetter)).recipient == "nobody"
        lamp.stop()
        assert await probe.receive(Down) == Down(lamp, "stopped")


async def test_it_handles_no_more_than_it_takes() -> None:
    async with open_test_node() as node:
        probe = node.probe("meter", takes=[Used])
        await probe.ref.tell(Used(1))
        with pytest.raises(NotHandled, match="meter does not handle Price; it handles Used"):
            await probe.ref.ask(Price("tea"))
        assert await probe.receive(Used) == Used(1)


async def test_what_is_no_message_is_not_handled() -> None:
    async with open_test_node() as node:
        await node.probe("meter").ref.tell("a text")
        assert node.dead_letters == [DeadLetter("meter", "str", "node", "not handled")]


async def test_it_keeps_a_bounded_number_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST_MESSAGES", 3)
    with pytest.RaisesGroup(pytest.RaisesExc(OverflowError, match="has received 3 messages")):
        async with open_test_node() as node:
            probe = node.probe()
            for number in range(4):
                await probe.ref.tell(Used(number))
    assert len(probe.messages) == 3


async def test_another_node_reaches_it_as_allow_says(autojump_clock: MockClock) -> None:
    async with open_test_fabric() as fabric, fabric.open_node() as server, fabric.open_node() as visitor:
        visitor.add_credential(server.issue(visitor.identifier, team="payments"))
        probe = server.probe("shop", takes=[Price, Used], allow='principal.team == "payments"')
        hidden = server.probe("hidden")
        probe.on(Price).reply(1.5, Missing("tea"))
        shop = visitor.ref(server.address("shop"))
        assert await shop.ask(Price("tea")) == 1.5
        with pytest.raises(ReplyError):
            await shop.ask(Price("tea"))
        await shop.tell(Used(3))
        assert await probe.receive(Used) == Used(3)
        with pytest.raises(Denied):
            await visitor.ref(server.address("hidden")).ask(Price("tea"))
        assert hidden.messages == ()


async def test_a_wrong_policy_of_a_probe_is_refused() -> None:
    async with open_test_node() as node:
        with pytest.raises(PolicyError):
            node.probe(takes=[Used], allow="context.message.minutes > 1")
        with pytest.raises(DeclarationError, match="name them in takes="):
            node.probe(allow="true")


async def test_a_fault_by_chance_spares_probes() -> None:
    async with open_test_node() as node:
        probe = node.probe()
        node.disturb(1, fail=1)
        await probe.ref.tell(Used(1))
        assert await probe.receive(Used) == Used(1)
