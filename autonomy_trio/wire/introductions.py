"""Introductions: how agents speak in their node's session, each under a small index in place of its identity.

A node gives each of its agents that speaks an index, and says who that is by an introduction, which rides ahead of the
agent's messages until the peer has acknowledged it. So a message never comes before its sender's introduction, whatever
was lost. An index belongs to one session and is never used for two agents in it; 0 is the node itself.

The receiver verifies what it has not verified before: a change and a delegate, two signatures, at most 100 a second of
one peer past a burst of 1,024; who sends keeps to that. What it verified it knows by its bytes, so a renewed session
costs no signature. Both sides keep 1,024 and let the one go that was not used for longest. A receiver that does not
know an index refuses what was said under it, and says so; the sender then introduces the agent again, under another
index.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, Generic, TypeVar, final

from attrs import field, frozen
from msgspec.structs import replace

from autonomy_trio.errors import IdentityError, ProtocolError
from autonomy_trio.trust.delegates import Introduction, verify_delegate
from autonomy_trio.trust.identity import Bundle
from autonomy_trio.trust.records import Signed
from autonomy_trio.wire.constants import (
    CHECKS_BURST,
    CHECKS_PER_INTRODUCTION,
    CHECKS_PER_SECOND,
    INTRODUCTIONS,
    INTRODUCTIONS_BYTES,
)
from autonomy_trio.wire.entries import Entry, Introduce, Spoken

_Key = TypeVar("_Key", bound=Hashable)

_AGENT_BYTES: Final = 512
"""A change, a delegate and their signatures."""


@frozen(eq=False)
class Speaker:
    """One of this node's agents that speaks; the same object is introduced once in a session.

    Attributes:
        introduction: what the node shows of it; a renewed delegate needs another speaker.
        inherits: whether it speaks with what its node has proven besides its own.
        presentations: the agent's own credentials, at most 16 and 23 KiB together.
    """

    introduction: Introduction
    inherits: bool
    presentations: tuple[bytes, ...] = field(default=(), repr=False)

    def entry(self, index: int) -> Introduce:
        """Return what introduces it under an index."""
        shown = self.introduction
        return Introduce(index, shown.change, shown.delegate, self.inherits, self.presentations)


@frozen
class Agent:
    """An agent of a peer that was introduced and verified.

    Attributes:
        identifier: the agent's 32-byte identifier.
        expires: Unix seconds from which its node may not speak for it any more.
        inherits: whether it speaks with what its node has proven besides its own.
        presentations: the agent's own credentials, not yet judged.
    """

    identifier: bytes
    expires: int
    inherits: bool
    presentations: tuple[bytes, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """About how many bytes it takes to know it."""
        return _AGENT_BYTES + sum(map(len, self.presentations))


@final
class Introducing:
    """The agents that this side of a session introduced, by index, the one used last at the end."""

    def __init__(self) -> None:
        self._indices: dict[Speaker, int] = {}
        self._unacknowledged: set[int] = set()
        self._next = 1

    def __len__(self) -> int:
        return len(self._indices)

    def address(self, entries: Sequence[Entry], speakers: Mapping[int, Speaker]) -> tuple[list[Introduce], list[Entry]]:
        """Put the indices of the agents that speak into an envelope's entries.

        Args:
            entries: the entries of one envelope.
            speakers: who speaks, by the entry's position; entries that are not in it are the node's.

        Returns:
            The introductions that must ride ahead, and the entries.
        """
        addressed = list(entries)
        riding: dict[int, Introduce] = {}
        spoke, index = None, 0
        for position, speaker in speakers.items():
            entry = addressed[position]
            if not isinstance(entry, Spoken):
                raise ValueError(f"a {type(entry).__name__.lower()} has no sender but the node")  # noqa: TRY004  a value
            if speaker is not spoke:
                spoke, index = speaker, self._index(speaker)
            addressed[position] = replace(entry, sender=index)
            if index in self._unacknowledged and index not in riding:
                riding[index] = speaker.entry(index)
        return list(riding.values()), addressed

    def acknowledge(self, indices: Iterable[int]) -> None:
        """Let introductions ride no more."""
        self._unacknowledged.difference_update(indices)

    def forget(self, indices: Iterable[int]) -> None:
        """Introduce agents again, under other indices, when they next speak."""
        forgotten = set(indices)
        self._unacknowledged -= forgotten
        self._indices = {each: index for each, index in self._indices.items() if index not in forgotten}

    def _index(self, speaker: Speaker) -> int:
        index = self._indices.pop(speaker, None)
        if index is None:
            index = self._next
            self._next += 1
            self._unacknowledged.add(index)
            if len(self._indices) >= INTRODUCTIONS:
                oldest = next(iter(self._indices))
                self._unacknowledged.discard(self._indices.pop(oldest))
        self._indices[speaker] = index
        return index


@final
class _Latest(Generic[_Key]):
    """Agents of a peer: 1,024 and 1 MiB at most, the one put in last at the end."""

    def __init__(self) -> None:
        self._agents: dict[_Key, Agent] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._agents)

    def pop(self, key: _Key) -> Agent | None:
        agent = self._agents.pop(key, None)
        if agent is not None:
            self._bytes -= agent.size
        return agent

    def put(self, key: _Key, agent: Agent) -> None:
        self._agents[key] = agent
        self._bytes += agent.size
        while len(self._agents) > INTRODUCTIONS or self._bytes > INTRODUCTIONS_BYTES:
            self._bytes -= self._agents.pop(next(iter(self._agents))).size


@final
class KnownAgents:
    """The agents of one peer that were verified, over all its sessions."""

    def __init__(self) -> None:
        self._latest = _Latest[tuple[int, Signed, Signed, bool, tuple[bytes, ...]]]()
        self._checks = 0.0
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._latest)

    def verify(self, entry: Introduce, bundle: Bundle, now: float, ticks: float) -> Agent:
        """Return the agent that a peer introduces, verified now or before.

        Args:
            entry: the introduction, from a signed envelope of the peer.
            bundle: the peer's, as the session proved it.
            now: Unix seconds.
            ticks: monotonic seconds.

        Raises:
            ProtocolError: it does not hold, or too much is to be verified for this peer just now.
        """
        key = (bundle.seq, entry.change, entry.delegate, entry.inherits, entry.presentations)
        agent = self._latest.pop(key)
        if agent is None:
            self._take_checks(ticks)
            agent = verify_agent(entry, bundle, now)
        self._latest.put(key, agent)
        return agent

    def _take_checks(self, ticks: float) -> None:
        self._checks = max(0.0, self._checks - (ticks - self._since) * CHECKS_PER_SECOND)
        self._since = ticks
        if self._checks + CHECKS_PER_INTRODUCTION > CHECKS_BURST:
            raise ProtocolError("a peer introduces more agents than may be verified in this time")
        self._checks += CHECKS_PER_INTRODUCTION


@final
class IntroducedAgents:
    """The agents that the other side of a session introduced, by index."""

    def __init__(self) -> None:
        self._latest = _Latest[int]()

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, index: int, agent: Agent) -> bool:
        """Know an agent by an index; tell whether it was not known by it before.

        Raises:
            ProtocolError: the index is that of another agent.
        """
        known = self._latest.pop(index)
        self._latest.put(index, known or agent)
        if known not in (None, agent):
            raise ProtocolError(f"index {index} was given to two agents")
        return known is None

    def find(self, index: int, now: float) -> Agent | None:
        """Return the agent that speaks under an index, unless it is not known or its delegate has expired."""
        agent = self._latest.pop(index)
        if agent is None or now >= agent.expires:
            return None
        self._latest.put(index, agent)
        return agent


NOBODY: Final[Mapping[int, Speaker]] = {}
"""No agent speaks: all entries are the node's."""


def verify_agent(entry: Introduce, bundle: Bundle, now: float) -> Agent:
    """Verify an agent that a node introduces.

    Args:
        entry: the introduction.
        bundle: the node's, as its session or its sealed envelope proved it.
        now: Unix seconds.

    Raises:
        ProtocolError: it does not hold.
    """
    try:
        delegate = verify_delegate(entry.change, entry.delegate, node=bundle.identifier, node_seq=bundle.seq, now=now)
    except IdentityError as error:
        raise ProtocolError(str(error)) from None
    return Agent(delegate.agent, delegate.expires, entry.inherits, entry.presentations)
