"""The credentials a node shows: those in its home, and those it is given."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, final

import attrs

from autonomy_trio.errors import CredentialError
from autonomy_trio.logs import get_log
from autonomy_trio.trust.credentials import from_text, read_presentation, to_text
from autonomy_trio.trust.records import format_identifier

FOLDER: Final = "credentials"
"""The folder of a home whose files are shown."""

_log = get_log()


@final
@attrs.define(eq=False)
class Wallet:
    """The credentials of one node, in the order they are shown."""

    subject: bytes
    home: Path | None
    _expires: dict[bytes, float] = attrs.field(factory=dict[bytes, float], repr=False)
    """When each credential ends, in Unix seconds."""

    def shown(self, now: float) -> Sequence[bytes]:
        """Return the credentials to show, the latest first, for only so many are."""
        return [encoded for encoded, expires in reversed(self._expires.items()) if now < expires]

    def load(self, files: Iterable[Path], now: float) -> None:
        """Read the files that were asked for, and those in the home.

        Raises:
            CredentialError: a file that was asked for cannot be shown. One in the home is only logged.
        """
        folder = None if self.home is None else self.home / FOLDER
        for file in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
            if not file.is_file():
                continue  # a pipe would be waited for
            try:
                self._add(file, now)
            except CredentialError as error:
                _log.warning("credential not shown", why=str(error))
        for file in files:
            self._add(file, now)

    def add(self, text: str, now: float) -> None:
        """Take a credential in, and keep it in the home where there is one.

        Raises:
            CredentialError: it cannot be shown by this node.
        """
        encoded = from_text(text)
        name = self._take(encoded, now, "the credential")
        if self.home is not None:
            folder = self.home / FOLDER
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(to_text(encoded), encoding="ascii")

    def _add(self, file: Path, now: float) -> None:
        try:
            text = file.read_text(encoding="ascii")
        except OSError as error:
            raise CredentialError(f"{file} cannot be read ({(error.strerror or str(error)).lower()})") from None
        except UnicodeDecodeError:
            raise CredentialError(f"{file} is no credential: it has characters that none has") from None
        try:
            encoded = from_text(text)
        except CredentialError as error:
            raise CredentialError(f"{file}: {error}") from None
        self._take(encoded, now, str(file))

    def _take(self, encoded: bytes, now: float, what: str) -> str:
        """Take a credential in, unless it would never count; return a name for its file."""
        try:
            credential = read_presentation(encoded)
        except CredentialError as error:
            raise CredentialError(f"{what}: {error}") from None
        if credential.subject != self.subject:
            subject, own = format_identifier(credential.subject), format_identifier(self.subject)
            raise CredentialError(
                f"{what} is about {subject}, and this home is {own}: have its issuer make one with --subject {own}"
            )
        if credential.expires <= now:
            raise CredentialError(
                f"{what} expired {now - credential.expires:,.0f} s ago: ask its issuer, "
                f"{format_identifier(credential.issuer)}, for a new one"
            )
        self._expires = {known: expires for known, expires in self._expires.items() if now < expires}
        self._expires[encoded] = credential.expires
        return credential.id.hex()
