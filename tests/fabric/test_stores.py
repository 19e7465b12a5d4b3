"""What every store promises, wherever it keeps envelopes."""

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import attrs
import pytest
import trio

from autonomy_trio.fabric.stores.redis import open_redis
from autonomy_trio.fabric.stores.redis_store import RedisStore, open_redis_store
from autonomy_trio.fabric.stores.redis_wire import RedisAddress
from autonomy_trio.fabric.stores.sqlite import SqliteStore, open_sqlite_store
from autonomy_trio.fabric.stores.store import ENVELOPE_COST, Envelope, MemoryStore, Quota, Store
from autonomy_trio.wire.mailbox import stored_id
from tests.support.envelopes import BOB, CAROL, envelope
from tests.support.neighbours import NOW
from tests.support.redis import redis_server


async def contents(store: Store, node: bytes = BOB, after: int = 0, most: int = 1000) -> list[str]:
    return [each.packet.decode() for _, each in await store.read(node, after, most)]


async def look(store: Store) -> None:
    """Have a store count what it holds, where it does so now and then alone."""
    if isinstance(store, (SqliteStore, RedisStore)):
        await store.look()


async def expire(store: Store) -> None:
    """Have a store drop what has expired, where it does so now and then alone."""
    if isinstance(store, (SqliteStore, RedisStore)):
        await store.expire()


class Opener(Protocol):
    """Opens the same store each time."""

    def __call__(
        self, *, quota: Quota | None = None, now: Callable[[], float] = lambda: NOW
    ) -> AbstractAsyncContextManager[Store]: ...


def in_memory() -> Opener:
    kept: list[MemoryStore] = []

    @asynccontextmanager
    async def opened(
        *, quota: Quota | None = None, now: Callable[[], float] = lambda: NOW
    ) -> AsyncGenerator[MemoryStore]:
        if not kept:
            kept.append(MemoryStore(now, quota or Quota()))
        yield kept[0]

    return opened


def in_sqlite(folder: Path) -> Opener:
    def opened(
        *, quota: Quota | None = None, now: Callable[[], float] = lambda: NOW
    ) -> AbstractAsyncContextManager[SqliteStore]:
        return open_sqlite_store(folder / "box", quota=quota, now=now)

    return opened


def in_redis_at(url: str) -> Opener:
    address = RedisAddress.parse(url)

    @asynccontextmanager
    async def in_redis(
        *, quota: Quota | None = None, now: Callable[[], float] = lambda: NOW
    ) -> AsyncGenerator[RedisStore]:
        async with open_redis(address) as redis, open_redis_store(redis, quota=quota, now=now) as store:
            yield store

    return in_redis


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Opener]:
    match request.param:
        case "memory":
            yield in_memory()
        case "sqlite":
            yield in_sqlite(tmp_path)
        case _:
            with redis_server(tmp_path) as server:
                yield in_redis_at(server.url)


async def test_what_was_put_is_read_in_order_by_its_destination_alone(opened: Opener) -> None:
    async with opened() as store:
        assert await store.put([envelope("1"), envelope("2", to=CAROL), envelope("3")]) == [None] * 3
        assert await contents(store) == ["1", "3"]
        assert await contents(store, CAROL) == ["2"]
        (place, first), *_ = await store.read(BOB, 0, 1)
        assert first == envelope("1")
        assert await contents(store, after=place) == ["3"]


async def test_what_was_put_is_there_after_another_opening(opened: Opener) -> None:
    async with opened() as store:
        await store.put([envelope("1")])
    async with opened() as store:
        assert await contents(store) == ["1"]
        await look(store)
        assert store.usage().bytes == 1 + ENVELOPE_COST


async def test_what_is_put_twice_is_kept_once_for_each_destination(opened: Opener) -> None:
    async with opened() as store:
        await store.put([envelope("1", by=CAROL)])
        assert await store.put([envelope("1"), envelope("1", to=CAROL)]) == [None, None]
        assert await contents(store) == await contents(store, CAROL) == ["1"]
        await look(store)
        usage = store.usage()
        assert (usage.envelopes, usage.bytes) == (2, 2 * (1 + ENVELOPE_COST))


