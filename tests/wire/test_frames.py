import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import PACKET_BYTES, RELAY_MESSAGE_BYTES
from autonomy_trio.wire.frames import (
    Deliver,
    Frame,
    Hello,
    Nack,
    Parameters,
    Ping,
    Pong,
    Register,
    RelayLimits,
    Send,
    Welcome,
    decode_frame,
    encode_frame,
    frame_size,
    join_frames,
    make_hello,
    make_register,
    make_welcome,
    split_frames,
    verify_hello,
    verify_register,
    verify_welcome,
)

NOW = 1_800_000_000.0
DAY = 86_400

keys = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        st.just(1),
        st.binary(max_size=100),
        keys,
        st.just(RelayLimits()),
        st.lists(keys, max_size=3).map(tuple),
    ),
    st.builds(Register, st.binary(max_size=100), st.lists(st.binary(max_size=9)).map(tuple), keys, signatures),
    st.builds(Welcome, st.just(Parameters()), signatures),
    st.builds(Send, keys, st.just(0), st.integers(0, 65_535), st.binary(max_size=500)),
    st.builds(Deliver, keys, st.binary(max_size=500)),
    st.builds(Nack, st.text(max_size=64), keys),
    st.just(Ping()),
    st.just(Pong()),
)


@given(st.lists(frames.filter(lambda frame: not isinstance(frame, Register)), min_size=1, max_size=20))
def test_frames_joined_in_a_message_come_out_as_they_went_in(sent: list[Frame]) -> None:
    encoded = [encode_frame(frame) for frame in sent]
    message = join_frames(encoded)
    assert len(message) == sum(map(frame_size, encoded))
    assert split_frames(message) == encoded
    assert [decode_frame(frame) for frame in split_frames(message)] == sent


@given(st.binary(max_size=300))
def test_random_bytes_are_frames_or_refused(message: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert join_frames(split_frames(message)) == message
    with contextlib.suppress(ProtocolError):
        decode_frame(message)


@given(frames, st.data())
def test_damaged_frames_are_frames_or_refused(frame: Frame, data: st.DataObject) -> None:
    encoded = bytearray(encode_frame(frame))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode_frame(bytes(encoded))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x02x",
        b"\x00\x00\x00\x01x\x00",
        b"\x00\x00\x00\x01x\x00\x00\x00\x00",
        b"\xff\xff\xff\xffx",
        join_frames([bytes(RELAY_MESSAGE_BYTES)]),
    ],
)
def test_messages_not_made_of_whole_frames_are_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        split_frames(message)


def test_the_largest_message_is_taken_whole() -> None:
    frame = bytes(RELAY_MESSAGE_BYTES - 4)
    assert split_frames(join_frames([frame])) == [frame]


@pytest.mark.parametrize(
    "raw",
    [
        [0],
        [9],
        [7, 1],
        [4, bytes(31), 0, 5, b""],
        [4, bytes(32), 1, 5, b""],
        [4, bytes(32), 0, 65_536, b""],
        [4, bytes(32), 0, -1, b""],
        [4, bytes(32), 0, 5, bytes(PACKET_BYTES + 1)],
        [5, bytes(33), b""],
        [6, "r" * 65, bytes(32)],
        [1, 2, b"", bytes(32), [1, 1, 1], []],
        [1, 1, b"", bytes(32), [1, 1, 1], [bytes(32)] * 65],
        [1, 1, bytes(8193), bytes(32), [1, 1, 1], []],
        [2, b"", [], bytes(32), bytes(63)],
        [3, [1, 2, 3], bytes(64)],
    ],
)
def test_what_the_types_do_not_say_is_refused(raw: object) -> None:
    with pytest.raises(ProtocolError):
        decode_frame(msgspec.msgpack.encode(raw))


