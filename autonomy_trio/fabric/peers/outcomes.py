"""How an ask's failure crosses the wire: a code for programs, a coarse sentence for people.

A protocol error crosses as what it is, a name and its fields, and is the asker's own class again where that is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import attrs
import trio

from autonomy_trio.errors import (
    DeliveryError,
    Denied,
    HandlerFailed,
    MessageError,
    NotDelivered,
    NotHandled,
    OutcomeUnknown,
    Overloaded,
    ReplyError,
)
from autonomy_trio.fabric.links.addresses import Address
from autonomy_trio.logs import get_log, printable
from autonomy_trio.messages import decode_payload, encode_payload, is_message_class, wire_name
from autonomy_trio.payloads import Resolve
from autonomy_trio.wire.entries import Error, Foreseen, Reply, check_size

_log = get_log()

_TOO_SLOW: Final = "too slow"
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
    kind = _ERRORS.get(code, OutcomeUnknown)
    if kind is Denied:
        return Denied(
            f"{address} denied {message}: its policy does not let you send it this, or it has no such agent or"
            " message; the log of its node says which"
        )
    said = printable(text, MOST_TEXT)
    return kind(said or f"{address} answered {message} with an error and no words")


@attrs.frozen
class Expected:
    """What an asker can make sense of."""

    message: str
    """The wire name of what it asks."""
    kind: object | None
    """The type of the reply, or of an item; None for no type."""
    address: Address
    """Whom it asks."""
    known: Sequence[type[Exception]] = ()
    """The protocol errors it knows."""


def reply_entry(request: int, value: object) -> Reply | Error:
    """Return what hands an asker its reply, or tells it that the reply cannot travel."""
    try:
        entry = Reply(request, encode_payload(value))
        check_size(entry)
    except Exception as error:  # noqa: BLE001 - fence: a program's own mappings and descriptors, besides MessageError
        return _unsent(request, "reply", error)
    return entry


def error_entry(request: int, error: BaseException) -> Error | Foreseen:
    """Return what tells an asker of an error."""
    if not isinstance(error, ReplyError):
        code, text = to_code(error)
        return Error(request, code, text)
    try:
        entry = Foreseen(request, wire_name(type(error)), encode_payload(error))
        check_size(entry)
    except Exception as failure:  # noqa: BLE001 - fence: as for a reply
        return _unsent(request, "protocol error", failure)
    return entry


def _unsent(request: int, what: str, error: Exception) -> Error:
    _log.error("answer not sent", error=str(error))
    return Error(request, "handler failed", f"the {what} has no encoding or is too large")


def read_error(entry: Error | Foreseen, expected: Expected, resolve: Resolve | None) -> Exception:
    """Return the exception an asker gets for an error that came over the wire."""
    if isinstance(entry, Error):
        return from_code(entry.code, entry.text, address=str(expected.address), message=expected.message)
    return foreseen(entry, expected.known, resolve)


def read_value(payload: bytes, expected: Expected, resolve: Resolve | None, what: str) -> Any:  # noqa: ANN401 - decoded
    """Return a reply or an item.

    Raises:
        MessageError: it is none.
    """
    try:
        return decode_payload(payload, expected.kind, resolve)
    except MessageError as error:
        text = f"the {what} of {expected.address} does not fit {expected.message}: {error}"
    except Exception as error:  # noqa: BLE001 - fence: a program's classes, at a stranger's values
        text = f"the {what} of {expected.address} cannot be read: {type(error).__name__}"
    raise MessageError(text)


def foreseen(entry: Foreseen, known: Iterable[type[Exception]], resolve: Resolve | None) -> Exception:
    """Return the protocol error an asker gets.

    Args:
        entry: what came over the wire.
        known: the classes that the asker foresees; their subclasses count too.
        resolve: makes a ref of an address in a field.

    Returns:
        one of those classes where the name and the fields fit, else a plain `ReplyError` with both in words.
    """
    cls = _named(entry.name, known)
    if cls is not None:
        try:
            return cast("Exception", decode_payload(entry.payload, cls, resolve))
        except MessageError as error:
            _log.warning("protocol error does not fit", error=printable(entry.name), why=str(error))
        except Exception as error:  # noqa: BLE001 - fence: a program's classes, at a stranger's values
            _log.warning("protocol error does not fit", error=printable(entry.name), why=type(error).__name__)
    try:
        fields = decode_payload(entry.payload, None)
    except MessageError:
        fields = None
    pairs = cast("Mapping[object, object]", fields).items() if isinstance(fields, Mapping) else ()
    words = ", ".join(f"{name}={value!r}" for name, value in pairs)
    return ReplyError(printable(f"{entry.name}({words})", MOST_TEXT))


def _named(name: str, known: Iterable[type[Exception]]) -> type[Exception] | None:
    pending = list(known)
    while pending:
        cls = pending.pop()
        # attrs replaces a class by its slotted twin: the plain one is a subclass of the same name, and no attrs class.
        if wire_name(cls) == name and is_message_class(cls):
            return cls
        pending.extend(cls.__subclasses__())
    return None
