"""Trust anchors: whose credentials count here, and for which attributes.

A home without an anchors file trusts its own identity, for any attribute. With one, only what the file lists:

```toml
[[anchor]]
identifier = "I5c1f…"                       # as `authority init` prints it
attributes = { team = "string", level = "long", cleared = "bool", roles = "set" }
longest_validity = "1d"                     # of a credential; a number and s, m, h or d; one day when left out
revocation_staleness = "1h"                 # when set, a revocation list is required and may be at most this old
```
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeGuard, cast

from attrs import frozen

from autonomy_trio.errors import AddressError, ConfigurationError
from autonomy_trio.trust.attributes import (
    ATTRIBUTE_TYPES,
    ATTRIBUTES_LIMIT,
    NAME_RULE,
    AttributeType,
    AttributeValue,
    is_attribute_name,
    type_of,
)
from autonomy_trio.trust.records import format_identifier, parse_identifier

if TYPE_CHECKING:
    from autonomy_trio.trust.credentials import Credential

DEFAULT_LONGEST_VALIDITY: Final = 24 * 3600
"""Longest validity of a credential in seconds, where an anchor does not set it."""

ANCHORS_LIMIT: Final = 64
"""Most anchors in a file."""
FILE_BYTES_LIMIT: Final = 1024 * 1024
"""Most bytes of an anchors file; full tables fit, with room for comments."""

_KEYS: Final = frozenset({"identifier", "attributes", "longest_validity", "revocation_staleness"})
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@frozen
class Anchor:
    """An authority that counts here.

    Attributes:
        identifier: the authority's 32-byte identifier.
        attributes: the attributes it may assert, with their types; None is any.
        longest_validity: seconds from *not before* to *expires* that its credentials may have at most.
        revocation_staleness: seconds that its revocation list may be old at most; None requires no list.
    """

    identifier: bytes
    attributes: Mapping[str, AttributeType] | None
    longest_validity: int = DEFAULT_LONGEST_VALIDITY
    revocation_staleness: int | None = None


@frozen
class Anchors:
    """The authorities that count here.

    Attributes:
        by_identifier: each anchor under its identifier.
        attribute_types: the type of every attribute that an anchor may assert; None when one may assert any.
    """

    by_identifier: Mapping[bytes, Anchor]
    attribute_types: Mapping[str, AttributeType] | None

    @classmethod
    def of_self(cls, identifier: bytes) -> Self:
        """Trust one authority, oneself, for any attribute: the default of a home without an anchors file."""
        return cls({identifier: Anchor(identifier, None)}, None)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read an anchors file, whose form is at the top of this module.

        Raises:
            ConfigurationError: the file cannot be read or does not fit; the text names it, the place and the mend.
        """
        by_identifier: dict[bytes, Anchor] = {}
        types: dict[str, AttributeType] = {}
        for number, table in enumerate(_read_tables(path), start=1):
            place = f"{path}, anchor {number}"
            anchor = _read_anchor(place, table)
            if anchor.identifier in by_identifier:
                text = format_identifier(anchor.identifier)
                raise ConfigurationError(f"{place}: {text} is there twice: make one [[anchor]] of the two")
            by_identifier[anchor.identifier] = anchor
            for name, kind in (anchor.attributes or {}).items():
                if types.setdefault(name, kind) != kind:
                    raise ConfigurationError(
                        f"{place}: `{name}` is a {kind} here and a {types[name]} at another anchor: an attribute has"
                        " one type, so change one of them"
                    )
        return cls(by_identifier, types)

    def get(self, identifier: bytes) -> Anchor | None:
        """Return the anchor of that identifier; None when it is not trusted here."""
        return self.by_identifier.get(identifier)


def proven_attributes(
    credentials: Iterable["Credential"], inherited: Iterable["Credential"] = ()
) -> tuple[Mapping[str, AttributeValue], frozenset[str]]:
    """Merge what verified credentials prove about one sender.

    Where two differ on a name, in value or in type, the name is dropped: attributes only add rights, so a sender that
    chooses what to show can lose by a contradiction and never gain.

    Args:
        credentials: those of the sender itself, a node or an agent.
        inherited: those of the node that an agent lives on; none for an agent that is declared with ``inherit=False``.

    Returns:
        the attributes, and the names that were dropped, for the log.
    """
    merged: dict[str, AttributeValue] = {}
    dropped: set[str] = set()
    for credential in (*credentials, *inherited):
        for name, value in credential.attributes.items():
            known = merged.setdefault(name, value)
            # True equals 1 in Python, so the types are compared too.
            if known != value or type_of(known) != type_of(value):
                dropped.add(name)
    return {name: value for name, value in merged.items() if name not in dropped}, frozenset(dropped)


