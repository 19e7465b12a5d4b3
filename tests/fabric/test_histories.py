import os

import pytest
from structlog.testing import capture_logs

from autonomy_trio.errors import HandshakeFailed, IdentityError, VaultError
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.trust.identity import Change, derive_seed, make_history, verify_history
from autonomy_trio.trust.records import SigningKey, digest, sign_record
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.vault_file import Recovery
from autonomy_trio.trust.watcher import Watcher
from autonomy_trio.wire.handshake import Initiator, Own, Responder
from autonomy_trio.wire.packets import read_handshake

NOW = 1_800_000_000.0
SECRET = bytes(range(32))
GENUINE = make_history(SECRET, 1)


def forked() -> Change:
    seed = derive_seed(SECRET, 1)
    change = Change(1, 1, digest("h-prev", GENUINE.changes[0].body), SigningKey(seed).public, bytes(32))
    return verify_history([GENUINE.changes[0], sign_record(SigningKey(seed), "change", change)])


@pytest.mark.parametrize("see", [Histories.see, lambda histories, history: histories.see_issuer(history, NOW)])
def test_an_identity_with_two_histories_is_refused_and_reported_with_both(see: object) -> None:
    histories = Histories(Vault.in_memory(), Watcher())
    see(histories, GENUINE)
    with capture_logs() as logs, pytest.raises(IdentityError, match="two changes"):
        see(histories, forked())
    (line,) = logs
    assert line == {
        "event": "an identity has two histories: the one seen first stays",
        "log_level": "warning",
        "node": f"I{GENUINE.identifier.hex()}",
        "seq": 1,
        "kept": GENUINE.changes[1].body.hex(),
        "refused": forked().changes[1].body.hex(),
    }


def test_an_issuer_that_parts_from_what_only_hashes_were_kept_of_is_reported_with_the_change_refused() -> None:
    histories = Histories(Vault.in_memory(), Watcher())
    histories.see_issuer(make_history(SECRET, 2), NOW)
    with capture_logs() as logs, pytest.raises(IdentityError, match="two changes of sequence 1"):
        histories.see_issuer(forked(), NOW)
    (line,) = logs
    assert (line["kept"], line["refused"]) == (None, forked().changes[1].body.hex())


def test_a_peer_may_not_go_back_and_an_issuer_may() -> None:
    histories = Histories(Vault.in_memory(), Watcher())
    histories.see_issuer(GENUINE, NOW)
    histories.see(GENUINE)
    histories.see_issuer(make_history(SECRET), NOW)
    with pytest.raises(IdentityError, match="goes back"):
        histories.see(make_history(SECRET))


def test_a_node_shown_a_later_history_of_its_own_in_a_handshake_asks_for_recovery() -> None:
    older = Vault.in_memory(random=lambda size: SECRET[:size])
    newer = Vault.in_memory(random=lambda size: SECRET[:size])
    newer.rotate(Recovery(1, newer.identifier, SECRET), NOW)
    own = Own(older, b"b" * 16, os.urandom, Histories(older, Watcher()).see)
    initiator = Initiator(Own(newer, b"b" * 16, os.urandom), older.identifier, 1)
    responder = Responder(own, read_handshake(initiator.packet), 2, NOW)
    _, third = initiator.finish(read_handshake(responder.packet), (), NOW)
    with capture_logs() as logs, pytest.raises(HandshakeFailed) as caught:
        responder.finish(read_handshake(third), NOW)
    assert "this node's own identity" in caught.value.why
    assert [(line["log_level"], line["seq"]) for line in logs] == [("error", 1)]
    assert "copy from before: run `identity rotate`" in logs[0]["event"]
    with pytest.raises(VaultError, match="rotated to sequence 1 elsewhere"):
        older.bundle(NOW)


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_a_handshake_with_a_history_that_does_not_count_is_refused(side: str) -> None:
    def refuse(_: object) -> None:
        raise IdentityError("seen otherwise")

    sees = {side: refuse}
    initiating, responding = (
        Own(Vault.in_memory(), b"b" * 16, os.urandom, sees.get(each, lambda _: None))
        for each in ("initiator", "responder")
    )
    initiator = Initiator(initiating, responding.vault.identifier, 1)
    responder = Responder(responding, read_handshake(initiator.packet), 2, NOW)

    def finish() -> None:
        _, third = initiator.finish(read_handshake(responder.packet), (), NOW)
        responder.finish(read_handshake(third), NOW)

    with pytest.raises(HandshakeFailed) as caught:
        finish()
    assert caught.value.why == "seen otherwise"


def test_a_second_history_of_the_nodes_own_is_an_error_in_its_log() -> None:
    vault = Vault.in_memory(random=lambda size: SECRET[:size])
    vault.rotate(Recovery(1, vault.identifier, SECRET), NOW)
    histories = Histories(vault, Watcher())
    histories.see(vault.history)
    for see in (histories.see, lambda history: histories.see_issuer(history, NOW)):
        with capture_logs() as logs, pytest.raises(IdentityError, match="its current key is in other hands"):
            see(forked())
        assert [line["log_level"] for line in logs] == ["error"]
        assert "in other hands" in logs[0]["why"]
