"""What an agent class declares: `agent` and `on` read it once, at class creation, into an immutable `Spec`."""

import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from types import FunctionType, MappingProxyType, NoneType, UnionType
from typing import Any, Final, TypeVar, Union, cast, dataclass_transform, get_args, get_origin, overload

import attrs

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.refs import Down
from autonomy_trio.actors.signatures import OnMessage, OnRequest, OnStream
from autonomy_trio.actors.spec import PATIENT, SPEC, Handler, Kind, Mailbox, Restart, Spec
from autonomy_trio.actors.topics import Subscribing, check_topic
from autonomy_trio.errors import DeclarationError, PolicyError, ReplyError
from autonomy_trio.messages import Request, Stream, check_sendable, is_message_class, item_type, reply_type
from autonomy_trio.trust.allow import check_allow

NO_TOPICS: Final[Mapping[str, str]] = MappingProxyType({})

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M")
RequestT = TypeVar("RequestT", bound=Request[Any])
StreamT = TypeVar("StreamT", bound=Stream[Any])

Raises = type[ReplyError] | tuple[type[ReplyError], ...]
_MARK: Final = "__autonomy_on__"


@attrs.frozen
class _Mark:
    message: type
    allow: str | None
    raises: tuple[type[Exception], ...]


@overload
def on(message: type[RequestT], *, allow: str | None = ..., raises: Raises = ...) -> OnRequest[RequestT]: ...


# A stream that is known as a plain object only is checked as one: the overlap does no harm.
@overload
def on(  # type: ignore[overload-overlap] # pyright: ignore[reportOverlappingOverload]
    message: type[StreamT], *, allow: str | None = ..., raises: Raises = ...
) -> OnStream[StreamT]: ...


@overload
def on(message: type[M], *, allow: str | None = ..., raises: Raises = ...) -> OnMessage[M]: ...


def on(message: type, *, allow: str | None = None, raises: Raises = ()) -> Callable[[F], F]:
    """Mark a method as the handler of `message` and of its subclasses.

    The method is ``(self, message)`` or ``(self, message, context)``. What it returns is the reply. An ``async def``
    may wait; a plain ``def`` runs to completion without a task switch, in the asker's task where its agent is idle. An
    async generator answers a ``Stream[T]`` with what it yields.

    Args:
        message: a frozen attrs class; a ``Request[R]`` where the method's reply is an R.
        allow: a Cedar condition on who may send it from another node, say ``principal.team == "payments"``.
            Without one, nobody on another node can reach this handler. Inside the process no condition applies, so a
            handler of `Down`, which no other node sends, takes none.
        raises: the protocol errors that the method answers with by raising them; they fail nobody.

    Raises:
        DeclarationError: by `agent`, when the class is created.
        PolicyError: by `agent`: `allow` does not parse, or names a field that `message` does not have.
    """

    def decorate(function: F) -> F:
        if not callable(cast("object", function)):  # a property, a classmethod: what has no place for the mark
            msg = f"@on({_name(message)}) marks {function!r}: a handler is def or async def with self and a message"
            raise DeclarationError(msg)
        foreseen = raises if isinstance(raises, tuple) else (raises,)
        marks: list[_Mark] = [*getattr(function, _MARK, ()), _Mark(message, allow, foreseen)]
        setattr(function, _MARK, marks)
        return function

    return decorate


@overload
def agent(cls: type[T], /) -> type[T]: ...


