"""What a vault does over time: rotation, restored copies, prekeys, marks of anchors, and its agents."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from autonomy_trio.errors import HandshakeFailed, IdentityError, VaultError
from autonomy_trio.trust.delegates import verify_delegate
from autonomy_trio.trust.identity import (
    CHANGES_LIMIT,
    Change,
    History,
    derive_seed,
    make_history,
    verify_bundle,
    verify_history,
)
from autonomy_trio.trust.records import SigningKey, digest, sign_record, verify
from autonomy_trio.trust.vault import MARKS_LIMIT, Vault
from autonomy_trio.trust.vault_file import Recovery, encode_recovery
from autonomy_trio.trust.watcher import Mark, Watcher

NOW = 1_700_000_000.5
HOUR = 3600
DAY = 24 * HOUR
WEEK = 7 * DAY


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def in_memory() -> tuple[Vault, Recovery]:
    made = []

    def random(count: int) -> bytes:
        made.append(os.urandom(count))
        return made[-1]

    vault = Vault.in_memory(random=random)
    return vault, Recovery(1, vault.identifier, made[0])


def thiefs(history: History, recovery: Recovery) -> History:
    """What who stole the current key makes of a history: another change in place of the last."""
    seq = history.seq
    change = Change(1, seq, digest("h-prev", history.changes[-2].body), history.key, bytes(32))
    signed = sign_record(SigningKey(derive_seed(recovery.secret, seq)), "change", change)
    return verify_history([*history.changes[:-1], signed])


# Rotation


def test_the_owner_rotates_with_the_recovery_secret_and_keeps_the_identifier(home: Path) -> None:
    with Vault.open(home) as vault:
        before = verify_bundle(vault.bundle(NOW), NOW)
        vault.rotate(vault.read_recovery(), NOW)
        after = verify_bundle(vault.bundle(NOW), NOW)
    assert (after.identifier, after.seq) == (before.identifier, 1)
    assert after.history.changes[0] == before.history.changes[0]
    changed = {"key", "session_key", "signing_key", "prekeys"}
    assert all(getattr(before, name) != getattr(after, name) for name in changed)
    with Vault.open(home) as vault:
        assert verify_bundle(vault.bundle(NOW), NOW).history == after.history
        assert (vault.session_public, vault.signing_public) == (after.session_key, after.signing_key)


def test_a_thief_of_the_home_without_the_recovery_secret_cannot_rotate(home: Path) -> None:
    with Vault.open(home) as vault:
        genuine = vault.history
    (home / "recovery").unlink()
    with Vault.open(home) as stolen:
        with pytest.raises(VaultError, match=r"recovery secret is not in the home: .* --recovery FILE"):
            stolen.read_recovery()
        with pytest.raises(IdentityError, match="the recovery secret does not make the history"):
            stolen.rotate(Recovery(1, stolen.identifier, bytes(32)), NOW)
        current = stolen._keys.identity
    change = Change(1, 1, digest("h-prev", genuine.changes[0].body), current.public, bytes(32))
    with pytest.raises(IdentityError, match="did not promise"):
        verify_history([*genuine.changes, sign_record(current, "change", change)])


def test_after_a_rotation_the_thief_of_the_key_before_attests_nothing_to_who_saw_it() -> None:
    vault, recovery = in_memory()
    stolen = vault.bundle(NOW)
    watcher = Watcher()
    watcher.see(verify_bundle(stolen, NOW).history)
    vault.rotate(recovery, NOW)
    watcher.see(verify_bundle(vault.bundle(NOW), NOW).history)
    with pytest.raises(IdentityError, match="goes back to sequence 0"):
        watcher.see(verify_bundle(stolen, NOW).history)


def test_a_rotation_made_again_has_the_same_bytes_and_other_purpose_keys(home: Path, tmp_path: Path) -> None:
    Vault.open(home).close()
    shutil.copytree(home, tmp_path / "copy")
    rotated = []
    for each in (home, tmp_path / "copy"):
        with Vault.open(each) as vault:
            vault.rotate(vault.read_recovery(), NOW)
            rotated.append(vault)
    assert rotated[0].history == rotated[1].history
    assert rotated[0].session_public != rotated[1].session_public


def test_a_recovery_secret_is_read_from_where_it_was_moved(home: Path, tmp_path: Path, cheap_passphrases: None) -> None:
    with Vault.open(home, passphrase="a phrase") as vault:
        (home / "recovery").rename(tmp_path / "moved")
        vault.rotate(vault.read_recovery(tmp_path / "moved", "a phrase"), NOW)
        assert vault.seq == 1
        with pytest.raises(VaultError, match="missing cannot be read: No such file"):
            vault.read_recovery(tmp_path / "missing")
    with Vault.open(home, passphrase="a phrase") as vault:
        assert vault.seq == 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN AUTONOMY RECOVERY SECRET-----", bytes(2000)])
def test_a_file_that_holds_no_recovery_secret_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(VaultError, match="file holds no recovery secret: "):
        Vault.in_memory().read_recovery(tmp_path / "file")


def test_the_recovery_secret_of_another_identity_is_refused(tmp_path: Path) -> None:
    vault, _ = in_memory()
    other, theirs = in_memory()
    (tmp_path / "file").write_bytes(encode_recovery(theirs, None, os.urandom))
    with pytest.raises(VaultError, match=f"is that of I{other.identifier.hex()}, and this home is"):
        vault.rotate(vault.read_recovery(tmp_path / "file"), NOW)
    with pytest.raises(VaultError, match="is not in the home"):
        vault.read_recovery()


def test_a_rotation_the_disk_refuses_changes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with Vault.open(home) as vault:
        before = verify_bundle(vault.bundle(NOW), NOW)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(VaultError, match="No space left"):
                vault.rotate(vault.read_recovery(), NOW)
        assert verify_bundle(vault.bundle(NOW), NOW) == before
    with Vault.open(home) as vault:
        assert vault.seq == 0


def test_an_identity_is_rotated_until_its_bundle_is_full_and_then_told_so() -> None:
    vault, recovery = in_memory()
    for _ in range(40):
        vault.rotate(recovery, NOW)
    assert verify_bundle(vault.bundle(NOW), NOW).seq == 40

    def rotate_on() -> None:
        for _ in range(CHANGES_LIMIT):
            vault.rotate(recovery, NOW)

    with pytest.raises(IdentityError, match="too many for a bundle of 8192 bytes: start a new identity"):
        rotate_on()
    assert verify_bundle(vault.bundle(NOW), NOW).seq == vault.seq


def test_an_identity_is_never_rotated_past_its_longest_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autonomy_trio.trust.vault.CHANGES_LIMIT", 3)
    assert CHANGES_LIMIT == 64
    vault, recovery = in_memory()
    for _ in range(2):
        vault.rotate(recovery, NOW)
    with pytest.raises(IdentityError, match="as often as an identity can be: start a new one"):
        vault.rotate(recovery, NOW)


# Restored copies


def restored(home: Path, tmp_path: Path, rotations: int = 1) -> History:
    """Make a home, rotate it, and put the copy from before in its place; return the identity as the world knows it."""
    Vault.open(home).close()
    shutil.copytree(home, tmp_path / "backup")
    with Vault.open(home) as vault:
        for _ in range(rotations):
            vault.rotate(vault.read_recovery(), NOW)
        history = vault.history
    shutil.rmtree(home)
    shutil.copytree(tmp_path / "backup", home)
    return history


def test_a_restored_backup_asks_for_recovery_and_does_not_fork(home: Path, tmp_path: Path) -> None:
    world = restored(home, tmp_path, rotations=3)
    with Vault.open(home) as vault:
        assert vault.later_seq is None
        vault.bundle(NOW)
        vault.learn(world)
        assert vault.later_seq == 3
    with Vault.open(home) as vault:
        for use in (
            lambda: vault.bundle(NOW),
            lambda: vault.renew(NOW),
            lambda: vault.sign_as_identity("credential", b""),
            lambda: vault.introduce("counter", NOW),
        ):
            with pytest.raises(VaultError, match=r"rotated to sequence 3 elsewhere and is at 0 .*`identity rotate"):
                use()
        vault.rotate(vault.read_recovery(), NOW)
        assert vault.history == world
        assert vault.later_seq is None
        assert verify_bundle(vault.bundle(NOW), NOW).seq == 3
    with Vault.open(home) as vault:
        assert vault.history == world


def test_a_restored_backup_that_nobody_warned_makes_the_same_change_again(home: Path, tmp_path: Path) -> None:
    world = restored(home, tmp_path)
    watcher = Watcher()
    watcher.see(world)
    with Vault.open(home) as vault:
        vault.rotate(vault.read_recovery(), NOW)
        watcher.see(verify_bundle(vault.bundle(NOW), NOW).history)
    assert watcher.take_duplicities() == []


def test_a_node_shown_its_own_history_or_an_earlier_one_goes_on() -> None:
    vault, recovery = in_memory()
    vault.rotate(recovery, NOW)
    for seq in (0, 1):
        vault.learn(make_history(recovery.secret, seq))
    assert vault.later_seq is None
    assert verify_bundle(vault.bundle(NOW), NOW).seq == 1


def test_the_latest_of_later_histories_is_what_recovery_goes_to() -> None:
    vault, recovery = in_memory()
    for seq in (1, 4, 2):
        vault.learn(make_history(recovery.secret, seq))
    assert vault.later_seq == 4
    vault.rotate(recovery, NOW)
    assert vault.seq == 4


def test_a_node_shown_another_history_of_its_own_reports_it_and_goes_on() -> None:
    vault, recovery = in_memory()
    vault.rotate(recovery, NOW)
    with pytest.raises(IdentityError, match=r"its current key is in other hands: .* run `identity rotate`"):
        vault.learn(thiefs(vault.history, recovery))
    assert vault.later_seq is None
    vault.bundle(NOW)


def test_a_history_that_was_continued_by_a_thief_is_not_taken_for_ones_own(home: Path, tmp_path: Path) -> None:
    forged = thiefs(restored(home, tmp_path), _recovery_in(home))
    with Vault.open(home) as vault:
        vault.learn(forged)
        with pytest.raises(IdentityError, match="the recovery secret does not make the history"):
            vault.rotate(vault.read_recovery(), NOW)


def _recovery_in(home: Path) -> Recovery:
    with Vault.open(home) as vault:
        return vault.read_recovery()


def test_a_vault_learns_of_no_other_identity() -> None:
    with pytest.raises(ValueError, match="its own identity only"):
        Vault.in_memory().learn(make_history(bytes(32)))


# Prekeys


def test_a_prekey_is_attested_each_day_and_agrees_by_its_number() -> None:
    vault = Vault.in_memory()
    vault.renew(NOW)
    (first,) = verify_bundle(vault.bundle(NOW), NOW).prekeys
    assert vault.prekey(first.id) == first.key
    sender = bytes(range(32))
    expected = crypto_scalarmult(sender, first.key)
    assert vault.agree(crypto_scalarmult_base(sender), first.id) == expected
    assert vault.agree(crypto_scalarmult_base(sender)) != expected
    vault.renew(NOW + DAY - 1)
    assert verify_bundle(vault.bundle(NOW + DAY - 1), NOW + DAY).prekeys == (first,)
    vault.renew(NOW + DAY)
    (second,) = verify_bundle(vault.bundle(NOW + DAY), NOW + DAY).prekeys
    assert second.id == first.id + 1
    assert second.key != first.key
    assert vault.agree(crypto_scalarmult_base(sender), first.id) == expected


def renewed(vault: Vault, start: float, end: float) -> None:
    """Let time pass as a node does, and check at each step that what is attested holds."""
    now = start
    while now <= end:
        vault.renew(now)
        bundle = verify_bundle(vault.bundle(now), now)
        assert bundle.expires > now + WEEK / 2 - 1
        assert all(vault.prekey(prekey.id) == prekey.key for prekey in bundle.prekeys)
        now += HOUR


def test_a_prekeys_secret_is_kept_for_seven_days_and_an_hour_after_it_was_attested_last() -> None:
    vault = Vault.in_memory()
    vault.renew(NOW)
    vault.renew(NOW + DAY - 10)
    (first,) = verify_bundle(vault.bundle(NOW), NOW).prekeys
    renewed(vault, NOW + DAY, NOW + WEEK + HOUR - 1)
    assert vault.prekey(first.id) is not None
    vault.renew(NOW + WEEK + HOUR)
    assert vault.prekey(first.id) is None
    with pytest.raises(HandshakeFailed) as caught:
        vault.agree(crypto_scalarmult_base(bytes(range(32))), first.id)
    assert f"no prekey {first.id}" in caught.value.why


def test_whoever_was_shown_a_prekey_may_use_it_until_the_attestation_ends() -> None:
    vault = Vault.in_memory()
    shown = []
    for hour in range(24 * 20):
        now = NOW + hour * HOUR
        vault.renew(now)
        shown.append(verify_bundle(vault.bundle(now), now))
        for bundle in shown:
            if now < bundle.expires:
                assert vault.prekey(bundle.prekeys[0].id) == bundle.prekeys[0].key
    assert len(vault._keys.secrets.prekeys) <= 10


def test_after_a_long_absence_no_old_prekey_is_left(home: Path) -> None:
    with Vault.open(home) as vault:
        vault.renew(NOW)
        (first,) = verify_bundle(vault.bundle(NOW), NOW).prekeys
    with Vault.open(home) as vault:
        assert vault.prekey(first.id) == first.key
        vault.renew(NOW + 3 * WEEK)
        assert vault.prekey(first.id) is None


def test_what_is_attested_is_on_the_disk_before_it_is_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with Vault.open(home) as vault:
        vault.renew(NOW)
        before = verify_bundle(vault.bundle(NOW), NOW)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(VaultError, match="No space left"):
                vault.renew(NOW + DAY)
        assert verify_bundle(vault.bundle(NOW + DAY), NOW + DAY) == before
        # The disk is still full, and what is attested is half a life old: it is renewed with what there is.
        after = verify_bundle(vault.bundle(NOW + 4 * DAY), NOW + 4 * DAY)
        assert after.prekeys == before.prekeys
        assert after.expires == int(NOW + 4 * DAY) + WEEK
        vault.renew(NOW + 5 * DAY)
        assert verify_bundle(vault.bundle(NOW + 5 * DAY), NOW + 5 * DAY).prekeys != before.prekeys
        vault.renew(NOW + 11 * DAY)
        assert vault.prekey(before.prekeys[0].id) == before.prekeys[0].key


def test_renewing_writes_only_when_there_is_something_new(home: Path) -> None:
    with Vault.open(home) as vault:
        vault.renew(NOW)
        before = (home / "vault").stat().st_ino
        vault.renew(NOW + HOUR)
        assert (home / "vault").stat().st_ino == before


def test_a_restart_attests_anew_without_a_new_prekey(home: Path) -> None:
    bundles = []
    for hours in (0, 1):
        with Vault.open(home) as vault:
            vault.renew(NOW + hours * HOUR)
            bundles.append(verify_bundle(vault.bundle(NOW + hours * HOUR), NOW + hours * HOUR))
    assert bundles[0].prekeys == bundles[1].prekeys
    assert bundles[1].not_before == bundles[0].not_before + HOUR


def test_a_clock_that_jumps_about_leaves_few_prekeys_and_a_valid_bundle() -> None:
    vault = Vault.in_memory()
    for step in range(40):
        now = NOW + (step % 2) * 100 * WEEK + step
        vault.renew(now)
        assert verify_bundle(vault.bundle(now), now).prekeys
    assert len(vault._keys.secrets.prekeys) <= 16


# Anchors' marks


def doubted(number: int = 0) -> Mark:
    history = make_history(number.to_bytes(32, "big"))
    return Mark(history.identifier, 0, history.changes[0], history.changes[0])


def test_marks_of_anchors_are_there_at_the_next_start(home: Path) -> None:
    history = make_history(bytes(32), 2)
    with Vault.open(home) as vault:
        watcher = Watcher([history.identifier], vault.marks, remember=vault.remember)
        watcher.see(history)
    with Vault.open(home) as vault:
        watcher = Watcher([history.identifier], vault.marks, remember=vault.remember)
        with pytest.raises(IdentityError, match="goes back"):
            watcher.see(make_history(bytes(32), 1))


def test_forgiveness_is_for_who_needs_it_and_lasts(home: Path) -> None:
    mark = doubted()
    with Vault.open(home) as vault:
        vault.remember(doubted(1))
        vault.remember(mark)
        assert vault.forgive(mark.identifier) == msgspec.structs.replace(mark, is_forgiven=True)
        assert vault.forgive(mark.identifier) is None
        assert vault.forgive(bytes(32)) is None
    with Vault.open(home) as vault:
        assert [each.is_doubted for each in vault.marks] == [True, False]


def test_of_more_marks_than_a_vault_keeps_the_oldest_goes() -> None:
    vault = Vault.in_memory()
    change = make_history(bytes(32)).changes[0]
    vault._save(
        msgspec.structs.replace(
            vault._keys.secrets,
            marks=tuple(Mark(number.to_bytes(32, "big"), 0, change, change) for number in range(MARKS_LIMIT)),
        )
    )
    vault.remember(Mark(b"n" * 32, 0, change))
    assert len(vault.marks) == MARKS_LIMIT
    assert (vault.marks[0].identifier, vault.marks[-1].identifier) == ((1).to_bytes(32, "big"), b"n" * 32)


def test_a_vault_with_all_its_marks_is_written_and_read(home: Path) -> None:
    longest = make_history(bytes(32), 63)
    change = longest.changes[-1]
    mark = Mark(bytes(32), 0, longest.changes[0], change).after(longest, whole=True, now=NOW)
    with Vault.open(home) as vault:
        marks = tuple(
            msgspec.structs.replace(mark, identifier=number.to_bytes(32, "big")) for number in range(MARKS_LIMIT)
        )
        vault._save(msgspec.structs.replace(vault._keys.secrets, marks=marks))
    with Vault.open(home) as vault:
        assert vault.marks == marks


# Agents


def test_an_agents_identity_survives_a_restart_and_a_rotation_of_its_node(home: Path) -> None:
    found = []
    for rotations in (0, 0, 1):
        with Vault.open(home) as vault:
            if rotations:
                vault.rotate(vault.read_recovery(), NOW)
            shown = vault.introduce("counter", NOW)
            known = {"node": vault.identifier, "node_seq": rotations, "now": NOW}
            delegate = verify_delegate(shown.change, shown.delegate, **known)
            assert (delegate.agent, delegate.node_seq) == (shown.agent, rotations)
            found.append(shown)
    assert len({(each.agent, each.change.body) for each in found}) == 1


def test_agents_of_one_name_on_two_nodes_are_two() -> None:
    assert len({Vault.in_memory().introduce("counter", NOW).agent for _ in range(2)}) == 2


# What is read beside a node


def test_beside_a_node_nothing_is_written(home: Path) -> None:
    with Vault.open(home) as node, Vault.open_beside(home) as beside:
        node.renew(NOW)
        for use in (
            lambda: beside.renew(NOW),
            lambda: beside.remember(doubted()),
            lambda: beside.rotate(node.read_recovery(), NOW),
        ):
            with pytest.raises(VaultError, match="only read here, beside a node that uses it: stop that first"):
                use()
        assert verify(beside.history.key, "list", b"x", beside.sign_as_identity("list", b"x"))


def test_a_closed_vault_does_nothing_more() -> None:
    vault, recovery = in_memory()
    vault.close()
    for use in (
        lambda: vault.renew(NOW),
        lambda: vault.prekey(1),
        lambda: vault.introduce("counter", NOW),
        lambda: vault.learn(vault.history),
        lambda: vault.rotate(recovery, NOW),
        lambda: vault.forgive(bytes(32)),
        lambda: vault.marks,
        lambda: vault.later_seq,
    ):
        with pytest.raises(VaultError, match="is closed: open it again"):
            use()
