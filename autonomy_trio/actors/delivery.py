"""A message on its way to a handler, who sent it, and where its reply goes."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

import attrs
import trio

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.spec import Handler
    from autonomy_trio.actors.worker import Worker


@attrs.frozen
class Sender:
    """Who sent a message, as far as it is proven.

    Inside the process `id` is the name of the sending agent (``node`` outside any agent). Over a link it is the
    identifier of the sending agent, for which its node vouches, or of the node itself, which the session has proven;
    `attributes` are what the credentials of both assert, or of the agent alone where it inherits nothing.
    """

    id: str
    node: str
    """The identifier of the sending node; empty inside the process."""
    attributes: Mapping[str, str | int | bool | frozenset[str]] = attrs.field(factory=dict[str, Any])
    is_local: bool = True


OUTSIDE: Final = Sender(id="node", node="")
"""Code of this process that runs in no agent."""


class Reply(Protocol):
    """Where the answer to an ask goes: the first one counts, later ones are ignored."""

    def answer(self, value: object) -> None:
        """Hand over the reply."""
        ...

    def fail(self, error: BaseException) -> None:
        """Hand over the error the asker is to get."""
        ...


@attrs.define(eq=False, repr=False, weakref_slot=False, auto_attribs=False)
class Delivery:
    """A message in a mailbox or in a handler, which nobody waits for: a `tell`.

    What only an ask has are constants of the class here, since a `tell` is made a million times.
    """

    message: object = attrs.field()
    handler: "Handler" = attrs.field()
    source: "Cell | Sender | None" = attrs.field()
    """The agent of this node that sent it, what another node has proven, or None for code in no agent."""

    reply: "Reply | None" = None
    deadline: float = float("inf")
    limited: bool = False
    cancelled: bool = False

    @property
    def sender(self) -> Sender:
        """Who sent it."""
        source = self.source
        if source is None:
            return OUTSIDE
        return source if isinstance(source, Sender) else Sender(source.name, "")

    def fail(self, error: BaseException) -> None:
        """Tell the asker, if there is one, why there is no reply."""
        if self.reply is not None:
            self.reply.fail(error)


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Asked(Delivery):
    """A message whose sender waits for the answer."""

    reply: Reply | None = attrs.field()
    deadline: float = float("inf")
    """On trio's clock: until then an answer is wanted. Known where the handler may look at it, or it holds here."""
    limited: bool = False
    """Whether it must be ended here at its deadline, since its asker is elsewhere."""
    cancelled: bool = False
    """Whether the asker has gone; a queued one is a tombstone then, which frees its slot when it is reached."""
    worker: "Worker | None" = None
    """Who has taken it."""

    def cancel(self) -> None:
        """Withdraw the message: never handled if still queued, its handler cancelled if running."""
        self.cancelled = True
        if self.worker is not None and self.worker.current is self:
            self.worker.cancel_handler()


WAKE: Final = Delivery(None, cast("Handler", None), None)
"""What wakes a worker that waits in an empty channel; no message."""


def _nothing() -> None:
    """Do nothing."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Signal(Delivery):
    """A message that waits behind no other kind: a timer's tick, or a `Down`."""

    taken: Callable[[], None] = _nothing
    """Called when a worker takes it."""
    cancelled: bool = False
    """Whether it is not wanted any more."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class PendingReply:
    """An asker's end of a reply, for one task: no channel, no event, one reschedule."""

    _settled: bool = False
    _value: object = None
    _error: BaseException | None = None
    _limit_passed: bool = False
    _task: trio.lowlevel.Task | None = None
    _withdraw: Callable[[], None] = _nothing

    def answer(self, value: object) -> None:
        """Wake the asker with the reply; the first answer counts."""
        if not self._settled:
            self._settled = True
            self._value = value
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Wake the asker with an error; the first answer counts."""
        if not self._settled:
            self._settled = True
            self._error = error
            self._wake()

    def limit_passed(self) -> None:
        """Have an asker that has no deadline of its own give up."""
        self._limit_passed = True
        self._wake()

    def error(self) -> Exception:
        """Return the error it failed with."""
        return cast("Exception", self._error)

    async def wait(self, withdraw: Callable[[], None]) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Wait for the result; on cancellation, or past the limit, call `withdraw`."""
        if self._settled:
            await trio.lowlevel.checkpoint()
        self._withdraw = withdraw
        while not self._settled:
            if self._limit_passed and trio.current_effective_deadline() == float("inf"):
                withdraw()
                raise trio.TooSlowError
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._error is None:
            return self._value
        if isinstance(self._error, trio.TooSlowError):
            # The handler's side saw the deadline first: an asker in `move_on_after` is cancelled here, not surprised.
            await trio.lowlevel.checkpoint()
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error  # it holds this frame

    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def _abort(self, _: object, /) -> trio.lowlevel.Abort:
        self._task = None
        self._withdraw()
        return trio.lowlevel.Abort.SUCCEEDED
