"""The JSON schema of a message, and which declarations cannot be sent."""

import datetime
import enum
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import attrs
import pytest
from attrs import frozen

from autonomy_trio import AgentRef, Request, agent, on
from autonomy_trio.errors import DeclarationError
from autonomy_trio.messages import message_schema

T = TypeVar("T")
UserId = NewType("UserId", int)
INTEGER = {"type": "integer", "minimum": -(2**63), "maximum": 2**64 - 1}
ADDRESS = {"type": "string", "description": "an agent's address"}


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Raw(enum.Enum):
    ONE = b"\xff"
    DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@frozen
class Line:
    """What is ordered,
    and how many.

    Not in the schema.
    """

    sku: str
    count: int = 1
    marks: list[str] = attrs.Factory(list)
    _hidden: int = attrs.field(init=False, default=0)


@frozen
class Tree:
    left: "Tree | None" = None
    line: Line | None = None


@frozen
class Page(Generic[T]):
    items: list[T]


@frozen
class Pages:
    one: Page[int]
    two: Page[str]
    three: Page[int]


@frozen
class Reserved:
    seats: int


@frozen
class Refused:
    seats: int
    why: str = ""


@frozen
class Partly:
    seats: int
    other: str = ""


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (bool, {"type": "boolean"}),
        (int, INTEGER),
        (float, {"type": "number"}),
        (str, {"type": "string"}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (UserId, INTEGER),
        (Annotated[int, "seats"], INTEGER),
        (Colour, {"enum": ["r", "g"]}),
        (Raw, {"enum": ["/w==", "2026-01-01T00:00:00+00:00"]}),
        (Literal["a", 1, True], {"enum": ["a", 1, True]}),
        (AgentRef[Any], ADDRESS),
        (int | None, {"anyOf": [INTEGER, {"type": "null"}]}),
        (UserId | str, {"anyOf": [INTEGER, {"type": "string"}]}),
        (list[int], {"type": "array", "items": INTEGER}),
        (list, {"type": "array", "items": {}}),
        (tuple, {"type": "array", "items": {}}),
        (Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[int, ...], {"type": "array", "items": INTEGER}),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (tuple[()], {"type": "array", "items": False, "minItems": 0, "maxItems": 0}),
        (
            tuple[int, str],
            {"type": "array", "prefixItems": [INTEGER, {"type": "string"}], "items": False}
            | {"minItems": 2, "maxItems": 2},
        ),
        (dict, {"type": "object", "additionalProperties": {}}),
        (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (
            Mapping[UserId, None],
            {
                "type": "object",
                "propertyNames": {"pattern": "^(0|-?[1-9][0-9]*)$"},
                "additionalProperties": {"type": "null"},
            },
        ),
        (
            dict[Colour, str],
            {
                "type": "object",
                "propertyNames": {"enum": ["r", "g"]},
                "additionalProperties": {"type": "string"},
            },
        ),
    ],
)
def test_a_type_has_its_schema(kind: object, schema: object) -> None:
    assert message_schema(kind) == {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def test_a_class_says_what_it_needs_and_takes_nothing_else() -> None:
    schema = message_schema(Line)
    assert schema.pop("$schema")
    assert schema == {
        "title": "Line",
        "description": "What is ordered, and how many.",
        "type": "object",
        "properties": {
            "sku": {"type": "string"},
            "count": {**INTEGER, "default": 1},
            "marks": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["sku"],
        "additionalProperties": False,
    }


def test_a_class_that_holds_itself_refers_to_the_top_and_others_to_definitions() -> None:
    schema = message_schema(Tree)
    assert schema["properties"]["left"]["anyOf"][0] == {"$ref": "#"}
    assert schema["properties"]["line"]["anyOf"][0] == {"$ref": "#/$defs/Line"}
    assert "description" not in schema
    assert list(schema["$defs"]) == ["Line"]


def test_two_of_one_name_are_numbered() -> None:
    schema = message_schema(Pages)
    assert [schema["properties"][each]["$ref"] for each in ("one", "two", "three")] == [
        "#/$defs/Page",
        "#/$defs/Page2",
        "#/$defs/Page",
    ]
    assert schema["$defs"]["Page2"]["properties"]["items"]["items"] == {"type": "string"}


def boxed(kind: object, base: Any = object) -> type:  # noqa: ANN401 - a Request[…]
    name = {"__annotations__": {"x": kind}, "__module__": __name__}
    return frozen(type("Box", (), name)) if base is object else frozen(type("Box", (base,), name))


OWN_FIELD = ": give one a required field that the other does not have"
WRAP = ": make one of them the field of a frozen attrs class"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Decimal, "Decimal is no type a message can carry @ Box.x"),
        (list[Decimal], "Decimal is no type a message can carry @ Box.x[]"),
        (dict[str, tuple[int, complex]], "complex is no type a message can carry @ Box.x[…][1]"),
        (Page[Decimal], "Decimal is no type a message can carry @ Box.x.items[]"),
        (dict[tuple[int, int], int], "tuple is no type that the key of a map can have @ Box.x"),
        (Reserved | Refused, f"Reserved and Refused look the same when they are sent @ Box.x{OWN_FIELD}"),
        (Refused | Reserved | None, f"Refused and Reserved look the same when they are sent @ Box.x{OWN_FIELD}"),
        (Reserved | dict[str, int], f"Reserved and dict look the same when they are sent @ Box.x{WRAP}"),
        (list[int] | list[str], f"list and list look the same when they are sent @ Box.x{WRAP}"),
        (list[int] | set[int], f"list and set look the same when they are sent @ Box.x{WRAP}"),
        (dict[str, int] | dict[str, str], f"dict and dict look the same when they are sent @ Box.x{WRAP}"),
        (Colour | Literal["r"], f"Colour and Literal look the same when they are sent @ Box.x{WRAP}"),
        (AgentRef[Any] | Colour, f"AgentRef and Colour look the same when they are sent @ Box.x{WRAP}"),
        (AgentRef[Any] | str, f"AgentRef and str look the same when they are sent @ Box.x{WRAP}"),
        ("Nowhere", "name 'Nowhere' is not defined"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_place(kind: object, sentence: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        message_schema(boxed(kind))
    assert str(refused.value) == f"Box cannot be sent: {sentence}"


@pytest.mark.parametrize(
    "kind",
    [
        Refused | Partly,
        Reserved | Tree,
        Colour | str,
        Colour | Literal["b"],
        AgentRef[Any] | int,
        AgentRef[Any] | Literal[3],
        list[int] | dict[str, int] | int | None,
    ],
)
def test_what_can_be_told_apart_can_be_sent(kind: object) -> None:
    assert "anyOf" in message_schema(kind)


def declare(message: type, allow: str | None) -> type:
    def handle(self: object, message: object) -> Any:  # noqa: ANN401 - whatever is asked
        raise NotImplementedError

    del handle.__annotations__["return"]
    return agent(type("Shop", (), {"handle": on(message, allow=allow)(handle), "__module__": __name__}))


def test_a_reply_that_its_asker_could_not_read_is_refused_when_the_agents_class_is_created() -> None:
    @frozen
    class Reserve(Request[Reserved | Refused]):
        pass

    with pytest.raises(DeclarationError) as refused:
        declare(Reserve, "true")
    assert str(refused.value) == (
        "Shop.handle: Reserve cannot be sent: Reserved and Refused look the same when they are sent "
        f"@ the reply of Reserve{OWN_FIELD}"
    )


def test_a_handler_that_no_other_node_reaches_may_take_anything() -> None:
    assert declare(boxed(Decimal), None)
    with pytest.raises(DeclarationError, match=r"^Shop\.handle: Box cannot be sent: Decimal is no type"):
        declare(boxed(Decimal), "true")
    with pytest.raises(DeclarationError, match="name 'Nowhere' is not defined"):
        declare(boxed("Nowhere"), "true")
