"""Pykka: a ``ThreadingActor``, the one kind it has, with ``tell`` and ``ask``; its proxies would only add to that."""

from dataclasses import dataclass

import pykka
from command import run, verify, wall_time


@dataclass(frozen=True, slots=True)
class Add:
    """Add to a sum."""

    amount: int


class Counter(pykka.ThreadingActor):
    """Adds up in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def on_receive(self, message: Add) -> int:
        """Add to the sum, and return it."""
        self.total += message.amount
        return self.total


def count(number: int) -> float:
    """Tell, and ask once at the end."""
    one, counter = Add(1), Counter.start()
    with wall_time() as spent:
        for _ in range(number):
            counter.tell(one)
        total = counter.ask(Add(0))
    counter.stop()
    verify(total, number)
    return spent.seconds


def ask(number: int) -> float:
    """Ask, one at a time."""
    total, one, counter = 0, Add(1), Counter.start()
    with wall_time() as spent:
        for _ in range(number):
            total = counter.ask(one)
    counter.stop()
    verify(total, number)
    return spent.seconds


run(count=count, ask=ask)
