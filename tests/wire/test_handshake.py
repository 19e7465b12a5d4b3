"""Each refusal of a handshake, met by a forger who may hold any keys it likes but those of others."""

from collections.abc import Callable

import msgspec
import nacl.utils
import pytest
from attrs import define, evolve, field

from autonomy_trio.errors import HandshakeFailed, IdentityError
from autonomy_trio.trust.identity import Attestation, History, encode_bundle
from autonomy_trio.trust.records import SignatureContext, Signed, digest
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import INITIATOR, PROLOGUE, RESPONDER, XX1, XX2, XX3
from autonomy_trio.wire.entries import Tell
from autonomy_trio.wire.handshake import Initiator, Limits, Own, Payload, Responder
from autonomy_trio.wire.noise import XX, HandshakeState, PrivateKey
from autonomy_trio.wire.packets import HandshakePacket, read_data_header, read_handshake
from autonomy_trio.wire.session import Session

NOW = 1_800_000_000.0
DAY = 86_400
LIMITS = Limits(160 * 1024, 128 * 1024, 256)


def make_own(vault: Vault | None = None) -> Own:
    return Own(vault or Vault.in_memory(), b"b" * 16, nacl.utils.random)


@define
class Key:
    """A static key: a vault's, or whatever a forger puts there."""

    public: bytes
    agree: Callable[[bytes], bytes]


@define
class Forger:
    """One side of a handshake that lies where a test says so."""

    vault: Vault = field(factory=Vault.in_memory)
    static: Key | None = None
    bundle: bytes | None = None
    named_index: int | None = None
    role: int | None = None
    context: SignatureContext = "hs"
    own: bytes | None = None
    recipient: bytes | None = None
    hash: Callable[[bytes], bytes] = lambda h: h
    presentations: tuple[bytes, ...] = ()
    time: int = int(NOW)
    limits: Limits = LIMITS
    encode: Callable[[bytes], bytes] = lambda payload: payload
    now: float = NOW

    def start(self, *, is_initiator: bool, prologue_of: bytes) -> HandshakeState:
        static = self.static or Key(self.vault.session_public, self.vault.agree)
        random = make_own().random
        prologue = PROLOGUE + b"\x01" + prologue_of
        return HandshakeState.start(XX, is_initiator=is_initiator, prologue=prologue, random=random, static=static)

    def finish(self, state: HandshakeState, index: int, role: int, recipient: bytes) -> bytes:
        message = state.write_tokens()
        named = index if self.named_index is None else self.named_index
        bundle = self.vault.bundle(self.now) if self.bundle is None else self.bundle
        payload = Payload(bundle, b"f" * 16, named, self.time, self.limits, self.presentations, bytes(64))
        before = msgspec.msgpack.encode(payload)[:-64]
        signed = b"".join(
            (
                self.hash(state.hash),
                bytes((role if self.role is None else self.role,)),
                self.own or self.vault.identifier,
                recipient if self.recipient is None else self.recipient,
                digest("h-body", before),
            )
        )
        return message + state.write_payload(self.encode(before + self.vault.sign(self.context, signed)))

    def answer(self, first: bytes, prologue_of: bytes) -> bytes:
        """Make XX2 for an XX1."""
        packet = read_handshake(first)
        state = self.start(is_initiator=False, prologue_of=prologue_of)
        state.read_payload(state.read_tokens(packet.message))
        return HandshakePacket(XX2, 77, packet.sender, self.finish(state, 77, RESPONDER, bytes(32))).encode()

    def ask(self, responder: Own) -> tuple[Responder, bytes]:
        """Begin a handshake with a responder, and make XX3."""
        peer = responder.vault.identifier
        state = self.start(is_initiator=True, prologue_of=peer)
        first = HandshakePacket(XX1, 66, 0, state.write_tokens() + state.write_payload(b""))
        handshake = Responder(responder, first, 5, NOW)
        second = read_handshake(handshake.packet)
        state.read_payload(state.read_tokens(second.message))
        third = HandshakePacket(XX3, 66, second.sender, self.finish(state, 66, INITIATOR, peer))
        return handshake, third.encode()


