"""The store's benchmark runs, and is not fooled by a store that loses envelopes."""

from collections.abc import Sequence

import pytest
import trio

from autonomy_trio.fabric.stores.sqlite import SqliteStore
from autonomy_trio.fabric.stores.store import Envelope
from benchmarks import store
from benchmarks.measure import WrongResultError


def test_a_run_measures_both_rows() -> None:
    assert min(trio.run(store.store_and_hand_over, 600)) > 0
    assert store.bare_inserts(100) > 0


def test_a_store_that_loses_envelopes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    put = SqliteStore.put

    async def lose(self: SqliteStore, envelopes: Sequence[Envelope]) -> Sequence[str | None]:
        return [*await put(self, envelopes[1:]), None]

    monkeypatch.setattr(SqliteStore, "put", lose)
    with pytest.raises(WrongResultError, match="read"):
        trio.run(store.store_and_hand_over, 600)
