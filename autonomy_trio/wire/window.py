"""The replay window: which packet counters of a session have been seen (RFC 6479, without bit shifting).

A ring of words holds one bit a counter. The ring has one word more than the window needs, so that the word the highest
counter stands in never holds bits of the oldest; moving forward clears whole words and shifts nothing.
"""

from typing import Final, final

from autonomy_trio.wire.constants import LARGEST_COUNTER, WINDOW_COUNTERS

_WORD_BITS: Final = 64
_WORDS: Final = WINDOW_COUNTERS // _WORD_BITS + 1


@final
class ReplayWindow:
    """Remembers the last 8,192 counters up to the highest one marked.

    Attributes:
        highest: the highest counter marked, -1 before the first.
    """

    __slots__ = ("_ring", "highest")

    def __init__(self) -> None:
        self.highest: int = -1
        self._ring = [0] * _WORDS

    def is_fresh(self, counter: int) -> bool:
        """Tell whether a counter is neither seen nor too old; changes nothing, so it may be asked of a forgery."""
        if counter > self.highest:
            return counter <= LARGEST_COUNTER
        if self.highest - counter >= WINDOW_COUNTERS:
            return False
        return not self._ring[counter // _WORD_BITS % _WORDS] >> counter % _WORD_BITS & 1

    def mark(self, counter: int) -> None:
        """Remember a fresh counter, once its packet is known to be the peer's."""
        word = counter // _WORD_BITS
        if counter > self.highest:
            current = self.highest // _WORD_BITS
            for passed in range(max(current + 1, word - _WORDS + 1), word + 1):
                self._ring[passed % _WORDS] = 0
            self.highest = counter
        self._ring[word % _WORDS] |= 1 << counter % _WORD_BITS
