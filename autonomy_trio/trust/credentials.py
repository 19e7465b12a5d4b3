"""Credentials: attributes of a subject, signed by an authority and bound to that subject.

A credential says what its issuer asserts; it is never a bearer token, since whoever shows it must be the subject it
names. A *presentation* is what travels: the signed credential, the issuer's history that its signature is checked with,
and a place for the issuer's newest revocation list.

Reading tells who said what. Judging, which needs the session's subject, the trust anchors and the time, tells whether
it counts here.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Final, Literal

import msgspec
import nacl.utils
from attrs import frozen

from autonomy_trio.errors import CredentialError, IdentityError
from autonomy_trio.trust.anchors import Anchors
from autonomy_trio.trust.attributes import (
    Attributes,
    AttributeValue,
    from_record,
    to_record,
    type_of,
)
from autonomy_trio.trust.identity import CHANGES_LIMIT, NOT_BEFORE_LEEWAY, verify_history
from autonomy_trio.trust.records import (
    Identifier,
    Seconds,
    Signed,
    decode_record,
    format_identifier,
    from_block,
    to_block,
    verify,
)
from autonomy_trio.trust.vault import Vault

__all__ = [
    "AttributeValue",
    "Credential",
    "from_text",
    "issue",
    "read_presentation",
    "to_text",
    "verify_presentation",
]

CREDENTIAL_BYTES_LIMIT: Final = 4 * 1024
"""Most bytes of a credential without its signature."""
PRESENTATION_BYTES_LIMIT: Final = 16 * 1024
"""Most bytes of a presentation: a credential and 64 changes of 175 bytes fit."""
CREDENTIAL_ID_BYTES: Final = 16
"""Random bytes that name a credential in a revocation list."""
DEFAULT_VALIDITY: Final = 3600
"""Validity of a credential in seconds, unless its issuer says otherwise."""
BLOCK_LABEL: Final = "AUTONOMY CREDENTIAL"

_Seq = Annotated[int, msgspec.Meta(ge=0, lt=CHANGES_LIMIT)]


class _CredentialRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    issuer: Identifier
    issuer_seq: _Seq
    subject: Identifier
    subject_seq: _Seq
    id: Annotated[bytes, msgspec.Meta(min_length=CREDENTIAL_ID_BYTES, max_length=CREDENTIAL_ID_BYTES)]
    attributes: Attributes
    not_before: Seconds
    expires: Seconds


class _PresentationRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    credential: Signed
    issuer_changes: tuple[Signed, ...]
    revocations: None


_CREDENTIAL: Final = msgspec.msgpack.Decoder(_CredentialRecord)
_PRESENTATION: Final = msgspec.msgpack.Decoder(_PresentationRecord)


@frozen
class Credential:
    """What an issuer asserts about a subject.

    Attributes:
        issuer: the issuer's 32-byte identifier.
        issuer_seq: the issuer's sequence number, whose key signed.
        subject: the subject's 32-byte identifier.
        subject_seq: the subject's sequence number when it was issued.
        id: 16 bytes that name this credential in a revocation list.
        attributes: values by name.
        not_before: Unix seconds from which it holds.
        expires: Unix seconds from which it no longer holds.
    """

    issuer: bytes
    issuer_seq: int
    subject: bytes
    subject_seq: int
    id: bytes
    attributes: Mapping[str, AttributeValue]
    not_before: int
    expires: int


def issue(  # noqa: PLR0913  all but the first are named at the call
    vault: Vault,
    *,
    subject: bytes,
    subject_seq: int = 0,
    attributes: Mapping[str, AttributeValue],
    now: float,
    validity: int = DEFAULT_VALIDITY,
    random: Callable[[int], bytes] = nacl.utils.random,
) -> bytes:
    """Issue a credential with the identity of a vault.

    Args:
        vault: the authority's vault.
        subject: the 32-byte identifier of whom the attributes are true.
        subject_seq: the subject's sequence number; once the subject shows a later one, the credential is refused.
        attributes: values by name.
        now: Unix seconds from which it holds.
        validity: seconds until it expires.
        random: the system's random source, unless a test replaces it.

    Returns:
        the encoded presentation, to hand to the subject.

    Raises:
        CredentialError: a name, a value, the subject or the validity cannot stand in a credential.
        VaultError: the vault is closed.
    """
    try:
        record = to_record(attributes)
    except ValueError as exc:
        raise CredentialError(f"the credential cannot be issued: {exc}") from None
    body = msgspec.msgpack.encode(
        _CredentialRecord(
            version=1,
            issuer=vault.identifier,
            issuer_seq=vault.seq,
            subject=subject,
            subject_seq=subject_seq,
            id=random(CREDENTIAL_ID_BYTES),
            attributes=record,
            not_before=int(now),
            expires=int(now) + validity,
        )
    )
    signed = Signed(body, vault.sign_as_identity("credential", body))
    encoded = msgspec.msgpack.encode(_PresentationRecord(signed, vault.history.changes, None))
    # What others would refuse is refused here, where it can be mended.
    read_presentation(encoded)
    return encoded


def read_presentation(encoded: bytes) -> Credential:
    """Read a presentation from a stranger and verify who signed it, without judging whether that counts here.

    Args:
        encoded: the bytes as received, at most 16 KiB.

    Raises:
        CredentialError: it is malformed, or not signed by the issuer it names.
    """
    record = decode_record(
        _PRESENTATION, encoded, PRESENTATION_BYTES_LIMIT, "a presentation of a credential", CredentialError
    )
    signed = record.credential
    content = decode_record(_CREDENTIAL, signed.body, CREDENTIAL_BYTES_LIMIT, "a credential", CredentialError)
    try:
        history = verify_history(record.issuer_changes)
        attributes = from_record(content.attributes)
    except (IdentityError, ValueError) as exc:
        raise CredentialError(f"the credential cannot be accepted: {exc}") from None
    if content.issuer != history.identifier or content.issuer_seq > history.seq:
        raise CredentialError(
            f"the credential names {format_identifier(content.issuer)} at sequence {content.issuer_seq} as its issuer,"
            " which the history that came with it does not show"
        )
    if not verify(history.keys[content.issuer_seq], "credential", signed.body, signed.signature):
        raise CredentialError(f"the credential is not signed by {format_identifier(content.issuer)}, whom it names")
    if content.expires <= content.not_before:
        raise CredentialError("the credential ends before it begins: issue it with a validity of 1 s or more")
    return Credential(
        issuer=content.issuer,
        issuer_seq=content.issuer_seq,
        subject=content.subject,
        subject_seq=content.subject_seq,
        id=content.id,
        attributes=attributes,
        not_before=content.not_before,
        expires=content.expires,
    )


def verify_presentation(
    encoded: bytes, *, subject: bytes, subject_seq: int, anchors: Anchors, now: float
) -> Credential:
    """Read a presentation and judge whether it counts: here, now, and for the peer that shows it.

    Args:
        encoded: the bytes as received.
        subject: the identifier that the peer has proven in its handshake.
        subject_seq: the peer's current sequence number.
        anchors: the authorities that count here.
        now: Unix seconds.

    Raises:
        CredentialError: it does not count; the text says why, for the log at home.
    """
    credential = read_presentation(encoded)
    issuer = format_identifier(credential.issuer)
    _check_subject(credential, subject, subject_seq)
    _check_issuer(credential, anchors)
    if credential.not_before > now + NOT_BEFORE_LEEWAY:
        raise CredentialError(
            f"the credential of {issuer} begins in {credential.not_before - now:,.0f} s: set the clocks"
        )
    if credential.expires <= now:
        raise CredentialError(
            f"the credential of {issuer} expired {now - credential.expires:,.0f} s ago: ask its issuer for a new one"
        )
    return credential


def _check_subject(credential: Credential, subject: bytes, subject_seq: int) -> None:
    if credential.subject != subject:
        raise CredentialError(
            f"the credential belongs to {format_identifier(credential.subject)} and was shown by"
            f" {format_identifier(subject)}: only its subject can use it"
        )
    if credential.subject_seq < subject_seq:
        raise CredentialError(
            f"the credential was issued to sequence {credential.subject_seq} of {format_identifier(subject)}, which is"
            f" at {subject_seq} now: ask its issuer for a new one"
        )


def _check_issuer(credential: Credential, anchors: Anchors) -> None:
    issuer = format_identifier(credential.issuer)
    anchor = anchors.get(credential.issuer)
    if anchor is None:
        raise CredentialError(f"the credential's issuer {issuer} is no trust anchor here: list it in the anchors file")
    validity = credential.expires - credential.not_before
    if validity > anchor.longest_validity:
        raise CredentialError(
            f"the credential of {issuer} is valid for {validity} s, and its anchor allows"
            f" {anchor.longest_validity} s: ask its issuer for a shorter one"
        )
    if anchor.revocation_staleness is not None:
        raise CredentialError(
            f"the anchor of {issuer} requires a revocation list and none came with the credential: it fails closed"
        )
    if anchor.attributes is None:
        return
    for name, value in credential.attributes.items():
        allowed = anchor.attributes.get(name)
        if allowed is None:
            raise CredentialError(f"{issuer} asserts `{name}`, which its anchor does not allow it to")
        if type_of(value) != allowed:
            raise CredentialError(f"{issuer} asserts `{name}` as a {type_of(value)}, and its anchor says {allowed}")


def to_text(encoded: bytes) -> str:
    """Write an encoded presentation as the text block that credential files hold."""
    return to_block(BLOCK_LABEL, encoded)


def from_text(text: str) -> bytes:
    """Read the encoded presentation in a credential file's text; what it says is not looked at.

    Raises:
        CredentialError: the text is not one whole block.
    """
    return from_block(BLOCK_LABEL, text, PRESENTATION_BYTES_LIMIT, CredentialError)
