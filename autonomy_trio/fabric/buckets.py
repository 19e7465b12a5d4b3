"""A token bucket: how much somebody may take, now and over time."""

from attrs import define


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
