"""JSON schemas as vendors take them: they refuse words that say more than a model can be held to."""

from collections.abc import Mapping
from typing import Any, Final, cast

LEFT_OUT: Final = frozenset({"$schema", "contentEncoding", "default", "format", "maximum", "minimum", "uniqueItems"})
"""Words that vendors refuse; what they say is checked when the reply is read."""
_NAMED: Final = ("properties", "$defs")
"""Words whose keys are names and no words."""


def narrowed(schema: Mapping[str, object]) -> tuple[dict[str, Any], bool]:
    """Return a schema without the words that vendors refuse, and whether a vendor can hold a model to it strictly.

    It can where every object has exactly its properties, all of them required, and every list is of one type.
    """
    strict = True

    def visit(part: object, *, named: bool = False) -> Any:  # noqa: ANN401 - JSON
        nonlocal strict
        if isinstance(part, list):
            return [visit(each) for each in cast("list[object]", part)]
        if not isinstance(part, Mapping):
            return part
        words = cast("Mapping[str, object]", part)
        if named:
            return {name: visit(each) for name, each in words.items()}
        strict = strict and _is_strict(words)
        return {word: visit(each, named=word in _NAMED) for word, each in words.items() if word not in LEFT_OUT}

    return visit(schema), strict


def _is_strict(words: Mapping[str, object]) -> bool:
    if "prefixItems" in words or "propertyNames" in words or "patternProperties" in words:
        return False
    if words.get("type") != "object":
        return bool(words)
    properties = words.get("properties")
    names = set(cast("Mapping[str, object]", properties)) if isinstance(properties, Mapping) else set[str]()
    return words.get("additionalProperties") is False and names == set(cast("list[str]", words.get("required", [])))
