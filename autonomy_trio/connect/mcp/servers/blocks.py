"""The things that MCP servers have and give, and how each is written as MCP's JSON."""

import base64
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import attrs
from attrs import field, frozen

T = TypeVar("T")

Json = Mapping[str, Any]


@frozen
class TextResource:
    """The text of a resource."""

    uri: str
    text: str
    mime_type: str | None = None
    meta: Json | None = None


@frozen
class BlobResource:
    """The bytes of a resource."""

    uri: str
    blob: bytes = field(repr=False)
    mime_type: str | None = None
    meta: Json | None = None


@frozen
class Text:
    """Text, for a model or a person to read."""

    text: str
    annotations: Json | None = None
    meta: Json | None = None


@frozen
class Image:
    """An image, as the bytes of its file."""

    image: bytes = field(repr=False)
    mime_type: str
    annotations: Json | None = None
    meta: Json | None = None


@frozen
class Audio:
    """A recording, as the bytes of its file."""

    audio: bytes = field(repr=False)
    mime_type: str
    annotations: Json | None = None
    meta: Json | None = None


@frozen
class EmbeddedResource:
    """A resource that stands in an answer itself."""

    resource: TextResource | BlobResource
    annotations: Json | None = None
    meta: Json | None = None


@frozen
class Resource:
    """A resource that a server has, and where: read it with `ReadResource`; in an answer, a link to it."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    """Bytes."""
    icons: tuple[Json, ...] = ()
    annotations: Json | None = None
    meta: Json | None = None


ContentBlock = Text | Image | Audio | EmbeddedResource | Resource
"""A piece of what a tool or a prompt gives."""


@frozen
class Tool:
    """A tool that a server has: call it with `CallTool`."""

    name: str
    input_schema: Json
    """The JSON schema of its arguments."""
    title: str | None = None
    description: str | None = None
    output_schema: Json | None = None
    annotations: Json | None = None
    """What the server claims of it, as ``readOnlyHint``: a claim, and no promise."""
    execution: Json | None = None
    icons: tuple[Json, ...] = ()
    meta: Json | None = None


@frozen
class ResourceTemplate:
    """A family of resources, as a URI with variables in it."""

    uri_template: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    icons: tuple[Json, ...] = ()
    annotations: Json | None = None
    meta: Json | None = None


@frozen
class Prompt:
    """A prompt that a server has: get it with `GetPrompt`."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: tuple[Json, ...] = ()
    """Of each its ``name``, and perhaps ``description`` and ``required``."""
    icons: tuple[Json, ...] = ()
    meta: Json | None = None


_FIELDS: Final[dict[type, dict[str, str]]] = {}
"""Of each class its fields, and what MCP calls them."""


_LISTS: Final = frozenset({"arguments", "icons"})
"""The fields that are lists."""


def _fields(cls: Any) -> dict[str, str]:  # noqa: ANN401 - an attrs class
    known = _FIELDS.get(cls)
    if known is None:
        names = [each.name for each in attrs.fields(cls)]
        known = _FIELDS[cls] = {name: "_meta" if name == "meta" else _camel(name) for name in names}
    return known


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def listed_of(cls: type[T], found: Json) -> T:
    """Read an entry of a list as MCP writes it; what the class has no field for is left out."""
    present = {name: found[key] for name, key in _fields(cls).items() if found.get(key) is not None}
    return cls(**{name: tuple(value) if name in _LISTS else value for name, value in present.items()})


def as_listed(entry: object) -> dict[str, Any]:
    """Write an entry of a list as MCP does."""
    found = {key: getattr(entry, name) for name, key in _fields(type(entry)).items()}
    return {key: value for key, value in found.items() if value is not None and value != ()}


def resource_of(found: Json) -> TextResource | BlobResource:
    """Read the contents of a resource.

    Raises:
        ValueError: what should be base64 is not.
    """
    more = found.get("mimeType"), found.get("_meta")
    if "text" in found:
        return TextResource(found["uri"], found["text"], *more)
    return BlobResource(found["uri"], _bytes(found["blob"]), *more)


def content_of(found: Json) -> ContentBlock:
    """Read a content block.

    Raises:
        ValueError: what should be base64 is not, or its type is none that MCP has for a result.
    """
    more = found.get("annotations"), found.get("_meta")
    match found["type"]:
        case "text":
            return Text(found["text"], *more)
        case "image":
            return Image(_bytes(found["data"]), found["mimeType"], *more)
        case "audio":
            return Audio(_bytes(found["data"]), found["mimeType"], *more)
        case "resource":
            return EmbeddedResource(resource_of(found["resource"]), *more)
        case "resource_link":
            return listed_of(Resource, found)
        case other:
            raise ValueError(f"{other!r} is no type of content that MCP has")


def _bytes(written: str) -> bytes:
    return base64.b64decode(written, validate=True)
