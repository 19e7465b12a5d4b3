"""Thespian on its ``simpleSystemBase``, which runs actors in the caller's thread: its other bases start processes."""

from dataclasses import dataclass

from command import run, verify, wall_time
from thespian.actors import Actor, ActorAddress, ActorSystem


@dataclass(frozen=True, slots=True)
class More:
    """Add to a sum."""

    amount: int


@dataclass(frozen=True, slots=True)
class Add:
    """Add to a sum, and ask for it."""

    amount: int


class Counter(Actor):
    """Adds up."""

    total = 0

    def receiveMessage(self, message: object, sender: ActorAddress) -> None:  # noqa: N802 - Thespian's name
        """Add to the sum, and send it to who asks."""
        if isinstance(message, More):
            self.total += message.amount
        elif isinstance(message, Add):
            self.total += message.amount
            self.send(sender, self.total)


def count(number: int) -> float:
    """Tell, and ask once at the end."""
    system = ActorSystem("simpleSystemBase")
    one, counter = More(1), system.createActor(Counter)
    with wall_time() as spent:
        for _ in range(number):
            system.tell(counter, one)
        total = system.ask(counter, Add(0))
    system.shutdown()
    verify(total, number)
    return spent.seconds


def ask(number: int) -> float:
    """Ask, one at a time."""
    system = ActorSystem("simpleSystemBase")
    total, one, counter = 0, Add(1), system.createActor(Counter)
    with wall_time() as spent:
        for _ in range(number):
            total = system.ask(counter, one)
    system.shutdown()
    verify(total, number)
    return spent.seconds


run(count=count, ask=ask)
