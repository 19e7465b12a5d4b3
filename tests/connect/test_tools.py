import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from attrs import frozen

from autonomy_trio import AgentRef, Context, Request, Stream, agent, message, on, open_node
from autonomy_trio.connect import tools as tools_module
from autonomy_trio.connect.tools import MOST_ITEMS, Told, Tool, tools_of
from autonomy_trio.errors import (
    CallFailed,
    Denied,
    LinkBroken,
    MessageError,
    NotHandled,
    OutcomeUnknown,
    Overloaded,
    ReplyError,
)


@frozen
class Total:
    value: int


@frozen
class Node:
    """A tree."""

    below: "tuple[Node, ...]" = ()


@frozen
class Add(Request[Total]):
    """Count.

    More of it.
    """

    amount: int


@frozen
class Fail(Request[None]):
    pass


@frozen
class Overdraw(Request[None]):
    pass


@frozen
class Wait(Request[None]):
    pass


@frozen
class Odd(Request[Any]):
    pass


@frozen
class Note:
    text: str


@frozen
class Grow(Request[Node]):
    tree: Node


@frozen
class Count(Stream[int]):
    upto: int


@frozen
class Trees(Stream[Node]):
    pass


@frozen
class Call(Request[str]):
    whom: AgentRef[Any]


@message(name="billing.Pay/v2 " + "x" * 80)
@frozen
class Pay(Request[None]):
    pass


@frozen
class Insufficient(ReplyError):
    balance: int


@agent
class Counter:
    total: int = 0
    waiting: bool = False

    @on(Add)
    def add(self, message: Add) -> Total:
        self.total += message.amount
        return Total(self.total)

    @on(Fail)
    def fail(self, message: Fail) -> None:
        raise RuntimeError("the secret of the house")

    @on(Overdraw, raises=Insufficient)
    def overdraw(self, message: Overdraw) -> None:
        raise Insufficient(balance=-3)

    @on(Wait)
    async def wait(self, message: Wait) -> None:
        self.waiting = True
        try:
            await trio.sleep_forever()
        finally:
            self.waiting = False

    @on(Odd)
    def odd(self, message: Odd) -> Any:  # noqa: ANN401 - what it promises
        return object()

    @on(Note)
    def note(self, message: Note) -> None:
        """Keep a note."""
        self.total += len(message.text)

    @on(Grow)
    def grow(self, message: Grow) -> Node:
        return Node((message.tree,))

    @on(Count)
    async def count(self, message: Count) -> AsyncIterator[int]:
        for number in range(message.upto):
            yield number

    @on(Trees)
    async def trees(self, message: Trees) -> AsyncIterator[Node]:
        yield Node()
        await trio.sleep_forever()

    @on(Call)
    async def call(self, message: Call, context: Context) -> str:
        return message.whom.name

    @on(Pay)
    def pay(self, message: Pay) -> None:
        pass


async def called(name: str, arguments: dict[str, Any], told: Told | None = None) -> Any:  # noqa: ANN401 - what JSON has
    async with open_node([Counter]) as node:
        tools = tools_of([(node.ref("counter"), Counter)], resolve=node.read_ref)
        return await next(each for each in tools if each.name == name).call(arguments, told)


def declared() -> dict[str, Tool]:
    ref: Any = None
    return {tool.name: tool for tool in tools_of([(ref, Counter)])}


def test_each_message_is_a_tool_with_its_docstring_and_schemas() -> None:
    tools = declared()
    add = tools["add"]
    assert add.description == "Count.\n\nMore of it."
    assert tools["note"].description == "Keep a note."
    assert tools["fail"].description == ""
    assert add.input_schema["required"] == ["amount"]
    assert add.input_schema["additionalProperties"] is False
    assert add.output_schema is not None
    assert add.output_schema["properties"].keys() == {"value"}
    assert tools["fail"].output_schema is None


def test_the_schema_of_a_streams_items_is_complete_in_itself() -> None:
    schema = declared()["trees"].output_schema
    assert schema is not None
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema))
    assert references
    assert set(references) == {"#/$defs/Node"}
    assert schema["properties"]["items"]["type"] == "array"


def test_a_name_has_the_characters_that_every_vendor_takes() -> None:
    names = list(declared())
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for name in names)
    assert any(name.startswith("billing_pay_v2_xxx") for name in names)


def test_the_tools_of_several_agents_have_the_agents_name_in_front() -> None:
    class _Ref:
        name = "a.b"

    ref: Any = _Ref()
    names = [tool.name for tool in tools_of([(ref, Counter), (ref, Counter)], include=lambda _, cls: cls is Add)]
    assert names == ["a_b_add", "a_b_add_2"]


