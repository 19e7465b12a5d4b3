"""Mailboxes in Redis or Valkey Streams: several relays keep theirs there together.

What changes together is one script, which the server runs as one step, so that quotas hold however many relays write.
A mailbox is a stream; beside it a hash has the place of each envelope by its id, and one how much the mailbox holds.
All envelopes stand in one index by when they expire, all mailboxes in one by how old their oldest envelope is.

`STORED` is said when the server has acknowledged. How safe that is, is its configuration: see `check_durability`.
"""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.stores.journal import StoreFailed
from autonomy_trio.fabric.stores.redis import Redis
from autonomy_trio.fabric.stores.store import ENVELOPE_COST, Envelope, Place, Quota, Usage
from autonomy_trio.logs import get_log
from autonomy_trio.wire.constants import KEY_BYTES, PACKET_BYTES
from autonomy_trio.wire.mailbox import stored_id

PREFIX: Final = "autonomy:1:"
"""What the names of all keys and channels begin with."""

MAIL: Final = f"{PREFIX}mail"
"""The channel on which the mailboxes are named that something new is in: 64 hex digits each."""

EXPIRE_EVERY: Final = 30.0
"""Seconds between two looks for envelopes that have expired."""

EXPIRED_AT_ONCE: Final = 1000
"""Envelopes that are dropped in one step because they have expired."""

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at how much there is, which `RedisStore.usage` tells."""

EMPTY_LIFE: Final = 3600
"""Seconds that an empty mailbox is remembered, so that no place in it is given twice, whatever clocks do."""

READ_TOGETHER: Final = 32
"""Envelopes asked for at once: at most 5 MiB."""

READ_BYTES: Final = 4 * 1024 * 1024
"""Bytes after which a reading ends."""

LEAST_VERSION: Final = (6, 2)
"""Of Redis; all of Valkey says 7.2 or more."""

_log = get_log()

_COMMON: Final = f"""
local P = '{PREFIX}'
local function drop(box, id)
  local found = redis.call('HGET', P .. 'ids:' .. box, id)
  if not found then return 0 end
  local by, place, cost = found:sub(1, 64), found:sub(65):match('^(%S+) (%d+)$')
  redis.call('XDEL', P .. 'box:' .. box, place)
  redis.call('HDEL', P .. 'ids:' .. box, id)
  redis.call('ZREM', P .. 'expiry', box .. id)
  redis.call('DECRBY', P .. 'held', cost)
  local use = P .. 'use:' .. box
  redis.call('HINCRBY', use, 'bytes', -cost)
  redis.call('HINCRBY', use, by .. 'bytes', -cost)
  if redis.call('HINCRBY', use, by, -1) == 0 then redis.call('HDEL', use, by, by .. 'bytes') end
  redis.call('HINCRBY', use, 'count', -1)
  return 1
end
local function settle(box)
  local first = redis.call('XRANGE', P .. 'box:' .. box, '-', '+', 'COUNT', 1)[1]
  if first then
    redis.call('ZADD', P .. 'oldest', first[1]:match('^%d+'), box)
  else
    redis.call('ZREM', P .. 'oldest', box)
    redis.call('DEL', P .. 'use:' .. box)
    redis.call('EXPIRE', P .. 'box:' .. box, {EMPTY_LIFE})
  end
end
"""

_PUT: Final = (
    _COMMON
    + """
