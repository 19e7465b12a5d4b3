import os
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from autonomy_trio.errors import VaultError
from autonomy_trio.trust import protection
from autonomy_trio.trust.protection import Derivation, FileKey, decode_file, encode_file, is_protected, make_file_key
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.vault_file import decode_recovery

LIMIT = 10_000
NOW = 1_700_000_000.5
PHRASE = "correct horse battery staple"


@pytest.fixture
def key(cheap_passphrases: None) -> FileKey:
    return make_file_key(PHRASE, os.urandom)


def opened(data: bytes, passphrase: str | None = PHRASE) -> bytes:
    return decode_file("vault", data, LIMIT, passphrase, "the file")[0]


# The file


def test_a_file_under_a_passphrase_opens_with_it_and_with_no_other(key: FileKey) -> None:
    data = encode_file("vault", b"secret" * 10, key, os.urandom)
    assert b"secret" not in data
    assert is_protected(data, LIMIT)
    content, again = decode_file("vault", data, LIMIT, PHRASE, "the file")
    assert (content, again) == (b"secret" * 10, key)
    for wrong in (PHRASE + " ", PHRASE.upper(), "x"):
        with pytest.raises(VaultError, match="the file does not open: the passphrase is another, or the file is"):
            opened(data, wrong)


def test_a_file_under_a_passphrase_says_how_to_give_it(key: FileKey) -> None:
    data = encode_file("vault", b"secret", key, os.urandom)
    with pytest.raises(VaultError, match=r"under a passphrase: set \$AUTONOMY_PASSPHRASE, name a file with"):
        opened(data, None)


def test_it_is_argon2id_and_xchacha20poly1305_with_the_header_as_associated_data(key: FileKey) -> None:
    header, body = msgspec.msgpack.decode(encode_file("vault", b"secret", key, os.urandom))
    version, kind, (salt, operations, memory), nonce = msgspec.msgpack.decode(header)
    assert (version, kind) == (1, "vault")
    secret = argon2id.kdf(32, PHRASE.encode(), salt, opslimit=operations, memlimit=memory * 1024)
    assert crypto_aead_xchacha20poly1305_ietf_decrypt(body, header, nonce, secret) == b"secret"


def test_a_passphrase_costs_256_mib_and_three_passes() -> None:
    assert (protection.OPERATIONS, protection.MEMORY) == (3, 256 * 1024)


def test_each_writing_has_a_nonce_of_its_own(key: FileKey) -> None:
    assert encode_file("vault", b"secret", key, os.urandom) != encode_file("vault", b"secret", key, os.urandom)


def test_a_protected_file_with_any_bit_flipped_or_cut_off_anywhere_does_not_open(
    key: FileKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protection, "MEMORY_LIMIT", 8)
    data = encode_file("vault", b"secret", key, os.urandom)
    for index in range(len(data)):
        for wrong in (data[:index], data[:index] + bytes([data[index] ^ 1 << index % 8]) + data[index + 1 :]):
            if _memory(wrong) <= 1024:
                with pytest.raises(VaultError, match=r"the file (is damaged|does not open)"):
                    opened(wrong)


def _memory(data: bytes) -> int:
    """What a damaged file asks for, in KiB; the bound on that has a test of its own."""
    try:
        return protection._read_header(data, LIMIT)[1].derivation.memory
    except (VaultError, AttributeError):
        return 0


@pytest.mark.parametrize("derivation", [[bytes(16), 17, 8], [bytes(16), 1, 1024 * 1024 + 1], [bytes(16), 0, 8]])
def test_a_damaged_header_cannot_ask_for_more_work_than_is_allowed(derivation: list[object]) -> None:
    header = msgspec.msgpack.encode([1, "vault", derivation, bytes(24)])
    with pytest.raises(VaultError, match="the file is damaged"):
        opened(msgspec.msgpack.encode([header, bytes(40)]))


def test_a_file_of_another_kind_is_refused_whether_protected_or_not(key: FileKey) -> None:
    for each in (key, None):
        data = encode_file("recovery", b"secret", each, os.urandom)
        with pytest.raises(VaultError, match="of the kind 'recovery' and not 'vault'"):
            opened(data)


def test_a_file_without_a_passphrase_opens_whatever_is_given() -> None:
    data = encode_file("vault", b"secret", None, os.urandom)
    assert not is_protected(data, LIMIT)
    assert decode_file("vault", data, LIMIT, PHRASE, "the file") == (b"secret", None)


def test_what_is_no_file_of_secrets_is_not_protected() -> None:
    assert not is_protected(b"", LIMIT)
    assert not is_protected(bytes(LIMIT + 1), LIMIT)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_raise_the_one_error(data: bytes) -> None:
    with pytest.raises(VaultError):
        opened(data)


