"""How an ask's failure crosses the wire: a code for programs, a coarse sentence for people."""

from typing import Final

import trio

from autonomy_trio.errors import (
    DeliveryError,
    Denied,
    HandlerFailed,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    Overloaded,
    ReplyError,
)
from autonomy_trio.logs import printable
from autonomy_trio.messages import wire_name

_TOO_SLOW: Final = "too slow"
_REPLY_ERROR: Final = "reply error"
_ERRORS: Final[dict[str, type[DeliveryError]]] = {
    "not handled": NotHandled,
    "denied": Denied,
    "overloaded": Overloaded,
    "not delivered": NotDelivered,
    "handler failed": HandlerFailed,
    "outcome unknown": OutcomeUnknown,
}

MOST_TEXT: Final = 500
"""Characters of an error's text that travel."""


def to_code(error: BaseException) -> tuple[str, str]:
    """Return what a stranger is told of an error: its code, and its text where it is one of ours."""
    if isinstance(error, trio.TooSlowError):
        return _TOO_SLOW, ""
    if isinstance(error, ReplyError):
        return _REPLY_ERROR, printable(f"{wire_name(type(error))}{error.args}", MOST_TEXT)
    for code, kind in _ERRORS.items():
        if isinstance(error, kind):
            return code, printable(str(error), MOST_TEXT)
    return "handler failed", ""


def from_code(code: str, text: str, *, address: str, message: str) -> Exception:
    """Return the exception an asker gets for an error that came over the wire.

    Args:
        code: what the recipient's node says; an unknown one counts as an unknown outcome.
        text: its sentence: a stranger's text, shown without control characters.
        address: whom the message was for.
        message: the message's wire name.
    """
    if code == _TOO_SLOW:
        return trio.TooSlowError()
    if code == _REPLY_ERROR:
        return ReplyError(printable(text, MOST_TEXT))
    kind = _ERRORS.get(code, OutcomeUnknown)
    if kind is Denied:
        return Denied(
            f"{address} denied {message}: its policy does not let you send it this, or it has no such agent or"
            " message; the log of its node says which"
        )
    said = printable(text, MOST_TEXT)
    return kind(said or f"{address} answered {message} with an error and no words")
