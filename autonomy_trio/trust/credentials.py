"""Credentials: attributes of a subject, signed by an authority and bound to that subject.

A credential says what its issuer asserts; it is never a bearer token, since whoever shows it must be the subject it
names. A *presentation* is what travels: the signed credential, the issuer's history that its signature is checked with,
and the newest revocation list of that issuer that the holder has. It is whole in itself; of several by one issuer only
the first needs the list, since a verifier takes note of all lists before it judges.

Reading tells who said what. Judging, which needs the session's subject, the trust anchors, what is known of revocations
and the time, tells whether it counts here.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Final, Literal

import msgspec
import nacl.utils
from attrs import Factory, evolve, field, frozen

from autonomy_trio.errors import CredentialError, IdentityError
from autonomy_trio.trust.anchors import Anchor, Anchors
from autonomy_trio.trust.attributes import (
    Attributes,
    AttributeValue,
    from_record,
    to_record,
    type_of,
)
from autonomy_trio.trust.identity import NOT_BEFORE_LEEWAY, History, verify_history
from autonomy_trio.trust.lists import (
    CREDENTIAL_ID_BYTES,
    CredentialId,
    IdentitySeq,
    RevocationList,
    Revocations,
    verify_list,
)
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
    "Presentation",
    "from_text",
    "issue",
    "judge",
    "read_presentation",
    "renew_at",
    "to_text",
    "verify_presentations",
]

CREDENTIAL_BYTES_LIMIT: Final = 4 * 1024
"""Most bytes of a credential without its signature."""
PRESENTATION_BYTES_LIMIT: Final = 23 * 1024
"""Most bytes of a presentation: a credential, 64 changes of 175 bytes and a full revocation list fit."""
DEFAULT_VALIDITY: Final = 3600
"""Validity of a credential in seconds, unless its issuer says otherwise."""
BLOCK_LABEL: Final = "AUTONOMY CREDENTIAL"


class _CredentialRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    issuer: Identifier
    issuer_seq: IdentitySeq
    subject: Identifier
    subject_seq: IdentitySeq
    id: CredentialId
    attributes: Attributes
    not_before: Seconds
    expires: Seconds


class _PresentationRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    credential: Signed
    issuer_changes: tuple[Signed, ...]
    revocations: Signed | None


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
        counts_until: Unix seconds from which it no longer counts here: when it expires, or sooner where it was judged.
    """

    issuer: bytes
    issuer_seq: int
    subject: bytes
    subject_seq: int
    id: bytes
    attributes: Mapping[str, AttributeValue]
    not_before: int
    expires: int
    counts_until: float = field(default=Factory(attrgetter("expires"), takes_self=True))


@frozen
class Presentation:
    """A credential as its holder shows it, with what its signature is checked by.

    Attributes:
        credential: what is asserted.
        history: the issuer's verified history.
        revocations: the issuer's list that came with it.
        signed: the credential as received.
    """

    credential: Credential
    history: History = field(repr=False)
    revocations: RevocationList | None = field(repr=False)
    signed: Signed = field(repr=False)

    def encode(self) -> bytes:
        """Return the bytes that travel."""
        revocations = None if self.revocations is None else self.revocations.signed
        return encode_presentation(self.signed, self.history, revocations)

    def with_list(self, newer: RevocationList | None, history: History) -> "Presentation":
        """Return it with another list of the same issuer, or none, and the longer of two of the issuer's histories."""
        longer = max(self.history, history, key=lambda each: each.seq)
        return evolve(self, revocations=newer, history=longer)


def encode_presentation(credential: Signed, history: History, revocations: Signed | None) -> bytes:
    """Put together what its holder shows: a signed credential, its issuer's history, and a list of the issuer's."""
    return msgspec.msgpack.encode(_PresentationRecord(credential, history.changes, revocations))


def issue(  # noqa: PLR0913  all but the first are named at the call
    vault: Vault,
    *,
    subject: bytes,
    subject_seq: int = 0,
    attributes: Mapping[str, AttributeValue],
    now: float,
    validity: int = DEFAULT_VALIDITY,
    revocations: Signed | None = None,
    random: Callable[[int], bytes] = nacl.utils.random,
) -> bytes:
    """Issue a credential with the identity of a vault.

    Args:
        vault: the authority's vault.
        subject: the 32-byte identifier of whom the attributes are true.
        subject_seq: the subject's sequence number; while the subject shows another one, the credential is refused.
        attributes: values by name.
        now: Unix seconds from which it holds.
        validity: seconds until it expires.
        revocations: the authority's newest list, to go with it.
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
    encoded = encode_presentation(signed, vault.history, revocations)
    # What others would refuse is refused here, where it can be mended.
    read_presentation(encoded)
    return encoded


def read_presentation(encoded: bytes) -> Presentation:
    """Read a presentation from a stranger and verify who signed it, without judging whether that counts here.

    Args:
        encoded: the bytes as received, at most 23 KiB.

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
    credential = Credential(
        issuer=content.issuer,
        issuer_seq=content.issuer_seq,
        subject=content.subject,
        subject_seq=content.subject_seq,
        id=content.id,
        attributes=attributes,
        not_before=content.not_before,
        expires=content.expires,
    )
    revocations = None if record.revocations is None else verify_list(record.revocations, history)
    return Presentation(credential, history, revocations, signed)