def test_an_empty_passphrase_is_refused(cheap_passphrases: None) -> None:
    with pytest.raises(VaultError, match="the passphrase is empty"):
        make_file_key("", os.urandom)


def test_a_passphrase_counts_however_its_letters_are_composed(cheap_passphrases: None) -> None:
    data = encode_file("vault", b"secret", make_file_key("Zürich \udc80", os.urandom), os.urandom)
    assert opened(data, "Zu\u0308rich \udc80") == b"secret"


def test_too_little_memory_is_said(key: FileKey, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise CryptoError("Unexpected failure in key derivation")

    monkeypatch.setattr(argon2id, "kdf", fail)
    monkeypatch.setattr(protection, "MEMORY", 256 * 1024)
    with pytest.raises(VaultError, match="needs 256 MiB of memory, which are not there"):
        make_file_key(PHRASE, os.urandom)


def test_the_repr_of_a_key_shows_no_secret(key: FileKey) -> None:
    assert repr(key) == f"FileKey(derivation={key.derivation!r})"
    assert isinstance(key.derivation, Derivation)


# The home


@pytest.fixture
def home(tmp_path: Path, cheap_passphrases: None) -> Path:
    return tmp_path / "home"


def test_a_home_born_with_a_passphrase_opens_with_it_alone(home: Path) -> None:
    with Vault.open(home, passphrase=PHRASE) as vault:
        born = vault.identifier
        vault.renew(NOW)
    assert Vault.is_protected(home)
    with Vault.open(home, create=False, passphrase=PHRASE) as vault:
        assert vault.identifier == born
    with Vault.open_beside(home, passphrase=PHRASE) as vault:
        assert vault.identifier == born
    for wrong, words in ((None, "is under a passphrase"), ("wrong", "does not open")):
        for opening in (Vault.open, Vault.open_beside):
            with pytest.raises(VaultError, match=f"{home / 'vault'} {words}"):
                opening(home, passphrase=wrong)


def test_no_secret_of_a_protected_home_is_readable_on_the_disk(home: Path) -> None:
    with Vault.open(home, passphrase=PHRASE) as vault:
        vault.renew(NOW)
        secrets = vault._keys.secrets
        recovery = vault.read_recovery(passphrase=PHRASE)
    made = [secrets.seed, secrets.agents, secrets.session, secrets.signing, secrets.prekeys[0].secret, recovery.secret]
    text = b"".join(file.read_bytes() for file in home.iterdir())
    assert not any(secret in text for secret in made)
    with pytest.raises(VaultError, match="recovery is under a passphrase"):
        decode_recovery(home / "recovery", (home / "recovery").read_bytes(), None)


def test_a_passphrase_given_to_a_home_without_protects_it_from_then_on(home: Path) -> None:
    with Vault.open(home) as vault:
        born = vault.identifier
        recovery = vault.read_recovery()
    assert not Vault.is_protected(home)
    with Vault.open_beside(home, passphrase=PHRASE) as vault:
        assert vault.identifier == born
    assert not Vault.is_protected(home)
    with Vault.open(home, passphrase=PHRASE) as vault:
        assert vault.identifier == born
        assert vault.read_recovery(passphrase=PHRASE) == recovery
    assert Vault.is_protected(home)
    with pytest.raises(VaultError, match="under a passphrase"):
        Vault.open(home)
    assert {stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()} == {0o600}


def test_a_home_whose_recovery_secret_was_moved_away_can_be_protected(home: Path) -> None:
    Vault.open(home).close()
    (home / "recovery").unlink()
    Vault.open(home, passphrase=PHRASE).close()
    assert Vault.is_protected(home)
    assert not (home / "recovery").exists()


def test_protecting_a_home_that_was_interrupted_is_finished(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Vault.open(home).close()
    before = (home / "vault").read_bytes()
    Vault.open(home, passphrase=PHRASE).close()
    recovery = (home / "recovery").read_bytes()
    (home / "vault").write_bytes(before)
    Vault.open(home, passphrase=PHRASE).close()
    assert Vault.is_protected(home)
    assert (home / "recovery").read_bytes() == recovery


def test_a_home_without_a_vault_is_not_protected(tmp_path: Path) -> None:
    assert not Vault.is_protected(tmp_path / "none")


def test_a_passphrase_of_the_real_cost_works(tmp_path: Path) -> None:
    with Vault.open(tmp_path / "home", passphrase=PHRASE) as vault:
        born = vault.identifier
    with Vault.open(tmp_path / "home", passphrase=PHRASE) as vault:
        assert vault.identifier == born
