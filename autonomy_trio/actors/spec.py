"""What an agent class declares, as values: `agent` reads a class once into a `Spec` of `Handler`s."""

import inspect
from collections.abc import Callable, Mapping
from types import CoroutineType
from typing import Any, Final, Literal, TypeVar, get_args

import attrs

from autonomy_trio.actors.refs import Down
from autonomy_trio.errors import DeclarationError, DeliveryError
from autonomy_trio.messages import is_message_class, wire_name

A = TypeVar("A")

Restart = Literal["permanent", "transient", "temporary"]
Overflow = Literal["block", "fail", "drop_newest", "drop_oldest"]
Kind = Literal["plain", "async", "stream"]

SPEC: Final = "__agent_spec__"
"""The attribute of an agent class that holds its spec."""
PATIENT: Final = "__agent_patient__"
"""The attribute of a class whose handlers wait for outside systems: set to True, a long one is no trouble."""


@attrs.frozen
class Mailbox:
    """How many messages an agent's queue holds, and what happens to one more.

    Args:
        capacity: messages that wait, at least 1.
        overflow: for a message that finds no room: ``block`` makes its sender wait, ``fail`` raises `MailboxFull`
            there, ``drop_newest`` drops it, ``drop_oldest`` drops the one that waited longest. What is dropped is
            a dead letter; if it was asked, the asker gets `Overloaded`.

    Raises:
        DeclarationError: no room for a single message, or an unknown policy.
    """

    capacity: int = 64
    overflow: Overflow = "block"

    def __attrs_post_init__(self) -> None:
        if type(self.capacity) is not int or self.capacity < 1:
            msg = f"Mailbox(capacity={self.capacity!r}): a mailbox holds at least 1 message"
            raise DeclarationError(msg)
        if self.overflow not in get_args(Overflow):
            msg = f"Mailbox(overflow={self.overflow!r}): choose one of {', '.join(get_args(Overflow))}"
            raise DeclarationError(msg)


class Stashed(BaseException):
    """What ends a handler that has put its message into the stash: no failure, no answer, and no `Exception` either."""


class Refused(Exception):
    """What an interceptor ends a message with before its handler has begun: no failure of the agent.

    Attributes:
        error: what the asker gets.
    """

    def __init__(self, error: DeliveryError) -> None:
        super().__init__(error)
        self.error = error


@attrs.frozen(eq=False)
class Handler:
    """One `@on` method: what it takes, who may send it, and how it is called."""

    message: type
    method: str
    allow: str | None
    raises: tuple[type[Exception], ...]
    """The protocol errors that are answers and no failures."""
    function: Callable[..., Any]
    kind: Kind
    takes_context: bool
    reply: tuple[type, ...] | None
    """The classes a reply, or an item of a stream, must be an instance of; None where any value is right."""
    is_async: bool = attrs.field(init=False, default=attrs.Factory(lambda self: self.kind == "async", takes_self=True))
    answers: tuple[type[BaseException], ...] = attrs.field(
        init=False, default=attrs.Factory(lambda self: (Stashed, *self.raises), takes_self=True)
    )
    """What ends it without failing its agent."""

    def check_reply(self, reply: object) -> None:
        """Refuse a reply, or an item, of another type than the message declares.

        Raises:
            TypeError: it is the handler's failure.
        """
        if self.reply is not None and not isinstance(reply, self.reply):
            raise self.wrong_reply(reply)

    def wrong_reply(self, reply: object) -> TypeError:
        """Return the failure of a handler that answers with another type than its message declares.

        A coroutine, which nobody would run, is closed.
        """
        if isinstance(reply, CoroutineType):
            reply.close()
            msg = f"{self.method} returned a coroutine, which nobody would run: make it async def and await it there"
            return TypeError(msg)
        wanted = " or ".join(each.__name__ for each in self.reply or ())
        verb, answer = ("yielded", "streams") if self.kind == "stream" else ("returned", "is replied to with")
        request = self.message.__name__
        msg = f"{self.method} {verb} a {type(reply).__name__} for {request}, which {answer} a {wanted}"
        return TypeError(msg)


