"""Tickets: how a machine that an authority has never heard of gets its first credential.

A ticket is made on the authority's machine and carried over by hand, as text. It says where the authority is reached
and who it is, so whoever redeems it cannot be led elsewhere, and what is true of the one who redeems it first, within
ten minutes. Whoever holds it until then can redeem it, so it is handed over as a password is.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal

import msgspec
import nacl.utils
from attrs import field, frozen

from autonomy_trio.errors import CredentialError, IdentityError
from autonomy_trio.trust.attributes import Attributes, AttributeValue, from_record, to_record
from autonomy_trio.trust.identity import NOT_BEFORE_LEEWAY, Bundle, verify_bundle
from autonomy_trio.trust.ledger import TICKET_ID_BYTES, Redeemed, TicketId
from autonomy_trio.trust.lists import IdentitySeq
from autonomy_trio.trust.records import Identifier, Seconds, Signed, decode_record, format_identifier, verify
from autonomy_trio.trust.vault import Vault

TICKET_LIFE: Final = 600
"""Seconds that a ticket holds."""
TICKET_BODY_BYTES_LIMIT: Final = 4000
"""Most bytes of a ticket without its signature and the authority's bundle: its attributes fit a credential."""
TICKET_BYTES_LIMIT: Final = 13 * 1024
"""Most bytes of a ticket."""
RELAY_CHARACTERS: Final = 512
"""Most characters of a relay's address."""
TEXT_PREFIX: Final = "ticket-"


class _TicketRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    issuer: Identifier
    issuer_seq: IdentitySeq
    id: TicketId
    relay: Annotated[str, msgspec.Meta(min_length=1, max_length=RELAY_CHARACTERS)]
    attributes: Attributes
    not_before: Seconds
    expires: Seconds


class _TicketFile(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    bundle: bytes
    ticket: Signed


_TICKET: Final = msgspec.msgpack.Decoder(_TicketRecord)
_TICKET_FILE: Final = msgspec.msgpack.Decoder(_TicketFile)


@frozen
class Ticket:
    """What an authority promises to whoever redeems it first.

    Attributes:
        bundle: who the authority is, verified.
        id: 16 random bytes that only its holder knows.
        relay: the address of the relay where the authority is reached.
        attributes: what the credential will say, by name.
        not_before: Unix seconds from which it holds.
        expires: Unix seconds from which it no longer holds.
    """

    bundle: Bundle = field(repr=False)
    id: bytes = field(repr=False)
    relay: str
    attributes: Mapping[str, AttributeValue]
    not_before: int
    expires: int

    @property
    def issuer(self) -> bytes:
        """The authority's 32-byte identifier."""
        return self.bundle.identifier


def make_ticket(
    vault: Vault,
    *,
    relay: str,
    attributes: Mapping[str, AttributeValue],
    now: float,
    random: Callable[[int], bytes] = nacl.utils.random,
) -> str:
    """Make a ticket with the identity of a vault.

    Args:
        vault: the authority's vault.
        relay: the address of the relay where it is reached.
        attributes: what the credential will say, by name.
        now: Unix seconds from which it holds, for ten minutes.
        random: the system's random source, unless a test replaces it.

    Returns:
        the text to carry to the other machine, on one line.

    Raises:
        CredentialError: a name, a value or the relay cannot stand in a ticket.
        VaultError: the vault is closed.
    """
    try:
        record = to_record(attributes)
    except ValueError as exc:
        raise CredentialError(f"the ticket cannot be made: {exc}") from None
    body = msgspec.msgpack.encode(
        _TicketRecord(
            version=1,
            issuer=vault.identifier,
            issuer_seq=vault.seq,
            id=random(TICKET_ID_BYTES),
            relay=relay,
            attributes=record,
            not_before=int(now),
            expires=int(now) + TICKET_LIFE,
        )
    )
    signed = Signed(body, vault.sign_as_identity("ticket", body))
    encoded = msgspec.msgpack.encode(_TicketFile(vault.bundle(now), signed))
    text = TEXT_PREFIX + base64.urlsafe_b64encode(encoded).decode("ascii").rstrip("=")
    # What others would refuse is refused here, where it can be mended.
    verify_ticket(text, now)
    return text


def verify_ticket(text: str, now: float) -> Ticket:
    """Read a ticket and verify that the authority it names has signed it, and that it holds.

    Args:
        text: the ticket; line breaks that came in on the way are ignored.
        now: Unix seconds.

    Raises:
        CredentialError: it is damaged or forged, or does not hold now.
    """
    record = decode_record(_TICKET_FILE, _from_text(text), TICKET_BYTES_LIMIT, "a ticket", CredentialError)
    signed = record.ticket
    content = decode_record(_TICKET, signed.body, TICKET_BODY_BYTES_LIMIT, "a ticket", CredentialError)
    try:
        bundle = verify_bundle(record.bundle, now)
        attributes = from_record(content.attributes)
    except (IdentityError, ValueError) as exc:
        raise CredentialError(f"the ticket cannot be accepted: {exc}") from None
    issuer = format_identifier(bundle.identifier)
    if (content.issuer, content.issuer_seq) != (bundle.identifier, bundle.seq):
        raise CredentialError(f"the ticket is not by {issuer}, whose bundle came with it, or by another of its keys")
    if not verify(bundle.key, "ticket", signed.body, signed.signature):
        raise CredentialError(f"the ticket is not signed by {issuer}, whom it names")
    if not 0 < content.expires - content.not_before <= TICKET_LIFE:
        raise CredentialError(f"a ticket holds for at most {TICKET_LIFE} s, and this one would hold for another time")
    if content.not_before > now + NOT_BEFORE_LEEWAY:
        raise CredentialError(f"the ticket of {issuer} begins in {content.not_before - now:,.0f} s: set the clocks")
    if content.expires <= now:
        raise CredentialError(f"the ticket of {issuer} expired {now - content.expires:,.0f} s ago: ask for a new one")
    return Ticket(bundle, content.id, content.relay, attributes, content.not_before, content.expires)


def check_redeemer(redeemed: Redeemed, subject: bytes) -> None:
    """Refuse a ticket to all but the one who redeemed it first.

    Raises:
        CredentialError: another has; the text is for the authority's log, since one of the two stole the ticket.
    """
    if redeemed.subject != subject:
        raise CredentialError(
            f"{format_identifier(subject)} shows a ticket that {format_identifier(redeemed.subject)} has redeemed: one"
            " of them has stolen it, so find out which, and revoke what that one holds"
        )


def _from_text(text: str) -> bytes:
    # Base64 makes 4 characters of 3 bytes; the rest of 2 for 1 is room for line breaks.
    if len(text) > 2 * TICKET_BYTES_LIMIT:
        raise CredentialError(f"the text is too long for a ticket, which has at most {TICKET_BYTES_LIMIT} bytes")
    joined = "".join(text.split())
    if not joined.startswith(TEXT_PREFIX):
        raise CredentialError(f"the text is no ticket, which begins with {TEXT_PREFIX!r}: copy it again")
    digits = joined.removeprefix(TEXT_PREFIX)
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise CredentialError("the ticket is damaged: copy it again, whole") from None