def refuse_second(forger: Forger) -> str:
    """Return why an initiator that looks for the forger refuses its XX2, having seen that it still takes a true one."""
    initiator = Initiator(make_own(), forger.vault.identifier, 9)
    with pytest.raises(HandshakeFailed) as caught:
        initiator.finish(read_handshake(forger.answer(initiator.packet, forger.vault.identifier)), (), NOW)
    genuine = Forger(forger.vault).answer(initiator.packet, forger.vault.identifier)
    session, _ = initiator.finish(read_handshake(genuine), (), NOW)
    assert session.remote.bundle.identifier == forger.vault.identifier
    assert str(caught.value) == "the handshake failed"
    return caught.value.why


def refuse_third(forger: Forger) -> str:
    """Return why a responder refuses the forger's XX3."""
    handshake, third = forger.ask(make_own())
    with pytest.raises(HandshakeFailed) as caught:
        handshake.finish(read_handshake(third), NOW)
    assert str(caught.value) == "the handshake failed"
    return caught.value.why


def complete(alice: Own, bob: Own) -> tuple[Session, Session]:
    initiator = Initiator(alice, bob.vault.identifier, 9)
    responder = Responder(bob, read_handshake(initiator.packet), 5, NOW)
    near, third = initiator.finish(read_handshake(responder.packet), (b"credential",), NOW)
    far = responder.finish(read_handshake(third), NOW)
    return near, far


def test_a_handshake_tells_both_sides_who_the_other_is() -> None:
    alice, bob = make_own(), evolve(make_own(), boot=b"B" * 16)
    near, far = complete(alice, bob)
    assert near.remote.bundle.identifier == bob.vault.identifier
    assert near.remote.boot == b"B" * 16
    assert near.remote.presentations == ()
    assert far.remote.bundle.identifier == alice.vault.identifier
    assert far.remote.presentations == (b"credential",)
    assert (near.index, far.remote.index, far.index, near.remote.index) == (9, 9, 5, 5)
    assert near.is_initiator
    assert not far.is_initiator
    packet = near.seal([Tell("a", "M", b"x", 0, 0)])
    header = read_data_header(packet)
    assert far.accept(header, far.decrypt(header, packet)) == [Tell("a", "M", b"x", 0, 0)]


def test_the_forger_that_does_not_lie_is_believed() -> None:
    forger = Forger()
    initiator = Initiator(make_own(), forger.vault.identifier, 9)
    initiator.finish(read_handshake(forger.answer(initiator.packet, forger.vault.identifier)), (), NOW)
    handshake, third = forger.ask(make_own())
    assert handshake.finish(read_handshake(third), NOW).remote.bundle.identifier == forger.vault.identifier


FRESH = PrivateKey(b"k" * 32)
OTHER_KEY = Key(FRESH.public, FRESH.agree)
LIES: list[tuple[str, Callable[[], Forger]]] = [
    ("not the session key", lambda: Forger(static=OTHER_KEY)),
    ("index is not the one it signed", lambda: Forger(named_index=1)),
    ("signature", lambda: Forger(own=b"o" * 32)),
    ("signature", lambda: Forger(context="env")),
    ("signature", lambda: Forger(context="sealed")),
    ("signature", lambda: Forger(context="relay-reg")),
    ("signature", lambda: Forger(recipient=b"r" * 32)),
    ("signature", lambda: Forger(hash=lambda h: bytes(len(h)))),
    ("signature", lambda: Forger(encode=lambda payload: payload[:-1] + bytes((payload[-1] ^ 1,)))),
    ("this is not an identity's bundle", lambda: Forger(bundle=b"junk")),
    ("not of this version", lambda: Forger(limits=Limits(160 * 1024 - 1, 128 * 1024, 256))),
    ("not of this version", lambda: Forger(limits=Limits(160 * 1024, 128 * 1024 - 1, 256))),
    ("not of this version", lambda: Forger(limits=Limits(160 * 1024, 128 * 1024, 255))),
    ("not of this version", lambda: Forger(encode=lambda payload: payload + b"\x00")),
    ("not of this version", lambda: Forger(encode=lambda payload: b"")),
    ("not of this version", lambda: Forger(encode=lambda payload: b"\x97\xa1\xff")),
    ("not of this version", lambda: Forger(presentations=(b"",) * 17)),
]


