"""What an agent class declares: `agent` and `on` read it once, at class creation, into an immutable `Spec`."""

import inspect
import re
from collections.abc import Callable, Mapping
from types import FunctionType, NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, Union, cast, dataclass_transform, get_args, get_origin, overload

import attrs

from autonomy_trio.errors import DeclarationError, PolicyError
from autonomy_trio.messages import is_message_class, reply_type, wire_name
from autonomy_trio.trust.allow import check_allow

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Restart = Literal["permanent", "transient", "temporary"]

_MARK: Final = "__autonomy_on__"
_SPEC: Final = "__agent_spec__"


def _at_least_one(_: object, __: object, value: object) -> None:
    if type(value) is not int or value < 1:
        msg = f"Mailbox(capacity={value!r}): a mailbox holds at least 1 message"
        raise DeclarationError(msg)


@attrs.frozen
class Mailbox:
    """How many messages an agent's queue holds; a sender waits while it is full."""

    capacity: int = attrs.field(default=64, validator=_at_least_one)


@attrs.frozen
class Handler:
    """One `@on` method: what it takes, who may send it, and how it is called."""

    message: type
    method: str
    allow: str | None
    function: Callable[..., Any]
    takes_context: bool
    reply: tuple[type, ...] | None
    """The classes a reply must be an instance of; None where the message asks for none, or for what is no class."""

    def check_reply(self, reply: object) -> None:
        """Refuse a reply of another type than the request declares.

        Raises:
            TypeError: it is the handler's failure.
        """
        if self.reply is not None and not isinstance(reply, self.reply):
            wanted = " or ".join(each.__name__ for each in self.reply)
            got, request = type(reply).__name__, self.message.__name__
            msg = f"{self.method} returned a {got} for {request}, which is replied to with a {wanted}"
            raise TypeError(msg)


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
    on_start: bool
    on_stop: bool
    _found: dict[type, Handler | None] = attrs.field(factory=dict[type, Handler | None], repr=False)

    def handler_of(self, message: type) -> Handler | None:
        """Return the handler of a message class: its own or that of its most derived base; None where there is none."""
        try:
            return self._found[message]
        except KeyError:
            found = next((self.handlers[base] for base in message.__mro__ if base in self.handlers), None)
            self._found[message] = found
            return found

    def wire_table(self) -> dict[str, tuple[type, Handler]]:
        """Return each message class a handler takes by wire name, the subclasses known by now included.

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
            if handler is not None and is_message_class(cls):
                table[wire_name(cls)] = (cls, handler)
            pending.extend(_latest(cls.__subclasses__()))
        return table


def _latest(subclasses: list[type]) -> list[type]:
    """Leave out the plain classes that attrs has replaced by their slotted twins of the same name."""
    by_name = {(cls.__module__, cls.__qualname__): cls for cls in subclasses}
    return list(by_name.values())


def on(message: type, *, allow: str | None = None) -> Callable[[F], F]:
    """Mark a method as the handler of `message` and of its subclasses.

    The method is ``(self, message)`` or ``(self, message, context)``. What it returns is the reply. An ``async def``
    may wait; a plain ``def`` runs to completion without a task switch.

    Args:
        message: a frozen attrs class; a ``Request[R]`` where the method's reply is an R.
        allow: a Cedar condition on who may send it from another node, say ``principal.team == "payments"``.
            Without one, nobody on another node can reach this handler. Inside the process no condition applies.

    Raises:
        DeclarationError: by `agent`, when the class is created.
        PolicyError: by `agent`: `allow` does not parse, or names a field that `message` does not have.
    """

    def decorate(function: F) -> F:
        if not callable(cast("object", function)):  # a property, a classmethod: what has no place for the mark
            msg = f"@on({_name(message)}) marks {function!r}: a handler is def or async def with self and a message"
            raise DeclarationError(msg)
        marks: list[tuple[type, str | None]] = [*getattr(function, _MARK, ()), (message, allow)]
        setattr(function, _MARK, marks)
        return function

    return decorate


@overload
def agent(cls: type[T], /) -> type[T]: ...


@overload
def agent(*, mailbox: Mailbox = ..., restart: Restart = ...) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(field_specifiers=(attrs.field,))
def agent(
    cls: type[T] | None = None, /, *, mailbox: Mailbox | None = None, restart: Restart = "transient"
) -> type[T] | Callable[[type[T]], type[T]]:
    """Turn a class into an agent: its annotated attributes become its state, its `@on` methods its handlers.

    `attrs.define` is applied; an ``__init__`` of the class's own is respected. Nothing is started and no key is made.

    Args:
        cls: the class, when used without parentheses.
        mailbox: the bounds of its queue; 64 messages by default.
        restart: when a new instance takes the place of one that ended, in OTP's words: ``permanent`` always,
            ``transient`` after a failure, ``temporary`` never.

    Raises:
        DeclarationError: the class cannot work as an agent; one sentence names class, handler and mend.
        PolicyError: an ``allow=`` does not parse or names a field its message does not have.
    """

    def decorate(plain: type[T]) -> type[T]:
        if restart not in get_args(Restart):
            msg = f"{plain.__name__}: restart={restart!r} is none of {', '.join(get_args(Restart))}"
            raise DeclarationError(msg)
        handlers = _handlers_of(plain)
        on_start, on_stop = _has_hook(plain, "on_start"), _has_hook(plain, "on_stop")
        defined = attrs.define(plain)
        spec = Spec(
            agent=defined.__name__,
            name=snake_case(defined.__name__),
            handlers={handler.message: handler for handler in handlers},
            mailbox=mailbox or Mailbox(),
            restart=restart,
            on_start=on_start,
            on_stop=on_stop,
        )
        setattr(defined, _SPEC, spec)
        return defined

    return decorate if cls is None else decorate(cls)


def spec_of(cls: type) -> Spec:
    """Return what an agent class declared.

    Raises:
        DeclarationError: the class itself is not decorated with `@agent`.
    """
    spec = cls.__dict__.get(_SPEC)
    if not isinstance(spec, Spec):
        msg = f"{cls.__name__} is not an agent: decorate the class with @agent"
        raise DeclarationError(msg)
    return spec


def snake_case(name: str) -> str:
    """Return a CamelCase name as snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _handlers_of(cls: type) -> list[Handler]:
    """Read the marks of a class and its bases; an override without a mark of its own keeps its parent's."""
    marks: dict[str, list[tuple[type, str | None]]] = {}
    for base in reversed(cls.__mro__):
        for method, value in vars(base).items():
            # A staticmethod hides the mark of what it wraps; it is found, and then refused.
            own = getattr(inspect.unwrap(value, stop=lambda each: hasattr(each, _MARK)), _MARK, None)
            if own is not None:
                marks[method] = own
    by_message: dict[type, Handler] = {}
    for method, own in marks.items():
        for message, allow in own:
            handler = _handler(cls, method, message, allow)
            taken = by_message.setdefault(message, handler)
            if taken is not handler:
                msg = f"{cls.__name__} has two handlers for {message.__name__}, {taken.method} and {method}: keep one"
                raise DeclarationError(msg)
    return list(by_message.values())


