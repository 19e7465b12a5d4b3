"""What a durable `tell` promises between nodes."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
import structlog
import trio
import trio.testing
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Mailbox, Node, Request, agent, on
from autonomy_trio.errors import NotStored, VaultError
from autonomy_trio.fabric import durable
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.fabric.links.addresses import Address
from autonomy_trio.fabric.relays.directory import Directory
from autonomy_trio.fabric.routes import RemoteRef
from autonomy_trio.fabric.sealing import Sealing
from autonomy_trio.fabric.stores.journal import Journal, StoreFailed
from autonomy_trio.fabric.stores.store import Envelope, MemoryStore, Quota, Store
from autonomy_trio.messages import encode_payload
from autonomy_trio.testing.node import virtual_now
from autonomy_trio.trust.identity import Bundle, History
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import SEALED_LIFE
from autonomy_trio.wire.entries import Introduce, Tell
from autonomy_trio.wire.frames import Lookup, Records
from autonomy_trio.wire.introductions import Agent, Speaker
from tests.support.neighbours import eventually
from tests.support.net import Net, open_net

if TYPE_CHECKING:
    from autonomy_trio.wire.sealed import SealedEntry

FATAL = 666
PAYMENTS = 'principal.team == "payments"'


@frozen
class Pay:
    amount: int


@frozen
class Poke(Request[int]):
    pass


@attrs.define
class Book:
    """What agents of a test have handled, over all their lives."""

    paid: list[int] = field(factory=list[int])
    failures: int = 0
    """How many of the next payments fail."""
    holds: trio.Event | None = None
    kill: Callable[[], object] = lambda: None
    """Ends the process at once."""
    senders: list[tuple[str, Any]] = field(factory=list[tuple[str, Any]])


BOOK = Book()


@pytest.fixture(autouse=True)
def book() -> Book:
    BOOK.__init__()  # type: ignore[misc]
    return BOOK


@agent(mailbox=Mailbox(4))
class Till:
    @on(Pay, allow=PAYMENTS)
    async def pay(self, message: Pay, context: Context) -> None:
        if message.amount == FATAL:
            BOOK.kill()
            await trio.sleep_forever()
        if BOOK.failures:
            BOOK.failures -= 1
            raise ValueError("no change")
        if BOOK.holds is not None:
            await BOOK.holds.wait()
        BOOK.paid.append(message.amount)
        BOOK.senders.append((context.sender.id, context.sender.attributes.get("team")))

    @on(Poke, allow="true")
    def poke(self, message: Poke) -> int:
        return 1


@attrs.define(eq=False)
class Forgetful:
    """A store that forgets to forget, and may hand each envelope over several times."""

    store: Store
    copies: int = 1

    async def put(self, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        return await self.store.put(envelopes)

    async def read(self, destination: bytes, after: int, most: int) -> Sequence[tuple[int, Envelope]]:
        return [found for found in await self.store.read(destination, after, most) for _ in range(self.copies)]

    async def forget(self, destination: bytes, ids: Sequence[bytes]) -> None:
        await trio.lowlevel.checkpoint()


@attrs.define
class World:
    """A shop whose node comes and goes, and alice of the payments team, who has met it once."""

    net: Net
    alice: Node
    home: Path
    address: str

    @property
    def store(self) -> MemoryStore:
        store = self.net.fabric._store
        assert isinstance(store, MemoryStore)
        return store

    def keep_in(self, store: Store | None) -> None:
        """Replace the relay by one with another store."""
        self.net.fabric._store = store
        self.net.kill_relay()
        self.net.start_relay()

    @property
    def till(self) -> AgentRef[Till]:
        return self.alice.ref(self.address, Till)

    @asynccontextmanager
    async def shop(self, **given: object) -> AsyncGenerator[Node]:
        async with self.net.node([Till], home=self.home, **given) as node:
            yield node


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open homes and make commits in the loop: a thread would let virtual time run away."""

    async def run_sync(function: Callable[..., object], *args: object, **_: object) -> object:
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


pytestmark = pytest.mark.usefixtures("at_once")


@asynccontextmanager
async def open_world(shop: Path, *, credential: bool = True, **given: object) -> AsyncGenerator[World]:
    async with open_net() as net, net.node(**given) as alice:
        async with net.node([Till], home=shop) as node:
            if credential:
                alice.add_credential(node.issue(alice.identifier, team="payments", validity=600))
            address = node.address("till")
            await alice.ref(address, Till).ask(Poke())
        yield World(net, alice, shop, address)


