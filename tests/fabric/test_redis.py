"""What the connection to Redis promises, against a server, and against ones that do not do what a server does."""

import signal
import ssl
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.relays.stores import open_store
from autonomy_trio.fabric.stores import redis as redis_module
from autonomy_trio.fabric.stores import redis_wire
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.redis import Redis, listen, open_redis
from autonomy_trio.fabric.stores.redis_store import RedisStore, check_durability, check_version, open_redis_store
from autonomy_trio.fabric.stores.redis_wire import RedisAddress
from autonomy_trio.groups import single_error
from autonomy_trio.wire.mailbox import stored_id
from tests.support.envelopes import BOB, envelope
from tests.support.neighbours import NOW
from tests.support.processes import PATIENCE, free_port
from tests.support.redis import RedisServer, redis_server

CERTIFICATE: Final = Path(__file__).with_name("localhost.pem")
Log = list[dict[str, object]]


@pytest.fixture
def server(tmp_path: Path) -> Generator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def opened(server: RedisServer) -> AsyncGenerator[tuple[Redis, RedisStore]]:
    async with open_redis(RedisAddress.parse(server.url)) as redis, open_redis_store(redis, now=lambda: NOW) as store:
        yield redis, store


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - it is another process that brings it about
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://localhost", RedisAddress("localhost")),
        ("redis://10.0.0.1:7000/3", RedisAddress("10.0.0.1", 7000, 3)),
        ("rediss://redis.example.com/", RedisAddress("redis.example.com", secure=True)),
        ("redis://:s%40crt@h/1", RedisAddress("h", database=1, password="s@crt")),
        ("redis://me:pass@[::1]:1/0", RedisAddress("::1", 1, user="me", password="pass")),
    ],
)
def test_addresses_are_read(text: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["redis:///0", "redis://h:0/0", "redis://h:70000", "redis://h/x", "redis://h/0?x=1", "redis://a b"],
)
def test_what_is_no_address_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write redis://HOST:PORT/DB") as caught:
        open_store(text)
    assert text not in str(caught.value)


def test_a_password_is_shown_nowhere() -> None:
    address = RedisAddress.parse("redis://me:hunter2@h:1/2")
    assert "hunter2" not in f"{address} {address!r} {Redis(address)!r}"
    assert str(address) == "redis://h:1/2"
    assert str(RedisAddress.parse("rediss://[::1]")) == "rediss://[::1]:6379/0"


def test_without_hiredis_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ConfigurationError, match=r'pip install "autonomy-trio\[redis\]"'):
        open_store("redis://127.0.0.1:1/0")


async def test_commands_are_answered_in_their_order(server: RedisServer) -> None:
    async with open_redis(RedisAddress.parse(server.url)) as redis:
        assert await redis.do(("SET", "a", b"\x00\xff"), ("GET", "a"), ("GET", "b"), ("INCRBY", "n", 3)) == [
            b"OK",
            b"\x00\xff",
            None,
            3,
        ]


async def test_what_is_refused_is_said_and_the_connection_goes_on(server: RedisServer) -> None:
    async with open_redis(RedisAddress.parse(server.url)) as redis:
        with pytest.raises(StoreFailed, match="Redis refused: ERR unknown command"):
            await redis.do(("SET", "a", "1"), ("NONSENSE",), ("GET", "a"))
        assert await redis.do(("GET", "a")) == [b"1"]


async def test_a_cancelled_command_leaves_the_others_their_answers(server: RedisServer) -> None:
    async with open_redis(RedisAddress.parse(server.url)) as redis:
        for number in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await redis.do(("ECHO", "nobody waits"))
            with trio.move_on_after(0):
                await redis.do(("ECHO", "nobody waits either"))
            assert await redis.do(("ECHO", number)) == [str(number).encode()]


async def test_many_tasks_share_the_connection(server: RedisServer) -> None:
    async with open_redis(RedisAddress.parse(server.url)) as redis:

        async def count(number: int) -> None:
            assert await redis.do(("ECHO", number), ("ECHO", b"x" * 5000)) == [str(number).encode(), b"x" * 5000]

        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(count, number)
        assert server.say("INFO", "clients").count(b"connected_clients:2\r\n") == 1, "it, and this question"


async def test_what_waits_to_leave_is_bounded(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "MOST_UNSENT_BYTES", 10_000)
    most = 0
    async with open_redis(RedisAddress.parse(server.url)) as redis:

        async def put() -> None:
            nonlocal most
            await redis.do(("SET", "a", b"x" * 5000))
            most = max(most, redis._unsent_bytes)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(put)
    assert most < 20_000