@pytest.mark.parametrize(("why", "make"), LIES, ids=range(len(LIES)))
def test_a_lie_in_the_second_message_is_refused(why: str, make: Callable[[], Forger]) -> None:
    assert why in refuse_second(make())


@pytest.mark.parametrize(("why", "make"), LIES, ids=range(len(LIES)))
def test_a_lie_in_the_third_message_is_refused(why: str, make: Callable[[], Forger]) -> None:
    assert why in refuse_third(make())


def test_a_signature_of_the_other_role_is_refused() -> None:
    assert "signature" in refuse_second(Forger(role=INITIATOR))
    assert "signature" in refuse_third(Forger(role=RESPONDER))


def attesting(vault: Vault, session_key: bytes) -> bytes:
    """Make a bundle by which an identity attests whatever session key it likes."""
    attestation = Attestation(
        identifier=vault.identifier,
        seq=0,
        session_key=session_key,
        signing_key=vault.signing_public,
        prekeys=(),
        not_before=int(NOW),
        expires=int(NOW) + DAY,
    )
    body = msgspec.msgpack.encode(attestation)
    return encode_bundle(vault.history, Signed(body, vault.sign_as_identity("attest", body)))


def test_attesting_the_session_key_of_another_is_refused() -> None:
    victim = Vault.in_memory()
    # The forger shows the victim's key, and lacks the secret: it can only guess what they agreed on.
    stolen = Key(victim.session_public, FRESH.agree)
    assert "does not decrypt" in refuse_second(Forger(static=stolen))
    assert "does not decrypt" in refuse_third(Forger(static=stolen))
    # The forger attests the victim's key as its own, in its own name.
    bundle = attesting(Vault.in_memory(), victim.session_public)
    assert "does not decrypt" in refuse_second(Forger(static=stolen, bundle=bundle))
    assert "does not decrypt" in refuse_third(Forger(static=stolen, bundle=bundle))
    assert "not the session key" in refuse_second(Forger(bundle=bundle))
    assert "not the session key" in refuse_third(Forger(bundle=bundle))
    # The forger shows the victim's bundle, and its own key.
    forger = Forger(bundle=victim.bundle(NOW))
    assert "not the session key" in refuse_third(forger)


def test_another_node_than_the_one_asked_for_is_refused() -> None:
    asked_for, other = Vault.in_memory(), Forger()
    initiator = Initiator(make_own(), asked_for.identifier, 9)
    with pytest.raises(HandshakeFailed) as caught:
        initiator.finish(read_handshake(other.answer(initiator.packet, asked_for.identifier)), (), NOW)
    assert "another node answered" in caught.value.why
    with pytest.raises(HandshakeFailed) as caught:
        initiator.finish(read_handshake(other.answer(initiator.packet, other.vault.identifier)), (), NOW)
    assert "does not decrypt" in caught.value.why


def test_a_node_answers_only_under_its_own_identifier() -> None:
    bob, carol = make_own(), make_own()
    initiator = Initiator(make_own(), bob.vault.identifier, 9)
    responder = Responder(carol, read_handshake(initiator.packet), 5, NOW)
    with pytest.raises(HandshakeFailed) as caught:
        initiator.finish(read_handshake(responder.packet), (), NOW)
    assert "does not decrypt" in caught.value.why


def test_credentials_of_a_responder_that_knows_not_whom_it_talks_to_are_refused() -> None:
    assert "shows no credentials" in refuse_second(Forger(presentations=(b"credential",)))


def test_a_history_that_may_not_count_is_refused_on_either_side() -> None:
    def see(history: History) -> None:
        raise IdentityError("it goes back")

    forger = Forger()
    wary = evolve(make_own(), see=see)
    initiator = Initiator(wary, forger.vault.identifier, 9)
    with pytest.raises(HandshakeFailed) as caught:
        initiator.finish(read_handshake(forger.answer(initiator.packet, forger.vault.identifier)), (), NOW)
    assert caught.value.why == "it goes back"
    handshake, third = forger.ask(wary)
    with pytest.raises(HandshakeFailed) as caught:
        handshake.finish(read_handshake(third), NOW)
    assert caught.value.why == "it goes back"


