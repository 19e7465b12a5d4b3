"""The relays of one node: those it was given, and those in the addresses it uses."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import AutonomyError, ConfigurationError
from autonomy_trio.fabric.attachment import Attachment, Connect
from autonomy_trio.fabric.durable import Durable
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.fabric.links.addresses import RelayAddress
from autonomy_trio.fabric.peers.sessions import Sessions
from autonomy_trio.groups import fence
from autonomy_trio.logs import get_log
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.frames import Records

MOST_RELAYS: Final = 16
"""Relays a node attaches to."""

UNUSED_AFTER: Final = 60.0
"""Seconds after which a relay that only an address named gives its place to another, where no session goes over it."""

_log = get_log()


@final
@attrs.define(eq=False)
class Attachments:
    """All attachments of one node, in the order they were asked for."""

    _vault: Vault
    _histories: Histories
    _sessions: Sessions
    _nursery: trio.Nursery
    _connect: Connect
    _now: Callable[[], float]
    _durable: Durable
    _shown_to: Callable[[Collection[bytes]], Sequence[bytes]] = lambda _: ()
    """Returns what to show to a relay that asks for credentials of these issuers."""
    on_records: Callable[[Attachment, Records], None] = lambda _, records: None  # noqa: ARG005 - the shape of the call
    """Takes the answer to a lookup in a relay's directory."""
    _fetches: bool = False
    _by_url: dict[str, Attachment] = attrs.field(factory=dict[str, Attachment])
    _named: OrderedDict[str, float] = attrs.field(factory=OrderedDict[str, float])
    """Relays that only addresses named, by URL, with when one did last, on trio's clock; the longest ago first."""

    def relays(self) -> Sequence[RelayAddress]:
        """Return the relays, those that are away now among them."""
        return [attachment.relay for attachment in self._by_url.values()]

    def attached(self) -> Sequence[Attachment]:
        """Return those whose relay is there now."""
        return [attachment for attachment in self._by_url.values() if attachment.is_attached]

    def count_attached(self) -> int:
        """Return how many relays are there now."""
        return sum(attachment.is_attached for attachment in self._by_url.values())

    async def attach(self, relay: RelayAddress) -> None:
        """Register with a relay, and stay registered.

        Raises:
            RelayUnreachable, RelayRefused: it is not there, or not the pinned one, or refused.
            ConfigurationError: there are too many.
        """
        attachment = self._add(relay)
        self._named.pop(relay.url, None)
        if attachment is not None:
            try:
                await self._nursery.start(attachment.run)
            except BaseException:
                self._remove(attachment)
                raise

    def attach_soon(self, relay: RelayAddress) -> None:
        """Register with a relay without waiting; one that is not there is logged, and tried again when it is asked for.

        It is left again when nothing goes over it any more and another needs its place.

        Raises:
            ConfigurationError: there are too many.
        """
        attachment = self._add(relay)
        if attachment is not None:
            self._nursery.start_soon(self._run, attachment)
        if attachment is not None or relay.url in self._named:
            self._named[relay.url] = trio.current_time()
            self._named.move_to_end(relay.url)

    def fetch(self) -> None:
        """Have all relays hand over what is stored for this node, now that its agents are there."""
        self._fetches = True
        for attachment in self._by_url.values():
            attachment.fetch()

    def depots(self, relay: RelayAddress | None) -> Sequence[Attachment]:
        """Return where to store something: the relay that its address names, and where that is away all others."""
        named = None if relay is None else self._by_url.get(relay.url)
        others = [attachment for attachment in self._by_url.values() if attachment is not named]
        if named is None:
            return others
        return [named] if named.is_attached else [named, *others]

    def show(self) -> None:
        """Show the relays that asked for credentials what the node shows now."""
        for attachment in self._by_url.values():
            attachment.show()

    async def flush(self) -> None:
        """Return when what waits to leave has left, or a moment has passed."""
        for attachment in self._by_url.values():
            await attachment.flush()

    async def close(self) -> None:
        """Let what waits leave, and leave the relays."""
        await self.flush()
        for attachment in self._by_url.values():
            if attachment.times_attached:
                attachment.stop()

    async def _run(self, attachment: Attachment) -> None:
        def failed(error: Exception) -> None:
            shown = {} if isinstance(error, AutonomyError) else {"exc_info": error}
            _log.warning("relay not attached", relay=attachment.relay.url, reason=str(error), **shown)
            self._remove(attachment)

        # Fence: a relay that somebody named in an address, which may be anything.
        with fence(failed):
            await attachment.run()

    def _add(self, relay: RelayAddress) -> Attachment | None:
        """Make an attachment; None where there is one."""
        known = self._by_url.get(relay.url)
        if known is not None:
            if relay.pin not in (None, known.relay.pin):
                raise ConfigurationError(f"{relay} cannot be pinned: this node has attached to {known.relay} before")
            return None

        def refused(node: bytes, reason: str) -> None:
            self._sessions.refused(attachment, node, reason)

        if len(self._by_url) >= MOST_RELAYS and not self._release():
            raise ConfigurationError(f"{relay.url} would be relay number {MOST_RELAYS + 1} of this node: use fewer")
        attachment = Attachment(
            relay,
            self._vault,
            self._connect,
            self._sessions.receive,
            self._sessions.refresh,
            self._now,
            refused,
            self._histories.see,
            self._durable.receive,
            self._shown_to,
        )
        if self._fetches:
            attachment.fetch()
        attachment.on_records = self.on_records
        attachment.on_detached = self._sessions.refresh
        if relay.pin is not None:
            self._histories.watcher.keep(relay.pin)
        self._by_url[relay.url] = attachment
        self._sessions.carriers.append(attachment)
        return attachment

    def _release(self) -> bool:
        """Leave the relay that was not named for longest, of those that nothing goes over."""
        for url, named_at in self._named.items():
            attachment = self._by_url[url]
            is_unused = named_at + UNUSED_AFTER <= trio.current_time() and not attachment.is_storing
            if is_unused and not self._sessions.uses(attachment):
                attachment.stop()
                self._remove(attachment)
                return True
        return False

    def _remove(self, attachment: Attachment) -> None:
        self._named.pop(attachment.relay.url, None)
        del self._by_url[attachment.relay.url]
        self._sessions.carriers.remove(attachment)
