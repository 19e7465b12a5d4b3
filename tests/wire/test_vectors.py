"""The frozen vectors are the protocol: bytes that change here are bytes that older nodes do not understand."""

import json
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_decrypt
from noise.connection import Keypair, NoiseConnection

from autonomy_trio.trust.delegates import verify_delegate
from autonomy_trio.trust.identity import verify_bundle
from autonomy_trio.trust.records import Signed, verify
from autonomy_trio.wire.directory import verify_listing
from autonomy_trio.wire.entries import Presentations, Tell
from autonomy_trio.wire.frames import Publish, decode_frame
from autonomy_trio.wire.mailbox import Connection, verify_ack, verify_fetch
from autonomy_trio.wire.packets import read_sealed
from autonomy_trio.wire.registration import verify_hello, verify_register, verify_welcome
from autonomy_trio.wire.sealed import Stamp, open_sealed
from tests.support.vectors import SETS, FixedKeys, main

FOLDER = Path(__file__).parents[1] / "vectors"

# Of each file, so that it is never made anew in passing.
FROZEN = {
    "identity": "44dc0213cf5cd45a4a8cf0980c2bebea597526bdef92d71d273cac50e0492e85",
    "relay": "2251ea2b42f830c6a08a0e411101667f959f7440ef233ceb4611239d5e321442",
    "sealed": "238d91bb61ddea1380c7053ea99b03b02a8d9d5ea9b26a584e37b109737813af",
    "session": "6472f819fc69b9f8490fc2cce54777131fa5cc2a6aea0ec1934ceca5e5345d22",
}


def load(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    values = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return values["given"], values["made"]


def test_the_vectors_are_the_frozen_ones() -> None:
    found = {file.stem: sha256(file.read_bytes()).hexdigest() for file in FOLDER.glob("*.json")}
    assert found == FROZEN


def test_vectors_are_never_written_over() -> None:
    with pytest.raises(FileExistsError):
        main(FOLDER)


@pytest.mark.parametrize("name", SETS)
def test_this_program_makes_the_frozen_bytes(name: str) -> None:
    given, made = load(name)
    make, _ = SETS[name]
    assert make(given) == made


def test_identities_verify() -> None:
    given, made = load("identity")
    for name in ("alice", "bob"):
        bundle = verify_bundle(bytes.fromhex(made[name]["bundle"]), given["now"])
        assert bundle.identifier.hex() == made[name]["identifier"]
        assert bundle.seq == given[name]["seq"]
    change, delegate = (
        Signed(bytes.fromhex(made["agent"][part]["body"]), bytes.fromhex(made["agent"][part]["signature"]))
        for part in ("change", "delegate")
    )
    node = bytes.fromhex(made["alice"]["identifier"])
    found = verify_delegate(change, delegate, node=node, node_seq=0, now=given["now"])
    assert found.agent.hex() == made["agent"]["identifier"]


def test_an_independent_noise_finishes_the_handshake_and_opens_what_follows() -> None:
    given, made = load("session")
    alice, bob = FixedKeys.read(given["alice"]), FixedKeys.read(given["bob"])
    sides = {}
    for name, keys in (("alice", alice), ("bob", bob)):
        side = NoiseConnection.from_name(b"Noise_XX_25519_ChaChaPoly_BLAKE2s")
        side.set_prologue(b"autonomy/1\x00\x01" + bob.identifier)
        side.set_keypair_from_private_bytes(Keypair.STATIC, keys.session)
        side.set_keypair_from_private_bytes(Keypair.EPHEMERAL, bytes.fromhex(given["ephemerals"][name]))
        sides[name] = side
    sides["alice"].set_as_initiator()
    sides["bob"].set_as_responder()
    first, second, third = (bytes.fromhex(made[name])[12:] for name in ("XX1", "XX2", "XX3"))
    for side in sides.values():
        with pytest.warns(UserWarning, match="ephemeral keypairs is already set"):
            side.start_handshake()
    assert bytes(sides["alice"].write_message()) == first
    assert sides["bob"].read_message(first) == b""
    payload = bytes(sides["alice"].read_message(second))
    assert bytes(sides["bob"].write_message(payload)) == second
    check_payload(payload, bob, given)
    payload = bytes(sides["bob"].read_message(third))
    assert bytes(sides["alice"].write_message(payload)) == third
    check_payload(payload, alice, given)
    assert sides["alice"].get_handshake_hash().hex() == made["session id"]

    for name, who, to in (("alice", alice, bob), ("bob", bob, alice)):
        packet = bytes.fromhex(made[f"data from {name}"])
        key = bytes.fromhex(made[f"key of what {name} sends"])
        nonce = bytes(4) + packet[8:16][::-1]
        assert int.from_bytes(packet[8:16], "big") >> 32 == given["session numbers"][name]
        plaintext = crypto_aead_chacha20poly1305_ietf_decrypt(packet[16:], packet[:16], nonce, key)
        body = bytes.fromhex(made[f"body from {name}"])
        assert plaintext[64:68] + plaintext[68 : 68 + len(body)] == len(body).to_bytes(4, "big") + body
        assert not any(plaintext[68 + len(body) :])
        signed = b"".join(
            (
                bytes.fromhex(made["session id"]),
                who.identifier,
                to.identifier,
                b"\x01" if name == "alice" else b"\x02",
                packet[:16],
                blake2b(b"autonomy/1/h-body\x00" + body, digest_size=32).digest(),
            )
        )
        signing_key = verify_bundle(who.bundle(given["now"]), given["now"]).signing_key
        assert verify(signing_key, "env", signed, plaintext[:64])


def check_payload(payload: bytes, keys: FixedKeys, given: dict[str, Any]) -> None:
    bundle, boot, index, time, limits, presentations, _ = msgspec.msgpack.decode(payload)
    name = "alice" if keys.seq == 0 else "bob"
    assert verify_bundle(bundle, given["now"]).identifier == keys.identifier
    assert (boot.hex(), index, time) == (given["boots"][name], given["indices"][name], given["now"])
    assert limits == [160 * 1024, 128 * 1024, 256]
    assert [each.hex() for each in presentations] == (given["presentations"] if name == "alice" else [])


def test_the_sealed_envelope_opens() -> None:
    given, made = load("sealed")
    packet = read_sealed(bytes.fromhex(made["packet"]))
    opened = open_sealed(packet, FixedKeys.read(given["bob"]), given["now"] + 3600)
    assert opened.sender.identifier == FixedKeys.read(given["alice"]).identifier
    assert opened.stamp == Stamp(bytes.fromhex(given["id"]), given["created"], given["expires"])
    assert opened.entries == (Presentations((b"credential",)), Tell("counter", "Add", b"\x81\xa6amount\x03", 0, 0))


def test_the_frames_verify() -> None:
    given, made = load("relay")
    frames = {name: bytes.fromhex(frame) for name, frame in made.items()}
    connection = Connection(*(bytes.fromhex(given["nonces"][name]) for name in ("relay", "node")))
    _, relay = verify_hello(frames["HELLO"], given["now"])
    register, node = verify_register(frames["REGISTER"], frames["HELLO"], given["now"])
    verify_welcome(frames["WELCOME"], frames["HELLO"], frames["REGISTER"], relay)
    assert register.presentations == (b"credential",)
    assert verify_fetch(frames["FETCH"], connection, node, -1).unacknowledged == 16
    assert len(verify_ack(frames["ACK"], connection, node, 0).ids) == 1
    published = decode_frame(frames["PUBLISH"])
    assert isinstance(published, Publish)
    assert verify_listing(published.listing, given["now"]).record.serial == 5
