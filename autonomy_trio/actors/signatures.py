"""What type checkers know of `on`: the functions that can handle a request, a stream, and any other message.

Nothing here runs. A decorator gets its message's class as M, and finds the reply in it through the type of `self`. What
it returns takes Any as the message, so that a method can have several ``@on``, one above the other.
"""

from collections.abc import AsyncIterable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from autonomy_trio.actors.context import Context
    from autonomy_trio.messages import Request, Stream

M_co = TypeVar("M_co", covariant=True)
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


class OnRequest(Protocol[M_co]):
    """Marks a method that returns the reply of an M, a ``Request[R]``."""

    @overload
    def __call__(
        self: "OnRequest[Request[R]]", method: Callable[[S, M_co], Coroutine[Any, Any, R]], /
    ) -> Callable[[S, Any], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(
        self: "OnRequest[Request[R]]", method: "Callable[[S, M_co, Context], Coroutine[Any, Any, R]]", /
    ) -> "Callable[[S, Any, Context], Coroutine[Any, Any, R]]": ...

    @overload
    def __call__(self: "OnRequest[Request[R]]", method: Callable[[S, M_co], R], /) -> Callable[[S, Any], R]: ...

    @overload
    def __call__(
        self: "OnRequest[Request[R]]", method: "Callable[[S, M_co, Context], R]", /
    ) -> "Callable[[S, Any, Context], R]": ...


class OnStream(Protocol[M_co]):
    """Marks a method that yields the items of an M, a ``Stream[T]``."""

    @overload
    def __call__(
        self: "OnStream[Stream[T]]", method: Callable[[S, M_co], AsyncIterable[T]], /
    ) -> Callable[[S, Any], AsyncIterable[T]]: ...

    @overload
    def __call__(
        self: "OnStream[Stream[T]]", method: "Callable[[S, M_co, Context], AsyncIterable[T]]", /
    ) -> "Callable[[S, Any, Context], AsyncIterable[T]]": ...


class OnMessage(Protocol[M_co]):
    """Marks a method that takes an M, which has no reply."""

    @overload
    def __call__(self, method: Callable[[S, M_co], T], /) -> Callable[[S, Any], T]: ...

    @overload
    def __call__(self, method: "Callable[[S, M_co, Context], T]", /) -> "Callable[[S, Any, Context], T]": ...
