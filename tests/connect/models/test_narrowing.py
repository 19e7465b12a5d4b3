"""Schemas as vendors take them."""

from collections.abc import Mapping
from typing import Literal

import pytest
from attrs import frozen

from autonomy_trio.connect.models.narrowing import LEFT_OUT, narrowed
from autonomy_trio.messages import message_schema


@frozen
class Part:
    default: str
    """A field that goes by a word of schemas."""


@frozen
class Whole:
    parts: tuple[Part, ...]
    kind: Literal["a", "b"]
    more: "Whole | None"


@frozen
class WithDefault:
    number: int = 5


@frozen
class WithMap:
    counts: Mapping[str, int]


@frozen
class WithPair:
    pair: tuple[int, str]


@frozen
class WithAnything:
    value: object


def test_words_that_vendors_refuse_are_left_out_and_fields_of_their_names_stay() -> None:
    found, strict = narrowed(message_schema(Whole))
    assert strict
    assert found["$defs"]["Part"]["properties"] == {"default": {"type": "string"}}
    assert not LEFT_OUT & found.keys()
    assert narrowed(message_schema(WithDefault))[0]["properties"] == {"number": {"type": "integer"}}


@pytest.mark.parametrize("kind", [WithDefault, WithMap, WithPair, WithAnything])
def test_what_a_vendor_cannot_hold_a_model_to_strictly_is_told(kind: type) -> None:
    assert not narrowed(message_schema(kind))[1]