def _handler(cls: type, method: str, message: object, allow: str | None) -> Handler:
    place = f"{cls.__name__}.{method}"
    function = inspect.getattr_static(cls, method)
    if not isinstance(function, FunctionType):
        msg = f"{place} is marked with @on but is no method: a handler is def or async def with self and a message"
        raise DeclarationError(msg)
    if not is_message_class(message):
        msg = f"{place}: @on({_name(message)}) is not a frozen attrs class: decorate it with @attrs.frozen"
        raise DeclarationError(msg)
    message = cast("type", message)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        msg = f"{place} is a generator: a handler returns its reply, so use return in place of yield"
        raise DeclarationError(msg)
    parameters = _positional(place, function)
    _check_annotations(place, function, parameters, message)
    if allow is not None:
        try:
            check_allow(allow, message)
        except PolicyError as error:
            msg = f"{place}: {error}"
            raise PolicyError(msg) from None
    return Handler(message, method, allow, function, len(parameters) == _WITH_CONTEXT, _classes(reply_type(message)))


def _classes(expected: object) -> tuple[type, ...] | None:
    """Return the classes that a value of a type is an instance of; None where its class says nothing."""
    if expected is float:
        return float, int  # as annotations read it
    if get_origin(expected) in (Union, UnionType):
        each = [_classes(choice) for choice in get_args(expected)]
        known = [classes for classes in each if classes is not None]
        return sum(known, ()) if len(known) == len(each) else None
    cls = get_origin(expected) or expected
    return (cls,) if isinstance(cls, type) and cls is not Any else None


_UNKNOWN: Final = inspect.Parameter.empty
_WITH_CONTEXT: Final = 3
"""Positional parameters of a handler that takes the context: self, message, context."""


def _positional(place: str, function: FunctionType) -> list[str]:
    names = _positional_names(function)
    if names is None or len(names) not in (_WITH_CONTEXT - 1, _WITH_CONTEXT):
        msg = f"{place}: a handler takes (self, message) or (self, message, context)"
        raise DeclarationError(msg)
    return names


def _positional_names(function: FunctionType) -> list[str] | None:
    """Return the names of a function's parameters; None where not all are positional."""
    parameters = list(inspect.signature(function).parameters.values())
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return names if len(names) == len(parameters) else None


def _has_hook(cls: type, name: str) -> bool:
    """Tell whether a class has a hook, which must be one that can be called."""
    hook = inspect.getattr_static(cls, name, None)
    if hook is None:
        return False
    names = _positional_names(hook) if isinstance(hook, FunctionType) else None
    if names is None or len(names) != _WITH_CONTEXT - 1 or inspect.isasyncgenfunction(hook):
        msg = f"{cls.__name__}.{name}: a hook is def or async def and takes (self, context)"
        raise DeclarationError(msg)
    return True


def _check_annotations(place: str, function: FunctionType, parameters: list[str], message: type) -> None:
    """Refuse annotations that disagree with `@on`; those that cannot be resolved yet are left alone."""
    found = _annotation(function, parameters[1])
    if isinstance(found, type) and found not in (Any, _UNKNOWN) and not issubclass(message, found):
        msg = f"{place} is marked @on({message.__name__}) but annotates its message as {found.__name__}: let them agree"
        raise DeclarationError(msg)
    expected = reply_type(message)
    returned = _annotation(function, "return")
    if expected is None or returned is _UNKNOWN:
        return
    if (NoneType if returned is None else returned) != expected:
        wanted = _name(expected)
        msg = f"{place} answers {message.__name__}, a Request[{wanted}]: annotate it '-> {wanted}' and return one"
        raise DeclarationError(msg)


def _annotation(function: FunctionType, name: str) -> object:
    annotation = function.__annotations__.get(name, _UNKNOWN)
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, inspect.unwrap(function).__globals__)  # noqa: S307 - a class's own annotation, in its module
    except (NameError, AttributeError, TypeError, SyntaxError):
        return _UNKNOWN


def _name(kind: object) -> str:
    if kind is NoneType:
        return "None"
    return kind.__name__ if isinstance(kind, type) else str(kind)
