"""`Redis` against a real server: what users are promised of commands, transactions, subscriptions and losses."""

import signal
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node
from autonomy_trio.connect import redis as module
from autonomy_trio.connect.redis import Published, Redis
from autonomy_trio.errors import (
    ConfigurationError,
    DatastoreLost,
    DatastoreRefused,
    DatastoreTooSlow,
    DatastoreUnreachable,
    UsageError,
)
from tests.support.net import open_world
from tests.support.redis import RedisServer, redis_server


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncGenerator[Redis]:
    async with Redis(server.url) as connected:
        yield connected


def _clients(server: RedisServer) -> int:
    return server.say("CLIENT", "LIST").count(b" addr=") - 1


async def test_a_command_is_answered(redis: Redis) -> None:
    assert await redis.command("SET", "a", b"\x00\xff") == b"OK"
    assert await redis.command("GET", "a") == b"\x00\xff"
    assert await redis.command("GET", "b") is None
    assert await redis.command("INCRBY", "n", 3) == 3
    assert await redis.command("MGET", "a", "b", "n") == [b"\x00\xff", None, b"3"]


async def test_many_tasks_share_its_few_connections(redis: Redis, server: RedisServer) -> None:
    async def count() -> None:
        for _ in range(20):
            await redis.command("INCR", "n")

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(count)
    assert await redis.command("GET", "n") == b"800"
    assert _clients(server) == 8


async def test_what_is_refused_says_why_with_a_code_and_without_arguments(redis: Redis) -> None:
    await redis.command("SET", "a", "text")
    with pytest.raises(DatastoreRefused, match="WRONGTYPE Operation against a key") as caught:
        await redis.command("LPUSH", "a", "hunter2")
    assert caught.value.code == "WRONGTYPE"
    with pytest.raises(DatastoreRefused, match="unknown command") as caught:
        await redis.command("NOSUCH", "hunter2")
    assert "hunter2" not in str(caught.value)
    assert await redis.command("GET", "a") == b"text"


async def test_a_transaction_is_carried_out_as_one(redis: Redis) -> None:
    assert await redis.transaction(("INCR", "n"), ("INCR", "n"), ("GET", "n")) == [1, 2, b"2"]
    with pytest.raises(DatastoreRefused, match="unknown command"):
        await redis.transaction(("INCR", "n"), ("NOSUCH",))
    assert await redis.command("GET", "n") == b"2"


async def test_a_command_that_fails_in_a_transaction_ends_no_other_of_it(redis: Redis) -> None:
    await redis.command("SET", "text", "x")
    with pytest.raises(DatastoreRefused, match="not an integer"):
        await redis.transaction(("INCR", "text"), ("INCR", "n"))
    assert await redis.command("GET", "n") == b"1"


@pytest.mark.parametrize("name", ["MULTI", b"subscribe", "select", "UNSUBSCRIBE", "punsubscribe", b"SUNSUBSCRIBE"])
async def test_a_command_that_would_change_a_shared_connection_is_refused(redis: Redis, name: str) -> None:
    with pytest.raises(UsageError, match="a connection that others use too"):
        await redis.command(name, "1")


@pytest.mark.parametrize("command", [("SELECT", 3), ("subscribe", "news"), ("EXEC",), (b"DISCARD",), ("MULTI",)])
async def test_a_transaction_leaves_its_connection_as_it_was(redis: Redis, command: tuple[str | int, ...]) -> None:
    with pytest.raises(UsageError, match="a connection that others use too"):
        await redis.transaction(("SET", "a", "1"), command)
    assert await redis.command("GET", "a") is None
    assert await redis.transaction(("SET", "a", "1"), ("GET", "a")) == [b"OK", b"1"]


async def test_no_command_is_none(redis: Redis) -> None:
    with pytest.raises(UsageError, match="has a name at least"):
        await redis.command()
    with pytest.raises(UsageError, match="has a name at least"):
        await redis.transaction(("INCR", "n"), ())


async def test_what_is_published_is_heard_from_the_beginning_of_the_block(redis: Redis) -> None:
    async with redis.subscribe("prices", "news") as subscription:
        assert await redis.command("PUBLISH", "prices", b"\xff") == 1
        assert await redis.command("PUBLISH", "news", "x") == 1
        assert await anext(aiter(subscription)) == Published("prices", b"\xff")
        assert [each async for each, _ in _some(subscription, 1)] == [Published("news", b"x")]
    assert await redis.command("PUBLISH", "prices", "y") == 0


