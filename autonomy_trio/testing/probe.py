"""A probe: an agent that keeps what it receives and answers as a test has told it."""

import inspect
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar, final, overload

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import classes_of
from autonomy_trio.actors.refs import AgentRef
from autonomy_trio.actors.spec import SPEC, Handler, Mailbox, Spec
from autonomy_trio.errors import DeclarationError, DeliveryError, HandlerFailed, ReplyError
from autonomy_trio.messages import Request, Stream, is_message_class, item_type, reply_type, wire_name

M = TypeVar("M")
R = TypeVar("R")

MOST_MESSAGES: Final = 10_000
"""Messages that a probe keeps; one more is its failure."""

_ANSWERS: Final = (ReplyError, DeliveryError, trio.TooSlowError)
"""What an asker is told as it is."""

_UNANSWERED: Final = object()
"""What a handler returns for a message that no script is for."""


class Unscripted(Exception):
    """A probe was asked what it has no reply for."""


@final
@attrs.define(eq=False)
class Script(Generic[R]):
    """What a probe answers to one type of message; made by `Probe.on`."""

    _answers: deque[object] = attrs.field(factory=deque[object])

    def reply(self, *answers: R | Exception | Callable[[Any], Awaitable[R]] | Callable[[Any], R]) -> None:
        """Answer with these, one after another, and with the last one from then on; in place of earlier ones.

        For a stream they are its items, each time it is opened.

        Args:
            *answers: each a value; a function, plain or ``async``, that makes one from the message, and may wait as
                long as it likes; or an exception. A `ReplyError`, a `DeliveryError` or ``trio.TooSlowError`` reaches
                the asker as it is, any other as the `HandlerFailed` of an agent that failed with it. The probe itself
                never fails.
        """
        self._answers = deque(answers)

    def next(self) -> object:
        """Return the next answer."""
        return self._answers.popleft() if len(self._answers) > 1 else self._answers[0]

    def all(self) -> list[object]:
        """Return every answer."""
        return list(self._answers)

    def __bool__(self) -> bool:
        return bool(self._answers)


@final
@attrs.define(eq=False)
class Probe:
    """A stand-in for an agent, which keeps what it receives and answers as it was told; made by `TestNode.probe`."""

    _ask_limit: float
    _context: Context | None = None
    _messages: list[object] = attrs.field(factory=list[object])
    _unread: list[object] = attrs.field(factory=list[object])
    _scripts: dict[type, Script[Any]] = attrs.field(factory=dict[type, Script[Any]])
    _readers: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def ref(self) -> AgentRef[Any]:
        """The ref to it, of use wherever one is wanted, in a message too."""
        return self._own.self

    @property
    def messages(self) -> Sequence[object]:
        """Every message it has received, the first one first; at most 10,000, for one more is a failure."""
        return tuple(self._messages)

    @overload
    def on(self, message: type[Request[R]]) -> Script[R]: ...

    @overload
    def on(self, message: type[Stream[R]]) -> Script[R]: ...

    def on(self, message: type[Any]) -> Script[Any]:
        """Return what it answers to messages of a type and its subclasses: ``probe.on(IsLit).reply(True)``.

        A request that no script is for fails the probe, and with it the test.
        """
        return self._scripts.setdefault(message, Script())

    async def receive(self, message: type[M]) -> M:
        """Return the oldest message of a type that was not returned yet, and wait for it if need be.

        Those of other types stay for later calls. The deadline is trio's; without one the node's ``ask_limit`` applies.

        Raises:
            trio.TooSlowError: none came in time; the text says what did.

        On cancellation nothing is taken.
        """
        await trio.lowlevel.checkpoint()
        limit = trio.current_effective_deadline()
        if limit == float("inf"):
            limit = trio.current_time() + self._ask_limit
        with trio.move_on_at(limit):
            while True:
                for index, each in enumerate(self._unread):
                    if isinstance(each, message):
                        del self._unread[index]
                        return each
                await self._readers.park()
        came = ", ".join(wire_name(type(each)) for each in self._unread[-5:]) or "nothing"
        msg = f"{self.ref.name} received no {wire_name(message)} in time; what it has received besides: {came}"
        raise trio.TooSlowError(msg)

    def watch(self, agent: AgentRef[Any]) -> None:
        """Have it receive a `Down` when another agent of its node has ended; see `Context.watch`."""
        self._own.watch(agent)

    def subscribe(self, topic: str) -> None:
        """Have it receive what is published to a topic; see `Context.subscribe`."""
        self._own.subscribe(topic)

    def spawned(self, context: Context) -> None:
        """Be told of its agent."""
        self._context = context

    @property
    def _own(self) -> Context:
        assert self._context is not None  # noqa: S101 - TestNode.probe has spawned it
        return self._context

    async def take(self, _: object, message: object) -> object:
        """Be its handler."""
        script = self._keep(message)
        if script is None:
            return _UNANSWERED
        return await self._answer(script.next(), message)

    async def stream(self, _: object, message: object) -> AsyncGenerator[object]:
        """Be its handler of streams."""
        script = self._keep(message)
        for answer in script.all() if script is not None else [_UNANSWERED]:
            yield await self._answer(answer, message)

    def _keep(self, message: object) -> Script[Any] | None:
        if len(self._messages) == MOST_MESSAGES:
            msg = f"{self.ref.name} has received {MOST_MESSAGES:,} messages, and a probe keeps them all"
            raise OverflowError(msg)
        self._messages.append(message)
        self._unread.append(message)
        self._readers.unpark_all()
        return next((found for base in type(message).__mro__ if (found := self._scripts.get(base))), None)

    async def _answer(self, answer: object, message: object) -> object:
        try:
            return await _made(answer, message)
        except _ANSWERS:
            raise
        except Exception as error:
            name = wire_name(type(message))
            raise HandlerFailed(f"{self.ref.name} failed on {name}, as a test wants: {error!r}") from error