local most, bytes, all, extra = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local answers, new = {}, {}
for i = 5, #ARGV, 5 do
  local box, id, by, expires, packet = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local answer, cost = '', #packet + extra
  if redis.call('HEXISTS', P .. 'ids:' .. box, id) == 0 then
    local use = P .. 'use:' .. box
    local held = redis.call('HMGET', use, 'count', 'bytes', by, by .. 'bytes')
    for n = 1, 4 do held[n] = tonumber(held[n] or 0) end
    if tonumber(redis.call('GET', P .. 'held') or 0) + cost > all then
      answer = 'store full'
    elseif held[1] + 1 > most or held[2] + cost > bytes
        or (held[3] + 1) * 2 > most or (held[4] + cost) * 2 > bytes then
      answer = 'mailbox full'
    else
      local stream = P .. 'box:' .. box
      local place = redis.call('XADD', stream, '*', 'by', by, 'until', expires, 'packet', packet)
      redis.call('HSET', P .. 'ids:' .. box, id, by .. place .. ' ' .. cost)
      redis.call('ZADD', P .. 'expiry', expires, box .. id)
      redis.call('INCRBY', P .. 'held', cost)
      redis.call('HINCRBY', use, 'count', 1)
      redis.call('HINCRBY', use, 'bytes', cost)
      redis.call('HINCRBY', use, by, 1)
      redis.call('HINCRBY', use, by .. 'bytes', cost)
      if held[1] == 0 then
        redis.call('PERSIST', stream)
        redis.call('ZADD', P .. 'oldest', place:match('^%d+'), box)
      end
      if not new[box] then
        new[box] = true
        new[#new + 1] = box
      end
    end
  end
  answers[#answers + 1] = answer
end
if #new > 0 then redis.call('PUBLISH', P .. 'mail', table.concat(new)) end
return answers
"""
)

_FORGET: Final = (
    _COMMON
    + """
local dropped = 0
for i = 2, #ARGV do dropped = dropped + drop(ARGV[1], ARGV[i]) end
if dropped > 0 then settle(ARGV[1]) end
return dropped
"""
)

_EXPIRE: Final = (
    _COMMON
    + """
local gone, boxes = redis.call('ZRANGEBYSCORE', P .. 'expiry', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2]), {}
for _, each in ipairs(gone) do
  drop(each:sub(1, 64), each:sub(65))
  boxes[each:sub(1, 64)] = true
end
for box in pairs(boxes) do settle(box) end
return #gone
"""
)


@final
@attrs.define(eq=False)
class RedisStore:
    """Envelopes in one database of a server; made by `open_redis_store`."""

    redis: Redis
    quota: Quota
    """The limits; what is held is counted by the server."""
    _now: Callable[[], float]
    _usage: Usage = attrs.field(factory=Usage)

    async def put(self, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        """See `Store.put`."""
        quota = self.quota
        arguments: list[bytes | int | str] = [
            quota.mailbox_envelopes,
            quota.mailbox_bytes,
            quota.store_bytes,
            ENVELOPE_COST,
        ]
        for each in envelopes:
            arguments += [each.destination.hex(), each.id, each.source.hex(), each.expires, each.packet]
        try:
            answers: list[bytes] = (await self.redis.do(("EVAL", _PUT, 0, *arguments)))[0]
        except StoreFailed as error:
            _log.error("envelopes not stored", count=len(envelopes), why=str(error))
            return ["store failed"] * len(envelopes)
        return [answer.decode() or None for answer in answers]

    async def read(self, destination: bytes, after: Place, most: int) -> Sequence[tuple[Place, Envelope]]:
        """See `Store.read`."""
        now, size = self._now(), 0
        found: list[tuple[Place, Envelope]] = []
        while len(found) < most and size < READ_BYTES:
            rows: list[tuple[bytes, list[bytes]]] = (
                await self.redis.do(
                    ("XRANGE", f"{PREFIX}box:{destination.hex()}", _to_text(after + 1), "+", "COUNT", READ_TOGETHER)
                )
            )[0]
            for identifier, fields in rows:
                after, envelope = _to_place(identifier), _read_fields(destination, fields)
                if envelope is None:
                    _log.error("mailbox in redis is damaged", key=f"{PREFIX}box:{destination.hex()}", entry=identifier)
                elif envelope.expires > now:
                    found.append((after, envelope))
                    size += len(envelope.packet)
            if len(rows) < READ_TOGETHER:
                break
        return found[:most]

    async def forget(self, destination: bytes, ids: Sequence[bytes]) -> None:
        """See `Store.forget`."""
        await self.redis.do(("EVAL", _FORGET, 0, destination.hex(), *ids))

    def usage(self) -> Usage:
        """See `Store.usage`: of all relays together, as it was at most `LOOK_EVERY` seconds ago."""
        return self._usage

    async def expire(self) -> None:
        """Drop what has expired.

        Raises:
            StoreFailed: it is kept for now.
        """
        gone = EXPIRED_AT_ONCE
        while gone == EXPIRED_AT_ONCE:
            gone = (await self.redis.do(("EVAL", _EXPIRE, 0, int(self._now()), EXPIRED_AT_ONCE)))[0]

    async def look(self) -> None:
        """Look how much there is.

        Raises:
            StoreFailed: it cannot be known now.
        """
        count, held, oldest = await self.redis.do(
            ("ZCARD", f"{PREFIX}expiry"),
            ("GET", f"{PREFIX}held"),
            ("ZRANGE", f"{PREFIX}oldest", 0, 0, "WITHSCORES"),
        )
        since = float(oldest[1]) / 1000 if oldest else None
        self._usage = Usage(int(count), int(held or 0), since)

    async def run(self) -> None:
        """Drop what expires and look how much there is, until cancelled."""
        expires_at = trio.current_time()
        while True:
            try:
                if trio.current_time() >= expires_at:
                    expires_at += EXPIRE_EVERY
                    await self.expire()
                await self.look()
            except StoreFailed as error:
                _log.debug("mailboxes not looked at", why=str(error))
            await trio.sleep(LOOK_EVERY)


@asynccontextmanager
async def open_redis_store(
    redis: Redis, *, quota: Quota | None = None, now: Callable[[], float] = time.time
) -> AsyncGenerator[RedisStore]:
    """Keep mailboxes at a server for the length of a block.

    Args:
        redis: the server.
        quota: how much it may hold, of all relays together; they are to be given the same.
        now: Unix seconds.

    Raises:
        ConfigurationError: the server is too old.
        StoreFailed: it went away.
    """
    await check_version(redis)
    await check_durability(redis)
    store = RedisStore(redis, quota or Quota(), now)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()


async def check_version(redis: Redis) -> None:
    """Refuse a server that cannot do what is asked of it.

    Raises:
        ConfigurationError: it is too old.
        StoreFailed: it went away.
    """
    version = _fields((await redis.do(("INFO", "server")))[0]).get("redis_version", "0")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise ConfigurationError(f"{redis.address} runs Redis {version}: use {least} or newer, or Valkey")


async def check_durability(redis: Redis) -> None:
    """Warn where the server may lose what it has acknowledged.

    Raises:
        StoreFailed: it went away.
    """
    persistence = _fields((await redis.do(("INFO", "persistence")))[0])
    if persistence.get("aof_enabled") != "1":
        _log.warning(
            "redis keeps envelopes in memory: what is STORED ends with it; set appendonly yes, appendfsync always",
            address=str(redis.address),
        )
    elif await _setting(redis, "appendfsync") not in {"always", None}:
        _log.warning(
            "redis flushes its disk later: a power cut loses what was STORED just before; set appendfsync always",
            address=str(redis.address),
        )
    if await _setting(redis, "maxmemory-policy") not in {"noeviction", None}:
        _log.warning(
            "redis throws keys away when it is full, those of mailboxes too: set maxmemory-policy noeviction",
            address=str(redis.address),
        )


async def _setting(redis: Redis, name: str) -> str | None:
    """Return a setting of the server; None where it does not tell."""
    try:
        answer: list[bytes] = (await redis.do(("CONFIG", "GET", name)))[0]
    except StoreFailed:
        return None
    return answer[1].decode() if len(answer) > 1 else None


def _fields(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _to_text(place: Place) -> str:
    return f"{place >> 64}-{place & 0xFFFF_FFFF_FFFF_FFFF}"


def _to_place(identifier: bytes) -> Place:
    milliseconds, _, number = identifier.partition(b"-")
    return int(milliseconds) << 64 | int(number)


def _read_fields(destination: bytes, fields: Sequence[bytes]) -> Envelope | None:
    """Read an entry of a stream; None where it is none of ours, for others may write to the server."""
    try:
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        source, expires, packet = bytes.fromhex(found[b"by"].decode()), int(found[b"until"]), found[b"packet"]
    except (KeyError, ValueError):
        return None
    if len(source) != KEY_BYTES or len(packet) > PACKET_BYTES:
        return None
    return Envelope(stored_id(packet), destination, source, expires, packet)
