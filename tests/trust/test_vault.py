import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from autonomy_trio.errors import HandshakeFailed, VaultError
from autonomy_trio.trust import protection
from autonomy_trio.trust.identity import make_history, verify_bundle
from autonomy_trio.trust.records import verify
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.vault_file import Recovery, decode_recovery, encode_vault

NOW = 1_700_000_000.5
WEEK = 7 * 24 * 3600


class Deterministic:
    """A random source that gives every call other bytes, the same in every test."""

    def __init__(self) -> None:
        self.made = []

    def __call__(self, count: int) -> bytes:
        self.made.append(bytes([len(self.made) + 65]) * count)
        return self.made[-1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def recovery_in(home: Path) -> Recovery:
    return decode_recovery(home / "recovery", (home / "recovery").read_bytes(), None)


# A home


def test_an_identity_is_born_at_first_opening_and_is_the_same_ever_after(home: Path) -> None:
    with Vault.open(home) as vault:
        born = vault
    for _ in range(2):
        with Vault.open(home, create=False) as vault:
            assert vault.identifier == born.identifier
            assert vault.history == born.history
            assert (vault.session_public, vault.signing_public) == (born.session_public, born.signing_public)


def test_two_homes_have_two_identities(tmp_path: Path) -> None:
    with Vault.open(tmp_path / "one") as one, Vault.open(tmp_path / "two") as two:
        assert one.identifier != two.identifier


def test_the_folder_has_mode_0700_and_the_files_0600(home: Path) -> None:
    Vault.open(home).close()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {
        "vault": 0o600,
        "recovery": 0o600,
        "vault.lock": 0o600,
    }


def test_the_recovery_secret_makes_the_identity_again_and_is_in_no_other_file(home: Path) -> None:
    with Vault.open(home) as vault:
        recovery = recovery_in(home)
        assert recovery.identifier == vault.identifier
        assert make_history(recovery.secret) == vault.history
        assert recovery.secret not in (home / "vault").read_bytes()


def test_a_home_works_without_its_recovery_secret(home: Path) -> None:
    with Vault.open(home) as vault:
        born = vault.identifier
    (home / "recovery").unlink()
    with Vault.open(home) as vault:
        assert vault.identifier == born
    assert not (home / "recovery").exists()


@pytest.mark.parametrize("name", ["vault", "recovery"])
def test_a_secret_file_open_to_others_is_refused_with_the_command_that_mends_it(home: Path, name: str) -> None:
    Vault.open(home).close()
    (home / name).chmod(0o644)
    with pytest.raises(VaultError, match=f"{name} is open to other users .mode 0644.: run `chmod 600 {home / name}`"):
        Vault.open(home)
    (home / name).chmod(0o600)
    Vault.open(home).close()


@pytest.mark.parametrize("name", ["vault", "recovery"])
def test_a_secret_file_that_is_a_symbolic_link_is_refused(home: Path, tmp_path: Path, name: str) -> None:
    Vault.open(home).close()
    (home / name).rename(tmp_path / name)
    (home / name).symlink_to(tmp_path / name)
    with pytest.raises(VaultError, match=f"{name} is a symbolic link"):
        Vault.open(home)


def test_a_home_is_open_once_at_a_time(home: Path) -> None:
    with Vault.open(home), pytest.raises(VaultError, match="in use already"):
        Vault.open(home)
    Vault.open(home).close()


def test_a_refused_opening_frees_the_home(home: Path) -> None:
    Vault.open(home).close()
    sound = (home / "vault").read_bytes()
    (home / "vault").write_bytes(b"")
    with pytest.raises(VaultError, match="damaged"):
        Vault.open(home)
    (home / "vault").write_bytes(sound)
    Vault.open(home).close()


def test_no_identity_is_born_where_none_was_asked_for(home: Path) -> None:
    with pytest.raises(VaultError, match="there is no home"):
        Vault.open(home, create=False)
    home.mkdir(mode=0o700)
    with pytest.raises(VaultError, match=f"there is no identity in {home} yet"):
        Vault.open(home, create=False)
    assert not (home / "vault").exists()


def test_a_home_with_a_recovery_secret_and_no_vault_is_refused_and_the_secret_is_kept(home: Path) -> None:
    Vault.open(home).close()
    (home / "vault").unlink()
    before = (home / "recovery").read_bytes()
    with pytest.raises(VaultError, match="has a recovery secret and no vault: restore"):
        Vault.open(home)
    assert (home / "recovery").read_bytes() == before


# Damage


def test_a_vault_with_any_bit_flipped_or_cut_off_anywhere_is_called_damaged(home: Path) -> None:
    Vault.open(home).close()
    sound = (home / "vault").read_bytes()
    for index in range(len(sound)):
        for wrong in (sound[:index], sound[:index] + bytes([sound[index] ^ 1 << index % 8]) + sound[index + 1 :]):
            (home / "vault").write_bytes(wrong)
            with pytest.raises(VaultError, match="vault is damaged: restore it from a copy"):
                Vault.open(home)


def test_a_vault_whose_parts_are_of_two_identities_is_called_damaged(home: Path, tmp_path: Path) -> None:
    with Vault.open(home) as vault:
        secrets = vault._keys.secrets
    other = Vault.in_memory().history.changes
    for wrong in ({"changes": other}, {"changes": ()}, {"seed": bytes(32)}, {"later": other[:1] * 2}):
        content = encode_vault(msgspec.structs.replace(secrets, **wrong), None, os.urandom)
        (home / "vault").write_bytes(content)
        with pytest.raises(VaultError, match="damaged"):
            Vault.open(home)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=500))
