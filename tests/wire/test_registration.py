import pytest

from autonomy_trio.errors import ProtocolError
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Parameters, Ping, Register, RelayLimits, encode_frame
from autonomy_trio.wire.registration import (
    make_hello,
    make_register,
    make_welcome,
    verify_hello,
    verify_register,
    verify_welcome,
)

NOW = 1_800_000_000.0
DAY = 86_400


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
    for position in range(len(registration.register) * 8):
        changed = bytearray(registration.register)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            verify_register(bytes(changed), registration.hello, NOW)


def test_every_changed_bit_of_a_hello_is_refused_by_the_node_or_by_the_relay(registration: Registration) -> None:
    # A relay proves itself by WELCOME only, so a changed HELLO may be answered; the relay then knows what was changed.
    for position in range(len(registration.hello) * 8):
        changed = bytearray(registration.hello)
        changed[position // 8] ^= 1 << position % 8
        try:
            verify_hello(bytes(changed), NOW)
        except ProtocolError:
            continue
        register = make_register(registration.node, bytes(changed), [], b"n" * 32, NOW)
        with pytest.raises(ProtocolError, match="not for this connection"):
            verify_register(register, registration.hello, NOW)


@pytest.mark.parametrize("part", ["hello", "register", "welcome"])
def test_every_other_length_is_refused(registration: Registration, part: str) -> None:
    _, relay = verify_hello(registration.hello, NOW)
    whole = getattr(registration, part)
    refuse = {
        "hello": lambda data: verify_hello(data, NOW),
        "register": lambda data: verify_register(data, registration.hello, NOW),
        "welcome": lambda data: verify_welcome(data, registration.hello, registration.register, relay),
    }[part]
    for other in [whole[:length] for length in range(len(whole))] + [whole + b"\x00", whole + whole]:
        with pytest.raises(ProtocolError):
            refuse(other)


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
