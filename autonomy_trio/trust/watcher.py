"""Which key histories were seen first, so that no identity goes back and none has two histories here.

A history proves itself, but an old one proves itself as well as a new one, and whoever holds the current key can sign
a second change in place of the last. A verifier that remembers what it saw first takes neither, as a KERI watcher does
(Smith, 2019, arXiv:1907.02143, "first seen"). A *mark* is what is remembered of an identity: its last change, and of
an issuer of credentials the hash of every change before, since credentials are shown with older histories too.

Two changes with one identifier and one sequence number, both valid, are *duplicity*: the first seen stays, the second
is refused, both are kept. An authority that did this is believed nothing until somebody looked and forgave it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Final, final

import msgspec
from attrs import frozen

from autonomy_trio.errors import IdentityError
from autonomy_trio.trust.identity import CHANGES_LIMIT, History
from autonomy_trio.trust.records import DIGEST_BYTES, Identifier, Seconds, Signed, digest, format_identifier

PASSING_LIMIT: Final = 100_000
"""Most identities remembered that are neither anchors nor kept for another reason; the least recently seen goes."""
REPORTS_LIMIT: Final = 64
"""Most cases of duplicity kept to be reported, the latest; those of anchors are in their marks besides."""


class Mark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is remembered of an identity.

    Attributes:
        identifier: the 32-byte identifier.
        seq: the highest sequence number seen.
        change: the signed change of that number, seen first.
        refused: a signed change that was shown in the place of one seen before, if any.
        is_forgiven: whether somebody looked at `refused` and let the identity count again.
        earlier: of an anchor, the hashes of all changes before `change`, one after another; at most 2,016 bytes.
        superseded: of an anchor, the Unix seconds at which each sequence number from 0 on was first seen to be past.
    """

    identifier: Identifier
    seq: Annotated[int, msgspec.Meta(ge=0, lt=CHANGES_LIMIT)]
    change: Signed
    refused: Signed | None = None
    is_forgiven: bool = False
    earlier: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES * (CHANGES_LIMIT - 1))] = b""
    superseded: Annotated[tuple[Seconds, ...], msgspec.Meta(max_length=CHANGES_LIMIT - 1)] = ()

    @property
    def is_doubted(self) -> bool:
        """Whether an authority with this mark is believed nothing."""
        return self.refused is not None and not self.is_forgiven

    @property
    def is_whole(self) -> bool:
        """Whether a history that ends before this mark can be compared with it."""
        return len(self.earlier) == DIGEST_BYTES * self.seq

    def after(self, history: History, *, whole: bool, now: float | None) -> "Mark":
        """Return the mark that stands after a history was seen that does not contradict this one."""
        grown = self
        if history.seq > self.seq:
            grown = msgspec.structs.replace(self, seq=history.seq, change=history.changes[-1])
        if not grown.is_whole and history.seq == grown.seq and (whole or self.earlier):
            earlier = b"".join(_hash(change) for change in history.changes[:-1])
            grown = msgspec.structs.replace(grown, earlier=earlier)
        if now is not None and len(grown.superseded) < grown.seq:
            past = (int(now),) * (grown.seq - len(grown.superseded))
            grown = msgspec.structs.replace(grown, superseded=(*grown.superseded, *past))
        return grown

    def parting(self, history: History) -> int | None:
        """Return the first sequence number at which a history is another than the one seen; None where it is the same.

        Raises:
            IdentityError: it ends before this mark, which does not say what was there.
        """
        last = min(history.seq, self.seq)
        if history.seq < self.seq and not self.is_whole:
            raise IdentityError(
                f"the history of {format_identifier(self.identifier)} ends at sequence {history.seq}, and of it only"
                f" {self.seq} was seen before: show the longer one"
            )
        # Every change holds the hash of the one before it, so the last in common stands for all before it.
        if self._is_seen(history, last):
            return None
        if not self.is_whole:
            return last
        return next(seq for seq in range(last + 1) if not self._is_seen(history, seq))

    def _is_seen(self, history: History, seq: int) -> bool:
        if seq == self.seq:
            return history.changes[seq].body == self.change.body
        return _hash(history.changes[seq]) == self.earlier[DIGEST_BYTES * seq : DIGEST_BYTES * (seq + 1)]


@frozen
class Duplicity:
    """Two changes of one identity in one place.

    Attributes:
        identifier: the 32-byte identifier.
        seq: the sequence number of both.
        kept: the signed change that was seen first and stays; None where only its hash was remembered.
        refused: the signed change that was seen later.
    """

    identifier: bytes
    seq: int
    kept: Signed | None
    refused: Signed


@frozen
class WatcherStatistics:
    """How much a watcher remembers."""

    anchors: int
    """Anchors with a mark."""
    kept: int
    """Other identities remembered without limit."""
    passing: int
    """Identities remembered until 100,000 others were seen later."""
    duplicities: int
    """Cases of duplicity seen since the start."""