async def test_what_is_forgotten_is_gone_and_leaves_room(opened: Opener) -> None:
    async with opened(quota=Quota(mailbox_envelopes=2)) as store:
        assert await store.put([envelope("1"), envelope("2")]) == [None, "mailbox full"]
        await store.forget(CAROL, [stored_id(b"1")])
        assert await contents(store) == ["1"]
        await store.forget(BOB, [stored_id(b"1"), stored_id(b"1")])
        assert await contents(store) == []
        await look(store)
        assert store.usage().bytes == store.usage().envelopes == 0
        assert store.usage().oldest is None
        assert await store.put([envelope("2")]) == [None]


async def test_a_place_is_given_once_so_that_a_reader_misses_nothing(opened: Opener) -> None:
    async with opened() as store:
        await store.put([envelope("1")])
        ((first, _),) = await store.read(BOB, 0, 1)
        await store.forget(BOB, [stored_id(b"1")])
        await store.put([envelope("2")])
        assert await contents(store, after=first) == ["2"]


async def test_one_sender_fills_half_of_a_mailbox(opened: Opener) -> None:
    async with opened(quota=Quota(mailbox_envelopes=4)) as store:
        put = [envelope("1"), envelope("2"), envelope("3"), envelope("4", by=CAROL)]
        assert await store.put(put) == [None, None, "mailbox full", None]


@pytest.mark.parametrize(
    ("limit", "envelopes", "refusal"), [("mailbox_bytes", 4, "mailbox full"), ("store_bytes", 2, "store full")]
)
async def test_bytes_are_bounded(opened: Opener, limit: str, envelopes: int, refusal: str) -> None:
    quota = attrs.evolve(Quota(), **{limit: envelopes * (ENVELOPE_COST + 1)})
    async with opened(quota=quota) as store:
        assert await store.put(list(map(envelope, "123"))) == [None, None, refusal]
        assert await contents(store) == ["1", "2"]


async def test_a_mailbox_that_was_full_has_room_again_for_every_sender(opened: Opener) -> None:
    async with opened(quota=Quota(mailbox_envelopes=2)) as store:
        for text in "12345":
            assert await store.put([envelope(text)]) == [None]
            await store.forget(BOB, [stored_id(text.encode())])
        assert await store.put([envelope("6", by=CAROL), envelope("7")]) == [None, None]


async def test_what_has_expired_is_not_handed_over_and_leaves_room(opened: Opener) -> None:
    time = NOW
    async with opened(now=lambda: time) as store:
        await store.put([envelope("1", life=1), envelope("2", life=10)])
        time += 5
        assert await contents(store) == ["2"]
        await expire(store)
        await look(store)
        assert store.usage().bytes == 1 + ENVELOPE_COST


async def test_what_waits_behind_much_that_has_expired_is_handed_over(opened: Opener) -> None:
    time = NOW
    async with opened(now=lambda: time) as store:
        await store.put([*(envelope(f"old {number}", life=1) for number in range(300)), envelope("new")])
        time += 5
        assert await contents(store, most=1) == ["new"]


async def test_a_mailbox_is_read_in_parts_that_miss_nothing(opened: Opener) -> None:
    texts = [str(number) for number in range(100)]
    async with opened() as store:
        await store.put(list(map(envelope, texts)))
        found: list[str] = []
        after = 0
        while part := await store.read(BOB, after, 7):
            found += [each.packet.decode() for _, each in part]
            after = part[-1][0]
        assert found == texts


async def test_an_envelope_of_any_bytes_comes_back_as_it_was(opened: Opener) -> None:
    packet = bytes(range(256)) * 600
    whole = Envelope(stored_id(packet), bytes(range(32)), bytes(range(32, 64)), int(NOW) + 60, packet)
    async with opened() as store:
        assert await store.put([whole]) == [None]
        assert [each for _, each in await store.read(whole.destination, 0, 5)] == [whole]
        await store.forget(whole.destination, [whole.id])
        assert await store.read(whole.destination, 0, 5) == []


async def test_how_much_there_is_and_since_when_is_known(opened: Opener) -> None:
    async with opened() as store:
        await store.put([envelope("1"), envelope("2", to=CAROL)])
        await look(store)
        usage = store.usage()
        assert (usage.envelopes, usage.bytes) == (2, 2 * (1 + ENVELOPE_COST))
        assert usage.oldest is not None


async def test_many_writers_at_once_keep_the_quota(opened: Opener) -> None:
    async with opened(quota=Quota(mailbox_envelopes=20)) as store:
        answers: list[str | None] = []

        async def put(number: int) -> None:
            answers.extend(await store.put([envelope(str(number))]))

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(put, number)
        assert (answers.count(None), answers.count("mailbox full")) == (10, 20)
        assert len(await contents(store)) == 10
