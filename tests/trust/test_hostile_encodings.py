"""What a stranger can encode costs whoever refuses it next to nothing."""

import base64
import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import msgspec
import pytest

from autonomy_trio.errors import TrustError
from autonomy_trio.trust.credentials import from_text, read_presentation
from autonomy_trio.trust.identity import make_history
from autonomy_trio.trust.ledger import decode_ledger
from autonomy_trio.trust.lists import list_from_text, verify_list
from autonomy_trio.trust.records import Signed, sign, to_block
from autonomy_trio.trust.tickets import verify_ticket

RECOVERY: Final = bytes(range(32))
HISTORY: Final = make_history(RECOVERY)

HOSTILE: Final = {
    "arrays 10,000 deep": b"\x91" * 10_000 + b"\xc0",
    "maps 10,000 deep": b"\x81\xc0" * 10_000 + b"\xc0",
    "an array of 2**32 - 1": b"\xdd\xff\xff\xff\xff",
    "a map of 2**32 - 1": b"\xdf\xff\xff\xff\xff",
    "a string of 2**32 - 1": b"\x91\xdb\xff\xff\xff\xff",
    "bytes of 2**32 - 1": b"\x91\xc6\xff\xff\xff\xff",
    "an extension of 2**32 - 1": b"\x91\xc9\xff\xff\xff\xff\x01",
    "a million items": b"\xdd\x00\x0f\x42\x40" + b"\xc0" * 1_000_000,
    "a million empty arrays": b"\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000,
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "not a number": b"\x91\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    "no UTF-8": b"\x91\xa2\xff\xfe",
    "an unused byte": b"\xc1",
    "nothing": b"",
}


def signed_credential(data: bytes) -> None:
    signature = sign(RECOVERY, "credential", data)
    read_presentation(msgspec.msgpack.encode([[data, signature], HISTORY.changes, None]))


def signed_list(data: bytes) -> None:
    verify_list(Signed(data, sign(RECOVERY, "list", data)), HISTORY)


PARSERS: Final[dict[str, Callable[[bytes], object]]] = {
    "a presentation": read_presentation,
    "a presentation as text": lambda data: read_presentation(from_text(to_block("AUTONOMY CREDENTIAL", data))),
    "a credential": signed_credential,
    "a list": signed_list,
    "a list as text": lambda data: list_from_text(to_block("AUTONOMY REVOCATION LIST", data)),
    "a ticket": lambda data: verify_ticket("ticket-" + base64.urlsafe_b64encode(data).decode().rstrip("="), 0),
    "a ledger": decode_ledger,
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS)
def test_a_hostile_encoding_is_refused_in_little_time_and_memory(
    parse: Callable[[bytes], object], hostile: bytes
) -> None:
    tracemalloc.start()
    try:
        before = time.perf_counter()
        with pytest.raises(TrustError):
            parse(hostile)
        taken = time.perf_counter() - before
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 0.5
    assert peak < 10 * 2**20