@final
class Watcher:
    """What one node remembers of the histories it was shown.

    Args:
        anchors: the identifiers of the authorities that count here.
        marks: what was remembered of them before this start.
        remember: called with each new mark of an anchor, to write it down.
        limit: most identities remembered in passing.
    """

    def __init__(
        self,
        anchors: Iterable[bytes] = (),
        marks: Iterable[Mark] = (),
        *,
        remember: Callable[[Mark], None] = lambda _: None,
        limit: int = PASSING_LIMIT,
    ) -> None:
        self._anchors = frozenset(anchors)
        self._lasting = {mark.identifier: mark for mark in marks}
        self._kept: set[bytes] = set()
        self._passing: OrderedDict[bytes, Mark] = OrderedDict()
        self._remember = remember
        self._limit = limit
        self._reports: deque[Duplicity] = deque(maxlen=REPORTS_LIMIT)
        self._duplicities = 0

    @property
    def generation(self) -> int:
        """Grows with each case of duplicity: what was believed of an authority before is to be judged again."""
        return self._duplicities

    def set_anchors(self, anchors: Iterable[bytes]) -> None:
        """Replace the authorities that count here; what was remembered of any stays."""
        before, self._anchors = self._anchors, frozenset(anchors)
        for identifier in self._anchors - before:
            mark = self._passing.pop(identifier, None) or self._lasting.get(identifier)
            if mark is not None:
                self._set(mark)

    def keep(self, identifier: bytes) -> None:
        """Remember an identity without limit from now on: a subject with credentials, or a peer that is pinned."""
        self._kept.add(identifier)
        mark = self._passing.pop(identifier, None)
        if mark is not None:
            self._lasting[identifier] = mark

    def see(self, history: History) -> None:
        """Compare a verified history with what was seen before, and remember it when it goes on from there.

        Call it with what a peer has proven to be its own; what comes with a credential is for `see_issuer`.

        Raises:
            IdentityError: the history is older than one seen before or contradicts it, or is of an anchor that was
                caught with two; nothing but the duplicity is remembered.
            VaultError: what is to be remembered cannot be written down.
        """
        mark = self.get(history.identifier)
        if mark is not None and history.seq < mark.seq:
            raise IdentityError(
                f"the history of {format_identifier(history.identifier)} goes back to sequence {history.seq}, and"
                f" {mark.seq} was seen before: a key that was rotated away, or a home restored from a copy"
            )
        self._see(history, None)

    def see_issuer(self, history: History, now: float) -> Sequence[float]:
        """Compare the verified history of an issuer, as it came with a credential, with what was seen before.

        It may be older: a credential is shown with the history of its issuer when it was issued. One that parts from
        what was seen is refused wherever it does so, after a restart too: a thief of an older key can sign its own
        next change. How long a key of before counts is for the caller to judge.

        Args:
            history: the history.
            now: Unix seconds.

        Returns:
            the Unix seconds at which each sequence number before the newest one seen was first seen to be past.

        Raises:
            IdentityError: the history contradicts what was seen before, or is of an anchor that was caught with two.
            VaultError: what is to be remembered cannot be written down.
        """
        return self._see(history, now).superseded

    def check(self, identifier: bytes) -> None:
        """Refuse an anchor that was caught with two histories and not forgiven.

        Raises:
            IdentityError: it is such an anchor.
        """
        mark = self._lasting.get(identifier)
        if identifier in self._anchors and mark is not None and mark.is_doubted:
            name = format_identifier(identifier)
            raise IdentityError(
                f"the authority {name} was seen with two histories and counts for nothing: ask its owner which one is"
                f" right, then run `identity forgive {name}`"
            )

    def get(self, identifier: bytes) -> Mark | None:
        """Return what is remembered of an identity."""
        return self._lasting.get(identifier) or self._passing.get(identifier)

    def take_duplicities(self) -> list[Duplicity]:
        """Return the cases of duplicity seen since the last call, at most the 64 latest, for the log."""
        reports = list(self._reports)
        self._reports.clear()
        return reports

    def statistics(self) -> WatcherStatistics:
        """Return how much is remembered."""
        anchors = sum(identifier in self._anchors for identifier in self._lasting)
        return WatcherStatistics(anchors, len(self._lasting) - anchors, len(self._passing), self._duplicities)

    def _see(self, history: History, now: float | None) -> Mark:
        """Compare and remember; of anchors, and of the issuers that come with a time, as much as a mark can hold."""
        identifier = history.identifier
        mark = self.get(identifier)
        if mark is not None:
            self._compare(mark, history)
        whole = now is not None or identifier in self._anchors
        seen = (mark or Mark(identifier, 0, history.changes[0])).after(history, whole=whole, now=now)
        if seen != mark:
            self._set(seen)
        elif identifier in self._passing:
            self._passing.move_to_end(identifier)
        self.check(identifier)
        return seen

    def _compare(self, mark: Mark, history: History) -> None:
        name = format_identifier(history.identifier)
        if mark.refused is not None and any(change.body == mark.refused.body for change in history.changes):
            raise IdentityError(f"the history of {name} has a change that was refused before")
        seq = mark.parting(history)
        if seq is None:
            return
        # Once is enough: who has an older key can make as many as it likes.
        if not mark.is_doubted:
            shown = history.changes[seq]
            self._duplicities += 1
            self._reports.append(Duplicity(history.identifier, seq, mark.change if seq == mark.seq else None, shown))
            self._set(msgspec.structs.replace(mark, refused=shown, is_forgiven=False))
        raise IdentityError(
            f"{name} has two changes of sequence {seq}: the one seen first stays, and this one is refused"
        )

    def _set(self, mark: Mark) -> None:
        identifier = mark.identifier
        if identifier in self._anchors:
            # In memory first: where the disk refuses, what was seen still counts until the end of this run.
            self._lasting[identifier] = mark
            self._remember(mark)
        elif identifier in self._kept or identifier in self._lasting:
            self._lasting[identifier] = mark
        else:
            self._passing[identifier] = mark
            self._passing.move_to_end(identifier)
            if len(self._passing) > self._limit:
                self._passing.popitem(last=False)


def _hash(change: Signed) -> bytes:
    return digest("h-prev", change.body)
