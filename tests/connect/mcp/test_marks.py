from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import frozen

from autonomy_trio import Request, Stream, agent, on, open_node
from autonomy_trio.connect.mcp import prompt, resource, updated
from autonomy_trio.connect.mcp.marks import Resource
from autonomy_trio.connect.mcp.service import open_service
from autonomy_trio.errors import DeclarationError, UsageError


@frozen
class Nothing(Request[str]):
    pass


@frozen
class Page(Request[str]):
    number: int
    language: str = "en"


@frozen
class Deep(Request[str]):
    pages: list[int]


@frozen
class Pages(Stream[str]):
    pass


def test_an_address_matches_with_its_fields_filled_in_and_as_nothing_else() -> None:
    mark = Resource("notes://{day}/part.{number}", "text/plain")
    assert mark.match("notes://2026-01-31/part.7") == {"day": "2026-01-31", "number": "7"}
    assert mark.match("notes://a%20b%2Fc/part.7") == {"day": "a b/c", "number": "7"}
    assert mark.match("notes://a/b/part.7") is None
    assert mark.match("notes://a/partX7") is None
    assert mark.match("notes:///part.7") is None


@pytest.mark.parametrize(
    ("uri", "said"),
    [("today", "an address begins with a scheme"), ("notes://{day}/{day}", "a field stands in an address once")],
)
def test_an_address_that_cannot_be_one_is_refused(uri: str, said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        resource(uri)


def cases() -> list[Any]:
    @agent
    class TooLittle:
        @resource("notes://page")
        @on(Page, allow="true")
        def page(self, message: Page) -> str:
            return ""

    @agent
    class TooMuch:
        @resource("notes://{number}/{line}")
        @on(Page, allow="true")
        def page(self, message: Page) -> str:
            return ""

    @agent
    class NoText:
        @prompt
        @on(Deep, allow="true")
        def page(self, message: Deep) -> str:
            return ""

    @agent
    class Streams:
        @resource("notes://all")
        @on(Pages, allow="true")
        async def pages(self, message: Pages) -> AsyncIterator[str]:
            yield ""

    return [
        (TooLittle, "TooLittle.page: the address of the resource and Page differ in number"),
        (TooMuch, "TooMuch.page: the address of the resource and Page differ in line"),
        (NoText, "NoText.page is a prompt, whose fields are text or numbers; pages is none of them"),
        (Streams, "Streams.pages is a resource and answers a Stream: answer a Request"),
    ]


@pytest.mark.parametrize(("declared", "said"), cases(), ids=lambda each: getattr(each, "__name__", ""))
async def test_a_handler_that_cannot_be_what_it_is_marked_as_is_refused_when_it_is_served(
    declared: Any,  # noqa: ANN401 - an agent class
    said: str,
) -> None:
    async with open_node([declared]) as node:
        with pytest.raises(DeclarationError) as raised:
            async with open_service(node, name="x"):
                pass
        assert str(raised.value) == said


def test_only_an_agent_can_say_that_a_resource_has_changed() -> None:
    with pytest.raises(UsageError):
        updated("notes://today")


async def test_where_nobody_is_served_a_changed_resource_is_no_news() -> None:
    @agent
    class Notes:
        @on(Nothing)
        async def change(self, message: Nothing) -> str:
            updated("notes://today")
            return "changed"

    async with open_node([Notes]) as node:
        assert await node.ref("notes", Notes).ask(Nothing()) == "changed"