def test_a_vault_of_any_bytes_is_called_damaged(home: Path, data: bytes) -> None:
    if not home.exists():
        Vault.open(home).close()
    (home / "vault").write_bytes(data)
    with pytest.raises(VaultError, match="damaged"):
        Vault.open(home)


# Crashes


class Crash(BaseException):
    """The process is gone."""


def opened_with_a_crash_at_rename(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    calls = iter(range(number))
    real = os.replace

    def replace(*args: object, **kwargs: object) -> None:
        if next(calls, None) is None:
            raise Crash
        real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(Crash):
            Vault.open(home)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_birth_that_stops_before_the_vault_stands_begins_afresh(
    home: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    opened_with_a_crash_at_rename(home, monkeypatch, renames)
    assert not (home / "vault").exists()
    with Vault.open(home) as vault:
        assert recovery_in(home).identifier == vault.identifier
    assert {path.name for path in home.iterdir()} == {"vault", "recovery", "vault.lock"}


def test_a_birth_that_stops_after_the_vault_stands_is_finished(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_with_a_crash_at_rename(home, monkeypatch, 2)
    before = (home / "vault").read_bytes()
    with Vault.open(home) as vault:
        assert recovery_in(home).identifier == vault.identifier
    assert (home / "vault").read_bytes() == before
    assert {path.name for path in home.iterdir()} == {"vault", "recovery", "vault.lock"}


def test_a_process_that_is_killed_leaves_a_home_that_opens(home: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from autonomy_trio.trust.vault import Vault\n"
        "vault = Vault.open(Path(sys.argv[1])); print(vault.identifier.hex(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, home], capture_output=True, text=True, check=False)
    with Vault.open(home, create=False) as vault:
        assert vault.identifier.hex() == done.stdout.strip()


# What a vault does


def test_a_bundle_verifies_and_attests_the_purpose_keys_for_seven_days() -> None:
    vault = Vault.in_memory()
    bundle = verify_bundle(vault.bundle(NOW), NOW)
    assert bundle.history == vault.history
    assert (bundle.identifier, bundle.seq) == (vault.identifier, vault.seq)
    assert (bundle.session_key, bundle.signing_key) == (vault.session_public, vault.signing_public)
    assert bundle.prekeys == ()
    assert bundle.expires - bundle.not_before == WEEK
    assert bundle.not_before <= NOW


def test_a_bundle_is_renewed_when_past_half_of_its_life_and_not_before() -> None:
    vault = Vault.in_memory()
    first = vault.bundle(NOW)
    assert vault.bundle(NOW + WEEK / 2 - 1) is first
    second = vault.bundle(NOW + WEEK / 2 + 1)
    assert verify_bundle(second, NOW + WEEK).expires == int(NOW + WEEK / 2 + 1) + WEEK
    assert vault.bundle(NOW + WEEK) is second


def test_a_clock_that_was_set_back_renews_the_bundle() -> None:
    vault = Vault.in_memory()
    vault.bundle(NOW)
    assert verify_bundle(vault.bundle(NOW - 3600), NOW - 3600).not_before == int(NOW - 3600)


def test_the_two_kinds_of_signature_are_of_the_attested_key_and_of_the_identity() -> None:
    vault = Vault.in_memory()
    assert verify(vault.signing_public, "env", b"data", vault.sign("env", b"data"))
    assert verify(vault.history.key, "credential", b"data", vault.sign_as_identity("credential", b"data"))
    assert vault.signing_public != vault.history.key


def test_two_vaults_agree_on_one_secret() -> None:
    one, two = Vault.in_memory(), Vault.in_memory()
    assert one.agree(two.session_public) == two.agree(one.session_public)
    secret = bytes(range(32))
    assert one.agree(crypto_scalarmult_base(secret)) == crypto_scalarmult(secret, one.session_public)


LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("public", LOW_ORDER, ids=bytes.hex)
def test_agreeing_with_a_low_order_point_fails_the_handshake(public: bytes) -> None:
    with pytest.raises(HandshakeFailed) as caught:
        Vault.in_memory().agree(public)
    assert "low-order" in caught.value.why


@pytest.mark.parametrize("length", [0, 31, 33])
def test_agreeing_with_what_is_no_key_fails_the_handshake(length: int) -> None:
    with pytest.raises(HandshakeFailed) as caught:
        Vault.in_memory().agree(bytes(length))
    assert f"32 bytes, not {length}" in caught.value.why


def test_every_key_is_made_on_its_own() -> None:
    random = Deterministic()
    vault = Vault.in_memory(random=random)
    assert [len(made) for made in random.made] == [32] * 4
    assert vault.history == make_history(random.made[0])


def test_a_closed_vault_keeps_what_is_public_and_drops_the_keys(home: Path) -> None:
    for vault in (Vault.in_memory(), Vault.open(home)):
        vault.close()
        vault.close()
        assert vault.identifier == vault.history.identifier
        for use, arguments in (
            (vault.bundle, (NOW,)),
            (vault.sign, ("env", b"")),
            (vault.sign_as_identity, ("list", b"")),
            (vault.agree, (bytes(32),)),
        ):
            with pytest.raises(VaultError, match="is closed: open it again"):
                use(*arguments)


def test_no_secret_is_in_any_repr_or_error(home: Path) -> None:
    random = Deterministic()
    vault = Vault.open(home, random=random)
    vault.renew(NOW)
    with pytest.raises(VaultError) as in_use:
        Vault.open(home)
    keys = vault._keys
    shown = [vault, keys, keys.identity, keys.secrets, keys.secrets.prekeys, recovery_in(home), vault.history]
    secrets = [*random.made, keys.secrets.seed]
    vault.close()
    sound = (home / "vault").read_bytes()
    (home / "vault").write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(VaultError) as damaged:
        Vault.open(home)
    shown += [protection._FILE.decode(sound), in_use.value, damaged.value, damaged.value.__cause__]
    text = "\n".join(f"{thing!r} {thing}" for thing in shown)
    assert len(set(secrets)) == 6
    for secret in secrets:
        assert secret.hex() not in text
        assert repr(secret)[2:-1] not in text


def test_a_vault_says_whose_it_is_and_where(home: Path) -> None:
    with Vault.open(home) as vault:
        assert repr(vault) == f"<Vault of I{vault.identifier.hex()} in {home}>"
    assert repr(Vault.in_memory()).endswith(" in memory>")


def test_a_home_in_use_can_be_read_and_signed_with_beside_its_node(home: Path) -> None:
    with Vault.open(home) as node, Vault.open_beside(home) as beside:
        assert beside.identifier == node.identifier
        signature = beside.sign_as_identity("credential", b"what is signed")
        assert verify(node.history.key, "credential", b"what is signed", signature)
    Vault.open(home).close()


def test_opened_beside_nobody_an_identity_is_born_and_the_home_locked(home: Path) -> None:
    with Vault.open_beside(home), pytest.raises(VaultError, match="in use already"):
        Vault.open(home)


def test_opened_beside_a_node_the_modes_still_count(home: Path) -> None:
    Vault.open(home).close()
    (home / "vault").chmod(0o644)
    with pytest.raises(VaultError, match="chmod 600"):
        Vault.open_beside(home)
