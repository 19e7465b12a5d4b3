"""The credentials a node shows, the revocation lists it obeys, and where their issuers are reached.

A credential that expired while its node was switched off is held on and shown to nobody: its issuer may renew it.
"""

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar, final

import attrs

from autonomy_trio.errors import AutonomyError, CredentialError, VaultError
from autonomy_trio.fabric.links.addresses import Address
from autonomy_trio.logs import get_log
from autonomy_trio.trust.credentials import Credential, Presentation, from_text, read_presentation, renew_at, to_text
from autonomy_trio.trust.identity import History
from autonomy_trio.trust.lists import RevocationList, list_from_text, list_to_text
from autonomy_trio.trust.records import format_identifier

FOLDER: Final = "credentials"
"""The folder of a home whose files are shown."""

AGENTS_FOLDER: Final = f"{FOLDER}/agents"
"""The folder of a home with the credentials of its agents: each is shown by the agent that it is about."""

LISTS_FOLDER: Final = "lists"
"""The folder of a home whose revocation lists are obeyed, and shown with the credentials of their issuers."""

AUTHORITIES_FOLDER: Final = "authorities"
"""The folder of a home with the address of each authority that it was enrolled with, in a file by its identifier."""

HELD_LIMIT: Final = 256
"""Most credentials of the node that a wallet holds; far fewer are shown."""
AGENTS_LIMIT: Final = 4096
"""Most credentials of its agents."""
AUTHORITIES_LIMIT: Final = 64
"""Most authorities whose address a wallet knows: as many as an anchors file has."""
ADDRESS_CHARACTERS: Final = 1024
"""Most characters of such an address."""
RENEWABLE_FOR: Final = 30 * 86_400
"""Seconds after its end for which a credential is held, to be renewed."""

T = TypeVar("T")

_log = get_log()


@attrs.frozen
class _Held:
    presentation: Presentation
    file: Path | None
    """Where this wallet keeps it; None for a file of somebody's own."""

    @property
    def credential(self) -> Credential:
        return self.presentation.credential