@final
@attrs.frozen(eq=False)
class ProbeHandler(Handler):
    """The handler that a probe has for one type of message."""

    def check_reply(self, reply: object) -> None:
        """Refuse what the message is not replied to with; and to have nothing to say to one who asks.

        Raises:
            Unscripted, TypeError: the probe's failure.
        """
        if reply is _UNANSWERED:
            name = self.message.__name__
            raise Unscripted(f"a probe was asked {name} and has no reply: say probe.on({name}).reply(…) before")
        super().check_reply(reply)


@final
@attrs.frozen(eq=False)
class ProbeSpec(Spec):
    """What a probe declares that takes every message of its node, and none of another."""

    make: Callable[[type], Handler] = attrs.field(kw_only=True)

    def handler_of(self, message: type) -> Handler | None:
        """Return a handler for whatever message comes."""
        if message not in self.found:
            is_message = any(is_message_class(base) for base in message.__mro__)
            self.found[message] = self.make(message) if is_message else None
        return self.found[message]

    def wire_table(self) -> dict[str, tuple[type, Handler]]:
        """Return no message: one of another node can be read only where its class is known."""
        return {}


def make_probe(takes: Iterable[type], allow: str | None, ask_limit: float) -> tuple[Probe, Callable[[], object]]:
    """Return a probe, and what builds its agent.

    Raises:
        DeclarationError: `allow` is there, but no class of messages.
    """
    probe = Probe(ask_limit)
    handlers = {each: _handler(probe, each, allow) for each in takes}
    if allow is not None and not handlers:
        msg = "a probe takes messages of other nodes by their class: name them in takes= where you say allow="
        raise DeclarationError(msg)
    common: dict[str, Any] = {
        "agent": "Probe",
        "name": "probe",
        "handlers": handlers,
        "mailbox": Mailbox(),
        "restart": "transient",
        "concurrency": 1,
        "inherit": True,
        "idle_after": 60.0,
        "on_start": False,
        "on_stop": False,
    }
    spec = Spec(**common) if handlers else ProbeSpec(**common, make=lambda cls: _handler(probe, cls, None))
    return probe, type("Probe", (), {SPEC: spec})


def _handler(probe: Probe, message: type, allow: str | None) -> Handler:
    streams = item_type(message) is not None
    return ProbeHandler(
        message=message,
        method="take",
        allow=allow,
        raises=_ANSWERS,
        function=probe.stream if streams else probe.take,
        kind="stream" if streams else "async",
        takes_context=False,
        reply=classes_of(item_type(message) if streams else reply_type(message)),
    )


async def _made(answer: object, message: object) -> object:
    if isinstance(answer, Exception):
        raise answer
    if not callable(answer):
        return answer
    made: object = answer(message)
    return await made if inspect.isawaitable(made) else made
