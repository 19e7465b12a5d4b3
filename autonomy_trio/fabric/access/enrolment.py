"""Enrolment: how a node gets credentials from an authority over the network, and what the authority takes back.

A node that was enrolled renews at two thirds of a credential's life, and asks each authority for its list once a
minute. So a revocation reaches it, in sessions that are open too, in at most `REVOKED_WITHIN` seconds while both are
connected.
"""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import attrs
import trio

from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.errors import (
    AutonomyError,
    ConfigurationError,
    CredentialError,
    DeliveryError,
    NotDelivered,
    OutcomeUnknown,
    ReplyError,
    UsageError,
)
from autonomy_trio.fabric.access.admission import Admission
from autonomy_trio.fabric.access.authority import AGENT, Authority, Fetch, Redeem, Renew
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.fabric.links.addresses import Address, RelayAddress
from autonomy_trio.fabric.peers.peers import Peers
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import Request
from autonomy_trio.trust.anchors import Anchor, to_toml
from autonomy_trio.trust.attributes import AttributeType, AttributeValue, type_of
from autonomy_trio.trust.authority import LEDGER_NAME, read_ledger
from autonomy_trio.trust.credentials import Credential, from_text, read_presentation
from autonomy_trio.trust.lists import DEFAULT_NEXT_UPDATE, list_from_text, verify_list
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.tickets import make_ticket, verify_ticket
from autonomy_trio.trust.vault import Vault

TICK: Final = 5.0
"""Seconds between two looks at what is due."""
FETCH_EVERY: Final = 60.0
"""Seconds between two requests for an authority's list; also between two attempts to renew."""
ASK_LIMIT: Final = 15.0
"""Seconds in which an authority answers."""
REVOKED_WITHIN: Final = FETCH_EVERY + TICK + ASK_LIMIT
"""Seconds in which a revocation reaches a connected node that knows where the authority is."""
NO_TEXT: Final = (0, 0)

_log = get_log()


@attrs.frozen
class Enrolled:
    """What a node has got for a ticket."""

    authority: str
    """The authority's identifier."""
    attributes: Mapping[str, AttributeValue]
    """What the credential says."""
    expires: int
    """Unix seconds until which it holds; it is renewed before."""
    trusts: bool
    """Whether the node's home trusts the authority from now on, since it had no anchors file."""


