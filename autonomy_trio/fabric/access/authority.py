"""An authority as an agent: it answers those who redeem its tickets, renew, and fetch its revocations.

It runs on the node whose home has the authority's keys and its ledger. Whoever asks it is known by its session:
nothing else proves who a credential is for. `Redeem` turns a ticket into a credential, `Renew` issues again what the
ledger says its subject has, `Fetch` brings the newest revocation list. A stranger learns no more than that it gets
nothing; why is in the log of the authority.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar, final

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.delivery import Sender
from autonomy_trio.errors import (
    CredentialError,
    ReplyError,
    VaultError,
)
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import Request, message
from autonomy_trio.trust.authority import Authority as Ledger
from autonomy_trio.trust.authority import open_authority, read_ledger
from autonomy_trio.trust.credentials import to_text
from autonomy_trio.trust.delegates import AGENT_SEQ
from autonomy_trio.trust.lists import list_to_text, verify_list
from autonomy_trio.trust.records import parse_identifier
from autonomy_trio.trust.vault import Vault

T = TypeVar("T")

AGENT: Final = "authority"
"""What the agent goes by on its node."""

ATTEMPTS: Final = 10
"""How often the ledger is tried: a command in the same home holds it for a moment."""
PAUSE: Final = 0.1
"""Seconds between two attempts."""

LIST_EVERY: Final = 60.0
"""Seconds at most between two looks at whether the revocation list is to be signed anew."""

_log = get_log()


@message(name="authority.Redeem")
@attrs.frozen
class Redeem(Request[str | None]):
    """Redeem a ticket for the node that asks: its credential as text, or None where the ticket does not count."""

    ticket: str = attrs.field(repr=False)


@message(name="authority.Renew")
@attrs.frozen
class Renew(Request[str | None]):
    """Issue again what a credential of who asks said, an agent or a node: as text; None where it is not to have it."""

    credential: bytes


@message(name="authority.Fetch")
@attrs.frozen
class Fetch(Request[str | None]):
    """The newest revocation list as text; None where there is none after the one at this place."""

    key: int
    number: int


@attrs.frozen
class Unavailable(ReplyError):
    """The authority cannot use its ledger now; try again later."""


@final
@agent
class Authority:
    """Answers those who redeem, renew and fetch, with the ledger of a home, which it holds for each answer alone.

    Args:
        vault: of that home.
        home: the folder.
        next_update: seconds in which each revocation list promises the next; it is signed anew at half of them.
        seq_of: returns the sequence number that a node has proven.
        now: Unix seconds.
    """

    vault: Vault = attrs.field(repr=False)
    home: Path
    next_update: int
    seq_of: Callable[[bytes], int | None] = attrs.field(repr=False)
    now: Callable[[], float] = attrs.field(repr=False)

    async def on_start(self, context: Context) -> None:
        """Sign the list anew when it grows old, for as long as the agent lives."""
        context.start_soon(self._keep_list_fresh)

    @on(Redeem, allow="true", raises=Unavailable)
    async def redeem(self, asked: Redeem, context: Context) -> str | None:
        """Redeem a ticket."""
        return await self._issue(
            context.sender,
            "ticket refused",
            lambda ledger, subject, seq: ledger.redeem(asked.ticket, subject=subject, subject_seq=seq, now=self.now()),
        )

    @on(Renew, allow="true", raises=Unavailable)
    async def renew(self, asked: Renew, context: Context) -> str | None:
        """Renew a credential of who asks."""

        def renewed(ledger: Ledger, node: bytes, seq: int) -> bytes:
            subject = parse_identifier(context.sender.id)
            at = seq if subject == node else AGENT_SEQ
            return ledger.renew(asked.credential, subject=subject, subject_seq=at, now=self.now())

        return await self._issue(context.sender, "renewal refused", renewed)

    @on(Fetch, allow="true", raises=Unavailable)
    async def fetch(self, asked: Fetch) -> str | None:
        """Return the list."""
        await trio.lowlevel.checkpoint()
        try:
            signed = read_ledger(self.vault, self.home).newest_list
        except VaultError as error:
            _log.error("the ledger cannot be used", why=str(error))
            raise Unavailable from None
        if signed is None or verify_list(signed, self.vault.history).place <= (asked.key, asked.number):
            return None
        return list_to_text(signed, self.vault.history.changes)

    async def _issue(self, sender: Sender, refused: str, act: Callable[[Ledger, bytes, int], bytes]) -> str | None:
        if sender.is_local:
            return None
        subject = parse_identifier(sender.node)
        seq = self.seq_of(subject)
        if seq is None:
            return None
        try:
            return to_text(await self._with_ledger(lambda ledger: act(ledger, subject, seq)))
        except CredentialError as error:
            _log.warning(refused, node=sender.node, why=printable(str(error), 500))
            return None

    async def _with_ledger(self, act: Callable[[Ledger], T]) -> T:
        why = ""
        for _ in range(ATTEMPTS):
            try:
                with open_authority(self.vault, self.home) as ledger:
                    return act(ledger)
            except VaultError as error:
                why = str(error)
            await trio.sleep(PAUSE)
        _log.error("the ledger cannot be used", why=why)
        raise Unavailable

    async def _keep_list_fresh(self) -> None:
        def sign(ledger: Ledger) -> None:
            signed = ledger.ledger.newest_list
            kept = None if signed is None else verify_list(signed, self.vault.history)
            if kept is None or kept.issuer_seq < self.vault.seq or self.now() >= kept.issued + self.next_update / 2:
                ledger.revoke(now=self.now(), next_update=self.next_update)

        while True:
            try:
                await self._with_ledger(sign)
            except (Unavailable, CredentialError) as error:
                _log.warning("the revocation list cannot be signed anew", why=str(error))
            await trio.sleep(min(self.next_update / 4, LIST_EVERY))
