"""What a handler can answer an MCP client with besides text and JSON: images, sounds, documents, turns of a talk."""

from typing import Literal, TypeAlias

from attrs import frozen


@frozen
class Media:
    """An image or a sound; in a resource, any bytes."""

    data: bytes
    type: str
    """Its media type, say ``image/png`` or ``audio/wav``."""


@frozen
class Embedded:
    """A document in an answer: text or bytes under an address of their own."""

    uri: str
    type: str
    """Its media type, say ``text/plain``."""
    text: str | None = None
    data: bytes | None = None


Content: TypeAlias = str | Media | Embedded
"""A part of an answer; a reply that is one, or a list of them, is shown to the client as what it is."""


@frozen
class Turn:
    """What one side says in a prompt; a prompt that is replied to with `Content` is all said by the user."""

    role: Literal["user", "assistant"]
    content: Content