def parse_duration(text: str) -> int | None:
    """Read a time written as a number and `s`, `m`, `h` or `d` into seconds; None when it is not one, or is zero."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNITS[match[2]] or None if match else None


def format_duration(seconds: int) -> str:
    """Write seconds as `parse_duration` reads them, in the largest unit that fits without a rest."""
    unit = max((unit for unit, length in _UNITS.items() if seconds % length == 0), key=_UNITS.__getitem__)
    return f"{seconds // _UNITS[unit]}{unit}"


def to_toml(anchor: Anchor) -> str:
    """Write an anchor as the table that its friends put into their anchors files.

    Raises:
        ValueError: the anchor counts for any attribute, which is for oneself alone and has no form in a file.
    """
    if anchor.attributes is None:
        raise ValueError("an anchor for any attribute cannot be written: name its attributes")
    attributes = ", ".join(f'{name} = "{kind}"' for name, kind in anchor.attributes.items())
    lines = [
        "[[anchor]]",
        f'identifier = "{format_identifier(anchor.identifier)}"',
        f"attributes = {{ {attributes} }}",
        f'longest_validity = "{format_duration(anchor.longest_validity)}"',
    ]
    if anchor.revocation_staleness is not None:
        lines.append(f'revocation_staleness = "{format_duration(anchor.revocation_staleness)}"')
    return "\n".join([*lines, ""])


def _read_tables(path: Path) -> list[object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_LIMIT + 1)
        if len(data) > FILE_BYTES_LIMIT:
            raise ConfigurationError(f"the anchors file {path} has more than {FILE_BYTES_LIMIT} bytes: shorten it")
        content = tomllib.loads(data.decode())
    except OSError as exc:
        raise ConfigurationError(f"the anchors file {path} cannot be read: {exc.strerror or exc}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the anchors file {path} is not text in UTF-8: save it as such") from None
    except (ValueError, RecursionError) as exc:  # besides its own error, tomllib lets through one about huge integers
        raise ConfigurationError(f"the anchors file {path} is not TOML: {exc}") from None
    unknown = sorted(content.keys() - {"anchor"})
    if unknown:
        raise ConfigurationError(f"{path}: there is nothing called `{unknown[0]}` here: write [[anchor]] tables only")
    tables: object = content.get("anchor", [])
    if not isinstance(tables, list) or not tables:
        raise ConfigurationError(
            f"{path} has no [[anchor]] table: add one, or start without an anchors file to trust only your own identity"
        )
    if len(cast("list[object]", tables)) > ANCHORS_LIMIT:
        raise ConfigurationError(f"{path} has more than {ANCHORS_LIMIT} anchors: leave some out")
    return cast("list[object]", tables)


def _read_anchor(place: str, table: object) -> Anchor:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{place}: this is not a table: begin it with a line [[anchor]]")
    fields = cast("dict[str, object]", table)
    unknown = sorted(fields.keys() - _KEYS)
    if unknown:
        raise ConfigurationError(f"{place}: there is no `{unknown[0]}`: an anchor has {', '.join(sorted(_KEYS))}")
    identifier = fields.get("identifier")
    if not isinstance(identifier, str):
        raise ConfigurationError(f'{place}: it needs identifier = "I…", as `authority init` prints it')
    try:
        parsed = parse_identifier(identifier)
    except AddressError as exc:
        raise ConfigurationError(f"{place}, identifier: {exc}") from None
    return Anchor(
        identifier=parsed,
        attributes=_read_attributes(place, fields.get("attributes")),
        longest_validity=_read_duration(place, fields, "longest_validity") or DEFAULT_LONGEST_VALIDITY,
        revocation_staleness=_read_duration(place, fields, "revocation_staleness"),
    )


def _read_attributes(place: str, table: object) -> dict[str, AttributeType]:
    if not isinstance(table, dict):
        raise ConfigurationError(f'{place}: it needs attributes, as in attributes = {{ team = "string" }}')
    if len(cast("dict[str, object]", table)) > ATTRIBUTES_LIMIT:
        raise ConfigurationError(f"{place}: an anchor has at most {ATTRIBUTES_LIMIT} attributes: leave some out")
    attributes: dict[str, AttributeType] = {}
    for name, kind in cast("dict[str, object]", table).items():
        if not is_attribute_name(name):
            raise ConfigurationError(f"{place}, attributes: {name!r} is not a name for one: {NAME_RULE}")
        if not _is_type(kind):
            raise ConfigurationError(
                f'{place}, attributes.{name}: {kind!r} is not a type: write "string", "long", "bool" or "set"'
            )
        attributes[name] = kind
    return attributes


def _is_type(kind: object) -> TypeGuard[AttributeType]:
    return isinstance(kind, str) and kind in ATTRIBUTE_TYPES


def _read_duration(place: str, fields: Mapping[str, object], key: str) -> int | None:
    if key not in fields:
        return None
    value = fields[key]
    seconds = parse_duration(value) if isinstance(value, str) else None
    if seconds is None:
        raise ConfigurationError(
            f'{place}, {key}: {value!r} is not a time: write a number above 0 and s, m, h or d, as in "1h"'
        )
    return seconds