def verify_presentations(  # noqa: PLR0913  all but the first are named at the call
    presentations: Sequence[bytes],
    *,
    subject: bytes,
    subject_seq: int,
    anchors: Anchors,
    revocations: Revocations,
    now: float,
) -> tuple[Sequence[Credential], Sequence[CredentialError]]:
    """Read all that a peer shows and judge which of it counts: here, now, and for that peer.

    What the presentations tell of their issuers is learned first, so one that carries a list speaks for all.

    Args:
        presentations: the bytes of each as received.
        subject: the identifier that the peer has proven in its handshake.
        subject_seq: the sequence number it has proven there.
        anchors: the authorities that count here.
        revocations: what is known of their sequences and lists, and learns.
        now: Unix seconds.

    Returns:
        the credentials that count, and for each other one why not, for the log at home.
    """
    read: list[Credential] = []
    accepted: list[Credential] = []
    refused: list[CredentialError] = []
    for encoded in presentations:
        try:
            presentation = read_presentation(encoded)
            revocations.learn(presentation.history, presentation.revocations, anchors=anchors, now=now)
            read.append(presentation.credential)
        except CredentialError as error:
            refused.append(error)
    for credential in read:
        try:
            accepted.append(
                judge(
                    credential,
                    subject=subject,
                    subject_seq=subject_seq,
                    anchors=anchors,
                    revocations=revocations,
                    now=now,
                )
            )
        except CredentialError as error:
            refused.append(error)
    return accepted, refused


def judge(  # noqa: PLR0913  all but the first are named at the call
    credential: Credential,
    *,
    subject: bytes,
    subject_seq: int,
    anchors: Anchors,
    revocations: Revocations,
    now: float,
) -> Credential:
    """Judge whether a credential that was read counts: again, whenever `revocations` has a new generation.

    Returns:
        the credential, with the time until which it counts.

    Raises:
        CredentialError: it does not count; the text says why, for the log at home.
    """
    issuer = format_identifier(credential.issuer)
    _check_subject(credential, subject, subject_seq)
    anchor = _check_issuer(credential, anchors)
    if credential.not_before > now + NOT_BEFORE_LEEWAY:
        raise CredentialError(
            f"the credential of {issuer} begins in {credential.not_before - now:,.0f} s: set the clocks"
        )
    if credential.expires <= now:
        raise CredentialError(
            f"the credential of {issuer} expired {now - credential.expires:,.0f} s ago: ask its issuer for a new one"
        )
    return evolve(credential, counts_until=revocations.counts_until(credential, anchor, now))


def renew_at(credential: Credential) -> float:
    """Return when a credential is to be renewed, in Unix seconds: at two thirds of its life."""
    return credential.not_before + (credential.expires - credential.not_before) * 2 / 3


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
    if credential.subject_seq > subject_seq:
        # A thief of the older key could show what was issued after its owner had rotated away.
        raise CredentialError(
            f"the credential was issued to sequence {credential.subject_seq} of {format_identifier(subject)}, which"
            f" shows the older {subject_seq}: it counts once its subject shows the newer one"
        )


def _check_issuer(credential: Credential, anchors: Anchors) -> Anchor:
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
    if anchor.attributes is None:
        return anchor
    for name, value in credential.attributes.items():
        allowed = anchor.attributes.get(name)
        if allowed is None:
            raise CredentialError(f"{issuer} asserts `{name}`, which its anchor does not allow it to")
        if type_of(value) != allowed:
            raise CredentialError(f"{issuer} asserts `{name}` as a {type_of(value)}, and its anchor says {allowed}")
    return anchor


def to_text(encoded: bytes) -> str:
    """Write an encoded presentation as the text block that credential files hold."""
    return to_block(BLOCK_LABEL, encoded)


def from_text(text: str) -> bytes:
    """Read the encoded presentation in a credential file's text; what it says is not looked at.

    Raises:
        CredentialError: the text is not one whole block.
    """
    return from_block(BLOCK_LABEL, text, PRESENTATION_BYTES_LIMIT, CredentialError)