async def paid(*amounts: int, seconds: float = 5) -> None:
    await eventually(lambda: sorted(BOOK.paid) == sorted(amounts), seconds)


async def test_what_is_told_to_a_node_that_is_away_is_handled_when_it_comes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        for amount in range(10):
            await world.till.tell(Pay(amount), durable=True)
        assert BOOK.paid == []
        async with world.shop():
            await paid(*range(10))
        assert set(BOOK.senders) == {(world.alice.identifier, "payments")}
        assert world.store.quota.held == 0


async def test_what_is_told_to_a_node_that_is_there_is_handled_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world, world.shop():
        await world.till.tell(Pay(1), durable=True)
        await paid(1)


async def test_what_was_handled_is_not_handled_again_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        world.keep_in(Forgetful(world.store))
        for _ in range(3):
            async with world.shop():
                await paid(1)
                await trio.sleep(1)
        assert BOOK.paid == [1]


async def test_a_message_whose_handler_did_not_end_comes_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    BOOK.holds = trio.Event()
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.shop(grace=0.1):
            await trio.sleep(1)
        assert BOOK.paid == []
        BOOK.holds = None
        async with world.shop():
            await paid(1)


async def test_the_relay_lost_and_replaced_over_one_store_loses_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        world.net.kill_relay()
        world.net.start_relay()
        await world.till.tell(Pay(2), durable=True)
        async with world.shop():
            await paid(1, 2)
            await world.till.tell(Pay(3), durable=True)
            world.net.kill_relay()
            world.net.start_relay()
            await world.till.tell(Pay(4), durable=True)
            await paid(1, 2, 3, 4, seconds=30)


async def test_without_a_relay_that_stores_the_sender_is_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        world.keep_in(None)
        with pytest.raises(NotStored, match=r"no store.*--store"):
            await world.till.tell(Pay(1), durable=True)