@overload
def agent(
    *,
    mailbox: Mailbox = ...,
    restart: Restart = ...,
    concurrency: int = ...,
    idle_after: float = ...,
    inherit: bool = ...,
    topics: Mapping[str, str] = ...,
) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(field_specifiers=(attrs.field,))
def agent(  # noqa: PLR0913 - each has a default that is right for most
    cls: type[T] | None = None,
    /,
    *,
    mailbox: Mailbox | None = None,
    restart: Restart = "transient",
    concurrency: int = 1,
    idle_after: float = 60.0,
    inherit: bool = True,
    topics: Mapping[str, str] = NO_TOPICS,
) -> type[T] | Callable[[type[T]], type[T]]:
    """Turn a class into an agent: its annotated attributes become its state, its `@on` methods its handlers.

    `attrs.define` is applied; an ``__init__`` of the class's own is respected. Nothing is started and no key is made.

    Args:
        cls: the class, when used without parentheses.
        mailbox: the bounds of its queue; 64 messages by default.
        restart: when a new instance takes the place of one that ended, in OTP's words: ``permanent`` always,
            ``transient`` after a failure, ``temporary`` never.
        concurrency: how many messages it handles at a time, each in a worker of its own.
        idle_after: seconds without work after which it gives back its task and keeps its state, until the next message
            wakes it; when very many agents are awake, sooner. ``math.inf`` for never.
        inherit: whether it speaks with the proven attributes of its node besides its own; False for one whose words
            come from elsewhere, a model or a bridge.
        topics: the topics of its node that agents of other nodes may subscribe to, each with a condition as in
            ``allow=``: ``{"#prices": 'principal.team == "payments"'}``. Without it a topic stays in its node.

    Raises:
        DeclarationError: the class cannot work as an agent; one sentence names class, handler and mend.
        PolicyError: an ``allow=`` does not parse or names a field its message does not have.
    """

    def decorate(plain: type[T]) -> type[T]:
        if restart not in get_args(Restart):
            msg = f"{plain.__name__}: restart={restart!r} is none of {', '.join(get_args(Restart))}"
            raise DeclarationError(msg)
        if not isinstance(cast("object", mailbox), Mailbox | None):
            msg = f"{plain.__name__}: mailbox={mailbox!r} is no Mailbox: write mailbox=Mailbox(64)"
            raise DeclarationError(msg)
        if type(concurrency) is not int or concurrency < 1:
            msg = f"{plain.__name__}: concurrency={concurrency!r}: an agent has at least 1 worker"
            raise DeclarationError(msg)
        if not (isinstance(cast("object", idle_after), int | float) and idle_after >= 0):
            msg = f"{plain.__name__}: idle_after={idle_after!r}: give seconds, 0 or more"
            raise DeclarationError(msg)
        for topic, condition in topics.items():
            check_topic(topic)
            _check_policy(f"{plain.__name__}: the topic {topic}", condition, Subscribing)
        handlers = _handlers_of(plain)
        on_start, on_stop = _has_hook(plain, "on_start"), _has_hook(plain, "on_stop")
        defined = attrs.define(plain)
        spec = Spec(
            agent=defined.__name__,
            name=snake_case(defined.__name__),
            handlers={handler.message: handler for handler in handlers},
            mailbox=mailbox or Mailbox(),
            restart=restart,
            concurrency=concurrency,
            idle_after=idle_after,
            inherit=inherit,
            topics=dict(topics),
            patient=getattr(plain, PATIENT, False),
            on_start=on_start,
            on_stop=on_stop,
            description=" ".join((vars(plain).get("__doc__") or "").strip().partition("\n\n")[0].split()),
        )
        setattr(defined, SPEC, spec)
        return defined

    return decorate if cls is None else decorate(cls)


def snake_case(name: str) -> str:
    """Return a CamelCase name as snake_case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _handlers_of(cls: type) -> list[Handler]:
    """Read the marks of a class and its bases; an override without a mark of its own keeps its parent's."""
    marks: dict[str, list[_Mark]] = {}
    for base in reversed(cls.__mro__):
        for method, value in vars(base).items():
            # A staticmethod hides the mark of what it wraps; it is found, and then refused.
            own = getattr(inspect.unwrap(value, stop=lambda each: hasattr(each, _MARK)), _MARK, None)
            if own is not None:
                marks[method] = own
    by_message: dict[type, Handler] = {}
    for method, own in marks.items():
        for mark in own:
            handler = _handler(cls, method, mark)
            taken = by_message.setdefault(mark.message, handler)
            if taken is not handler:
                name = mark.message.__name__
                msg = f"{cls.__name__} has two handlers for {name}, {taken.method} and {method}: keep one"
                raise DeclarationError(msg)
    return list(by_message.values())