async def test_a_server_that_dies_fails_what_waits_and_is_met_again(server: RedisServer) -> None:
    async with open_redis(RedisAddress.parse(server.url)) as redis:
        await redis.do(("SET", "a", "1"))

        async def wait() -> None:
            with pytest.raises(StoreFailed, match="was lost"):
                await redis.do(("BLPOP", "nothing", 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.1)
            server.kill()
        with pytest.raises(StoreFailed, match="is away"):
            await redis.do(("GET", "a"))
        server.start()
        await until(lambda: redis.is_there)
        assert await redis.do(("GET", "a")) == [b"1"]


async def test_a_server_that_says_nothing_more_is_given_up(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_wire, "ANSWER_LIMIT", 0.5)
    monkeypatch.setattr(redis_wire, "PING_EVERY", 0.1)
    async with open_redis(RedisAddress.parse(server.url)) as redis:
        server.signal(signal.SIGSTOP)
        with pytest.raises(StoreFailed, match=r"silent for 0\.5 s"):
            await redis.do(("GET", "a"))
        server.signal(signal.SIGCONT)
        await until(lambda: redis.is_there)


async def test_what_is_published_is_heard_after_a_loss_too(server: RedisServer, nursery: trio.Nursery) -> None:
    heard: list[tuple[bytes, bytes]] = []
    listens: list[bool] = []
    nursery.start_soon(
        listen,
        RedisAddress.parse(server.url),
        ["one", "two"],
        lambda channel, data: heard.append((channel, data)),
        listens.append,
    )
    for number in (1, 2):
        await until(lambda: listens.count(True) == number)  # noqa: B023 - it waits here
        server.say("PUBLISH", "one", str(number))
        server.say("PUBLISH", "three", "nobody listens")
        server.say("PUBLISH", "two", str(number))
        await until(lambda: len(heard) == 2 * number)  # noqa: B023 - as above
        server.kill()
        server.start()
    assert heard == [(b"one", b"1"), (b"two", b"1"), (b"one", b"2"), (b"two", b"2")]
    assert listens[:3] == [True, False, True]


async def test_a_password_is_asked_for_and_a_wrong_one_told(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        server.say("CONFIG", "SET", "requirepass", "hunter2")
        with pytest.raises(ConfigurationError, match="it refused: NOAUTH"), single_error():
            async with open_redis(RedisAddress.parse(server.url)):
                pass
        url = f"redis://:hunter2@127.0.0.1:{server.port}/1"
        async with open_redis(RedisAddress.parse(url)) as redis:
            assert await redis.do(("PING",)) == [b"PONG"]
        with pytest.raises(ConfigurationError, match="WRONGPASS") as caught, single_error():
            async with open_redis(RedisAddress.parse(url.replace("hunter2", "hunter3"))):
                pass
        assert "hunter3" not in str(caught.value)


async def answer_with(stream: trio.SocketStream, answer: bytes) -> None:
    await stream.receive_some()
    if answer:
        await stream.send_all(answer)
        await stream.receive_some()
    await trio.sleep(0.1)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "it closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what it says is no Redis"),
        (b"+OK\r\n-LOADING Redis is loading\r\n", "it refused: LOADING"),
    ],
)
async def test_what_is_no_server_is_said_to_be_none(nursery: trio.Nursery, answer: bytes, why: str) -> None:
    serve = partial(trio.serve_tcp, partial(answer_with, answer=answer), 0, host="127.0.0.1")
    (listener,) = await nursery.start(serve)
    port = listener.socket.getsockname()[1]
    with pytest.raises(ConfigurationError, match=f"redis://127.0.0.1:{port}/0 cannot be used .*{why}"), single_error():
        async with open_redis(RedisAddress("127.0.0.1", port)):
            pass


async def test_a_server_that_is_not_there_is_named() -> None:
    port = free_port()
    words = f"127.0.0.1:{port}/0 cannot be used .connection refused.: is it running"
    with pytest.raises(ConfigurationError, match=words), single_error():
        async with open_store(f"redis://127.0.0.1:{port}/0"):
            pass


