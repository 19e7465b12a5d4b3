"""Which store a relay is told to use, and how that is said in one word: ``sqlite:PATH``."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from autonomy_trio.errors import ConfigurationError
from autonomy_trio.fabric.sqlite_store import open_sqlite_store
from autonomy_trio.fabric.store import Store

_SQLITE: Final = "sqlite:"


def open_store(place: str, *, now: Callable[[], float] = time.time) -> AbstractAsyncContextManager[Store]:
    """Open the store that `place` names, for the length of a block.

    Args:
        place: ``sqlite:PATH``.
        now: Unix seconds.

    Raises:
        ConfigurationError: it names no store, or one that cannot be used.
    """
    path = place.removeprefix(_SQLITE)
    if not place.startswith(_SQLITE) or not path:
        raise ConfigurationError(f"{place!r} names no store: give sqlite:PATH, with the file to keep envelopes in")
    return open_sqlite_store(Path(path), now=now)
