"""A library that MCP clients use: tools, a resource and a prompt, each a handler.

python -m autonomy_trio mcp serve examples.library:agents --attribute member=true
"""

from collections.abc import AsyncIterator
from typing import Literal

from attrs import field, frozen

from autonomy_trio import App, Request, Stream, agent, on
from autonomy_trio.connect.mcp import caller_of, prompt, resource
from autonomy_trio.errors import ReplyError

BOOKS = {"Emma": "Emma Woodhouse, handsome, clever, and rich …", "Persuasion": "Sir Walter Elliot, of Kellynch Hall …"}


@frozen
class Loan:
    title: str
    days: int


@frozen
class NotThere(ReplyError):
    title: str


@frozen
class Borrow(Request[Loan]):
    """Borrow a book."""

    title: str
    days: int = 14


@frozen
class Titles(Stream[str]):
    """List what there is."""


@frozen
class Burn(Request[None]):
    """Nobody outside sends this: it has no allow=."""

    title: str


@frozen
class Page(Request[str]):
    """How a book begins."""

    title: str


@frozen
class Review(Request[str]):
    """Write a review."""

    title: str
    tone: Literal["kind", "stern"] = "kind"


@agent
class Library:
    lent: set[str] = field(factory=set[str])

    @on(Borrow, allow="principal.member == true && context.message.days <= 28", raises=NotThere)
    async def borrow(self, message: Borrow) -> Loan:
        if message.title not in BOOKS or message.title in self.lent:
            raise NotThere(message.title)
        self.lent.add(message.title)
        await caller_of(message).log("info", f"{message.title} is lent for {message.days} days")
        return Loan(message.title, message.days)

    @on(Titles, allow="true")
    async def titles(self, message: Titles) -> AsyncIterator[str]:
        for title in BOOKS:
            yield title

    @on(Burn)
    def burn(self, message: Burn) -> None:
        self.lent.add(message.title)

    @resource("library://{title}")
    @on(Page, allow="true", raises=NotThere)
    def page(self, message: Page) -> str:
        if message.title not in BOOKS:
            raise NotThere(message.title)
        return BOOKS[message.title]

    @prompt
    @on(Review, allow="true")
    def review(self, message: Review) -> str:
        return f"Read library://{message.title} and write a {message.tone} review of it."


agents: App = [Library]
