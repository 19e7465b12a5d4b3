"""The histories that other nodes show: compared with what was seen before, and with this node's own."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import final

import attrs

from autonomy_trio.errors import IdentityError
from autonomy_trio.logs import get_log
from autonomy_trio.trust.identity import History
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.trust.watcher import Watcher

_log = get_log()


@final
@attrs.frozen
class Histories:
    """Judges the history of each peer, once the peer has proven that it is its own, and of each issuer."""

    vault: Vault
    watcher: Watcher

    @property
    def generation(self) -> int:
        """As `Watcher.generation`."""
        return self.watcher.generation

    def see(self, history: History) -> None:
        """Remember the history of a peer, or refuse it.

        Raises:
            IdentityError: it goes back, or contradicts one that was seen before.
            VaultError: what is to be remembered cannot be written down.
        """
        if history.identifier == self.vault.identifier:
            self._learn(history)
            return
        with self._reported():
            self.watcher.see(history)

    def see_issuer(self, history: History, now: float) -> Sequence[float]:
        """Remember the history of an issuer of credentials, or refuse it.

        Args:
            history: the history.
            now: Unix seconds.

        Returns:
            as `Watcher.see_issuer`.

        Raises:
            IdentityError: it contradicts one that was seen before, or its owner was caught with two.
            VaultError: what is to be remembered cannot be written down.
        """
        if history.identifier == self.vault.identifier:
            self._learn(history)
        with self._reported():
            return self.watcher.see_issuer(history, now)

    @contextmanager
    def _reported(self) -> Generator[None]:
        """Say in the log what was found."""
        try:
            yield
        finally:
            for found in self.watcher.take_duplicities():
                _log.warning(
                    "an identity has two histories: the one seen first stays",
                    node=format_identifier(found.identifier),
                    seq=found.seq,
                    kept=None if found.kept is None else found.kept.body.hex(),
                    refused=found.refused.body.hex(),
                )

    def _learn(self, history: History) -> None:
        """Compare a history of this node's own identity with the one in its vault."""
        before = self.vault.later_seq
        try:
            self.vault.learn(history)
        except IdentityError as error:
            _log.error("this node's identity has two histories", why=str(error))
            raise
        if self.vault.later_seq != before:
            _log.error("this home is a copy from before: run `identity rotate`", seq=self.vault.later_seq)