@final
@attrs.define(eq=False)
class Wallet:
    """The credentials of one node and of its agents, in the order they are shown."""

    subject: bytes
    home: Path | None
    _held: dict[bytes, _Held] = attrs.field(factory=dict[bytes, _Held], repr=False)
    """By the credential's id."""
    _lists: dict[bytes, tuple[RevocationList, History]] = attrs.field(
        factory=dict[bytes, "tuple[RevocationList, History]"], repr=False
    )
    """The newest list of each issuer."""

    _authorities: dict[bytes, Address] = attrs.field(factory=dict[bytes, Address], repr=False)
    _names: dict[bytes, str] = attrs.field(factory=dict[bytes, str], repr=False)
    """Of the agents that credentials are held of, by identifier, as far as they are known."""
    changes: int = 0
    """Grows with whatever may be shown from then on."""

    @property
    def authorities(self) -> Mapping[bytes, Address]:
        """Where the authorities are reached that this node was enrolled with, by identifier."""
        return dict(self._authorities)

    @property
    def lists(self) -> Sequence[tuple[RevocationList, History]]:
        """The newest revocation list known of each issuer."""
        return list(self._lists.values())

    def shown(
        self, now: float, issuers: Collection[bytes] | None = None, subject: bytes | None = None
    ) -> Sequence[bytes]:
        """Return the credentials to show, the latest first, for only so many are; the first of an issuer has its list.

        One that was renewed is not shown: the two could contradict each other.

        Args:
            now: Unix seconds.
            issuers: of whom alone, where somebody asks for these; None is any.
            subject: the agent that shows them; None is the node.
        """
        holding = [each.presentation for each in self._of(subject) if now < each.credential.expires]
        shown: list[bytes] = []
        listed: set[bytes] = set()
        for each in reversed(holding):
            if any(_renews(other.credential, each.credential) for other in holding):
                continue
            issuer = each.credential.issuer
            if issuers is not None and issuer not in issuers:
                continue
            newest = None if issuer in listed else self._lists.get(issuer)
            listed.add(issuer)
            shown.append((each.with_list(None, each.history) if newest is None else each.with_list(*newest)).encode())
        return shown

    def know_agent(self, identifier: bytes, name: str) -> None:
        """Remember what an agent is called, where credentials of its are held: only then can they be renewed."""
        if self._of(identifier):
            self._names[identifier] = name

    def due_of_agents(self, now: float) -> Sequence[tuple[str, Credential]]:
        """Return the credentials of agents that are to be renewed and were not yet, with the agents' names."""
        return [(name, each) for agent, name in self._names.items() for each in self._due(self._of(agent), now)]

    def due(self, now: float, seq: int = 0) -> Sequence[Credential]:
        """Return the node's credentials that are to be renewed and were not yet.

        Args:
            now: Unix seconds; past two thirds of its life a credential is due, past its end too.
            seq: the node's sequence number; what was issued to an earlier one is due at once.
        """
        return self._due(self._of(None), now, seq)

    @staticmethod
    def _due(held: Sequence[_Held], now: float, seq: int = 0) -> Sequence[Credential]:
        credentials = [each.credential for each in held]
        return [
            each
            for each in credentials
            if (renew_at(each) <= now or each.subject_seq < seq)
            and not any(_renews(other, each) for other in credentials)
        ]

    def until(self, now: float, subject: bytes) -> float:
        """Return when the first credential expires that an agent shows, in Unix seconds; infinite where none does."""
        ends = (each.credential.expires for each in self._of(subject))
        return min((end for end in ends if now < end), default=math.inf)

    def _of(self, subject: bytes | None) -> Sequence[_Held]:
        whose = self.subject if subject is None else subject
        return [each for each in self._held.values() if each.credential.subject == whose]

    def learn(self, revocations: RevocationList, history: History) -> None:
        """Keep a revocation list when it is newer than the one that is kept of its issuer."""
        known = self._lists.get(revocations.issuer)
        if known is None or revocations.place > known[0].place:
            self._lists[revocations.issuer] = revocations, history
            self.changes += 1

    def keep(self, revocations: RevocationList, history: History) -> bool:
        """Keep a revocation list, in the home too, when it is newer than the one that is kept; tell whether it is.

        Raises:
            VaultError: the home refuses; the list is kept in memory.
        """
        known = self._lists.get(revocations.issuer)
        if known is not None and revocations.place <= known[0].place:
            return False
        self.learn(revocations, history)
        self._write(LISTS_FOLDER, revocations.issuer, list_to_text(revocations.signed, history.changes))
        return True

    def shows_for(self, issuer: bytes) -> bool:
        """Tell whether credentials of an issuer are held."""
        return any(each.credential.issuer == issuer for each in self._held.values())

    def know(self, address: Address) -> None:
        """Remember, in the home too, where an authority is reached.

        Raises:
            CredentialError: there are too many.
            VaultError: the home refuses.
        """
        if address.node not in self._authorities and len(self._authorities) >= AUTHORITIES_LIMIT:
            raise CredentialError(f"this node is enrolled with {AUTHORITIES_LIMIT} authorities already: use fewer")
        self._authorities[address.node] = address
        self._write(AUTHORITIES_FOLDER, address.node, f"{address}\n")

    def load(self, files: Iterable[Path], now: float) -> None:
        """Read the files that were asked for, and the credentials and lists in the home.

        Raises:
            CredentialError: a file that was asked for cannot be shown. One in the home is only logged.
        """
        for folder in (FOLDER, AGENTS_FOLDER):
            for file in self._files(folder):
                try:
                    self._add(file, now, of_agent=folder is AGENTS_FOLDER)
                except CredentialError as error:
                    _log.warning("credential not shown", why=str(error))
        self._load_lists()
        self._load_authorities()
        for file in files:
            self._add(file, now)

    def _load_lists(self) -> None:
        for file in self._files(LISTS_FOLDER):
            try:
                self.learn(*_parsed(file, list_from_text))
            except CredentialError as error:
                _log.warning("revocation list not obeyed", why=str(error))

    def _load_authorities(self) -> None:
        for file in self._files(AUTHORITIES_FOLDER)[:AUTHORITIES_LIMIT]:
            try:
                address = _parsed(file, lambda text: Address.parse(text[:ADDRESS_CHARACTERS].strip()))
            except AutonomyError as error:
                _log.warning("authority not known", file=str(file), why=str(error))
            else:
                self._authorities[address.node] = address

    def add(self, text: str, now: float, agent: bytes | None = None) -> None:
        """Take a credential in, and keep it in the home where there is one, in place of those that have expired.

        Args:
            text: of the credential.
            now: Unix seconds.
            agent: the identifier of the agent that it must be about; None for the node.

        Raises:
            CredentialError: it cannot be shown by this node, or by that agent.
            VaultError: the home refuses.
        """
        try:
            presentation = read_presentation(from_text(text))
        except CredentialError as error:
            raise CredentialError(f"the credential: {error}") from None
        self._check(presentation.credential, now, "the credential", agent or self.subject)
        folder = FOLDER if agent is None else AGENTS_FOLDER
        file = self._write(folder, presentation.credential.id, to_text(presentation.encode()))
        self._take(presentation, file, now)

    def _write(self, folder: str, name: bytes, text: str) -> Path | None:
        """Write a file of the home whole, or not at all; return where it is, None where there is no home.

        Raises:
            VaultError: the disk or the folder refuses.
        """
        if self.home is None:
            return None
        place = self.home / folder / name.hex()
        fresh = place.with_suffix(".new")
        try:
            for parent in (place.parent.parent, place.parent):  # parents=True would give the first another mode
                parent.mkdir(mode=0o700, exist_ok=True)
            fresh.unlink(missing_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(place)
        except OSError as error:
            raise VaultError(f"{place} cannot be written ({(error.strerror or str(error)).lower()})") from None
        return place

    def _files(self, folder: str) -> list[Path]:
        place = None if self.home is None else self.home / folder
        if place is None or not place.is_dir():
            return []
        return [file for file in sorted(place.iterdir()) if file.is_file()]  # a pipe would be waited for

    def _add(self, file: Path, now: float, *, of_agent: bool = False) -> None:
        presentation = _parsed(file, lambda text: read_presentation(from_text(text)))
        credential = presentation.credential
        folder = AGENTS_FOLDER if of_agent else FOLDER
        kept = self.home is not None and file == self.home / folder / credential.id.hex()
        lapsed = kept and now < credential.expires + RENEWABLE_FOR
        # Whether an agent is this home's shows when it speaks: one that is not never does.
        subject = credential.subject if of_agent else self.subject
        self._check(credential, now - (RENEWABLE_FOR if lapsed else 0), str(file), subject)
        self._take(presentation, file if kept else None, now)

    def _check(self, credential: Credential, now: float, what: str, expected: bytes) -> None:
        """Refuse a credential that would never count, or that there is no room for."""
        if credential.subject != expected:
            subject, own = format_identifier(credential.subject), format_identifier(expected)
            if expected == self.subject:
                raise CredentialError(
                    f"{what} is about {subject}, and this home is {own}: have its issuer make one with --subject {own};"
                    f" one about an agent of this home belongs into its folder {AGENTS_FOLDER}"
                )
            raise CredentialError(
                f"{what} is about {subject}, and that agent is {own}: have its issuer make one with --subject {own}"
            )
        if credential.expires <= now:
            raise CredentialError(
                f"{what} expired {now - credential.expires:,.0f} s ago: ask its issuer, "
                f"{format_identifier(credential.issuer)}, for a new one"
            )
        held, limit = self._beside(credential)
        if sum(now < each.expires for each in held) >= limit and credential.id not in self._held:
            whose = "this node holds" if limit == HELD_LIMIT else "the agents of this node hold"
            raise CredentialError(f"{what} is one too many: {whose} {limit}, so take some away")

    def _beside(self, credential: Credential) -> tuple[Sequence[Credential], int]:
        """Return what is held of the same kind, the node's or its agents', and how many there may be."""
        is_own = credential.subject == self.subject
        held = [each.credential for each in self._held.values()]
        return [each for each in held if (each.subject == self.subject) == is_own], (
            HELD_LIMIT if is_own else AGENTS_LIMIT
        )

    def _take(self, presentation: Presentation, file: Path | None, now: float) -> None:
        self._held[presentation.credential.id] = _Held(presentation, file)
        self.changes += 1
        held, limit = self._beside(presentation.credential)
        ended = sorted((each for each in held if each.expires <= now), key=lambda each: each.expires)
        excess = len(held) - limit
        for number, each in enumerate(ended):
            is_over = each.expires + RENEWABLE_FOR <= now or any(_renews(other, each) for other in held)
            if is_over or number < excess:
                gone = self._held.pop(each.id)
                if gone.file is not None:
                    gone.file.unlink(missing_ok=True)
        if presentation.revocations is not None:
            self.learn(presentation.revocations, presentation.history)


def _renews(newer: Credential, older: Credential) -> bool:
    """Tell whether one credential takes the place of another: it says all that the other says, later."""
    return (
        newer.issuer == older.issuer
        and newer.subject == older.subject
        and newer.subject_seq >= older.subject_seq
        and newer.not_before > older.not_before
        and newer.attributes.keys() >= older.attributes.keys()
    )


def _parsed(file: Path, parse: Callable[[str], T]) -> T:
    """Read a file and parse its text, or say what is wrong with the file."""
    try:
        text = file.read_text(encoding="ascii")
    except OSError as error:
        raise CredentialError(f"{file} cannot be read ({(error.strerror or str(error)).lower()})") from None
    except UnicodeDecodeError:
        raise CredentialError(f"{file} is no credential: it has characters that none has") from None
    try:
        return parse(text)
    except CredentialError as error:
        raise CredentialError(f"{file}: {error}") from None