def test_a_peer_with_this_nodes_own_identity_is_refused() -> None:
    own = make_own()
    handshake, third = Forger(own.vault).ask(own)
    with pytest.raises(HandshakeFailed) as caught:
        handshake.finish(read_handshake(third), NOW)
    assert "own identity" in caught.value.why


def test_an_index_that_changes_within_the_handshake_is_refused() -> None:
    handshake, third = Forger().ask(make_own())
    packet = read_handshake(third)
    with pytest.raises(HandshakeFailed) as caught:
        handshake.finish(evolve(packet, sender=67), NOW)
    assert "index changed" in caught.value.why
    handshake.finish(packet, NOW)


@pytest.mark.parametrize("point", [bytes(32), bytes([1]) + bytes(31)])
def test_low_order_points_are_refused(point: bytes) -> None:
    with pytest.raises(HandshakeFailed) as caught:
        Responder(make_own(), HandshakePacket(XX1, 1, 0, point), 5, NOW)
    assert "low-order" in caught.value.why
    initiator = Initiator(make_own(), Vault.in_memory().identifier, 9)
    with pytest.raises(HandshakeFailed) as caught:
        initiator.finish(HandshakePacket(XX2, 1, 9, point + bytes(500)), (), NOW)
    assert "low-order" in caught.value.why
    low_order = Key(point, lambda public: bytes(32))
    assert "low-order" in refuse_second(Forger(static=low_order))
    assert "low-order" in refuse_third(Forger(static=low_order))


@pytest.mark.parametrize("refuse", [refuse_second, refuse_third])
def test_an_attestation_out_of_its_time_is_refused_and_the_clocks_are_named(refuse: Callable[[Forger], str]) -> None:
    late = refuse(Forger(now=NOW + 3600, time=int(NOW) + 3600))
    assert "begins in 3,600 s" in late
    assert late.endswith("clocks differ by 3,600 s")
    early = refuse(Forger(now=NOW - 8 * DAY, time=int(NOW) - 8 * DAY))
    assert "expired" in early
    assert early.endswith("clocks differ by 691,200 s")
    stale = refuse(Forger(now=NOW - 8 * DAY))
    assert "expired" in stale
    assert "clocks differ" not in stale


def test_clocks_that_differ_within_the_attestation_are_said_and_not_refused() -> None:
    forger = Forger(now=NOW - 3600, time=int(NOW) - 3600)
    handshake, third = forger.ask(make_own())
    assert handshake.finish(read_handshake(third), NOW).remote.clock_difference == -3600


def test_a_finished_handshake_cannot_make_a_second_session_with_the_same_keys() -> None:
    bob = make_own()
    initiator = Initiator(make_own(), bob.vault.identifier, 9)
    responder = Responder(bob, read_handshake(initiator.packet), 5, NOW)
    _, third = initiator.finish(read_handshake(responder.packet), (), NOW)
    responder.finish(read_handshake(third), NOW)
    with pytest.raises(ValueError, match="has become a session"):
        initiator.finish(read_handshake(responder.packet), (), NOW)
    with pytest.raises(ValueError, match="has become a session"):
        responder.finish(read_handshake(third), NOW)


def test_every_changed_bit_is_refused_and_spoils_nothing() -> None:
    bob = make_own()
    initiator = Initiator(make_own(), bob.vault.identifier, 9)
    responder = Responder(bob, read_handshake(initiator.packet), 5, NOW)
    second = read_handshake(responder.packet)
    for position in range(len(second.message) * 8):
        with pytest.raises(HandshakeFailed):
            initiator.finish(evolve(second, message=flip(second.message, position)), (), NOW)
    _, encoded = initiator.finish(second, (), NOW)
    third = read_handshake(encoded)
    for position in range(len(third.message) * 8):
        with pytest.raises(HandshakeFailed):
            responder.finish(evolve(third, message=flip(third.message, position)), NOW)
    responder.finish(third, NOW)


def flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def test_no_secret_is_shown() -> None:
    own = make_own()
    shown = repr(own) + repr(Initiator(own, bytes(32), 9)) + repr(complete(own, make_own()))
    assert "random" not in shown
    assert "_state" not in shown
