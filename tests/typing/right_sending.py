"""What type checkers must accept and infer where code sends: `tell`, `ask`, `stream`, and refs as values."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import trio

from autonomy_trio import AgentRef, Node
from autonomy_trio.errors import Overloaded
from tests.typing.vocabulary import (
    Add,
    AddTwice,
    Client,
    Counter,
    Find,
    Insufficient,
    Note,
    Reset,
    Subscribe,
    Total,
    Watch,
)


async def an_ask_has_the_type_of_its_reply(counter: AgentRef[Counter]) -> None:
    assert_type(await counter.ask(Add(3)), Total)
    assert_type((await counter.ask(Add(3))).value, int)
    assert_type(await counter.ask(Find("a")), Total | None)
    assert_type(await counter.ask(AddTwice(3)), Total)
    await counter.ask(Reset())


async def a_reply_is_used(counter: AgentRef[Counter]) -> int:
    with trio.fail_after(2):
        total = await counter.ask(Add(3))
    return total.value


async def any_message_is_told(counter: AgentRef[Counter]) -> None:
    assert_type(await counter.tell(Note("hello")), None)
    await counter.tell(Add(3))
    assert_type(counter.tell_nowait(Add(3)), None)


async def a_stream_has_the_type_of_its_items(counter: AgentRef[Counter]) -> int:
    assert_type(counter.stream(Watch()), AbstractAsyncContextManager[AsyncIterator[Total]])
    values = 0
    async with counter.stream(Watch(most=3)) as totals:
        assert_type(totals, AsyncIterator[Total])
        async for total in totals:
            assert_type(total, Total)
            values += total.value
    return values


async def errors_are_typed(counter: AgentRef[Counter]) -> int:
    try:
        await counter.ask(Add(3))
    except Insufficient as error:
        return error.balance
    except Overloaded:
        return 0
    return 1


def refs(node: Node) -> None:
    assert_type(node.ref("counter", Counter), AgentRef[Counter])
    assert_type(node.ref("counter"), AgentRef[Any])
    unknown: AgentRef[Counter] = node.ref("counter")
    anything: AgentRef[object] = node.ref("counter", Counter)
    assert_type(unknown.name, str)
    assert_type(anything.address, str)


def a_ref_is_part_of_a_message(counter: AgentRef[Counter]) -> None:
    assert_type(Subscribe(counter).who, AgentRef[Counter])
    assert_type(Client(counter).counter, AgentRef[Counter])


async def an_end_is_awaited(counter: AgentRef[Counter]) -> None:
    assert_type(counter.stop(), None)
    assert_type(await counter.stopped(), None)
