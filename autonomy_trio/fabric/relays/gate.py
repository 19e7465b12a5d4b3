"""The gate of a relay: whom its policy lets in, how long each may stay, and what it may do meanwhile."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import CredentialError, LinkBroken
from autonomy_trio.fabric.links.buckets import TokenBucket
from autonomy_trio.fabric.relays.policy import Guest, RelayPolicy
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.lists import LIST_FILE_BYTES_LIMIT
from autonomy_trio.trust.records import format_identifier

SHOWS: Final = (1.0, 64.0)
"""Credentials a second from one node after it has registered, and at once: each costs signature checks."""

LISTS_EVERY: Final = 5.0
"""Seconds between two looks at the revocation lists in the relay's home."""

_log = get_log()


@attrs.define(eq=False)
class Stay:
    """A node that was let in, for as long as that holds."""

    guest: Guest
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Ends when it is let in no more."""
    shows: TokenBucket = attrs.field(factory=lambda: TokenBucket(*SHOWS))


@final
@attrs.define(eq=False)
class Gate:
    """Judges the nodes of one relay, once more when something was learned; without a policy anybody may do all."""

    _policy: RelayPolicy | None
    _relay: bytes
    """The relay's identifier."""
    _now: Callable[[], float]
    """Unix seconds."""
    _reviewed: int = 0
    """The generation of the policy by which those inside were judged last."""
    _inside: set[Stay] = attrs.field(factory=set[Stay])

    @property
    def issuers(self) -> tuple[bytes, ...]:
        """Whose credentials a node is asked for."""
        return () if self._policy is None else self._policy.issuers

    def admit(self, bundle: Bundle, presentations: Sequence[bytes]) -> Guest:
        """Judge a node that has proven who it is.

        Raises:
            LinkBroken: it may not register.
        """
        if self._policy is None:
            return Guest(bundle)
        try:
            return self._policy.admit(bundle, presentations, self._relay, self._now())
        except CredentialError as error:
            _log.info("node not let in", node=format_identifier(bundle.identifier), why=str(error))
            raise LinkBroken("it may not register") from None
        finally:
            self._review()

    @contextmanager
    def inside(self, stay: Stay) -> Generator[None]:
        """Let a node be inside for the length of a block, which is left when it is let in no more."""
        stay.scope.deadline = self._end(stay.guest)
        self._inside.add(stay)
        try:
            with stay.scope:
                yield
        finally:
            self._inside.discard(stay)

    def show(self, stay: Stay, presentations: Sequence[bytes]) -> None:
        """Judge a node that is inside by other credentials than before; too many at once are not looked at."""
        policy = self._policy
        if policy is not None and stay.shows.try_take(len(presentations), trio.current_time()):
            self._judge(stay, lambda guest: policy.show(guest, presentations, self._relay, self._now()))
            self._review()

    def may_publish(self, stay: Stay) -> bool:
        """Tell whether a node may be listed in the directory."""
        return self._policy is None or self._policy.may_publish(stay.guest, self._relay, self._now())

    def may_store(self, stay: Stay, destination: bytes) -> bool:
        """Tell whether a node may have something stored for another one."""
        return self._policy is None or self._policy.may_store(stay.guest, destination, self._relay, self._now())

    async def obey_lists(self, folder: Path) -> None:
        """Obey the revocation lists in a folder, and those that come into it, until cancelled."""
        policy, known = self._policy, dict[Path, str]()
        while policy is not None:
            found = await trio.to_thread.run_sync(_texts_in, folder)
            for file, text in found.items():
                if known.get(file) != text:
                    try:
                        policy.obey(text, self._now())
                    except CredentialError as error:
                        _log.warning("revocation list not obeyed", file=str(file), why=str(error))
            self._review()
            known = found
            await trio.sleep(LISTS_EVERY)

    def _review(self) -> None:
        """Judge the nodes that are inside again, where something was learned of an issuer."""
        policy = self._policy
        if policy is not None and policy.generation != self._reviewed:
            self._reviewed = policy.generation
            for stay in list(self._inside):
                self._judge(stay, lambda guest: policy.judge_again(guest, self._relay, self._now()))

    def _judge(self, stay: Stay, judge: Callable[[Guest], None]) -> None:
        try:
            judge(stay.guest)
        except CredentialError as error:
            name = format_identifier(stay.guest.bundle.identifier)
            _log.info("node not let in any more", node=name, why=str(error))
            stay.scope.cancel()
        else:
            stay.scope.deadline = self._end(stay.guest)

    def _end(self, guest: Guest) -> float:
        """Return when it is let in no more, on trio's clock."""
        return trio.current_time() + max(0.0, guest.until - self._now())


def _texts_in(folder: Path) -> dict[Path, str]:
    """Read the files of a folder; of one that is longer than a list can be, the beginning, which is none."""
    texts: dict[Path, str] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(OSError, UnicodeDecodeError), file.open("rb") as opened:
            texts[file] = opened.read(LIST_FILE_BYTES_LIMIT).decode("ascii")
    return texts
