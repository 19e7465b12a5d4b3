"""A message on its way to a handler, who sent it, and where its reply goes."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

import attrs
import outcome
import trio

if TYPE_CHECKING:
    from autonomy_trio.actors.cell import Cell
    from autonomy_trio.actors.crew import Worker
    from autonomy_trio.actors.spec import Handler


@attrs.frozen
class Sender:
    """Who sent a message, as far as it is proven.

    Inside the process `id` is the name of the sending agent (``node`` outside any agent); over a link it is the
    identifier that the session has proven, and `attributes` are what its credentials assert.
    """

    id: str
    node: str
    """The identifier of the sending node; empty inside the process."""
    attributes: Mapping[str, str | int | bool | frozenset[str]] = attrs.field(factory=dict[str, Any])
    is_local: bool = True


OUTSIDE: Final = Sender(id="node", node="")
"""Code of this process that runs in no agent."""


class Reply(Protocol):
    """Where the answer to an ask goes; settled once, later settlements are ignored."""

    def settle(self, result: outcome.Outcome[Any]) -> None:
        """Hand over the reply, or the error the asker is to get."""
        ...


@attrs.define(eq=False, repr=False, weakref_slot=False)
class Delivery:
    """A message in a mailbox or in a handler."""

    message: object
    handler: "Handler"
    source: "Cell | Sender | None" = None
    """The agent of this node that sent it, what another node has proven, or None for code in no agent."""
    reply: Reply | None = None
    deadline: float = float("inf")
    """On trio's clock: until then an answer is wanted."""
    limited: bool = False
    """Whether it must be ended here at its deadline, since its asker is elsewhere."""
    cancelled: bool = False
    """Whether the asker has gone; a queued one is a tombstone then, which frees its slot when it is reached."""
    worker: "Worker | None" = None
    """Who is handling it."""

    @property
    def sender(self) -> Sender:
        """Who sent it."""
        source = self.source
        if source is None:
            return OUTSIDE
        return source if isinstance(source, Sender) else Sender(source.name, "")

    def cancel(self) -> None:
        """Withdraw the message: never handled if still queued, its handler cancelled if running."""
        self.cancelled = True
        if self.worker is not None:
            self.worker.cancel_handler()

    def settle(self, result: outcome.Outcome[Any]) -> None:
        """Answer the asker, if there is one."""
        if self.reply is not None:
            self.reply.settle(result)


def _nothing() -> None:
    """Do nothing."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class Signal(Delivery):
    """A message that waits behind no other kind: a timer's tick, or a `Down`."""

    taken: Callable[[], None] = _nothing
    """Called when a worker takes it."""


@final
@attrs.define(eq=False, repr=False, weakref_slot=False)
class PendingReply:
    """An asker's end of a reply, for one task: no channel, no event, one reschedule."""

    _task: trio.lowlevel.Task | None = None
    _result: outcome.Outcome[Any] | None = None

    def settle(self, result: outcome.Outcome[Any]) -> None:
        """Wake the asker with the result; the first one counts."""
        if self._result is None:
            self._result = result
            if self._task is not None:
                trio.lowlevel.reschedule(self._task, result)
                self._task = None

    def error(self) -> Exception:
        """Return the error it was settled with."""
        assert isinstance(self._result, outcome.Error)  # noqa: S101 - a failure settles with one
        return cast("Exception", self._result.error)

    async def wait(self, withdraw: Callable[[], None]) -> Any:  # noqa: ANN401 - the reply's type is the request's
        """Wait for the result; on cancellation call `withdraw`."""
        if self._result is not None:
            await trio.lowlevel.checkpoint()
            return self._result.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            withdraw()
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            return await trio.lowlevel.wait_task_rescheduled(abort)
        except trio.TooSlowError as error:
            late = error
        # The handler's side saw the deadline first: an asker in `move_on_after` is cancelled here, not surprised.
        await trio.lowlevel.checkpoint()
        raise late
