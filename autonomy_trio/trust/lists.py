"""Revocation lists: what an issuer takes back before it expires, and what a verifier remembers of its issuers.

A list names credentials that count no more, and for subjects the least sequence that still counts: one line for all
that was ever issued to keys they have rotated away from. Its issuer may name itself, which ends its own older keys.

The rules:

* A list is signed by the issuer's key, and has a place in order: the sequence of that key, then its own number. A
  verifier keeps the last in that order and never goes back. Once it has seen the issuer at a newer sequence it takes no
  list of an older one, for whoever stole the old key could sign one that takes nothing back.
* A list that is kept is obeyed whatever its age. Where the anchor sets how old it may be, one is required as well, and
  a stale one makes every credential of that issuer count no more.
* An issuer's older key counts for the anchor's longest validity from when the verifier first saw the newer one, unless
  a list says otherwise.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol, final

import msgspec
from attrs import define, field, frozen

from autonomy_trio.errors import CredentialError, IdentityError, TrustError
from autonomy_trio.trust.anchors import Anchor, Anchors
from autonomy_trio.trust.identity import CHANGES_LIMIT, NOT_BEFORE_LEEWAY, History, verify_history
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
from autonomy_trio.trust.watcher import Watcher

if TYPE_CHECKING:
    from autonomy_trio.trust.credentials import Credential

CREDENTIAL_ID_BYTES: Final = 16
"""Random bytes that name a credential in a list."""
REVOKED_LIMIT: Final = 256
"""Most credentials that a list names."""
LEAST_LIMIT: Final = 64
"""Most subjects whose least sequence a list names."""
LIST_BYTES_LIMIT: Final = 7 * 1024
"""Most bytes of a list without its signature: a full one fits."""
LIST_FILE_BYTES_LIMIT: Final = 20 * 1024
"""Most bytes of a list with its signature and its issuer's history, as files have it."""
DEFAULT_NEXT_UPDATE: Final = 24 * 3600
"""Seconds in which an issuer promises the next list, unless it says otherwise."""
BLOCK_LABEL: Final = "AUTONOMY REVOCATION LIST"

CredentialId = Annotated[bytes, msgspec.Meta(min_length=CREDENTIAL_ID_BYTES, max_length=CREDENTIAL_ID_BYTES)]
IdentitySeq = Annotated[int, msgspec.Meta(ge=0, lt=CHANGES_LIMIT)]
"""A sequence number of an identity."""
ListSeq = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
"""The number of a list, from 1."""
LeastSeqs = Annotated[tuple[tuple[Identifier, IdentitySeq], ...], msgspec.Meta(max_length=LEAST_LIMIT)]


class _ListRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    issuer: Identifier
    issuer_seq: IdentitySeq
    seq: ListSeq
    issued: Seconds
    next_update: Seconds
    credentials: Annotated[tuple[CredentialId, ...], msgspec.Meta(max_length=REVOKED_LIMIT)]
    least: LeastSeqs