@final
@attrs.define(eq=False)
class Enrolment:
    """One node's dealings with authorities: its own, and those that it was enrolled with."""

    _vault: Vault
    _wallet: Wallet
    _admission: Admission
    _peers: Peers
    _histories: Histories
    _now: Callable[[], float]
    _ref: Callable[[str], AgentRef[Any]]
    _attach: "Callable[[str], Any]"
    _anchors_file: Path | None
    """The home's anchors file, which need not be there; None where anchors are none of the home's business."""
    _show_relays: Callable[[], None] = lambda: None
    """Shows what the wallet holds to the relays that asked for credentials."""
    _not_before: dict[bytes, float] = attrs.field(factory=dict[bytes, float])
    """When to ask next, on trio's clock: by authority for its list, by credential for its renewal."""
    _ledger_seen: tuple[int, int] = NO_TEXT
    """Modification and size of the own ledger when it was read last."""
    _running: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _away: set[bytes] = attrs.field(factory=set[bytes])
    """Authorities that did not answer last time."""

    def agent(self, next_update: int = DEFAULT_NEXT_UPDATE) -> Authority:
        """Return the agent that is this node's authority.

        Raises:
            UsageError: the node has no home.
        """
        if self._wallet.home is None:
            msg = "an authority needs a home, where what it says is written down: open_node(…, home=…)"
            raise UsageError(msg)
        return Authority(self._vault, self._wallet.home, next_update, self._seq_of, self._now)

    def ticket(self, relay: str, attributes: Mapping[str, AttributeValue]) -> str:
        """Make a ticket for whoever redeems it first at this node's authority."""
        return make_ticket(self._vault, relay=relay, attributes=attributes, now=self._now())

    async def enrol(self, text: str) -> Enrolled:
        """Redeem a ticket, and remember where its authority is reached."""
        ticket = verify_ticket(text, self._now())
        if ticket.issuer == self._vault.identifier:
            msg = "the ticket is this home's own: redeem it on another machine, or with another --home"
            raise UsageError(msg)
        relay = RelayAddress.parse(ticket.relay)
        self._histories.see(ticket.bundle.history)
        await self._attach(str(relay))
        address = Address(ticket.issuer, AGENT, relay)
        answer = await self._redeem(address, Redeem(text))
        if answer is None:
            msg = (
                f"the authority {format_identifier(ticket.issuer)} refused the ticket, which another has redeemed or"
                " which holds no more: ask for a new one"
            )
            raise CredentialError(msg)
        credential = read_presentation(from_text(answer)).credential
        if credential.issuer != ticket.issuer:
            msg = f"the credential for the ticket is by {format_identifier(credential.issuer)}, who did not make it"
            raise CredentialError(msg)
        self._take(answer)
        self._wallet.know(address)
        types: dict[str, AttributeType] = {name: type_of(value) for name, value in credential.attributes.items()}
        trusts = self._trust(Anchor(ticket.issuer, types))
        return Enrolled(
            format_identifier(ticket.issuer), dict(credential.attributes), credential.expires, trusts=trusts
        )

    async def run(self) -> None:
        """Renew, fetch and keep what is due, until it is stopped."""
        with self._running:
            await self._keep_up()

    def stop(self) -> None:
        """End `run`, and whatever it asks for, before its node stops."""
        self._running.cancel()

    async def _keep_up(self) -> None:
        while True:
            # Fence: a home that refuses to be written, an authority that answers nonsense; the next look comes.
            with fence(lambda error: _log.warning("enrolment is not kept up", why=str(error))):
                self._learn_own_list()
                self._keep_lists()
                for issuer, address in self._wallet.authorities.items():
                    await self._fetch(issuer, address)
                for credential in self._wallet.due(self._now(), self._vault.seq):
                    await self._renew(credential)
                for name, credential in self._wallet.due_of_agents(self._now()):
                    # An agent's are renewed for nobody else.
                    with self._admission.runtime.speaking_for(name) as is_there:
                        if is_there:
                            await self._renew(credential)
            await trio.sleep(TICK)

    def _seq_of(self, identifier: bytes) -> int | None:
        mark = self._histories.watcher.get(identifier)
        return None if mark is None else mark.seq

    async def _redeem(self, address: Address, asked: Redeem) -> str | None:
        """Ask twice where the first outcome is not known: the same node gets the same answer again."""
        said = f"the authority did not answer at {address}: is `authority serve` running there?"
        with trio.move_on_after(ASK_LIMIT):
            try:
                return await self._ref(str(address)).ask(asked)
            except OutcomeUnknown:
                return await self._ref(str(address)).ask(asked)
            except ReplyError:
                said = f"the authority at {address} cannot answer now: try again with the same ticket"
            except DeliveryError as error:
                said = f"{said} ({error})" if not isinstance(error, NotDelivered) else said
        raise NotDelivered(said)

    def _take(self, text: str, subject: bytes | None = None) -> None:
        agent = None if subject == self._vault.identifier else subject
        self._wallet.add(text, self._now(), agent)
        self._admission.obey(self._wallet.lists)
        self.show()

    def show(self) -> None:
        """Show what the wallet holds in the sessions that stand, and to relays."""
        self._show_relays()
        self._peers.show(self._wallet.shown(self._now()))

    def _trust(self, anchor: Anchor) -> bool:
        """Trust an authority where the home trusts none but itself, and has never been one itself."""
        file, home = self._anchors_file, self._wallet.home
        if file is None or home is None or file.exists() or (home / LEDGER_NAME).exists():
            return False
        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(to_toml(anchor))
        except OSError as error:
            msg = f"{file} cannot be written ({(error.strerror or str(error)).lower()})"
            raise ConfigurationError(msg) from None
        return True

    def _learn_own_list(self) -> None:
        """Obey what a command in another process has signed as this authority meanwhile."""
        if self._wallet.home is None:
            return
        try:
            status = (self._wallet.home / LEDGER_NAME).stat()
        except FileNotFoundError:
            return
        seen = (status.st_mtime_ns, status.st_size)
        if seen == self._ledger_seen:
            return
        signed = read_ledger(self._vault, self._wallet.home).newest_list
        self._ledger_seen = seen
        if signed is not None:
            self._wallet.learn(verify_list(signed, self._vault.history), self._vault.history)
            self._admission.obey(self._wallet.lists)

    def _keep_lists(self) -> None:
        """Write down the lists that others have shown meanwhile, and show them on with credentials of their issuers."""
        fresh = [
            revocations.issuer
            for revocations, history in self._admission.revocations.lists()
            if revocations.issuer != self._vault.identifier and self._wallet.keep(revocations, history)
        ]
        if any(self._wallet.shows_for(issuer) for issuer in fresh):
            self.show()

    async def _fetch(self, issuer: bytes, address: Address) -> None:
        if not self._is_time(issuer):
            return
        kept = next((each for each, _ in self._wallet.lists if each.issuer == issuer), None)
        key, number = NO_TEXT if kept is None else kept.place
        text = await self._ask(address, Fetch(key, number))
        if text is None:
            return
        revocations, history = list_from_text(text)
        if revocations.issuer != issuer:
            msg = f"the list from {address} is by {format_identifier(revocations.issuer)}"
            raise CredentialError(msg)
        self._histories.see_issuer(history, self._now())
        self._admission.obey([(revocations, history)])
        if self._wallet.keep(revocations, history) and self._wallet.shows_for(issuer):
            self.show()

    async def _renew(self, credential: Credential) -> None:
        address = self._wallet.authorities.get(credential.issuer)
        if address is None or not self._is_time(credential.id):
            return
        text = await self._ask(address, Renew(credential.id))
        if text is not None:
            self._take(text, credential.subject)
            del self._not_before[credential.id]
            _log.info("credential renewed", issuer=format_identifier(credential.issuer))
        elif credential.issuer not in self._away:
            _log.warning("credential not renewed: its issuer refuses", issuer=format_identifier(credential.issuer))

    def _is_time(self, what: bytes) -> bool:
        """Tell whether to ask now, and have it asked again no sooner than in a while."""
        ticks = trio.current_time()
        if ticks < self._not_before.get(what, ticks):
            return False
        # Nodes that were started together do not come together for ever.
        self._not_before[what] = ticks + FETCH_EVERY - secrets.randbelow(1000) * TICK / 1000
        return True

    async def _ask(self, address: Address, asked: Request[str | None]) -> str | None:
        """Ask an authority; None where it has nothing, or does not answer, which is logged once."""
        why = f"no answer in {ASK_LIMIT:g} s"
        with trio.move_on_after(ASK_LIMIT):
            try:
                answer = await self._ref(str(address)).ask(asked)
            except AutonomyError as error:
                why = str(error)
            else:
                self._away.discard(address.node)
                return answer
        if address.node not in self._away:
            _log.warning("authority away", address=str(address), why=printable(why, 500))
        self._away.add(address.node)
        return None