async def test_a_call_returns_the_reply_as_json() -> None:
    assert await called("add", {"amount": 3}) == {"value": 3}
    assert await called("grow", {"tree": {"below": [{}]}}) == {"below": [{"below": [{"below": []}]}]}


async def test_a_message_without_a_reply_is_a_tool_too() -> None:
    assert await called("note", {"text": "x"}) is None


async def test_wrong_arguments_are_named_for_the_caller_to_mend() -> None:
    with pytest.raises(MessageError, match=r"expected int, got str @ Add\.amount"):
        await called("add", {"amount": "3"})


async def test_an_address_in_the_arguments_is_a_ref() -> None:
    async with open_node([Counter]) as node:
        tools = tools_of([(node.ref("counter"), Counter)], resolve=node.read_ref)
        tool = next(each for each in tools if each.name == "call")
        assert await tool.call({"whom": node.address("somebody")}) == "somebody"


async def test_a_stream_returns_its_items_and_tells_of_each() -> None:
    told: list[object] = []

    async def tell(item: object) -> None:
        told.append(item)

    assert await called("count", {"upto": 3}, told=tell) == {"items": [0, 1, 2], "complete": True}
    assert told == [0, 1, 2]


async def test_a_stream_of_more_items_than_a_call_returns_is_not_complete() -> None:
    result = await called("count", {"upto": MOST_ITEMS + 1})
    assert len(result["items"]) == MOST_ITEMS
    assert not result["complete"]


async def test_a_stream_of_more_bytes_than_a_call_returns_is_not_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "MOST_RESULT", 3)
    assert await called("count", {"upto": 100}) == {"items": [0, 1, 2, 3], "complete": False}


async def test_a_stream_without_end_is_read_for_a_while(autojump_clock: trio.abc.Clock) -> None:
    assert await called("trees", {}) == {"items": [{"below": []}], "complete": False}


async def test_a_failure_says_nothing_of_what_happened_inside() -> None:
    with pytest.raises(CallFailed) as raised:
        await called("fail", {})
    assert str(raised.value) == "counter failed: it may have done a part of it, and its log says why"
    assert raised.value.__cause__ is None


async def test_a_protocols_own_error_is_told_with_its_fields() -> None:
    with pytest.raises(CallFailed, match=r"^Insufficient: balance=-3$"):
        await called("overdraw", {})


async def test_a_reply_that_is_no_json_is_told_without_what_it_was() -> None:
    with pytest.raises(CallFailed, match=r"^the answer of counter cannot be written as JSON$"):
        await called("odd", {})


async def test_a_call_that_takes_too_long_ends_in_words(autojump_clock: trio.abc.Clock) -> None:
    with pytest.raises(CallFailed, match="did not answer in time"):
        await called("wait", {})


async def test_a_cancelled_call_cancels_the_handler() -> None:
    counter = Counter()
    async with open_node([lambda: counter]) as node, trio.open_nursery() as nursery:
        (tool,) = tools_of([(node.ref("counter"), Counter)], include=lambda _, cls: cls is Wait)
        nursery.start_soon(tool.call, {})
        while not counter.waiting:
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not counter.waiting


async def test_an_agent_that_is_not_there_is_told_in_words() -> None:
    async with open_node() as node:
        (tool,) = tools_of([(node.ref("nobody"), Counter)], include=lambda _, cls: cls is Add)
        with pytest.raises(CallFailed, match=r"^nobody is not there now: nothing was done$"):
            await tool.call({"amount": 1})


class _Never:
    """A ref whose agent answers with an error."""

    name = "counter"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def ask(self, message: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Denied(), "the policy of counter does not allow it"),
        (Overloaded("the mailbox has 64"), "counter is busy: try again later"),
        (NotHandled("counter does not handle Add"), "counter does not handle Add"),
        (OutcomeUnknown("lost"), "counter was lost meanwhile: it may or may not have done it"),
        (LinkBroken("secret host"), "counter cannot do it"),
        (ReplyError("Insufficient(balance=3)"), "Insufficient(balance=3)"),
        (CallFailed("as it is"), "as it is"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
async def test_what_another_node_answers_is_told_in_words(error: Exception, said: str) -> None:
    ref: Any = _Never(error)
    (tool,) = tools_of([(ref, Counter)], include=lambda _, cls: cls is Add)
    with pytest.raises(CallFailed) as raised:
        await tool.call({"amount": 1})
    assert str(raised.value) == said
