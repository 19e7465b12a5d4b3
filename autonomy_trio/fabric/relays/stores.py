"""Which store a relay is told to use, and how that is said in a word: ``sqlite:PATH`` or ``redis://HOST:PORT/DB``."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.relays.cluster import Cluster, open_cluster
from autonomy_trio.fabric.stores.redis import open_redis
from autonomy_trio.fabric.stores.redis_store import open_redis_store
from autonomy_trio.fabric.stores.redis_wire import RedisAddress, hiredis_module
from autonomy_trio.fabric.stores.sqlite import open_sqlite_store
from autonomy_trio.fabric.stores.store import Store

_SQLITE: Final = "sqlite:"
_REDIS: Final = "redis://", "rediss://"


@attrs.frozen
class Keeping:
    """Where a relay keeps envelopes, and the other relays that keep theirs there."""

    store: Store | None = None
    cluster: Cluster | None = None


def open_store(place: str, *, now: Callable[[], float] = time.time) -> AbstractAsyncContextManager[Keeping]:
    """Open the store that `place` names, for the length of a block.

    Args:
        place: ``sqlite:PATH``, or ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``, with ``rediss://`` for TLS; all
            relays on one database of a Redis are one cluster.
        now: Unix seconds.

    Raises:
        ConfigurationError: it names no store, or one that cannot be used.
    """
    if place.startswith(_REDIS):
        address = RedisAddress.parse(place)
        hiredis_module()
        return _open_redis(address, now)
    path = place.removeprefix(_SQLITE)
    if not place.startswith(_SQLITE) or not path:
        raise ConfigurationError(
            f"{place!r} names no store: give sqlite:PATH, with the file to keep envelopes in, or redis://HOST:PORT/DB"
        )
    return _open_sqlite(Path(path), now)


@asynccontextmanager
async def _open_sqlite(path: Path, now: Callable[[], float]) -> AsyncGenerator[Keeping]:
    async with open_sqlite_store(path, now=now) as store:
        yield Keeping(store)


@asynccontextmanager
async def _open_redis(address: RedisAddress, now: Callable[[], float]) -> AsyncGenerator[Keeping]:
    async with (
        open_redis(address) as redis,
        open_redis_store(redis, now=now) as store,
        open_cluster(redis) as cluster,
    ):
        yield Keeping(store, cluster)