@attrs.frozen(eq=False)
class Spec:
    """What an agent class declared; made once, shared by all its instances, equal only to itself."""

    agent: str
    """The class's name, which is its Cedar entity type too."""
    name: str
    """The class's name in snake_case, which its instances go by unless they are named."""
    handlers: Mapping[type, Handler]
    """By the message class named in `@on`."""
    mailbox: Mailbox
    restart: Restart
    concurrency: int
    """Workers, each of which handles one message at a time."""
    idle_after: float
    """Seconds without work after which an agent gives back its task."""
    inherit: bool
    """Whether it speaks with its node's attributes besides its own."""
    on_start: bool
    on_stop: bool
    topics: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The topics that agents of other nodes may subscribe to, with who may."""
    patient: bool = False
    """Whether its handlers wait for outside systems, so that a long one is no trouble."""
    description: str = ""
    """The first paragraph of its docstring."""
    found: dict[type, Handler | None] = attrs.field(factory=dict[type, Handler | None], repr=False)
    """What `handler_of` has found, by class."""
    told: dict[type, Handler] = attrs.field(factory=dict[type, Handler], repr=False)
    """Those of them that can be told or asked, and are no streams."""

    def handler_of(self, message: type) -> Handler | None:
        """Return the handler of a message class: its own or that of its most derived base; None where there is none."""
        try:
            return self.found[message]
        except KeyError:
            found = next((self.handlers[base] for base in message.__mro__ if base in self.handlers), None)
            self.found[message] = found
            if found is not None and found.kind != "stream":
                self.told[message] = found
            return found

    def wire_table(self) -> dict[str, tuple[type, Handler]]:
        """Return each message class a handler takes by wire name, the subclasses known by now included.

        `Down` is left out, which is the runtime's word and no sender's.

        Raises:
            DeclarationError: two classes go by one wire name.
        """
        table: dict[str, tuple[type, Handler]] = {}
        pending = list(self.handlers)
        while pending:
            cls = pending.pop()
            handler = self.handler_of(cls)
            taken = table.get(wire_name(cls))
            if taken is not None and taken[0] is not cls:
                msg = (
                    f"{self.agent} takes two messages with the wire name {wire_name(cls)!r}: "
                    "give one another name with @message(name=…)"
                )
                raise DeclarationError(msg)
            if handler is not None and is_message_class(cls) and Down not in cls.__mro__:
                table[wire_name(cls)] = (cls, handler)
            pending.extend(_latest(cls.__subclasses__()))
        return table


def _latest(subclasses: list[type]) -> list[type]:
    """Leave out the plain classes that attrs has replaced by their slotted twins of the same name."""
    by_name = {(cls.__module__, cls.__qualname__): cls for cls in subclasses}
    return list(by_name.values())


def declared(cls: object) -> Spec | None:
    """Return what a class declared, or None for whatever is no agent class."""
    found = cls.__dict__.get(SPEC) if isinstance(cls, type) else None
    return found if isinstance(found, Spec) else None


def spec_of(cls: type) -> Spec:
    """Return what an agent class declared.

    Raises:
        DeclarationError: the class itself is not decorated with `@agent`.
    """
    spec = declared(cls)
    if spec is None:
        msg = f"{cls.__name__} is not an agent: decorate the class with @agent"
        raise DeclarationError(msg)
    return spec


def build(factory: Callable[[], A]) -> A:
    """Call what builds an agent.

    Raises:
        DeclarationError: it has parameters without a default, so that it cannot be called.
    """
    try:
        return factory()
    except TypeError:
        missing = _required(factory)
        if not missing:
            raise
        name = getattr(getattr(factory, "func", factory), "__name__", type(factory).__name__)
        given = ", ".join(f"{each}=…" for each in missing)
        msg = f"{name} needs {', '.join(missing)}: spawn(functools.partial({name}, {given}))"
        raise DeclarationError(msg) from None


def _required(factory: Callable[..., object]) -> list[str]:
    """Return the parameters that have no default."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # some of what is written in C has no signature
        return []
    several = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [each.name for each in parameters if each.default is each.empty and each.kind not in several]