async def _some(subscription: module.Subscription, count: int) -> AsyncGenerator[tuple[Published, int]]:
    for number in range(count):
        yield await anext(subscription), number


async def test_a_subscription_in_silence_goes_on_while_the_server_is_there(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTEN_FOR", 0.02)
    async with redis.subscribe("prices") as subscription, trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await trio.sleep(0.1)  # some silences long
            await redis.command("PUBLISH", "prices", "x")

        assert await anext(subscription) == Published("prices", b"x")


async def test_a_lost_subscription_says_so_and_the_next_one_hears_again(redis: Redis, server: RedisServer) -> None:
    async with redis.subscribe("prices") as subscription:
        server.kill()
        with pytest.raises(DatastoreLost, match=r"the subscription was lost .*: subscribe anew"):
            await anext(subscription)
    server.start()
    async with redis.subscribe("prices") as subscription:
        await redis.command("PUBLISH", "prices", "x")
        assert (await anext(subscription)).data == b"x"


async def test_a_subscription_to_a_server_that_hangs_ends(
    redis: Redis, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTEN_FOR", 0.05)
    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.05)
    async with redis.subscribe("prices") as subscription:
        server.signal(signal.SIGSTOP)
        with pytest.raises(DatastoreLost, match=r"silent for 0\.1 s"):
            await anext(subscription)


async def test_a_channel_that_is_not_allowed_is_refused(server: RedisServer) -> None:
    server.say("ACL", "SETUSER", "guest", "on", ">hunter2", "~*", "+@all", "resetchannels")
    async with Redis(f"redis://guest:hunter2@127.0.0.1:{server.port}") as redis:
        with pytest.raises(DatastoreRefused, match="NOPERM") as caught:
            async with redis.subscribe("prices"):
                pass
    assert "hunter2" not in f"{caught.value} {redis!r}"


async def test_a_server_that_goes_away_is_one_clear_error_and_the_next_command_connects_anew(
    redis: Redis, server: RedisServer
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(redis.command, "PING")
        await trio.testing.wait_all_tasks_blocked()
    idle = len(redis._pool._idle)
    assert idle > 1
    server.kill()
    with pytest.raises(DatastoreLost, match="was lost before it answered INCR, which it may have done"):
        await redis.command("INCR", "n")
    assert redis._pool._idle == []
    with pytest.raises(DatastoreUnreachable, match=r"connection refused\): is it running there\?"):
        await redis.command("INCR", "n")
    server.start()
    assert await redis.command("INCR", "n") == 1


async def test_a_server_that_went_away_while_nothing_was_asked_is_not_noticed(
    redis: Redis, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.command("SET", "a", "x")
    monkeypatch.setattr(module, "UNUSED_FOR", 0.0)
    assert await redis.command("GET", "a") == b"x"
    server.kill()
    server.start()
    assert await redis.command("GET", "a") == b"x"


async def test_a_cancelled_command_leaves_no_answer_to_the_next(redis: Redis, server: RedisServer) -> None:
    with trio.move_on_after(0.05) as scope:
        await redis.command("BLPOP", "list", 0)
    assert scope.cancelled_caught
    assert redis._pool._idle == []
    assert await redis.command("ECHO", "mine") == b"mine"
    assert _clients(server) == 1


async def test_a_command_past_the_limit_says_that_it_may_have_been_carried_out(server: RedisServer) -> None:
    async with Redis(server.url, limit=0.1) as redis:
        with pytest.raises(DatastoreTooSlow, match=r"did not answer BLPOP in 0\.1 s; it may have done it"):
            await redis.command("BLPOP", "list", 0)
        assert await redis.command("ECHO", "mine") == b"mine"


async def test_each_subscription_holds_a_connection(server: RedisServer) -> None:
    async with Redis(server.url, connections=1, limit=0.1) as redis, redis.subscribe("prices"):
        with pytest.raises(DatastoreTooSlow, match="none of its 1 connections was free"):
            await redis.command("PING")


async def test_nothing_is_left_when_it_closes(server: RedisServer) -> None:
    async with Redis(server.url) as redis:
        await redis.command("PING")
        assert _clients(server) == 1
    with trio.fail_after(60):
        while _clients(server):  # noqa: ASYNC110 - a process
            await trio.sleep(0.01)
    with pytest.raises(UsageError, match="is not open"):
        await redis.command("PING")


async def test_a_wrong_password_is_one_sentence_without_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        server.say("CONFIG", "SET", "requirepass", "right")
        async with Redis(f"redis://:hunter2@127.0.0.1:{server.port}") as redis:
            with pytest.raises(DatastoreUnreachable, match="it refused: WRONGPASS") as caught:
                await redis.command("PING")
    assert "hunter2" not in f"{caught.value} {redis!r}"
    with pytest.raises(ConfigurationError) as refused:
        Redis("redis:hunter2")
    assert "hunter2" not in str(refused.value)


async def test_without_hiredis_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ConfigurationError, match=r'pip install "autonomy-trio\[redis\]"'):
        async with Redis("redis://127.0.0.1:1"):
            pass


@frozen
class Visit(Request[int]):
    page: str


@agent
class Visits:
    redis: Redis

    async def on_start(self, context: Context) -> None:
        await context.start(self.redis.serve)

    @on(Visit)
    async def visit(self, message: Visit) -> int:
        return int(await self.redis.command("INCR", f"visits:{message.page}"))


async def test_an_agent_has_it_for_its_life(server: RedisServer) -> None:
    shared = Redis(server.url)
    async with open_node() as node:
        visits = node.spawn(lambda: Visits(shared), "visits")
        assert [await visits.ask(Visit("home")) for _ in range(2)] == [1, 2]
    assert shared._pool._idle == []


@agent
class Remote:
    redis: Redis

    async def on_start(self, context: Context) -> None:
        await context.start(self.redis.serve)

    @on(Visit)
    async def visit(self, message: Visit) -> int:
        return int(await self.redis.command("INCR", f"visits:{message.page}"))


async def test_through_an_outlet_it_is_judged_as_its_agent_and_nothing_is_left(server: RedisServer) -> None:
    async with open_world() as world:
        shop = world.alice.agent_identifier("shop")
        place = f"127.0.0.1:{server.port}"
        async with world.server.outlet("redis", place, allow=f'principal.id == "{shop}"') as outlet:
            far = Redis("redis://ignored:1/0", through=outlet.address)
            visits = world.alice.spawn(lambda: Remote(far), "shop")
            assert [await visits.ask(Visit("home")) for _ in range(2)] == [1, 2]
            assert outlet.streams == 1
            visits.stop()
            await visits.stopped()
        assert world.alice.statistics().portals == 0
    assert server.say("GET", "visits:home") == b"$1\r\n2\r\n"


async def test_an_outlet_that_lets_nobody_in_or_leads_nowhere_is_one_sentence(server: RedisServer) -> None:
    @agent
    class Prober:
        redis: Redis

        @on(Visit)
        async def probe(self, message: Visit) -> int:
            async with self.redis:
                with pytest.raises(DatastoreUnreachable, match=message.page):
                    await self.redis.command("PING")
            return 1

    async with open_world() as world:
        place = f"127.0.0.1:{server.port}"
        async with world.server.outlet("redis", place, allow='principal.team == "payments"') as outlet:
            far = Redis(server.url, through=outlet.address)
            assert await world.bob.spawn(lambda: Prober(far)).ask(Visit(r"cannot be used \(.* denied Connect")) == 1
            server.kill()
            refused = "the outlet's target refused the connection"
            assert await world.alice.spawn(lambda: Prober(far)).ask(Visit(refused)) == 1


async def test_through_an_outlet_it_is_opened_by_an_agent_and_by_one_alone() -> None:
    far = Redis("redis://h", through="I" + 64 * "0" + "/redis")
    with pytest.raises(UsageError, match="for code that runs in an agent"):
        async with far:
            pass

    @agent
    class Twice:
        @on(Visit)
        async def open_twice(self, message: Visit) -> int:
            async with far:
                with pytest.raises(UsageError, match="needs one of its own"):
                    async with far:
                        pass
            return 1

    async with open_node() as node:
        assert await node.spawn(Twice).ask(Visit("")) == 1
