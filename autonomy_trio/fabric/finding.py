"""What a node lets be found in the directories of its relays, and how it finds agents of others there.

Nothing is published that was not asked for: a record tells the relay, and whoever is registered there, the names of
agents, the messages they take from other nodes, and the node's credentials. A name proves nothing, so whoever looks
asks for an attribute besides, which is judged by anchors of its own, or says that anyone will do.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

import attrs
import msgspec
import trio

from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.errors import ProtocolError, RelayUnreachable, TrustError, UsageError
from autonomy_trio.fabric.access.admission import Admission
from autonomy_trio.fabric.attachment import Attachment
from autonomy_trio.fabric.attachments import Attachments
from autonomy_trio.fabric.identity.credentials import Wallet
from autonomy_trio.fabric.identity.histories import Histories
from autonomy_trio.fabric.links.addresses import Address
from autonomy_trio.fabric.memories import Known
from autonomy_trio.logs import get_log
from autonomy_trio.messages import message_schema, wire_name
from autonomy_trio.trust.anchors import proven_attributes
from autonomy_trio.trust.attributes import AttributeValue, type_of
from autonomy_trio.trust.credentials import verify_presentations
from autonomy_trio.trust.identity import Bundle, verify_bundle
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import (
    NAME_CHARACTERS,
    RECORD_AGENTS,
    RECORD_LIFE,
    RECORD_MESSAGES,
    TEXT_CHARACTERS,
)
from autonomy_trio.wire.directory import Found, ListedAgent, ListedMessage, Record, make_listing, verify_listing
from autonomy_trio.wire.frames import Listing, Lookup, Publish, Records

TICK: Final = 5.0
"""Seconds between two looks at whether what is published is still right."""

FIND_LIMIT: Final = 5.0
"""Seconds in which a relay answers."""

MOST_SEEN: Final = 10_000
"""Nodes whose newest record is remembered, so that a relay cannot bring an older one back."""

_log = get_log()


@attrs.frozen
class FoundAgent:
    """An agent that was found in a directory."""

    address: str
    """For `Node.ref`; with the relay in front that knows it."""
    name: str
    """What it goes by on its node: anyone can take any name."""
    description: str
    """What its node says of it."""
    messages: Sequence[str]
    """The wire names of what it takes from other nodes, under conditions of its own."""
    attributes: Mapping[str, AttributeValue]
    """What its node has proven to this one."""


@attrs.define(eq=False)
class _Asked:
    """A lookup that is under way."""

    answer: Records | None = None
    answered: trio.Event = attrs.field(factory=trio.Event)


@final
@attrs.define(eq=False)
class Finding:
    """One node's dealings with the directories of its relays."""

    _vault: Vault
    _runtime: Runtime
    _admission: Admission
    _wallet: Wallet
    _histories: Histories
    _attachments: Attachments
    _now: Callable[[], float]
    _names: Sequence[str]
    """The agents that may be found."""
    _requests: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    _asked: dict[tuple[Attachment, int], _Asked] = attrs.field(factory=dict[tuple[Attachment, int], _Asked])
    _seen: dict[bytes, tuple[int, int]] = attrs.field(factory=dict[bytes, tuple[int, int]])
    """Sequence and serial of the newest record of each node."""
    _published: dict[Attachment, tuple[int, int]] = attrs.field(factory=dict[Attachment, tuple[int, int]])
    """Which record each relay got, by its serial, and in which of its connections."""
    _serial: int = 0

    def take(self, attachment: Attachment, records: Records) -> None:
        """Take a relay's answer; one that nobody asked for is nothing."""
        asked = self._asked.get((attachment, records.request))
        if asked is not None:
            asked.answer = records
            asked.answered.set()

    async def publish(self) -> None:
        """Keep the record right at every relay, until cancelled: by what is there, and by half of its life."""
        if not self._names:
            return
        said: tuple[tuple[ListedAgent, ...], Sequence[bytes]] | None = None
        listing: Listing | None = None
        until = 0.0
        while True:
            now = self._now()
            says = (self._agents(), self._wallet.shown(now))
            if listing is None or says != said or now >= until:
                said, until = says, now + RECORD_LIFE / 2
                try:
                    listing = self._listing(*says, now)
                except (UsageError, TrustError) as error:
                    _log.warning("nothing can be found of this node", why=str(error))
                    listing = None
            for attachment in self._attachments.attached():
                place = (self._serial, attachment.times_attached)
                if (
                    listing is not None
                    and self._published.get(attachment) != place
                    and attachment.request(Publish(listing))
                ):
                    self._published[attachment] = place
            await trio.sleep(TICK)

    async def find(
        self, name: str | None, message: type | str | None, anyone: bool, attributes: Mapping[str, AttributeValue]
    ) -> list[FoundAgent]:
        """Ask every relay, and return what verifies and fits."""
        if not attributes and not anyone:
            msg = 'anyone can take any name: say what the node must prove, say team="payments", or anyone=True'
            raise UsageError(msg)
        wanted = wire_name(message) if isinstance(message, type) else message
        for text in (name, wanted):
            if text is not None and not 0 < len(text) <= NAME_CHARACTERS:
                msg = f"{text[:50]!r} is no name of an agent or a message"
                raise UsageError(msg)
        newest: dict[bytes, tuple[Attachment, Found]] = {}
        for attachment, records in (await self._look_everywhere(name, wanted)).items():
            if records.more:
                _log.warning("a relay lists more than it tells: ask for less", relay=attachment.relay.url)
            for listing in records.listings:
                await trio.lowlevel.checkpoint()  # each costs signature checks
                found = self._verified(listing)
                known = None if found is None else newest.get(found.record.node)
                if found is not None and (known is None or found.replaces(known[1])):
                    newest[found.record.node] = attachment, found
        return [
            agent
            for attachment, found in newest.values()
            for agent in self._fitting(attachment, found, name, wanted, attributes)
        ]

    async def look_up(self, node: bytes) -> Known | None:
        """Return what the relays know of a node: its newest bundle, and the credentials beside its newest record."""
        try:
            answers = await self._look_everywhere(None, None, node)
        except RelayUnreachable:
            return None
        found: Found | None = None
        bundles: list[Bundle] = []
        for records in answers.values():
            for listing in records.listings[:1]:
                listed = self._verified(listing)
                if listed is not None and listed.record.node == node:
                    bundles.append(listed.bundle)
                    found = listed if found is None or listed.replaces(found) else found
            shown = None if records.bundle is None else self._verified_bundle(records.bundle, node)
            bundles += () if shown is None else (shown,)
        if not bundles:
            return None
        newest = max(bundles, key=lambda each: (each.seq, each.not_before))
        return Known(newest, () if found is None else found.presentations)

    def _verified_bundle(self, encoded: bytes, node: bytes) -> Bundle | None:
        try:
            bundle = verify_bundle(encoded, self._now())
            if bundle.identifier != node:
                return None
            self._histories.see(bundle.history)
        except TrustError as error:
            _log.debug("bundle not believed", why=str(error))
            return None
        return bundle

    async def _look_everywhere(
        self, name: str | None, message: str | None, node: bytes | None = None
    ) -> dict[Attachment, Records]:
        attached = self._attachments.attached()
        if not attached:
            msg = "no relay is there to look in: attach to one with relay=ws://HOST:PORT"
            raise RelayUnreachable(msg)
        answers: dict[Attachment, Records] = {}
        async with trio.open_nursery() as nursery:
            for attachment in attached:
                nursery.start_soon(self._look, attachment, Lookup(next(self._requests), node, name, message), answers)
        if not answers:
            msg = f"no relay has answered in {FIND_LIMIT:g} s: does it have a directory?"
            raise RelayUnreachable(msg)
        return answers

    async def _look(self, attachment: Attachment, lookup: Lookup, answers: dict[Attachment, Records]) -> None:
        key, asked = (attachment, lookup.request), _Asked()
        self._asked[key] = asked
        try:
            with trio.move_on_after(FIND_LIMIT):
                if attachment.request(lookup):
                    await asked.answered.wait()
        finally:
            del self._asked[key]
        if asked.answer is not None:
            answers[attachment] = asked.answer

    def _verified(self, listing: Listing) -> Found | None:
        try:
            found = verify_listing(listing, self._now())
            self._histories.see(found.bundle.history)
        except (ProtocolError, TrustError) as error:
            _log.debug("record not believed", why=str(error))
            return None
        node, place = found.record.node, (found.record.seq, found.record.serial)
        if place < self._seen.get(node, place):
            _log.debug("record not believed: a newer one was seen", node=format_identifier(node))
            return None
        self._seen.pop(node, None)
        self._seen[node] = place
        if len(self._seen) > MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return found

    def _fitting(
        self,
        attachment: Attachment,
        found: Found,
        name: str | None,
        message: str | None,
        attributes: Mapping[str, AttributeValue],
    ) -> Iterator[FoundAgent]:
        node = found.record.node
        credentials, _ = verify_presentations(
            found.presentations,
            subject=node,
            subject_seq=found.bundle.seq,
            anchors=self._admission.anchors,
            revocations=self._admission.revocations,
            now=self._now(),
        )
        proven, _ = proven_attributes(credentials)
        if not all(key in proven and _is_so(proven[key], value) for key, value in attributes.items()):
            return
        for each in found.record.agents:
            messages = tuple(one.name for one in each.messages)
            is_address = each.name.isprintable() and each.name and not set(each.name) & {"/", " "}
            if is_address and name in {None, each.name} and (message is None or message in messages):
                address = str(Address(node, each.name, attachment.relay))
                yield FoundAgent(address, each.name, each.description, messages, proven)

    def _agents(self) -> tuple[ListedAgent, ...]:
        reachable = {(each.agent, each.action) for each in self._admission.policies.reachable()}
        agents: list[ListedAgent] = []
        specs = self._runtime.specs()
        for name in self._names[:RECORD_AGENTS]:
            if (spec := specs.get(name)) is not None:
                table = spec.wire_table()
                taken = sorted(action for action in table if (spec.agent, action) in reachable)
                messages = tuple(
                    ListedMessage(action, json.dumps(message_schema(table[action][0])).encode())
                    for action in taken[:RECORD_MESSAGES]
                )
                agents.append(ListedAgent(name, spec.description[:TEXT_CHARACTERS], messages))
        return tuple(agents)

    def _listing(self, agents: tuple[ListedAgent, ...], shown: Sequence[bytes], now: float) -> Listing:
        """Sign a record of what is there; where it is too large the schemas are left out."""
        # Higher than any before, of an earlier start too, unless the clock was set back.
        self._serial = max(self._serial + 1, int(now * 1000))
        record = Record(
            1, self._vault.identifier, self._vault.seq, self._serial, int(now), int(now) + RECORD_LIFE, (), agents
        )
        try:
            return make_listing(self._vault, record, shown)
        except UsageError:
            bare = tuple(
                ListedAgent(each.name, each.description, tuple(ListedMessage(one.name, b"") for one in each.messages))
                for each in agents
            )
            return make_listing(self._vault, msgspec.structs.replace(record, agents=bare), shown)


def _is_so(proven: AttributeValue, wanted: AttributeValue) -> bool:
    """Tell whether an attribute is what was asked for, or a set that has it."""
    if isinstance(proven, frozenset) and isinstance(wanted, str):
        return wanted in proven
    return proven == wanted and type_of(proven) == type_of(wanted)