def _handler(cls: type, method: str, mark: _Mark) -> Handler:
    place = f"{cls.__name__}.{method}"
    message = mark.message
    function = inspect.getattr_static(cls, method)
    if not isinstance(function, FunctionType):
        msg = f"{place} is marked with @on but is no method: a handler is def or async def with self and a message"
        raise DeclarationError(msg)
    if not is_message_class(message):
        msg = f"{place}: @on({_name(message)}) is not a frozen attrs class: decorate it with @attrs.frozen"
        raise DeclarationError(msg)
    kind = _kind(place, function, message)
    parameters = _positional(place, function)
    _check_annotations(place, function, parameters, message)
    _check_raises(place, mark.raises)
    if mark.allow is not None:
        _check_policy(place, mark.allow, message)
        _check_sendable(place, message)
        for each in mark.raises:
            _check_sendable(place, each)
    return Handler(
        message=message,
        method=method,
        allow=mark.allow,
        raises=mark.raises,
        function=function,
        kind=kind,
        takes_context=len(parameters) == _WITH_CONTEXT,
        reply=classes_of(item_type(message) if kind == "stream" else reply_type(message)),
    )


def _kind(place: str, function: FunctionType, message: type) -> Kind:
    """Tell how a handler is run, and refuse one that could not answer its message."""
    inner = inspect.unwrap(function)
    if item_type(message) is not None:
        if not inspect.isasyncgenfunction(inner):
            msg = f"{place} answers {message.__name__}, a Stream: make it async def and yield each item"
            raise DeclarationError(msg)
        return "stream"
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        msg = f"{place} is a generator, but {message.__name__} is no Stream: return the reply in place of yield"
        raise DeclarationError(msg)
    return "async" if inspect.iscoroutinefunction(inner) else "plain"


def _check_policy(place: str, allow: str, message: type) -> None:
    if Down in message.__mro__:
        sent = f"no other node sends a {message.__name__}"
        msg = f"{place}: allow={allow!r} can never matter, since {sent}: leave it out"
        raise DeclarationError(msg)
    try:
        check_allow(allow, message)
    except PolicyError as error:
        msg = f"{place}: {error}"
        raise PolicyError(msg) from None


def _check_sendable(place: str, message: type) -> None:
    """Refuse what other nodes may send by the ``allow=``, and then nobody could read, or the asker not its reply."""
    try:
        check_sendable(message)
    except DeclarationError as error:
        raise DeclarationError(f"{place}: {error}") from None


def _check_raises(place: str, raises: "tuple[Any, ...]") -> None:
    for each in raises:
        if not (isinstance(each, type) and issubclass(each, ReplyError) and is_message_class(each)):
            msg = (
                f"{place}: raises={_name(cast('object', each))}: list frozen attrs classes that derive from ReplyError"
            )
            raise DeclarationError(msg)


def classes_of(expected: object) -> tuple[type, ...] | None:
    """Return the classes that a value of a type is an instance of; None where its class says nothing."""
    if expected is float:
        return float, int  # as annotations read it
    if get_origin(expected) in (Union, UnionType):
        each = [classes_of(choice) for choice in get_args(expected)]
        known = [classes for classes in each if classes is not None]
        return sum(known, ()) if len(known) == len(each) else None
    cls = get_origin(expected) or expected
    return (cls,) if isinstance(cls, type) and cls not in (Any, object) else None


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
    if len(parameters) == _WITH_CONTEXT:
        _check_context(place, _annotation(function, parameters[2]))
    returned = _annotation(function, "return")
    if returned is _UNKNOWN:
        return
    item = item_type(message)
    if item is not None:
        _check_items(place, returned, item, message)
        return
    expected = reply_type(message)
    if expected is None:
        return
    if (NoneType if returned is None else returned) != expected:
        wanted = _name(expected)
        msg = f"{place} answers {message.__name__}, a Request[{wanted}]: annotate it '-> {wanted}' and return one"
        raise DeclarationError(msg)


def _check_context(place: str, found: object) -> None:
    """Refuse a class that no `Context` is an instance of; whether it fits a protocol is for type checkers."""
    if not isinstance(found, type) or found in (Any, _UNKNOWN) or getattr(found, "_is_protocol", False):
        return
    if found not in Context.__mro__:
        msg = f"{place} annotates its context as {_name(found)}: annotate it as Context"
        raise DeclarationError(msg)


def _check_items(place: str, returned: object, item: object, message: type) -> None:
    """Refuse a stream handler whose annotation names other items than its message declares."""
    items = get_args(returned)[:1]
    if get_origin(returned) not in (AsyncIterator, AsyncIterable, AsyncGenerator) or items != (item,):
        wanted = f"AsyncIterator[{_name(item)}]"
        msg = f"{place} answers {message.__name__}, a Stream[{_name(item)}]: annotate it '-> {wanted}' and yield them"
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