class _ListFile(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    list: Signed
    issuer_changes: tuple[Signed, ...]


_LIST: Final = msgspec.msgpack.Decoder(_ListRecord)
_LIST_FILE: Final = msgspec.msgpack.Decoder(_ListFile)


@frozen
class RevocationList:
    """What an issuer has taken back.

    Attributes:
        issuer: the issuer's 32-byte identifier.
        issuer_seq: the issuer's sequence number, whose key signed.
        seq: the list's number, counted from 1 by its issuer.
        issued: Unix seconds when it was signed.
        next_update: Unix seconds by when its issuer promises the next one.
        credentials: the ids of the credentials that count no more.
        least: the least sequence that counts, by the subject's identifier.
        signed: the list as received.
    """

    issuer: bytes
    issuer_seq: int
    seq: int
    issued: int
    next_update: int
    credentials: frozenset[bytes]
    least: Mapping[bytes, int]
    signed: Signed = field(repr=False)

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the order of its issuer's lists."""
        return self.issuer_seq, self.seq


def sign_list(  # noqa: PLR0913  all but the first are named at the call
    vault: Vault,
    *,
    seq: int,
    credentials: Collection[bytes],
    least: Mapping[bytes, int],
    now: float,
    next_update: int = DEFAULT_NEXT_UPDATE,
) -> Signed:
    """Sign a list with the identity of a vault.

    Args:
        vault: the authority's vault.
        seq: the list's number, one more than that of the list before it.
        credentials: the ids of the credentials that count no more.
        least: the least sequence that counts, by the subject's identifier.
        now: Unix seconds when it is signed.
        next_update: seconds in which the next one is promised.

    Raises:
        CredentialError: it would be too long, or something does not fit.
        VaultError: the vault is closed.
    """
    for count, limit, what in (
        (len(credentials), REVOKED_LIMIT, "credentials"),
        (len(least), LEAST_LIMIT, "least sequences"),
    ):
        if count > limit:
            raise CredentialError(
                f"a revocation list names at most {limit} {what} and this one would name {count}: issue credentials of"
                " shorter validity, which leave it sooner"
            )
    body = msgspec.msgpack.encode(
        _ListRecord(
            version=1,
            issuer=vault.identifier,
            issuer_seq=vault.seq,
            seq=seq,
            issued=int(now),
            next_update=int(now) + next_update,
            credentials=tuple(sorted(credentials)),
            least=tuple(sorted(least.items())),
        )
    )
    signed = Signed(body, vault.sign_as_identity("list", body))
    # What others would refuse is refused here, where it can be mended.
    verify_list(signed, vault.history)
    return signed


def verify_list(signed: Signed, history: History) -> RevocationList:
    """Read a list from a stranger and verify that the issuer signed it.

    Args:
        signed: the list as received.
        history: the issuer's verified history.

    Raises:
        CredentialError: it is malformed, or of another issuer, or not signed by a key that the history shows.
    """
    content = decode_record(_LIST, signed.body, LIST_BYTES_LIMIT, "a revocation list", CredentialError)
    issuer = format_identifier(history.identifier)
    if content.issuer != history.identifier or content.issuer_seq > history.seq:
        raise CredentialError(
            f"the revocation list names {format_identifier(content.issuer)} at sequence {content.issuer_seq} as its"
            " issuer, which the history that came with it does not show"
        )
    if not verify(history.keys[content.issuer_seq], "list", signed.body, signed.signature):
        raise CredentialError(f"the revocation list is not signed by {issuer}, whom it names")
    credentials, least = frozenset(content.credentials), dict(content.least)
    if len(credentials) != len(content.credentials) or len(least) != len(content.least):
        raise CredentialError(f"the revocation list of {issuer} names something twice")
    if content.next_update <= content.issued:
        raise CredentialError(f"the revocation list of {issuer} promises the next one before it was signed itself")
    return RevocationList(
        issuer=content.issuer,
        issuer_seq=content.issuer_seq,
        seq=content.seq,
        issued=content.issued,
        next_update=content.next_update,
        credentials=credentials,
        least=least,
        signed=signed,
    )


def list_to_text(signed: Signed, changes: Sequence[Signed]) -> str:
    """Write a list and its issuer's history as the text block that files hold."""
    return to_block(BLOCK_LABEL, msgspec.msgpack.encode(_ListFile(signed, tuple(changes))))


def list_from_text(text: str) -> tuple[RevocationList, History]:
    """Read and verify a list and its issuer's history from the text block that files hold.

    Raises:
        CredentialError: the text is not one whole block, or what it holds does not verify.
    """
    encoded = from_block(BLOCK_LABEL, text, LIST_FILE_BYTES_LIMIT, CredentialError)
    record = decode_record(_LIST_FILE, encoded, LIST_FILE_BYTES_LIMIT, "a revocation list", CredentialError)
    try:
        history = verify_history(record.issuer_changes)
    except IdentityError as exc:
        raise CredentialError(f"the revocation list cannot be accepted: {exc}") from None
    return verify_list(record.list, history), history


@frozen
class _Issuer:
    """What a verifier remembers of one issuer."""

    history: History
    superseded: Sequence[float]
    """When each sequence before the newest one seen was first seen to be past, in Unix seconds; a newer history than
    `history` may have been seen before this start."""
    kept: RevocationList | None


class IssuerWatcher(Protocol):
    """Judges the histories of issuers by what was seen first, as `Watcher` does."""

    @property
    def generation(self) -> int:
        """Grows when something that was believed is no longer."""
        ...

    def see_issuer(self, history: History, now: float) -> Sequence[float]:
        """Remember the verified history of an issuer, or refuse it.

        Args:
            history: the history.
            now: Unix seconds.

        Returns:
            the Unix seconds at which each sequence number before the newest one seen was first seen to be past.

        Raises:
            TrustError: it contradicts one that was seen before, or cannot be remembered.
        """
        ...


@final
@define(eq=False)
class Revocations:
    """What a verifier remembers of the issuers that count here: their newest sequence and their newest list.

    Args:
        watcher: what was seen of any identity, before this start too.
    """

    _watcher: IssuerWatcher = field(factory=Watcher, repr=False)
    _learned: int = field(default=0, init=False)
    _issuers: dict[bytes, _Issuer] = field(factory=dict[bytes, _Issuer], init=False, repr=False)

    @property
    def generation(self) -> int:
        """Grows with each thing learned; what was judged in an earlier one is to be judged again."""
        return self._learned + self._watcher.generation

    def newest(self, issuer: bytes) -> RevocationList | None:
        """Return the list of an issuer that is obeyed; None where none was seen."""
        known = self._issuers.get(issuer)
        return None if known is None else known.kept

    def lists(self) -> list[tuple[RevocationList, History]]:
        """Return the lists that are obeyed, each with its issuer's history."""
        return [(each.kept, each.history) for each in self._issuers.values() if each.kept is not None]

    def learn(self, history: History, shown: RevocationList | None, *, anchors: Anchors, now: float) -> None:
        """Take note of an issuer's history, and of a list when it is newer than the one that is kept.

        Only issuers that are anchors are remembered, so there is no more to remember than the anchors file is long.

        Args:
            history: the issuer's verified history, as somebody shows it.
            shown: a verified list of that issuer that came with it.
            anchors: the authorities that count here.
            now: Unix seconds.

        Raises:
            CredentialError: what is shown contradicts what was seen first, or the list is from the future. What was
                seen first stays.
        """
        if anchors.get(history.identifier) is None:
            return
        superseded = self._check(history, now)
        known = self._remember(_with_history(self._issuers.get(history.identifier), history, superseded))
        if shown is not None:
            self._remember(_with_list(known, shown, now))

    def counts_until(self, credential: "Credential", anchor: Anchor, now: float) -> float:
        """Return until when a credential counts by what is known of its issuer, in Unix seconds.

        Args:
            credential: a verified credential, whose issuer's history was learned.
            anchor: its issuer's anchor.
            now: Unix seconds.

        Raises:
            CredentialError: it counts no more; the text says why.
        """
        known = self._issuers[credential.issuer]
        superseded = self._check(known.history, now)
        issuer = format_identifier(credential.issuer)
        end = float(credential.expires)
        if credential.issuer_seq < len(superseded):
            end = min(end, superseded[credential.issuer_seq] + anchor.longest_validity)
            if end <= now:
                raise CredentialError(
                    f"the credential was signed by key {credential.issuer_seq} of {issuer}, which is at"
                    f" {len(superseded)} for longer than its anchor lets a credential hold: ask it for a new one"
                )
        if known.kept is not None:
            _check_revoked(credential, known.kept, issuer)
        if anchor.revocation_staleness is not None:
            end = min(end, _stale_from(known.kept, anchor.revocation_staleness, issuer, now))
        return end

    def _check(self, history: History, now: float) -> Sequence[float]:
        try:
            return self._watcher.see_issuer(history, now)
        except TrustError as exc:
            raise CredentialError(f"the credential cannot be accepted: {exc}") from None

    def _remember(self, known: _Issuer) -> _Issuer:
        if known != self._issuers.get(known.history.identifier):
            self._issuers[known.history.identifier] = known
            self._learned += 1
        return known


def _with_history(known: _Issuer | None, history: History, superseded: Sequence[float]) -> _Issuer:
    if known is None:
        return _Issuer(history, superseded, None)
    longer = max(known.history, history, key=lambda each: each.seq)
    return _Issuer(longer, superseded, known.kept)


def _with_list(known: _Issuer, shown: RevocationList, now: float) -> _Issuer:
    issuer = format_identifier(shown.issuer)
    if shown.issued > now + NOT_BEFORE_LEEWAY:
        raise CredentialError(
            f"the revocation list of {issuer} was signed {shown.issued - now:,.0f} s from now: set the clocks"
        )
    kept = known.kept
    if kept is not None and shown.place == kept.place and shown.signed.body != kept.signed.body:
        raise CredentialError(
            f"two revocation lists of {issuer} have the number {shown.seq}, and the one seen first counts: have it sign"
            " the next one with `authority revoke`"
        )
    if shown.issuer_seq < len(known.superseded) or (kept is not None and shown.place <= kept.place):
        return known
    return _Issuer(known.history, known.superseded, shown)


def _check_revoked(credential: "Credential", kept: RevocationList, issuer: str) -> None:
    if credential.id in kept.credentials:
        raise CredentialError(f"the credential {credential.id.hex()} was revoked by {issuer}: ask it for a new one")
    for whom, seq in ((credential.subject, credential.subject_seq), (credential.issuer, credential.issuer_seq)):
        least = kept.least.get(whom, 0)
        if seq < least:
            raise CredentialError(
                f"{issuer} says that {format_identifier(whom)} counts from its sequence {least} on, and the credential"
                f" names {seq}: ask it for a new one"
            )


def _stale_from(kept: RevocationList | None, staleness: int, issuer: str, now: float) -> float:
    if kept is None:
        raise CredentialError(
            f"the anchor of {issuer} requires a revocation list and none came with the credential: fetch one from it"
        )
    end = float(min(kept.next_update, kept.issued + staleness))
    if end <= now:
        raise CredentialError(
            f"the revocation list of {issuer} is stale since {now - end:,.0f} s, and its anchor requires a fresh one:"
            " fetch one from it"
        )
    return end
