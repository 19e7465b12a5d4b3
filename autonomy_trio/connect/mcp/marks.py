"""Which handlers are resources and prompts to MCP clients; those without a mark are tools."""

import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from attrs import frozen

from autonomy_trio.errors import DeclarationError
from autonomy_trio.fabric.node import Node, current_node

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__autonomy_mcp__"
_FIELD: Final = re.compile(r"\{(\w+)\}")
_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


@frozen
class Resource:
    """That a handler is read as a document."""

    uri: str
    """Its address, with ``{field}`` where a field of the message stands."""
    type: str
    """Its media type."""

    @property
    def fields(self) -> list[str]:
        """The fields of the message that stand in the address."""
        return _FIELD.findall(self.uri)

    def match(self, uri: str) -> Mapping[str, str] | None:
        """Return what an address has in the place of each field; None where it is another resource's."""
        parts = _FIELD.split(self.uri)
        texts = [re.escape(part) if number % 2 == 0 else f"(?P<{part}>[^/?#]+)" for number, part in enumerate(parts)]
        found = re.fullmatch("".join(texts), uri)
        return None if found is None else {name: unquote(text) for name, text in found.groupdict().items()}


@frozen
class Prompt:
    """That a handler makes a prompt, which its user chooses."""


Mark = Resource | Prompt


def resource(uri: str, *, type: str = "text/plain") -> Callable[[F], F]:  # noqa: A002 - the word of the field
    """Show a handler to MCP clients as a document at an address, in place of a tool; stands above its ``@on``.

    The reply is the document: text or bytes, else JSON, or a list of `TextResource` and `BlobResource`. A message with
    fields is a template of addresses: each field, a string or a number, stands in the address as ``{field}`` and
    matches up to the next ``/``.

    Args:
        uri: the address, say ``notes://today`` or ``notes://{day}``.
        type: its media type.

    Raises:
        DeclarationError: the address has no scheme, or a field twice.
    """
    mark = Resource(uri, type)
    if not _SCHEME.match(uri):
        msg = f"@resource({uri!r}): an address begins with a scheme, say notes://today"
        raise DeclarationError(msg)
    if len(set(mark.fields)) != len(mark.fields):
        msg = f"@resource({uri!r}): a field stands in an address once"
        raise DeclarationError(msg)
    return _marked(mark)


def prompt(function: F) -> F:
    """Show a handler to MCP clients as a prompt, in place of a tool; stands above its ``@on``.

    The message's fields are what the prompt is made of, each a string or a choice of strings. The reply is what the
    model is to read: text, or a list of text, `Image` and the like, said by the user, or of `PromptMessage`.
    """
    return _marked(Prompt())(function)


def mark_of(function: Callable[..., Any]) -> Mark | None:
    """Return how a handler is shown; None for a tool."""
    return getattr(function, _MARK, None)


def _marked(mark: Mark) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        setattr(function, _MARK, mark)
        return function

    return decorate


told_of_updates: Final[weakref.WeakKeyDictionary[Node, Callable[[str], None]]] = weakref.WeakKeyDictionary()
"""Who is told that a resource has changed, by the node that serves it."""


def updated(uri: str) -> None:
    """Tell those MCP clients of this node that have subscribed to a resource that it has changed; never waits.

    Args:
        uri: the resource's address, fields filled in.

    Raises:
        UsageError: no agent's code is running.
    """
    tell = told_of_updates.get(current_node())
    if tell is not None:
        tell(uri)
