"""What a model agent remembers of its conversations, within bounds: which, how many entries, how many bytes."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, final

import attrs

from autonomy_trio.connect.models.messages import ModelFailed, Said

MOST_SHORT: Final = 1000
"""Characters of a tool's answer that is kept where all together are too much."""

LEFT_OUT: Final = "This call was answered, and the answer is too long to be kept here: ask for less at once."
"""What is remembered in place of a longer one."""


@final
@attrs.define(eq=False)
class Conversation:
    """One conversation: exchanges, each of which begins with what the user said."""

    most_entries: int
    most_bytes: int
    exchanges: list[list[Said]] = attrs.field(factory=list[list[Said]])
    is_taken: bool = False
    """Whether an answer is being made in it."""
    is_awaited: bool = False
    """Whether somebody waits until it is not."""

    def said_with(self, fresh: Iterable[Said]) -> tuple[Said, ...]:
        """Return what is remembered, and what was said since.

        Raises:
            ModelFailed: what was said since is too much.
        """
        kept = self._trimmed(fresh)
        if not kept:
            raise ModelFailed("too long", "more was said in this exchange than is remembered: say less at once")
        return tuple(each for exchange in kept for each in exchange)

    def add(self, fresh: Iterable[Said]) -> None:
        """Remember what was said; of what is too much, the calls without their long answers, else nothing."""
        said = list(fresh)
        self.exchanges = self._trimmed(said) or self._trimmed(map(_shortened, said)) or self.exchanges

    def _trimmed(self, fresh: Iterable[Said]) -> list[list[Said]]:
        """Forget the oldest exchanges, whole, so that no tool's answer is left without its call."""
        exchanges = [list(each) for each in self.exchanges]
        for said in fresh:
            if said.role == "user" or not exchanges:
                exchanges.append([])
            exchanges[-1].append(said)
        entries, size = self.most_entries, self.most_bytes
        kept: list[list[Said]] = []
        for exchange in reversed(exchanges):
            entries -= len(exchange)
            size -= sum(map(size_of, exchange))
            if entries < 0 or size < 0:
                break
            kept.append(exchange)
        return kept[::-1]


@final
@attrs.define(eq=False)
class Conversations:
    """The conversations of one agent, those that were used last."""

    most: int
    most_entries: int
    most_bytes: int
    _known: OrderedDict[tuple[str, str], Conversation] = attrs.field(factory=OrderedDict[tuple[str, str], Conversation])

    def __len__(self) -> int:
        return len(self._known)

    def find(self, sender: str, name: str) -> Conversation:
        """Return a conversation, which is one sender's own; it may push out one that nobody has used for longest."""
        key = sender, name
        found = self._known.setdefault(key, Conversation(self.most_entries, self.most_bytes))
        self._known.move_to_end(key)
        if len(self._known) > self.most:
            idle = (each for each, other in self._known.items() if other is not found and not other.is_taken)
            self._known.pop(next(idle, key), None)
        return found


def _shortened(said: Said) -> Said:
    """Leave a tool's long answer out."""
    return attrs.evolve(said, text=LEFT_OUT) if said.role == "tool" and len(said.text) > MOST_SHORT else said


def size_of(said: Said) -> int:
    """Return about how many bytes an entry takes in a message."""
    texts = (said.text, said.answers, *(part for call in said.calls for part in (call.id, call.name, call.arguments)))
    return sum(len(each.encode("utf-8", "replace")) for each in texts)
