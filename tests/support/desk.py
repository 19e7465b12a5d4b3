"""An app for MCP clients whose agents tell tests what happens in them."""

from collections.abc import AsyncIterator
from typing import Any, Literal

import attrs
import trio
from attrs import frozen

from autonomy_trio import App, Context, Request, Stream, agent, on
from autonomy_trio.connect.mcp import (
    Audio,
    BlobResource,
    ContentBlock,
    EmbeddedResource,
    Image,
    PromptMessage,
    Resource,
    Text,
    TextResource,
    Unsupported,
    caller_of,
    prompt,
    resource,
    updated,
)
from autonomy_trio.errors import ReplyError


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    """Add to the total."""

    amount: int


@frozen
class Small(Request[None]):
    amount: int


@frozen
class Secret(Request[str]):
    pass


@frozen
class Payroll(Request[str]):
    pass


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
class Count(Stream[int]):
    upto: int


@frozen
class WhoAsks(Request[str]):
    pass


@frozen
class Log(Request[None]):
    pass


@frozen
class Guess(Request[str]):
    prompt: str


@frozen
class Profile:
    name: str
    age: int = 30
    status: Literal["on", "off"] = "on"
    tags: list[Literal["a", "b"]] = attrs.field(factory=list[Literal["a", "b"]])


@frozen
class AskPerson(Request[Any]):
    pass


@frozen
class Steps(Request[None]):
    pass


@frozen
class Form(Request[Any]):
    pass


@frozen
class Long(Request[str]):
    pass


@frozen
class Show(Request[list[str | ContentBlock]]):
    pass


@frozen
class Picture(Request[Image]):
    pass


@frozen
class Big(Request[str]):
    pass


@frozen
class Change(Request[None]):
    pass


@frozen
class Page(Request[str]):
    number: int


@frozen
class Front(Request[list[TextResource | BlobResource | bytes]]):
    pass


@frozen
class Facts(Request[Total]):
    pass


@frozen
class Hidden(Request[str]):
    pass


@frozen
class Greet(Request[str]):
    """Greet somebody."""

    whom: str
    tone: Literal["warm", "cool"] = "warm"
    times: int = 1


@frozen
class Talk(Request[list[str | PromptMessage]]):
    pass


@frozen
class Numbers(Request[Total]):
    pass


@frozen
class Insufficient(ReplyError):
    balance: int


@agent(concurrency=100)
class Desk:
    total: int = 0
    waiting: int = 0
    cancelled: int = 0

    @on(Add, allow="true")
    def add(self, message: Add) -> Total:
        """Add, and tell the total."""
        self.total += message.amount
        return Total(self.total)

    @on(Small, allow="context.message.amount < 10")
    def small(self, message: Small) -> None:
        pass

    @on(Secret)
    def secret(self, message: Secret) -> str:
        return "for this node only"

    @on(Payroll, allow='principal.team == "payments"')
    def payroll(self, message: Payroll) -> str:
        return "for payments only"

    @on(Fail, allow="true")
    def fail(self, message: Fail) -> None:
        raise RuntimeError("the secret of the house")

    @on(Overdraw, allow="true", raises=Insufficient)
    def overdraw(self, message: Overdraw) -> None:
        raise Insufficient(-3)

    @on(Wait, allow="true")
    async def wait(self, message: Wait) -> None:
        self.waiting += 1
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled += 1

    @on(Count, allow="true")
    async def count(self, message: Count) -> AsyncIterator[int]:
        for number in range(message.upto):
            yield number

    @on(WhoAsks, allow="true")
    async def who_asks(self, message: WhoAsks, context: Context) -> str:
        print("a handler that prints")  # noqa: T201 - it must not reach the client
        return context.sender.id

    @on(Log, allow="true")
    async def log(self, message: Log) -> None:
        await caller_of(message).log("debug", "small")
        await caller_of(message).log("error", {"grave": True})

    @on(Guess, allow="true", raises=Unsupported)
    async def guess(self, message: Guess) -> str:
        return await caller_of(message).sample(message.prompt, most_tokens=10, system="be brief")

    @on(AskPerson, allow="true", raises=Unsupported)
    async def ask_person(self, message: AskPerson) -> Any:  # noqa: ANN401 - what the person says
        return await caller_of(message).elicit("Who are you?", Profile)

    @on(Steps, allow="true")
    async def steps(self, message: Steps) -> None:
        await caller_of(message).progress(1, 2, "half of it")
        await caller_of(message).progress(2, 2)

    @on(Form, allow="true", raises=Unsupported)
    async def form(self, message: Form) -> Any:  # noqa: ANN401 - what the person says
        return await caller_of(message).elicit("Say it", {"type": "object", "properties": {"x": {"type": "string"}}})

    @on(Long, allow="true")
    async def long(self, message: Long) -> str:
        await caller_of(message).hang_up()
        return "done"

    @on(Show, allow="true")
    def show(self, message: Show) -> list[str | ContentBlock]:
        document = EmbeddedResource(TextResource("x:y", "t", "text/plain"))
        link = Resource("x:z", "z")
        return ["plain", Text("text"), Image(b"i", "image/png"), Audio(b"s", "audio/wav"), document, link]

    @on(Picture, allow="true")
    def picture(self, message: Picture) -> Image:
        return Image(b"p", "image/png")

    @on(Big, allow="true")
    def big(self, message: Big) -> str:
        return "x" * 16 * 1024 * 1024

    @on(Change, allow="true")
    def change(self, message: Change) -> None:
        updated("book://7")

    @resource("book://{number}")
    @on(Page, allow="true")
    def page(self, message: Page) -> str:
        return f"page {message.number}"

    @resource("book://front", type="text/html")
    @on(Front, allow="true")
    def front(self, message: Front) -> list[TextResource | BlobResource | bytes]:
        return [TextResource("book://front/a", "a", "text/plain"), BlobResource("book://b", b"b", "b/b"), b"c"]

    @resource("book://facts", type="application/json")
    @on(Facts, allow="true")
    def facts(self, message: Facts) -> Total:
        return Total(3)

    @resource("safe://hidden")
    @on(Hidden)
    def hidden(self, message: Hidden) -> str:
        return "for this node only"

    @prompt
    @on(Greet, allow="true")
    def greet(self, message: Greet) -> str:
        return f"Greet {message.whom}, {message.tone}, {message.times} times"

    @prompt
    @on(Talk, allow="true")
    def talk(self, message: Talk) -> list[str | PromptMessage]:
        return ["hello", PromptMessage("assistant", Image(b"i", "image/png"))]

    @prompt
    @on(Numbers, allow="true")
    def numbers(self, message: Numbers) -> Total:
        return Total(1)


agents: App = [Desk]
