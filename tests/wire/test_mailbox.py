"""A node alone has its sealed envelopes, and has them forgotten."""

from collections.abc import Callable

import pytest
from attrs import frozen

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Ack, Fetch, Ping, encode_frame
from autonomy_trio.wire.mailbox import Connection, make_ack, make_fetch, stored_id, verify_ack, verify_fetch

NOW = 1_800_000_000.0
HERE = Connection(b"r" * 32, b"n" * 32)
IDS = (b"1" * 32, b"2" * 32)


@frozen
class Request:
    """FETCH or ACK: how a node makes it, and how a relay verifies it."""

    make: Callable[[Vault, Connection, int], bytes]
    verify: Callable[[bytes, Connection, Bundle, int], Fetch | Ack]


FETCH = Request(lambda vault, connection, sequence: make_fetch(vault, connection, sequence, 8), verify_fetch)
ACK = Request(lambda vault, connection, sequence: make_ack(vault, connection, sequence, IDS), verify_ack)
both = pytest.mark.parametrize("request_", [FETCH, ACK], ids=["FETCH", "ACK"])


@pytest.fixture(scope="module")
def vault() -> Vault:
    return Vault.in_memory()


@pytest.fixture(scope="module")
def node(vault: Vault) -> Bundle:
    return verify_bundle(vault.bundle(NOW), NOW)


def test_a_node_asks_for_its_envelopes_and_has_them_forgotten(vault: Vault, node: Bundle) -> None:
    fetch = verify_fetch(make_fetch(vault, HERE, 0, 8), HERE, node, -1)
    assert (fetch.sequence, fetch.unacknowledged) == (0, 8)
    ack = verify_ack(make_ack(vault, HERE, 1, IDS), HERE, node, 0)
    assert (ack.sequence, ack.ids) == (1, IDS)


def test_an_id_is_the_packets_own() -> None:
    assert stored_id(b"packet") == stored_id(b"packet")
    assert len({stored_id(b"packet"), stored_id(b"another"), stored_id(b"")}) == 3
    assert len(stored_id(b"packet")) == 32


@both
def test_a_request_of_another_node_is_refused(vault: Vault, node: Bundle, request_: Request) -> None:
    with pytest.raises(ProtocolError, match="not signed by its node"):
        request_.verify(request_.make(Vault.in_memory(), HERE, 0), HERE, node, -1)


@both
@pytest.mark.parametrize("other", [Connection(b"R" * 32, b"n" * 32), Connection(b"r" * 32, b"N" * 32)])
def test_a_request_of_another_connection_is_refused(
    vault: Vault, node: Bundle, request_: Request, other: Connection
) -> None:
    with pytest.raises(ProtocolError, match="not for this connection"):
        request_.verify(request_.make(vault, other, 0), HERE, node, -1)


@both
@pytest.mark.parametrize("sequence", [0, 4, 5])
def test_a_request_that_comes_again_is_refused(vault: Vault, node: Bundle, request_: Request, sequence: int) -> None:
    with pytest.raises(ProtocolError, match="came again"):
        request_.verify(request_.make(vault, HERE, sequence), HERE, node, 5)
    assert request_.verify(request_.make(vault, HERE, 6), HERE, node, 5).sequence == 6


def test_a_fetch_is_no_ack(vault: Vault, node: Bundle) -> None:
    with pytest.raises(ProtocolError, match="no ACK"):
        verify_ack(make_fetch(vault, HERE, 0, 8), HERE, node, -1)
    with pytest.raises(ProtocolError, match="no FETCH"):
        verify_fetch(make_ack(vault, HERE, 0, IDS), HERE, node, -1)
    with pytest.raises(ProtocolError, match="no FETCH"):
        verify_fetch(encode_frame(Ping()), HERE, node, -1)


@both
def test_every_changed_bit_and_every_other_length_is_refused(vault: Vault, node: Bundle, request_: Request) -> None:
    frame = request_.make(vault, HERE, 3)
    for position in range(len(frame) * 8):
        changed = bytearray(frame)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            request_.verify(bytes(changed), HERE, node, -1)
    for other in [frame[:length] for length in range(len(frame))] + [frame + b"\x00", frame + frame]:
        with pytest.raises(ProtocolError):
            request_.verify(other, HERE, node, -1)
