"""An authority at work: it issues, takes back and redeems, and has each of these on the disk before it answers."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

from attrs import define, field

from autonomy_trio.errors import CredentialError, VaultError
from autonomy_trio.trust.attributes import AttributeValue
from autonomy_trio.trust.credentials import (
    DEFAULT_VALIDITY,
    Presentation,
    encode_presentation,
    issue,
    read_presentation,
)
from autonomy_trio.trust.home import Home
from autonomy_trio.trust.ledger import Ledger, Redeemed, decode_ledger, encode_ledger, new_ledger
from autonomy_trio.trust.lists import DEFAULT_NEXT_UPDATE, sign_list
from autonomy_trio.trust.records import Signed, format_identifier
from autonomy_trio.trust.tickets import check_redeemer, verify_ticket
from autonomy_trio.trust.vault import Vault

LEDGER_NAME: Final = "ledger"
LEDGER_LOCK_NAME: Final = "ledger.lock"
RENEWALS_LIMIT: Final = 8
"""Most credentials of one subject that hold and say the same; so often can an answer be lost."""


@final
@define(eq=False)
class Authority:
    """An identity that says what is true of others, and remembers what it said.

    Attributes:
        vault: its keys.
        ledger: what it has issued and taken back.
    """

    vault: Vault
    ledger: Ledger
    _keep: Callable[[Ledger], None] = field(repr=False)
    """Returns when the ledger is on the disk; what it raises leaves everything as it was."""

    def issue(
        self,
        *,
        subject: bytes,
        subject_seq: int = 0,
        attributes: Mapping[str, AttributeValue],
        now: float,
        validity: int = DEFAULT_VALIDITY,
    ) -> bytes:
        """Issue a credential, as `credentials.issue` does, with the newest revocation list beside it.

        Returns:
            the encoded presentation, to hand to the subject.

        Raises:
            CredentialError: it cannot be issued, or there is no room to write it down.
            VaultError: the vault is closed, or the disk refuses.
        """
        encoded = issue(
            self.vault,
            subject=subject,
            subject_seq=subject_seq,
            attributes=attributes,
            now=now,
            validity=validity,
            revocations=self.ledger.newest_list,
        )
        self._change(self.ledger.with_issued(read_presentation(encoded).credential, now))
        return encoded

    def revoke(
        self,
        credentials: Iterable[bytes | Presentation] = (),
        *,
        least: Mapping[bytes, int] | None = None,
        now: float,
        next_update: int = DEFAULT_NEXT_UPDATE,
    ) -> Signed:
        """Take back credentials, and sign the next revocation list; with nothing to take back, sign it anew.

        Args:
            credentials: the ids of those written down here, or presentations of any that this authority has issued.
            least: for subjects the least sequence that still counts, which takes back all that was issued to earlier
                ones; for the authority itself, all that its earlier keys have signed.
            now: Unix seconds.
            next_update: seconds in which the next list is promised.

        Raises:
            CredentialError: a credential is not known here or of another issuer, a sequence cannot be, or the list is
                full. Nothing has changed then.
            VaultError: the vault is closed, or the disk refuses.
        """
        ledger = self.ledger
        for each in credentials:
            if isinstance(each, Presentation):
                ledger = self._with_presented(ledger, each, now)
            ledger = ledger.with_revoked([each.credential.id if isinstance(each, Presentation) else each])
        for subject, seq in (least or {}).items():
            if subject == self.vault.identifier and seq > self.vault.seq:
                raise CredentialError(
                    f"this authority is at sequence {self.vault.seq}, and with {seq} as the least nothing it says would"
                    " count: rotate it first"
                )
            ledger = ledger.with_least(subject, seq)
        signed = sign_list(
            self.vault,
            seq=ledger.list_seq + 1,
            credentials=ledger.revoked_ids(now),
            least=ledger.least,
            now=now,
            next_update=next_update,
        )
        self._change(ledger.with_list(signed))
        return signed

    def redeem(self, text: str, *, subject: bytes, subject_seq: int, now: float) -> bytes:
        """Redeem a ticket: whoever comes first gets the credential, and gets the same one when it asks again.

        Args:
            text: the ticket as it was shown.
            subject: the identifier that the one who shows it has proven in its session.
            subject_seq: the sequence number it has proven there.
            now: Unix seconds.

        Returns:
            the encoded presentation, to hand to the subject.

        Raises:
            CredentialError: the ticket does not hold, is another authority's, or another has redeemed it.
            VaultError: the vault is closed, or the disk refuses; the ticket can be redeemed still.
        """
        ticket = verify_ticket(text, now)
        if (ticket.issuer, ticket.bundle.seq) != (self.vault.identifier, self.vault.seq):
            raise CredentialError(
                f"the ticket is by {format_identifier(ticket.issuer)} at sequence {ticket.bundle.seq}, and this is"
                f" {format_identifier(self.vault.identifier)} at {self.vault.seq}: redeem it where it was made"
            )
        known = self.ledger.redeemed.get(ticket.id)
        if known is not None:
            check_redeemer(known, subject)
            return encode_presentation(known.credential, self.vault.history, self.ledger.newest_list)
        encoded = issue(
            self.vault,
            subject=subject,
            subject_seq=subject_seq,
            attributes=ticket.attributes,
            now=now,
            revocations=self.ledger.newest_list,
        )
        presentation = read_presentation(encoded)
        redeemed = Redeemed(ticket.id, subject, ticket.expires, presentation.signed)
        self._change(self.ledger.with_issued(presentation.credential, now).with_redeemed(redeemed, now))
        return encoded

    def renew(self, credential: bytes, *, subject: bytes, subject_seq: int, now: float) -> bytes:
        """Issue again what a credential said, to its subject: whatever is written down and not taken back is renewed.

        One that has expired is renewed too, for its subject may have been switched off meanwhile.

        Args:
            credential: the id of the earlier one.
            subject: the identifier that the one who asks has proven in its session.
            subject_seq: the sequence number it has proven there.
            now: Unix seconds.

        Returns:
            the encoded presentation, to hand to the subject.

        Raises:
            CredentialError: it is not known here, is another's, was taken back, or was renewed too often already.
            VaultError: the vault is closed, or the disk refuses.
        """
        known = self.ledger.issued.get(credential)
        name = format_identifier(subject)
        if known is None or known.subject != subject:
            raise CredentialError(f"{name} asks for a renewal of what this home has not issued to it: give it a ticket")
        least = max(known.subject_seq, self.ledger.least.get(subject, 0))
        if known.revoked or known.subject_seq < self.ledger.least.get(subject, 0) or subject_seq < least:
            raise CredentialError(f"{name} asks for a renewal of what was taken back")
        same = (each for each in self.ledger.issued.values() if each.subject == subject and each.expires > now)
        if sum(each.attributes == known.attributes for each in same) >= RENEWALS_LIMIT:
            raise CredentialError(
                f"{name} holds {RENEWALS_LIMIT} credentials that say the same: it gets no more until one has expired"
            )
        validity = known.expires - known.not_before
        return self.issue(subject=subject, subject_seq=subject_seq, attributes=known.values, now=now, validity=validity)

    def _with_presented(self, ledger: Ledger, presented: Presentation, now: float) -> Ledger:
        credential = presented.credential
        if credential.issuer != self.vault.identifier:
            raise CredentialError(
                f"the credential {credential.id.hex()} is by {format_identifier(credential.issuer)}, and only that can"
                " revoke it"
            )
        return ledger if credential.id in ledger.issued else ledger.with_issued(credential, now)

    def _change(self, ledger: Ledger) -> None:
        self._keep(ledger)
        self.ledger = ledger


@contextmanager
def open_authority(vault: Vault, home: Path) -> Generator[Authority]:
    """Work as an authority with the ledger in a home, which no other process changes meanwhile; a node may run there.

    Args:
        vault: the vault of that home.
        home: the folder.

    Raises:
        VaultError: another process has the ledger, or it is damaged, or another identity's.
    """
    folder = Home(home, create=False, lock_name=LEDGER_LOCK_NAME)
    try:
        yield Authority(vault, _read(folder, vault), lambda changed: folder.write(LEDGER_NAME, encode_ledger(changed)))
    finally:
        folder.close()


def read_ledger(vault: Vault, home: Path) -> Ledger:
    """Read the ledger in a home, beside whoever changes it.

    Raises:
        VaultError: it is damaged, or another identity's.
    """
    folder = Home(home, create=False, lock=False)
    try:
        return _read(folder, vault)
    finally:
        folder.close()


def _read(folder: Home, vault: Vault) -> Ledger:
    data, place = folder.read(LEDGER_NAME), folder.path / LEDGER_NAME
    if data is None:
        return new_ledger(vault.identifier)
    try:
        ledger = decode_ledger(data)
    except VaultError:
        raise VaultError(f"{place} is damaged: restore it from a copy") from None
    if ledger.issuer != vault.identifier:
        raise VaultError(
            f"{place} belongs to {format_identifier(ledger.issuer)}, and this home is"
            f" {format_identifier(vault.identifier)}: move it away"
        )
    return ledger