async def test_a_server_is_reached_by_tls_where_its_certificate_is_trusted(
    server: RedisServer, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)

    async def forward(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                await sink.send_all(data)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with suppress(trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as onward, trio.open_nursery() as both:
                both.start_soon(forward, onward, stream)
                await forward(stream, onward)
                both.cancel_scope.cancel()

    start = partial(trio.serve_ssl_over_tcp, serve, 0, context, host="127.0.0.1")
    (listener,) = await nursery.start(start)
    address = RedisAddress.parse(f"rediss://localhost:{listener.transport_listener.socket.getsockname()[1]}")
    with pytest.raises(ConfigurationError, match=r"TLS was not agreed on: .*self-signed"), single_error():
        async with open_redis(address):
            pass
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with open_redis(address) as redis:
        assert await redis.do(("ECHO", b"x" * 100_000)) == [b"x" * 100_000]


async def test_a_name_that_nothing_has_is_said_so() -> None:
    with pytest.raises(ConfigurationError, match="nothing has that name"), single_error():
        async with open_redis(RedisAddress("no-such-host.invalid")):
            pass


async def test_a_server_without_tls_is_told_apart(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_wire, "CONNECT_LIMIT", 0.5)
    with pytest.raises(ConfigurationError, match=r"rediss://127\.0\.0\.1"), single_error():
        async with open_redis(RedisAddress.parse(server.url.replace("redis://", "rediss://"))):
            pass


async def test_an_answer_without_end_is_given_up(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_wire, "MOST_ANSWER_BYTES", 1000)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"+OK\r\n+PONG\r\n")
        await stream.receive_some()
        await stream.send_all(b"$5000\r\n" + b"x" * 3000)
        await trio.sleep_forever()

    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    async with open_redis(RedisAddress("127.0.0.1", listener.socket.getsockname()[1])) as redis:
        with pytest.raises(StoreFailed, match="more than 1000 bytes"):
            await redis.do(("GET", "a"))


@pytest.mark.parametrize(
    ("setting", "value", "warning"),
    [
        ("appendonly", "no", "redis keeps envelopes in memory"),
        ("appendfsync", "everysec", "redis flushes its disk later"),
        ("maxmemory-policy", "allkeys-lru", "redis throws keys away"),
    ],
)
async def test_a_server_that_may_lose_what_was_stored_is_warned_of(
    server: RedisServer, log: Log, setting: str, value: str, warning: str
) -> None:
    async with open_redis(RedisAddress.parse(server.url)) as redis:
        await check_durability(redis)
        assert log == []
        server.say("CONFIG", "SET", setting, value)
        await check_durability(redis)
    (line,) = log
    assert str(line["event"]).startswith(warning)


class Answers:
    """What stands in for a server that answers in one way."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.address = RedisAddress("h")

    async def do(self, *commands: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer]


async def test_a_server_that_is_too_old_is_refused() -> None:
    await check_version(Answers(b"# Server\r\nredis_version:7.0.15\r\n"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"runs Redis 5\.0\.7: use 6\.2 or newer"):
        await check_version(Answers(b"redis_version:5.0.7\r\n"))  # type: ignore[arg-type]


async def test_a_server_that_tells_no_settings_is_taken_as_it_is(log: Log) -> None:
    refused = StoreFailed("ERR unknown command CONFIG")
    await check_durability(Answers(b"aof_enabled:1\r\n", refused, refused))  # type: ignore[arg-type]
    assert log == []


async def test_what_others_have_put_into_a_mailbox_is_left_out(server: RedisServer, log: Log) -> None:
    async with opened(server) as (redis, store):
        key = f"autonomy:1:box:{BOB.hex()}"
        await redis.do(
            ("XADD", key, "*", "nonsense", "1"),
            ("XADD", key, "*", "by", "zz", "until", "x", "packet", ""),
            ("XADD", key, "*", "by", "00" * 32, "until", int(NOW) + 60, "packet", b"x" * 200_000),
        )
        await store.put([envelope("1")])
        assert [each.id for _, each in await store.read(BOB, 0, 10)] == [stored_id(b"1")]
    assert [line["event"] for line in log if line["log_level"] == "error"] == ["mailbox in redis is damaged"] * 3


async def test_a_full_server_refuses_what_is_new_and_keeps_what_was_stored(server: RedisServer) -> None:
    async with opened(server) as (_, store):
        await store.put([envelope("1")])
        server.say("CONFIG", "SET", "maxmemory", "1")
        assert await store.put([envelope("2")]) == ["store failed"]
        server.say("CONFIG", "SET", "maxmemory", "0")
        assert await store.put([envelope("2")]) == [None]
        assert len(await store.read(BOB, 0, 10)) == 2


async def test_what_redis_acknowledged_survives_its_death(server: RedisServer) -> None:
    stored: list[str] = []
    async with opened(server) as (redis, store):

        async def put(number: int) -> None:
            if await store.put([envelope(str(number))]) == [None]:
                stored.append(str(number))
                if len(stored) == 100:
                    server.kill()

        async with trio.open_nursery() as nursery:
            for number in range(2000):
                nursery.start_soon(put, number)
        assert 100 <= len(stored) < 2000
        server.start()
        await until(lambda: redis.is_there)
        found = [each.packet.decode() for _, each in await store.read(BOB, 0, 5000)]
        assert set(stored) <= set(found)


async def test_the_store_counts_again_after_the_server_was_away(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autonomy_trio.fabric.stores.redis_store.LOOK_EVERY", 0.05)
    async with opened(server) as (redis, store):
        await store.put([envelope("1")])
        await until(lambda: store.usage().envelopes == 1)
        server.kill()
        await until(lambda: not redis.is_there)
        assert store.usage().envelopes == 1
        server.start()
        await until(lambda: redis.is_there)
        await store.forget(BOB, [stored_id(b"1")])
        await until(lambda: store.usage().envelopes == 0)
