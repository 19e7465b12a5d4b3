"""Every kind of frame, and all that a lying relay can do to it.

Nothing is run that was not sent, nothing twice, nothing out of order and nothing as somebody else; what was promised is
kept; and once the relay lets them be, nodes go on.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Final

import attrs
import pytest
import trio
from attrs import field, frozen

from autonomy_trio import Context, Mailbox, Node, Request, agent, on
from autonomy_trio.errors import DeliveryError, NotStored, RelayUnreachable
from autonomy_trio.fabric import finding
from autonomy_trio.wire.frames import (
    Ack,
    Deliver,
    Fetch,
    Frame,
    Hello,
    Lookup,
    Nack,
    Ping,
    Pong,
    Publish,
    Records,
    Register,
    Send,
    Store,
    Stored,
    Welcome,
)
from tests.support.liar import ATTACKS, Attack, Liar
from tests.support.neighbours import eventually
from tests.support.net import Net, open_net

FRAMES: Final[tuple[type[Frame], ...]] = (
    Hello,
    Register,
    Welcome,
    Send,
    Deliver,
    Nack,
    Ping,
    Pong,
    Store,
    Stored,
    Fetch,
    Ack,
    Publish,
    Lookup,
    Records,
)
PAYMENTS: Final = 'principal.team == "payments"'
PATIENCE: Final = 100.0
"""Seconds in which all is well again: a lost session is noticed in 28, what was left at a relay is fetched after 60."""


@frozen
class Add(Request[int]):
    number: int


@frozen
class Note:
    number: int


@frozen
class Pay:
    number: int


@agent(mailbox=Mailbox(1000))
class Ledger:
    senders: set[tuple[str, object]] = field(factory=set[tuple[str, object]])
    added: list[int] = field(factory=list[int])
    noted: list[int] = field(factory=list[int])
    paid: list[int] = field(factory=list[int])

    @on(Add, allow=PAYMENTS)
    @on(Note, allow=PAYMENTS)
    @on(Pay, allow=PAYMENTS)
    def take(self, message: Add | Note | Pay, context: Context) -> int:
        self.senders.add((context.sender.id, context.sender.attributes.get("team")))
        lists = {Add: self.added, Note: self.noted, Pay: self.paid}
        lists[type(message)].append(message.number)
        return message.number


@attrs.define
class World:
    """Alice, who may use the ledger of a server, bob, who may not, and somebody who is away."""

    liar: Liar
    ledger: Ledger
    server: Node
    alice: Node
    bob: Node
    away: str
    address: str
    answered: list[int] = field(factory=list[int])
    stored: list[int] = field(factory=list[int])
    sent: int = 0

    async def use(self, seconds: float) -> None:
        """Do one of everything, for so many seconds at most."""
        self.sent += 1
        number, ledger = self.sent, self.alice.ref(self.address, Ledger)

        async def ask() -> None:
            assert await ledger.ask(Add(number)) == number
            self.answered.append(number)

        async def store() -> None:
            await ledger.tell(Pay(number), durable=True)
            self.stored.append(number)

        async def bobs() -> None:
            await self.bob.ref(self.address, Ledger).ask(Add(-number))

        async def find() -> None:
            await self.alice.find(name="ledger", anyone=True)

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for each in (
                    ask(),
                    store(),
                    bobs(),
                    find(),
                    ledger.tell(Note(number)),
                    self.alice.ref(self.away, Ledger).ask(Add(number)),
                ):
                    nursery.start_soon(_suffering, each)


async def _suffering(each: Awaitable[object]) -> None:
    with suppress(DeliveryError, NotStored, RelayUnreachable, trio.TooSlowError):
        await each


@asynccontextmanager
async def open_world(net: Net, frame: type[Frame], attack: Attack) -> AsyncGenerator[World]:
    liar, ledger = Liar(net, frame, attack), Ledger()
    async with net.node(connect=liar.connect) as carol:
        away = carol.address("ledger")
    async with (
        net.node([lambda: ledger], connect=liar.connect, publish=["ledger"]) as server,
        net.node(connect=liar.connect) as alice,
        net.node(connect=liar.connect) as bob,
    ):
        alice.add_credential(server.issue(alice.identifier, team="payments"))
        yield World(liar, ledger, server, alice, bob, away, server.address("ledger"))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.__name__.upper())
async def test_a_relay_that_lies_about_a_kind_of_frame_breaks_no_promise(
    frame: type[Frame], attack: Attack, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net() as net, open_world(net, frame, attack) as world:
        await world.use(5)
        assert (world.answered, world.stored) == ([1], [1])
        world.liar.active = True
        world.liar.break_links()
        for _ in range(4):
            await world.use(4)
        await trio.sleep(12)  # so that links are silent for long enough to be asked whether they live
        await world.use(4)
        assert world.liar.done, "nothing was attacked"
        world.liar.active = False
        before = world.sent
        with trio.fail_after(PATIENCE):
            while not (world.answered[-1] > before and world.stored[-1] > before):
                await world.use(10)
        # What such a relay has stored and kept back comes on the next connection at the latest.
        world.liar.break_links()
        await eventually(lambda: set(world.stored) <= set(world.ledger.paid), PATIENCE)
        await eventually(lambda: world.alice.statistics().relays and world.server.statistics().relays, PATIENCE)
        await trio.sleep(finding.TICK)
        assert await world.alice.find(name="ledger", anyone=True)
        ledger, sent = world.ledger, range(1, world.sent + 1)
        assert ledger.senders == {(world.alice.identifier, "payments")}
        assert ledger.noted == sorted(set(ledger.noted))
        assert set(ledger.noted) <= set(sent)
        assert max(Counter(ledger.added).values()) == max(Counter(ledger.paid).values()) == 1
        assert set(world.answered) <= set(ledger.added) <= set(sent)
        assert set(ledger.paid) <= set(sent)