async def test_a_full_mailbox_is_told_and_loses_nothing_that_was_promised(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        world.store.quota = Quota(mailbox_envelopes=4)
        await world.till.tell(Pay(1), durable=True)
        await world.till.tell(Pay(2), durable=True)
        with pytest.raises(NotStored, match="mailbox full"):
            await world.till.tell(Pay(3), durable=True)
        async with world.shop():
            await paid(1, 2)
            await world.till.tell(Pay(3), durable=True)
            await paid(1, 2, 3)


async def test_a_relay_that_is_away_is_waited_for_but_not_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        world.net.kill_relay()
        began = trio.current_time()
        with pytest.raises(NotStored, match="no relay is there"):
            await world.till.tell(Pay(1), durable=True)
        assert trio.current_time() - began < 60


async def test_a_node_that_was_never_met_and_that_no_relay_knows_is_told_of(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world, world.net.node() as stranger:
        world.keep_in(world.store)
        with pytest.raises(NotStored, match="never met from here, and is not known to the relays"):
            await stranger.ref(world.address, Till).tell(Pay(1), durable=True)


async def test_for_a_node_that_was_never_met_and_is_away_it_is_sealed_by_what_its_relay_knows(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world, world.net.node(home=tmp_path / "stranger") as stranger:
        async with world.shop() as shop:
            stranger.add_credential(shop.issue(stranger.identifier, team="payments"))
        await stranger.ref(world.address, Till).tell(Pay(1), durable=True)
        async with world.shop():
            await paid(1)


@pytest.mark.parametrize("lie", ["of another node", "damaged"])
async def test_a_relay_that_lies_about_a_nodes_keys_has_nothing_sealed_for_another(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    async with open_world(tmp_path / "shop") as world, world.net.node() as stranger:
        bundle = world.alice._sealing.bundle(Address.parse(world.address).node)
        assert bundle is not None
        encoded = {
            "of another node": Vault.in_memory().bundle(virtual_now()),
            "damaged": bundle.encoded[:-1] + b"x",
        }[lie]
        look_up = Directory._look_up

        def lying(self: Directory, asked: Lookup) -> Records:
            return msgspec.structs.replace(look_up(self, asked), bundle=encoded)

        monkeypatch.setattr(Directory, "_look_up", lying)
        with pytest.raises(NotStored, match="not known to the relays"):
            await stranger.ref(world.address, Till).tell(Pay(1), durable=True)


async def test_a_node_that_was_never_met_and_is_there_is_met_first(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world, world.net.node() as stranger, world.shop() as shop:
        stranger.add_credential(shop.issue(stranger.identifier, team="payments"))
        await stranger.ref(world.address, Till).tell(Pay(1), durable=True)
        await paid(1)


async def test_whom_a_node_with_a_home_has_met_it_knows_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop", home=tmp_path / "alice") as world:
        pass
    async with open_net() as net, net.node(home=tmp_path / "alice") as alice:
        await alice.ref(world.address, Till).tell(Pay(1), durable=True)
        async with net.node([Till], home=tmp_path / "shop"):
            await paid(1)


async def test_a_sender_without_the_right_runs_nothing_and_is_not_heard_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop", credential=False) as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.shop() as shop:
            await eventually(lambda: shop.statistics().dead_letters == {"denied": 1})
            # Else strangers, who have as many identities as they like, could fill the memory for all others.
            assert len(shop._durable._memories._came) == 0
        assert BOOK.paid == []
        assert world.store.quota.held == 0


async def test_credentials_count_as_of_when_the_message_was_written(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        await trio.sleep(3600)
        await world.till.tell(Pay(2), durable=True)
        async with world.shop() as shop:
            await eventually(lambda: shop.statistics().dead_letters == {"denied": 1})
            await paid(1)


async def test_a_message_that_fails_its_agent_is_handled_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    BOOK.failures = 2
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.shop():
            await paid(1, seconds=30)


async def test_a_message_that_fails_its_agent_three_times_is_given_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    BOOK.failures = 3
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.shop() as shop:
            await trio.sleep(60)
            assert shop.statistics().dead_letters["failed"] == 3
        async with world.shop():
            await trio.sleep(60)
        assert BOOK.paid == []
        assert world.store.quota.held == 0


@asynccontextmanager
async def open_fatal(world: World) -> AsyncGenerator[Node]:
    """Open the shop, whose process ends at once when it handles what is fatal."""
    with trio.CancelScope() as scope:
        BOOK.kill = scope.cancel
        async with world.shop() as shop:
            yield shop


async def test_a_message_that_ends_its_process_each_time_is_given_up_and_no_other_is(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        for amount in (1, 2, FATAL, 3, 4):
            await world.till.tell(Pay(amount), durable=True)
        ended = 0
        for _ in range(durable.MOST_FAILURES):
            with trio.move_on_after(30) as patience:
                async with open_fatal(world):
                    await trio.sleep_forever()
            ended += not patience.cancelled_caught
            await world.till.tell(Pay(10 + ended), durable=True)
        assert ended == durable.MOST_FAILURES
        async with world.shop() as shop:
            # One that was handled may be so again where the process ended before that was written down.
            await eventually(lambda: set(BOOK.paid) == {1, 2, 3, 4, 11, 12, 13}, 60)
            await eventually(lambda: world.store.quota.held == 0)
            letters = [letter for letter in shop.dead_letters if letter.reason == "failed"]
            assert [letter.why for letter in letters] == ["3 times its handler failed, or its process ended meanwhile"]
        assert world.store.quota.held == 0


async def test_failures_are_counted_across_restarts(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    BOOK.failures = 3
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        for left in (2, 1, 0):
            async with world.shop(grace=0.1):
                await eventually(lambda left=left: BOOK.failures == left, 10)
        async with world.shop():
            await trio.sleep(10)
        assert BOOK.paid == []
        assert world.store.quota.held == 0


async def test_a_node_that_was_stopped_in_good_order_counts_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    BOOK.holds = trio.Event()
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        for _ in range(2 * durable.MOST_FAILURES):
            async with world.shop(grace=0.1):
                await trio.sleep(1)
        BOOK.holds = None
        async with world.shop():
            await paid(1)


async def test_an_agent_that_comes_late_gets_its_messages(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.net.node(home=tmp_path / "shop") as shop:
            await trio.sleep(10)
            shop.spawn(Till)
            await paid(1)


async def test_what_is_for_an_agent_that_never_comes_is_a_dead_letter(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.net.node(home=tmp_path / "shop") as shop:
            await trio.sleep(40)
            assert shop.statistics().dead_letters == {"unknown agent": 1}
        assert world.store.quota.held == 0


async def test_a_full_mailbox_of_the_agent_loses_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    BOOK.holds = trio.Event()
    async with open_world(tmp_path / "shop") as world:
        for amount in range(20):
            await world.till.tell(Pay(amount), durable=True)
        async with world.shop():
            await trio.sleep(5)
            BOOK.holds.set()
            await paid(*range(20))


async def test_a_message_expires_in_a_week(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_net() as net:
        async with net.node() as alice:
            async with net.node([Till], home=tmp_path) as shop:
                alice.add_credential(shop.issue(alice.identifier, team="payments"))
                till = alice.ref(shop.address("till"), Till)
                await till.ask(Poke())
            await till.tell(Pay(1), durable=True)
        await trio.sleep(SEALED_LIFE + 1)
        async with net.node([Till], home=tmp_path):
            await trio.sleep(60)
        assert BOOK.paid == []
        store = net.fabric._store
        assert isinstance(store, MemoryStore)
        assert store.quota.held == 0


async def test_a_copy_from_another_relay_is_handled_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The relay hands one envelope over twice on one connection."""
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        world.keep_in(Forgetful(world.store, copies=2))
        async with world.shop():
            await paid(1)
            await trio.sleep(5)
        assert BOOK.paid == [1]


async def test_rubbish_from_a_relay_is_refused_and_forgotten(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        for key, (place, envelope) in list(world.store._envelopes.items()):
            changed = envelope.packet[:-1] + bytes([envelope.packet[-1] ^ 1])
            world.store._envelopes[key] = place, attrs.evolve(envelope, packet=changed)
        with structlog.testing.capture_logs() as log:
            async with world.shop():
                await trio.sleep(5)
        assert BOOK.paid == []
        assert [line["why"] for line in log if line["event"] == "sealed envelope refused"]


async def test_a_relay_reads_nothing_of_it(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1_234_567), durable=True)
        ((_, envelope),) = world.store._envelopes.values()
        for secret in (b"till", b"Pay", b"amount", b"payments"):
            assert secret not in envelope.packet


async def test_a_cancelled_tell_leaves_nothing_behind(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with open_world(tmp_path / "shop") as world:
        world.net.kill_relay()
        with trio.move_on_after(1) as scope:
            await world.till.tell(Pay(1), durable=True)
        assert scope.cancelled_caught
        world.net.start_relay()
        await world.till.tell(Pay(2), durable=True)
        async with world.shop():
            await paid(2)


@pytest.mark.parametrize(
    ("condition", "seconds", "handled"),
    [
        ("context.sealed", 100, True),
        ("!context.sealed", 100, False),
        ("context has created && context.time - context.created < 60", 10, True),
        ("context has created && context.time - context.created < 60", 100, False),
    ],
)
async def test_policies_know_what_was_sealed_and_when(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, condition: str, seconds: float, handled: bool
) -> None:
    policy = tmp_path / "policy.cedar"
    write(policy, f'forbid(principal, action == Action::"Pay", resource) unless {{ {condition} }};')
    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        await trio.sleep(seconds)
        async with world.shop(policy=policy) as shop:
            await trio.sleep(2)
            assert shop.dead_letters.counts() == ({} if handled else {"denied": 1})
        assert BOOK.paid == ([1] if handled else [])


async def test_a_policy_can_forbid_that_anything_is_sealed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    policy = tmp_path / "policy.cedar"
    write(policy, 'forbid(principal, action == Action::"Send", resource) when { context.sealed };')
    async with open_world(tmp_path / "shop", policy=policy) as world, world.shop():
        assert await world.till.ask(Poke()) == 1
        with pytest.raises(NotStored, match="was not sent"):
            await world.till.tell(Pay(1), durable=True)


@frozen
class Order(Request[None]):
    address: str
    amount: int


@agent
class Buyer:
    @on(Order)
    async def order(self, message: Order, context: Context) -> None:
        await context.ref(message.address).tell(Pay(message.amount), durable=True)


@agent(inherit=False)
class Bridge(Buyer):
    pass


async def test_what_an_agent_told_is_the_agents_with_its_rights_and_its_nodes_where_it_inherits_them(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_world(tmp_path / "shop") as world:
        alice = world.alice
        bridge = alice.agent_identifier("bridge")
        for amount, kind in ((1, Buyer), (2, Bridge)):
            await alice.spawn(kind).ask(Order(world.address, amount))
        async with world.shop() as shop:
            await paid(1)
            assert [(letter.sender, letter.reason) for letter in shop.dead_letters] == [(bridge, "denied")]
            alice.add_credential(shop.issue(bridge, team="payments"), agent="bridge")
        await alice.ref("bridge").ask(Order(world.address, 3))
        async with world.shop():
            await paid(1, 3)
        assert BOOK.senders == [(alice.agent_identifier("buyer"), "payments"), (bridge, "payments")]


async def test_an_envelope_costs_no_more_signatures_than_eight_agents_do(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[int] = []
    verify = durable.verify_agent

    def counted(entry: Introduce, bundle: Bundle, now: float) -> Agent:
        verified.append(entry.index)
        return verify(entry, bundle, now)

    monkeypatch.setattr(durable, "verify_agent", counted)
    async with open_world(tmp_path / "shop") as world:
        vault = world.alice._vault
        agents = [Speaker(vault.introduce(str(number), virtual_now()), inherits=True) for number in range(20)]
        introduced: list[Any] = [each.entry(index) for index, each in enumerate(agents, 1)]
        tells = [Tell("till", "Pay", encode_payload(Pay(index)), index, 0) for index in range(1, 21) for _ in range(3)]
        addressed = Sealing._addressed
        monkeypatch.setattr(Sealing, "_addressed", lambda self, entry: [*introduced, *addressed(self, entry), *tells])
        route = world.till
        assert isinstance(route, RemoteRef)
        await route._store(Tell("till", "Pay", encode_payload(Pay(0)), 0, 0))
        async with world.shop() as node:
            await paid(0, *(number for number in range(1, 9) for _ in range(3)), seconds=30)
            assert node.dead_letters.counts() == {"denied": 12 * 3}
        assert verified == list(range(1, 9))


@pytest.mark.parametrize("introductions", ["none", "of another node", "two"])
async def test_an_agent_that_was_not_introduced_says_nothing_in_a_sealed_envelope(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, introductions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault.in_memory()
    async with open_world(tmp_path / "shop") as world:
        whose = vault if introductions == "of another node" else world.alice._vault
        introduced = Speaker(whose.introduce("till", virtual_now()), inherits=True).entry(7)
        given: list[SealedEntry] = [introduced] * {"none": 0, "of another node": 1, "two": 2}[introductions]
        addressed = Sealing._addressed
        monkeypatch.setattr(Sealing, "_addressed", lambda self, entry: [*given, *addressed(self, entry)])
        route = world.till
        assert isinstance(route, RemoteRef)
        await route._store(Tell("till", "Pay", encode_payload(Pay(1)), 7, 0))
        async with world.shop() as node:
            await trio.sleep(2)
            assert node.dead_letters.counts() == {"denied": 1}
            assert node.dead_letters.latest().sender == world.alice.identifier
        assert BOOK.paid == []


async def test_what_there_was_no_room_for_is_fetched_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MOST_TAKEN", 2)
    async with open_world(tmp_path / "shop") as world:
        for amount in range(6):
            await world.till.tell(Pay(amount), durable=True)
        async with world.shop():
            await trio.sleep(10 * durable.FETCH_EVERY)
        assert sorted(BOOK.paid) == list(range(6))
        assert world.store.quota.held == 0


async def test_what_a_full_disk_did_not_let_a_node_write_down_is_handled_once_while_it_runs(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    do = Journal.do

    async def fail(*_: object, **__: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreFailed("the disk is full")

    async with open_world(tmp_path / "shop") as world:
        await world.till.tell(Pay(1), durable=True)
        async with world.shop():
            monkeypatch.setattr(Journal, "do", fail)
            await paid(1)
            await trio.sleep(1)
            assert world.store.quota.held > 0
            monkeypatch.setattr(Journal, "do", do)
            await trio.sleep(2 * durable.FETCH_EVERY)
        assert BOOK.paid == [1]
        assert world.store.quota.held == 0


async def test_what_comes_while_its_senders_history_cannot_be_written_down_is_fetched_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world(tmp_path / "shop") as world:
        see, alice = Histories.see, world.alice._vault.identifier

        def refuse(histories: Histories, history: History) -> None:
            if history.identifier == alice:
                raise VaultError("the disk is full")
            see(histories, history)

        await world.till.tell(Pay(1), durable=True)
        with monkeypatch.context() as patch:
            patch.setattr(Histories, "see", refuse)
            async with world.shop():
                await trio.sleep(2 * durable.FETCH_EVERY)
        assert world.store.quota.held > 0, "it was acknowledged, and nobody handled it"
        async with world.shop():
            await paid(1)


async def test_to_an_agent_of_the_same_process_it_is_a_tell(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_net() as net, net.node([Till]) as node:
        node.add_credential(node.issue(node.identifier, team="payments"))
        await node.ref("till", Till).tell(Pay(1), durable=True)
        await paid(1)
