"""The ledger: what an authority has issued and taken back, and the tickets that were redeemed with it.

It is a value, kept whole in one file of the authority's home: each change makes a new one, which is on the disk before
anybody is told. What has expired is kept for as long as there is room, for people to read.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

import msgspec
from attrs import evolve, frozen

from autonomy_trio.errors import CredentialError, VaultError
from autonomy_trio.trust.attributes import Attributes, AttributeValue, from_record, to_record
from autonomy_trio.trust.credentials import Credential
from autonomy_trio.trust.home import FILE_BYTES_LIMIT
from autonomy_trio.trust.identity import CHANGES_LIMIT
from autonomy_trio.trust.lists import CredentialId, IdentitySeq, LeastSeqs
from autonomy_trio.trust.records import Identifier, Seconds, Signed, decode_record, format_identifier

ISSUED_LIMIT: Final = 4096
"""Most credentials in a ledger."""
REDEEMED_LIMIT: Final = 256
"""Most tickets in a ledger: those redeemed that have not expired yet."""
TICKET_ID_BYTES: Final = 16
"""Random bytes that only the holder of a ticket knows."""
LISTED_AFTER_EXPIRY: Final = 3600
"""Seconds that a list still names a credential that has expired, for verifiers whose clock is slow."""

TicketId = Annotated[bytes, msgspec.Meta(min_length=TICKET_ID_BYTES, max_length=TICKET_ID_BYTES)]


class Issued(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A credential that an authority has issued."""

    id: CredentialId
    subject: Identifier
    subject_seq: IdentitySeq
    attributes: Attributes
    not_before: Seconds
    expires: Seconds
    revoked: bool

    @property
    def values(self) -> Mapping[str, AttributeValue]:
        """The attributes as values by name."""
        return from_record(self.attributes)


class Redeemed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A ticket that was redeemed, and the credential that answered it."""

    id: TicketId
    subject: Identifier
    expires: Seconds
    credential: Signed

    def __repr__(self) -> str:
        return f"Redeemed(subject={format_identifier(self.subject)})"


class _LedgerRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    issuer: Identifier
    issued: tuple[Issued, ...]
    least: LeastSeqs
    list_seq: Annotated[int, msgspec.Meta(ge=0)]
    newest_list: Signed | None
    redeemed: tuple[Redeemed, ...]


_LEDGER: Final = msgspec.msgpack.Decoder(_LedgerRecord)


@frozen
class Ledger:
    """What an authority has issued and taken back.

    Attributes:
        issuer: the authority's 32-byte identifier.
        issued: the credentials by id, in the order they were issued.
        least: the least sequence that counts, by the subject's identifier.
        list_seq: the number of the newest revocation list; 0 before the first.
        newest_list: that list.
        redeemed: the tickets that were redeemed, by id.
    """

    issuer: bytes
    issued: Mapping[bytes, Issued]
    least: Mapping[bytes, int]
    list_seq: int
    newest_list: Signed | None
    redeemed: Mapping[bytes, Redeemed]

    def with_issued(self, credential: Credential, now: float) -> "Ledger":
        """Write a credential down, in place of the one that expired first when there is no room.

        Raises:
            CredentialError: there is no room, and none has expired.
        """
        issued = dict(self.issued)
        if len(issued) >= ISSUED_LIMIT:
            first = min(issued.values(), key=lambda each: each.expires)
            if not _is_past(first, now):
                raise CredentialError(
                    f"this authority has {ISSUED_LIMIT:,} credentials that hold, and room for no more: wait until one"
                    " has expired, or give another home a part of the work"
                )
            del issued[first.id]
        issued[credential.id] = Issued(
            id=credential.id,
            subject=credential.subject,
            subject_seq=credential.subject_seq,
            attributes=to_record(credential.attributes),
            not_before=credential.not_before,
            expires=credential.expires,
            revoked=False,
        )
        return evolve(self, issued=issued)

    def with_revoked(self, ids: Iterable[bytes]) -> "Ledger":
        """Take back credentials that are written down here.

        Raises:
            CredentialError: one of them is not.
        """
        issued = dict(self.issued)
        for each in ids:
            if each not in issued:
                raise CredentialError(
                    f"no credential {each.hex()} is written down in this home: see `authority list`, or give the file"
                    " that holds it"
                )
            issued[each] = msgspec.structs.replace(issued[each], revoked=True)
        return evolve(self, issued=issued)

    def with_least(self, subject: bytes, seq: int) -> "Ledger":
        """Take back whatever was issued to the keys of a subject before a sequence, for good.

        Raises:
            CredentialError: the sequence is none that an identity can have, or is not past the one that counts now.
        """
        before = self.least.get(subject, 0)
        if not before < seq < CHANGES_LIMIT:
            raise CredentialError(
                f"the least sequence of {format_identifier(subject)} cannot become {seq}: it is {before}, only grows,"
                f" and ends at {CHANGES_LIMIT - 1}"
            )
        return evolve(self, least={**self.least, subject: seq})

    def with_list(self, signed: Signed) -> "Ledger":
        """Keep the newest revocation list, which was signed as number ``list_seq + 1``."""
        return evolve(self, list_seq=self.list_seq + 1, newest_list=signed)

    def with_redeemed(self, redeemed: Redeemed, now: float) -> "Ledger":
        """Keep who redeemed a ticket, for as long as the ticket holds.

        Raises:
            CredentialError: there is no room until some have expired.
        """
        kept = {key: each for key, each in self.redeemed.items() if each.expires > now}
        if len(kept) >= REDEEMED_LIMIT:
            raise CredentialError(
                f"{REDEEMED_LIMIT} tickets were redeemed in the last minutes, and there is room for no more: try again"
                " when some have expired"
            )
        return evolve(self, redeemed={**kept, redeemed.id: redeemed})

    def revoked_ids(self, now: float) -> frozenset[bytes]:
        """Return the ids that a list has to name now: those taken back that have not expired."""
        return frozenset(each.id for each in self.issued.values() if each.revoked and not _is_past(each, now))


def new_ledger(issuer: bytes) -> Ledger:
    """Return the ledger of an authority that has issued nothing."""
    return Ledger(issuer, {}, {}, 0, None, {})


def encode_ledger(ledger: Ledger) -> bytes:
    """Encode a ledger for its file.

    Raises:
        CredentialError: it is larger than a file in a home may be.
    """
    encoded = msgspec.msgpack.encode(
        _LedgerRecord(
            version=1,
            issuer=ledger.issuer,
            issued=tuple(ledger.issued.values()),
            least=tuple(ledger.least.items()),
            list_seq=ledger.list_seq,
            newest_list=ledger.newest_list,
            redeemed=tuple(ledger.redeemed.values()),
        )
    )
    if len(encoded) > FILE_BYTES_LIMIT:
        raise CredentialError(
            f"what this authority has issued takes more than {FILE_BYTES_LIMIT:,} bytes: issue credentials of fewer and"
            " shorter attributes, or give another home a part of the work"
        )
    return encoded


def decode_ledger(encoded: bytes) -> Ledger:
    """Read a ledger from its file.

    Raises:
        VaultError: it is damaged.
    """
    record = decode_record(_LEDGER, encoded, FILE_BYTES_LIMIT, "a ledger", VaultError)
    return Ledger(
        issuer=record.issuer,
        issued={each.id: each for each in record.issued},
        least=dict(record.least),
        list_seq=record.list_seq,
        newest_list=record.newest_list,
        redeemed={each.id: each for each in record.redeemed},
    )


def _is_past(issued: Issued, now: float) -> bool:
    return issued.expires + LISTED_AFTER_EXPIRY <= now
