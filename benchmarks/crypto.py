"""The cryptographic table: what security costs beside the bare operations it is made of, without any I/O."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import nacl.utils
from attrs import frozen

from autonomy_trio import Request
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.grants import Grant
from autonomy_trio.trust.policy import Policies, Principal
from autonomy_trio.trust.records import SigningKey, verify
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.whole import WholePolicy, read_policies
from autonomy_trio.wire.entries import Entry, Tell, next_batch
from autonomy_trio.wire.handshake import Initiator, Own, Responder
from autonomy_trio.wire.noise import XX, HandshakeState, PrivateKey, decrypt, encrypt
from autonomy_trio.wire.packets import read_data_header, read_handshake
from autonomy_trio.wire.session import Session
from benchmarks.measure import Result, Row, check, cpu_time, interleave

NOW: Final = 1_800_000_000.0
MICROSECONDS: Final = 1_000_000
POLICIES: Final = 10

HANDSHAKE: Final = Row("handshake, both sides, against bare Noise XX", "handshakes/s", least=1 / 3, aim=1 / 2)
BATCHED: Final = Row("256 B: batches of 64 against one by one", "messages/s", least=12, aim=15)
CACHED: Final = Row("policy on attributes, cached", "µs", "value at most", least=1, aim=0.3)
UNCACHED: Final = Row(
    f"policy on attributes, {POLICIES} whole policies, uncached", "µs", "value at most", least=120, aim=50
)


@frozen
class Traffic:
    """Messages of one size that wait together: those that fit travel in one envelope."""

    name: str
    size: int
    batch: int

    @property
    def row(self) -> Row:
        """The row of the table; the reference is one signature and one AEAD for each envelope, made and opened."""
        return Row(f"seal and open {self.name}, {self.batch} waiting", "messages/s")


SIZES: Final = (("256 B", 256), ("4 KiB", 4 * 1024), ("64 KiB", 63 * 1024))
"""What is called 64 KiB leaves room for the entry around it, so that one still fits an envelope of a batch."""
TRAFFIC: Final = tuple(Traffic(name, size, batch) for name, size in SIZES for batch in (1, 8, 64))


@frozen
class Add(Request[None]):
    """The message that policies are asked about."""

    amount: int


def run(*, quick: bool) -> Iterator[Result]:
    """Measure each row in turn.

    Args:
        quick: whether to run small counts with few repetitions.

    Raises:
        WrongResultError: a message was lost, or a decision was wrong.
    """
    repetitions, scale = (3, 1) if quick else (5, 5)
    value, reference = interleave(repetitions, lambda: handshakes(40 * scale), lambda: bare_handshakes(40 * scale))
    yield Result(HANDSHAKE, value, reference)
    pair = open_session()
    for traffic in TRAFFIC:
        yield seal_and_open(pair, traffic, repetitions, scale)
    value, reference = interleave(
        repetitions,
        lambda: envelopes(pair, Traffic("", 256, 64), 1024 * scale),
        lambda: envelopes(pair, Traffic("", 256, 1), 256 * scale),
    )
    yield Result(BATCHED, value, reference)
    cached, uncached = interleave(repetitions, lambda: ask(20_000 * scale, 1), lambda: ask(400 * scale, None))
    yield Result(CACHED, cached)
    yield Result(UNCACHED, uncached)


def rate(count: int, act: Callable[[], None]) -> float:
    """Return how many there are of something in a second of CPU time."""
    with cpu_time() as watch:
        act()
    return count / watch.seconds


def handshakes(count: int) -> float:
    """Return the handshakes of two nodes in a second: identities, attestations, signatures and all."""
    near, far = (Own(Vault.in_memory(), bytes(16), nacl.utils.random) for _ in range(2))
    for own in (near, far):
        own.vault.bundle(NOW)

    def act() -> None:
        for _ in range(count):
            shake(near, far)

    return rate(count, act)


def shake(near: Own, far: Own) -> tuple[Session, Session]:
    """Make a session between two nodes."""
    initiator = Initiator(near, far.vault.identifier, 1)
    responder = Responder(far, read_handshake(initiator.packet), 2, NOW)
    session, third = initiator.finish(read_handshake(responder.packet), (), NOW)
    return session, responder.finish(read_handshake(third), NOW)


def bare_handshakes(count: int) -> float:
    """Return the handshakes of Noise XX alone in a second: keys agreed upon, and nobody knows whose they are."""
    statics = [PrivateKey(nacl.utils.random(32)) for _ in range(2)]

    def act() -> None:
        for _ in range(count):
            sides = [
                HandshakeState.start(
                    XX, is_initiator=is_initiator, prologue=b"", random=nacl.utils.random, static=static
                )
                for is_initiator, static in zip((True, False), statics, strict=True)
            ]
            for sender, receiver in (sides, sides[::-1], sides):
                message = sender.write_tokens() + sender.write_payload(b"")
                receiver.read_payload(receiver.read_tokens(message))
            check("the keys of both sides", sides[0].split()[0] == sides[1].split()[1], expected=True)

    return rate(count, act)


def open_session() -> tuple[Session, Session]:
    """Return both sides of a session between two nodes."""
    near, far = (Own(Vault.in_memory(), bytes(16), nacl.utils.random) for _ in range(2))
    return shake(near, far)


def seal_and_open(pair: tuple[Session, Session], traffic: Traffic, repetitions: int, scale: int) -> Result:
    """Measure one kind of traffic beside its bare cryptography."""
    count = 4 * scale * max(traffic.batch, 64 * 1024 // traffic.size // 8 * 8)
    value, reference = interleave(
        repetitions, lambda: envelopes(pair, traffic, count), lambda: bare_envelopes(traffic, count)
    )
    return Result(traffic.row, value, reference)


def waiting(traffic: Traffic) -> deque[Entry]:
    """Return the messages that wait together."""
    return deque(Tell("counter", "Add", bytes(traffic.size), 0, 0) for _ in range(traffic.batch))


def envelopes(pair: tuple[Session, Session], traffic: Traffic, count: int) -> float:
    """Return the messages sealed and opened in a second."""
    near, far = pair
    received = 0

    def act() -> None:
        nonlocal received
        for _ in range(count // traffic.batch):
            messages = waiting(traffic)
            while messages:
                packet = near.seal(next_batch(messages))
                header = read_data_header(packet)
                received += len(far.accept(header, far.decrypt(header, packet)))

    measured = rate(count // traffic.batch * traffic.batch, act)
    check("messages opened", received, count // traffic.batch * traffic.batch)
    return measured


def bare_envelopes(traffic: Traffic, count: int) -> float:
    """Return the same messages in a second, in as many envelopes, by nothing but one signature and one AEAD each."""
    signer, key = SigningKey(nacl.utils.random(32)), nacl.utils.random(32)
    messages = waiting(traffic)
    sizes: list[int] = []
    while messages:
        sizes.append(len(next_batch(messages)) * traffic.size)
    counters = itertools.count()

    def act() -> None:
        for _ in range(count // traffic.batch):
            for size in sizes:
                counter, digest = next(counters), bytes(32)
                sealed = encrypt(key, counter, b"", bytes(size))
                signature = signer.sign("env", digest)
                decrypt(key, counter, b"", sealed)
                check("a signature", verify(signer.public, "env", digest, signature), expected=True)

    return rate(count // traffic.batch * traffic.batch, act)


def whole_policies() -> tuple[WholePolicy, ...]:
    """Return policies that all speak of the action asked about: nine that permit, of which one fits, and a forbid."""
    permits = [
        f'permit(principal, action == Action::"Add", resource is Counter) when {{ principal has team'
        f' && principal.team == "team {number}" }};'
        for number in range(POLICIES - 1)
    ]
    forbid = "forbid(principal, action, resource) unless { principal has team };"
    return read_policies("\n".join([*permits, forbid]), "benchmark.cedar")


def ask(count: int, agents: int | None) -> float:
    """Return the microseconds of a decision on attributes, by ten whole policies that all have to be looked at.

    Args:
        count: decisions to take.
        agents: agents in turn, so that decisions are cached; None for another agent each time.
    """
    policies = Policies.compile(
        [Grant("Counter", "add", ("Add",), (Add,), None)], Anchors.of_self(bytes(32)), whole_policies()
    )
    sender = Principal("I" + "0" * 64, "I" + "0" * 64, {"team": "team 0"}, frozenset((bytes(32),)))
    names = [f"counter {number}" for number in range(count if agents is None else agents)]
    allowed = 0

    def act() -> None:
        nonlocal allowed
        for _ in range(count // len(names)):
            for name in names:
                decision = policies.attribute_part(sender, "Add", "Counter", name, now=NOW)
                allowed += decision is not None and decision.allowed

    each = MICROSECONDS / rate(count, act)
    check("messages allowed", allowed, count)
    return each
