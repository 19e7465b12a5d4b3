"""The frozen vectors: what fixed keys make of fixed words, step by step.

`python -m tests.support.vectors FOLDER` writes them, and refuses to write over any: whoever changes the protocol takes
the old ones away by hand, and says so.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from autonomy_trio.trust.delegates import Introduction, derive_agent_key, make_delegate
from autonomy_trio.trust.identity import (
    ATTESTATION_LIFE_LIMIT,
    Attestation,
    Prekey,
    derive_seed,
    encode_bundle,
    make_history,
    verify_bundle,
)
from autonomy_trio.trust.records import SignatureContext, Signed, SigningKey, sign_record
from autonomy_trio.wire.directory import ListedAgent, ListedMessage, Record, make_listing
from autonomy_trio.wire.entries import Ask, Cancel, Entry, Error, Introduce, Presentations, Reply, Tell, encode_entries
from autonomy_trio.wire.frames import Lookup, Parameters, Publish, Send, Store, Stored, encode_frame
from autonomy_trio.wire.handshake import Initiator, Own, Responder
from autonomy_trio.wire.mailbox import Connection, make_ack, make_fetch, stored_id
from autonomy_trio.wire.packets import make_reject, read_data_header, read_handshake
from autonomy_trio.wire.registration import make_hello, make_register, make_welcome
from autonomy_trio.wire.sealed import Stamp, seal

NOW = 1_800_000_000
AGENTS = bytes.fromhex("a0" * 32)

Values = dict[str, Any]


@frozen
class FixedKeys:
    """A node whose every secret is written down."""

    recovery: bytes
    session: bytes
    signing: bytes
    prekeys: dict[int, bytes]
    seq: int = 0

    @classmethod
    def read(cls, values: Values) -> "FixedKeys":
        prekeys = {int(number): bytes.fromhex(secret) for number, secret in values["prekeys"].items()}
        secrets = (bytes.fromhex(values[name]) for name in ("recovery", "session", "signing"))
        return cls(*secrets, prekeys, values["seq"])

    @property
    def identifier(self) -> bytes:
        return make_history(self.recovery, self.seq).identifier

    @property
    def session_public(self) -> bytes:
        return crypto_scalarmult_base(self.session)

    def bundle(self, now: float) -> bytes:
        attestation = Attestation(
            identifier=self.identifier,
            seq=self.seq,
            session_key=self.session_public,
            signing_key=SigningKey(self.signing).public,
            prekeys=tuple(Prekey(number, crypto_scalarmult_base(secret)) for number, secret in self.prekeys.items()),
            not_before=int(now),
            expires=int(now) + ATTESTATION_LIFE_LIMIT,
        )
        key = SigningKey(derive_seed(self.recovery, self.seq))
        return encode_bundle(make_history(self.recovery, self.seq), sign_record(key, "attest", attestation))

    def prekey(self, number: int) -> bytes | None:
        secret = self.prekeys.get(number)
        return None if secret is None else crypto_scalarmult_base(secret)

    def agree(self, public: bytes, prekey: int | None = None) -> bytes:
        return crypto_scalarmult(self.session if prekey is None else self.prekeys[prekey], public)

    def sign(self, context: SignatureContext, data: bytes) -> bytes:
        return SigningKey(self.signing).sign(context, data)

    def introduce(self, name: str, now: float) -> Introduction:
        agent = derive_agent_key(AGENTS, name, self.identifier)
        return Introduction(agent.identifier, agent.change, make_delegate(agent, self.seq, now))


def fixed(*drawn: bytes) -> Callable[[int], bytes]:
    """Return a source of secret bytes that has these, in turn."""
    left = iter(drawn)
    return lambda count: next(left)


ALICE: Values = {
    "recovery": "01" * 32,
    "session": "02" * 32,
    "signing": "03" * 32,
    "prekeys": {"7": "04" * 32},
    "seq": 0,
}
BOB: Values = {
    "recovery": "11" * 32,
    "session": "12" * 32,
    "signing": "13" * 32,
    "prekeys": {"8": "14" * 32, "9": "15" * 32},
    "seq": 1,
}


def signed_values(signed: Signed) -> Values:
    return {"body": signed.body.hex(), "signature": signed.signature.hex()}


def identity(given: Values) -> Values:
    """Make identities, their bundles, and an agent of one of them."""
    alice, bob = FixedKeys.read(given["alice"]), FixedKeys.read(given["bob"])
    shown = alice.introduce(given["agent"], given["now"])
    return {
        "alice": {
            "identifier": alice.identifier.hex(),
            "changes": [signed_values(change) for change in make_history(alice.recovery, alice.seq).changes],
            "bundle": alice.bundle(given["now"]).hex(),
        },
        "bob": {
            "identifier": bob.identifier.hex(),
            "changes": [signed_values(change) for change in make_history(bob.recovery, bob.seq).changes],
            "bundle": bob.bundle(given["now"]).hex(),
        },
        "agent": {
            "identifier": shown.agent.hex(),
            "change": signed_values(shown.change),
            "delegate": signed_values(shown.delegate),
        },
    }


def session(given: Values) -> Values:
    """Make a handshake, and an envelope in each direction."""
    alice, bob = FixedKeys.read(given["alice"]), FixedKeys.read(given["bob"])
    ephemerals = {name: bytes.fromhex(given["ephemerals"][name]) for name in ("alice", "bob")}
    near = Own(alice, bytes.fromhex(given["boots"]["alice"]), fixed(ephemerals["alice"]))
    far = Own(bob, bytes.fromhex(given["boots"]["bob"]), fixed(ephemerals["bob"]))
    initiator = Initiator(near, bob.identifier, given["indices"]["alice"])
    responder = Responder(far, read_handshake(initiator.packet), given["indices"]["bob"], given["now"])
    presentations = tuple(map(bytes.fromhex, given["presentations"]))
    ours, third = initiator.finish(read_handshake(responder.packet), presentations, given["now"])
    theirs = responder.finish(read_handshake(third), given["now"])
    ours.begin(given["session numbers"]["alice"])
    theirs.begin(given["session numbers"]["bob"])
    shown = alice.introduce("counter", given["now"])
    from_bob: list[Entry] = [Presentations(()), Reply(1, b"\x01")]
    from_alice: list[Entry] = [
        Introduce(1, shown.change, shown.delegate, inherits=True, presentations=()),
        Ask(1, "counter", "Add", b"\x81\xa6amount\x03", 2000, 1, 0),
        Tell("counter", "Reset", b"\x80", 0, 0),
        Error(2, "denied", "denied"),
        Cancel(3),
    ]
    answer, question = theirs.seal(from_bob), ours.seal(from_alice)
    return {
        "XX1": initiator.packet.hex(),
        "XX2": responder.packet.hex(),
        "XX3": third.hex(),
        "session id": ours._keys.id.hex(),
        "key of what alice sends": ours._keys.sending.hex(),
        "key of what bob sends": ours._keys.receiving.hex(),
        "body from bob": encode_entries(from_bob).hex(),
        "data from bob": answer.hex(),
        "body from alice": encode_entries(from_alice).hex(),
        "data from alice": question.hex(),
        "empty data from alice": ours.seal([]).hex(),
        "reject by bob": make_reject(read_data_header(question)).hex(),
    }


def sealed(given: Values) -> Values:
    """Make a sealed envelope."""
    alice, bob = FixedKeys.read(given["alice"]), FixedKeys.read(given["bob"])
    stamp = Stamp(bytes.fromhex(given["id"]), given["created"], given["expires"])
    packet = seal(
        alice,
        verify_bundle(bob.bundle(given["now"]), given["now"]),
        [Presentations((b"credential",)), Tell("counter", "Add", b"\x81\xa6amount\x03", 0, 0)],
        stamp,
        fixed(bytes.fromhex(given["ephemeral"])),
    )
    return {"packet": packet.hex(), "stored id": stored_id(packet).hex()}


def relay(given: Values) -> Values:
    """Make the frames of a registration, of a mailbox and of the directory; the relay is bob."""
    alice, bob = FixedKeys.read(given["alice"]), FixedKeys.read(given["bob"])
    connection = Connection(*(bytes.fromhex(given["nonces"][name]) for name in ("relay", "node")))
    hello = make_hello(bob, connection.relay_nonce, [bytes.fromhex(given["issuer"])], given["now"])
    register = make_register(alice, hello, [b"credential"], connection.node_nonce, given["now"])
    record = Record(
        version=1,
        node=alice.identifier,
        seq=0,
        serial=5,
        created=given["now"],
        expires=given["now"] + 3600,
        relays=("ws://relay.example.com:4000",),
        agents=(ListedAgent("counter", "It counts.", (ListedMessage("Add", b"{}"),)),),
    )
    packet = bytes.fromhex(given["packet"])
    return {
        "HELLO": hello.hex(),
        "REGISTER": register.hex(),
        "WELCOME": make_welcome(bob, hello, register, Parameters()).hex(),
        "SEND": encode_frame(Send(bob.identifier, 0, 5, packet)).hex(),
        "STORE": encode_frame(Store(bob.identifier, 86_400, packet)).hex(),
        "STORED": encode_frame(Stored(stored_id(packet), None)).hex(),
        "FETCH": make_fetch(alice, connection, 0, 16).hex(),
        "ACK": make_ack(alice, connection, 1, [stored_id(packet)]).hex(),
        "PUBLISH": encode_frame(Publish(make_listing(alice, record, [b"credential"]))).hex(),
        "LOOKUP": encode_frame(Lookup(1, None, None, "Add")).hex(),
    }


SETS: dict[str, tuple[Callable[[Values], Values], Values]] = {
    "identity": (identity, {"now": NOW, "alice": ALICE, "bob": BOB, "agents": AGENTS.hex(), "agent": "counter"}),
    "session": (
        session,
        {
            "now": NOW,
            "alice": ALICE,
            "bob": BOB,
            "agents": AGENTS.hex(),
            "ephemerals": {"alice": "05" * 32, "bob": "16" * 32},
            "boots": {"alice": "06" * 16, "bob": "17" * 16},
            "indices": {"alice": 0x01020304, "bob": 0x05060708},
            "session numbers": {"alice": 1, "bob": 3},
            "presentations": [b"credential".hex()],
        },
    ),
    "sealed": (
        sealed,
        {
            "now": NOW,
            "alice": ALICE,
            "bob": BOB,
            "ephemeral": "05" * 32,
            "id": "07" * 16,
            "created": NOW,
            "expires": NOW + 86_400,
        },
    ),
    "relay": (
        relay,
        {
            "now": NOW,
            "alice": ALICE,
            "bob": BOB,
            "nonces": {"relay": "21" * 32, "node": "22" * 32},
            "issuer": "23" * 32,
            "packet": b"a packet".hex(),
        },
    ),
}


def main(folder: Path) -> None:
    """Write the vectors that are not there."""
    for name, (make, given) in SETS.items():
        file = folder / f"{name}.json"
        with file.open("x", encoding="utf-8") as stream:
            json.dump({"given": given, "made": make(given)}, stream, indent=2)
            stream.write("\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