class Registration:
    """A registration of a node at a relay, step by step."""

    def __init__(self) -> None:
        self.relay, self.node = Vault.in_memory(), Vault.in_memory()
        self.hello = make_hello(self.relay, b"r" * 32, [b"i" * 32], NOW)
        self.register = make_register(self.node, self.hello, [b"credential"], b"n" * 32, NOW)
        self.welcome = make_welcome(self.relay, self.hello, self.register, Parameters())


@pytest.fixture
def registration() -> Registration:
    return Registration()


def test_registration_proves_each_side_to_the_other(registration: Registration) -> None:
    hello, relay = verify_hello(registration.hello, NOW)
    assert relay.identifier == registration.relay.identifier
    assert hello.issuers == (b"i" * 32,)
    assert hello.limits == RelayLimits()
    register, node = verify_register(registration.register, registration.hello, NOW)
    assert node.identifier == registration.node.identifier
    assert register.presentations == (b"credential",)
    welcome = verify_welcome(registration.welcome, registration.hello, registration.register, relay)
    assert welcome.parameters == Parameters()


def test_every_changed_bit_of_a_registration_is_refused(registration: Registration) -> None:
    for position in range(0, len(registration.register) * 8, 5):
        changed = bytearray(registration.register)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            verify_register(bytes(changed), registration.hello, NOW)


def test_every_changed_bit_of_a_welcome_is_refused(registration: Registration) -> None:
    _, relay = verify_hello(registration.hello, NOW)
    for position in range(len(registration.welcome) * 8):
        changed = bytearray(registration.welcome)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            verify_welcome(bytes(changed), registration.hello, registration.register, relay)


def test_a_registration_counts_for_one_connection(registration: Registration) -> None:
    other_hello = make_hello(registration.relay, b"R" * 32, [b"i" * 32], NOW)
    with pytest.raises(ProtocolError, match="not for this connection"):
        verify_register(registration.register, other_hello, NOW)
    _, relay = verify_hello(registration.hello, NOW)
    other_register = make_register(registration.node, registration.hello, [], b"N" * 32, NOW)
    with pytest.raises(ProtocolError, match="not for this connection"):
        verify_welcome(registration.welcome, registration.hello, other_register, relay)
    with pytest.raises(ProtocolError, match="not for this connection"):
        verify_welcome(registration.welcome, other_hello, registration.register, relay)


def test_a_welcome_of_another_relay_is_refused(registration: Registration) -> None:
    _, relay = verify_hello(registration.hello, NOW)
    welcome = make_welcome(Vault.in_memory(), registration.hello, registration.register, Parameters())
    with pytest.raises(ProtocolError, match="signed by the relay"):
        verify_welcome(welcome, registration.hello, registration.register, relay)


def test_a_registration_signed_by_another_node_is_refused(registration: Registration) -> None:
    _, bundle = verify_register(registration.register, registration.hello, NOW)
    thief = Vault.in_memory()
    register = Register(bundle.encoded, (), b"n" * 32, bytes(64))
    before = encode_frame(register)[:-64]
    forged = before + thief.sign("relay-reg", before)
    with pytest.raises(ProtocolError, match="not signed by the node"):
        verify_register(forged, registration.hello, NOW)


def test_expired_identities_are_refused(registration: Registration) -> None:
    with pytest.raises(ProtocolError, match="expired"):
        verify_hello(registration.hello, NOW + 8 * DAY)
    with pytest.raises(ProtocolError, match="expired"):
        verify_register(registration.register, registration.hello, NOW + 8 * DAY)


def test_frames_out_of_turn_are_refused(registration: Registration) -> None:
    ping = encode_frame(Ping())
    _, relay = verify_hello(registration.hello, NOW)
    with pytest.raises(ProtocolError, match="begins with HELLO"):
        verify_hello(ping, NOW)
    with pytest.raises(ProtocolError, match="answers HELLO"):
        verify_register(registration.welcome, registration.hello, NOW)
    with pytest.raises(ProtocolError, match="answers REGISTER"):
        verify_welcome(registration.hello, registration.hello, registration.register, relay)
