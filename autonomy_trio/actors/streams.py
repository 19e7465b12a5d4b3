"""Streams: an agent's async generator in a task of its own, which takes turns with the agent's other work.

The generator runs only while its task holds a turn of the agent: a worker gives the turn and waits until it comes back.
Between two items the task waits for credit (a reader that is slow stops it) and then queues for the next turn, unless
nobody else wants one; so the agent's state may change across a ``yield`` and never within. A generator that is left
early is closed in a turn too.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.delivery import Delivery
from autonomy_trio.actors.voices import speaker
from autonomy_trio.errors import OutcomeUnknown
from autonomy_trio.groups import fence

if TYPE_CHECKING:
    from autonomy_trio.actors.belongings import Belongings
    from autonomy_trio.actors.voices import Voice
    from autonomy_trio.actors.worker import Worker

CREDIT: Final = 16
"""Items that a stream may be ahead of its reader."""


class Sink(ABC):
    """Where a stream's items go: to its reader here, or to another node."""

    __slots__ = ()

    @property
    @abstractmethod
    def credit(self) -> int:
        """How many items may be handed over before `Producer.add_credit`."""

    @property
    @abstractmethod
    def is_congested(self) -> bool:
        """Whether to `wait_room` before the next item, in spite of credit."""

    @abstractmethod
    async def wait_room(self) -> None:
        """Return when the way to the reader has room."""

    @abstractmethod
    def attach(self, producer: "Producer") -> None:
        """Take items from a producer, which has begun."""

    @abstractmethod
    def offer(self, item: object) -> None:
        """Hand over an item."""

    @abstractmethod
    def answer(self, value: object) -> None:
        """End the stream, after what was handed over, with None for a reply; the first end counts."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """End the stream, after what was handed over, with an error; the first end counts."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Turn:
    """The right to run an agent's code once; a worker waits meanwhile, for whom that code speaks."""

    voice: "Voice | None" = None
    _given: trio.Event = attrs.field(factory=trio.Event)
    _back: trio.Event = attrs.field(factory=trio.Event)

    async def give(self, worker: "Worker") -> None:
        """Let the stream run, and wait until it gives the turn back."""
        self.voice = worker.voice
        worker.crew.seen = -1  # a turn more is progress, as a message more is
        self._given.set()
        await self._back.wait()

    async def wait_given(self) -> None:
        """Wait for the turn; a cancelled wait gives it back."""
        try:
            await self._given.wait()
        except BaseException:  # cancellation
            self._back.set()
            raise

    @property
    def is_over(self) -> bool:
        """Whether it was given back."""
        return self._back.is_set()

    def give_back(self) -> None:
        """End the turn."""
        self._back.set()

    def revoke(self) -> None:
        """Let the stream go on without a worker: no other code of the agent runs any more."""
        self._given.set()


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Producer:
    """The agent's end of a stream."""

    delivery: Delivery
    belongings: "Belongings"
    items: "Sink"
    scope: trio.CancelScope
    turn: Turn
    """The turn it holds, or the last one it held."""
    _credit: int = attrs.field(init=False)
    _more: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self._credit = self.items.credit

    def add_credit(self, more: int = 1) -> None:
        """Let it produce more items."""
        self._credit += more
        self._more.set()

    async def run(self) -> None:
        """Be the task of the stream."""
        cell = self.belongings.cell
        ended = False
        error: Exception | None = None

        def failed(failure: Exception) -> None:
            cell.failed(failure, self.delivery, ended=self.belongings.clearing)

        try:
            # Fence: an agent's stream, whose failure is the agent's.
            with fence(failed), self.scope:
                error = await self._produce()
                ended = True
        finally:
            self.turn.give_back()
            self.belongings.streams -= 1
            self.belongings.end_task(self.scope)
            self.belongings.crew.handled += ended
            if ended and error is None:
                self.items.answer(None)
            elif error is not None:
                self.items.fail(error)
            elif not self.delivery.cancelled:
                self.items.fail(OutcomeUnknown(f"{cell.name} was stopped or restarted while it streamed"))

    async def _produce(self) -> Exception | None:
        """Run the agent's generator to its end; return the error that it foresees, where it raised one."""
        cell, handler = self.belongings.cell, self.delivery.handler
        arguments = (Context(cell, self.delivery),) if handler.takes_context else ()
        generator: AsyncGenerator[object] = handler.function(cell.instance, self.delivery.message, *arguments)
        try:
            while True:
                speaker.set(self.turn.voice)
                item = await anext(generator)
                handler.check_reply(item)
                self.items.offer(item)
                if self._keeps_turn():
                    self._credit -= 1
                    continue
                self.turn.give_back()
                await self._wait_credit()
                if self.items.is_congested:
                    await self.items.wait_room()
                await self._wait_turn()
        except StopAsyncIteration:
            return None
        except handler.raises as answer:
            return answer
        finally:
            if self.turn.is_over:
                with trio.CancelScope(shield=True):
                    await self._wait_turn()
            speaker.set(self.turn.voice or cell)
            await generator.aclose()

    def _keeps_turn(self) -> bool:
        """Tell whether the next item can follow at once, since nobody waits for a turn: together they travel faster."""
        cell, crew = self.belongings.cell, self.belongings.crew
        goes_on = cell.state == "running" and not (self.belongings.clearing or self.scope.cancel_called)
        keeps = goes_on and self._credit > 1 and not self.items.is_congested and not crew.queued()
        if keeps:
            crew.seen = -1  # an item more is progress, as a turn more is
        return keeps

    async def _wait_credit(self) -> None:
        self._credit -= 1
        while not self._credit:
            self._more = trio.Event()
            await self._more.wait()

    async def _wait_turn(self) -> None:
        self.turn = Turn()
        if not self.belongings.clearing:
            self.belongings.crew.put_turn(self.turn)
            await self.turn.wait_given()


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Items(Sink, AsyncIterator[Any]):
    """The reader's end of a stream: what `AgentRef.stream` iterates over."""

    _producer: Producer | None = None
    _buffer: deque[object] = attrs.field(factory=deque[object])
    _is_over: bool = False
    _error: BaseException | None = None
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def attach(self, producer: Producer) -> None:
        """Take items from a producer, which has begun."""
        self._producer = producer

    @property
    def credit(self) -> int:
        """How many items the handler may be ahead of the reader."""
        return CREDIT

    @property
    def is_congested(self) -> bool:
        """Never: what is handed over has room."""
        return False

    async def wait_room(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()

    def offer(self, item: object) -> None:
        """Hand over an item."""
        self._buffer.append(item)
        self._changed.set()

    def answer(self, value: object) -> None:
        """End the stream, after what was handed over; the first end counts."""
        del value
        self._is_over = True
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """End the stream, after what was handed over, with an error; the first end counts."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._changed.set()

    def leave(self) -> None:
        """Cancel the producer."""
        if self._producer is not None:
            self._producer.scope.cancel()

    async def __anext__(self) -> Any:  # noqa: ANN401 - the item's type is the stream's
        await trio.lowlevel.checkpoint()
        while not self._buffer:
            if self._is_over:
                raise StopAsyncIteration if self._error is None else self._error
            self._changed = trio.Event()
            await self._changed.wait()
        item = self._buffer.popleft()
        if self._producer is not None:
            self._producer.add_credit()
        return item
