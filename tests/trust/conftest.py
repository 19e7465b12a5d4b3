import pytest

from autonomy_trio.trust import protection


@pytest.fixture
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive keys from passphrases with the least work; what the work is for is libsodium's promise, not ours."""
    monkeypatch.setattr(protection, "OPERATIONS", 1)
    monkeypatch.setattr(protection, "MEMORY", 8)
