"""What bounds strangers: how much somebody may take, now and over time, and how many may be inside at once."""

from collections import Counter

from attrs import define, field


@define
class TokenBucket:
    """Fills at a rate up to a burst, and is emptied by use; the time is an argument."""

    rate: float
    """Tokens a second."""
    burst: float
    """Tokens it holds."""
    _debt: float = 0.0
    _since: float = float("-inf")

    def take(self, tokens: float, now: float) -> float:
        """Take tokens, on credit if need be, and return the seconds after which the debt is paid."""
        self._settle(now)
        self._debt += tokens
        return max(0.0, (self._debt - self.burst) / self.rate)

    def try_take(self, tokens: float, now: float) -> bool:
        """Take tokens only where there are enough."""
        self._settle(now)
        if self._debt + tokens > self.burst:
            return False
        self._debt += tokens
        return True

    def is_full(self, now: float) -> bool:
        """Tell whether nothing was taken that has not come back: such a bucket can be forgotten."""
        self._settle(now)
        return self._debt <= 0

    def _settle(self, now: float) -> None:
        self._debt = max(0.0, self._debt - (now - self._since) * self.rate)
        self._since = now


@define
class Places:
    """Places for those who are inside at once, each from some address."""

    most: int
    """Places in all."""
    most_each: int
    """Of these, for one address, so that one stranger does not keep out the others."""
    taken: int = field(default=0, init=False)
    """Places that are taken now."""
    _by_address: Counter[str] = field(factory=Counter[str], init=False)

    def try_take(self, address: str) -> bool:
        """Take a place where there is one; who got it must `free` it."""
        if self.taken >= self.most or self._by_address[address] >= self.most_each:
            return False
        self.taken += 1
        self._by_address[address] += 1
        return True

    def free(self, address: str) -> None:
        """Give back a place."""
        self.taken -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
