"""All that an MCP client can be shown: what the official conformance suite asks of a server, as one agent.

python -m autonomy_trio mcp serve examples.everything:agents --http 127.0.0.1:8000
conformance server --url http://127.0.0.1:8000/mcp
"""

import base64
from collections.abc import AsyncIterator
from typing import Literal

import trio
from attrs import field, frozen

from autonomy_trio import App, Request, Stream, agent, message, on
from autonomy_trio.connect.mcp import (
    Audio,
    ContentBlock,
    EmbeddedResource,
    Image,
    PromptMessage,
    Text,
    TextResource,
    Unsupported,
    caller_of,
    prompt,
    resource,
    updated,
)
from autonomy_trio.errors import ReplyError

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
SILENCE = base64.b64decode("UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==")
STEP = 0.05


@frozen
class address:  # noqa: N801 - the suite wants this name in the schema
    street: str = ""
    city: str = ""


Address = address


@frozen
class Broken(ReplyError):
    why: str


@frozen
class User:
    username: str
    email: str


@frozen
class Profile:
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


CHOICES = {
    "type": "object",
    "properties": {
        "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
        "titledSingle": {
            "type": "string",
            "oneOf": [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)],
        },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": ["option1", "option2", "option3"]}},
        "titledMulti": {
            "type": "array",
            "items": {"anyOf": [{"const": f"value{number}", "title": f"Choice {number}"} for number in (1, 2, 3)]},
        },
    },
    "required": [],
}


@frozen
class TestSimpleText(Request[str]):
    """Answer with text."""


@frozen
class TestImageContent(Request[Image]):
    """Answer with an image."""


@frozen
class TestAudioContent(Request[Audio]):
    """Answer with a sound."""


@frozen
class TestEmbeddedResource(Request[EmbeddedResource]):
    """Answer with a document."""


@frozen
class TestMultipleContentTypes(Request[list[ContentBlock]]):
    """Answer with several things at once."""


@frozen
class TestToolWithLogging(Request[str]):
    """Log what is being done."""


@frozen
class TestErrorHandling(Request[str]):
    """Fail."""


@frozen
class TestToolWithProgress(Request[str]):
    """Tell of progress."""


@frozen
class TestSampling(Request[str]):
    """Have the client's model answer."""

    prompt: str


@frozen
class TestElicitation(Request[str]):
    """Ask the client's person."""

    message: str


@message(name="test_elicitation_sep1034_defaults")
@frozen
class TestDefaults(Request[str]):
    """Ask for a form that is filled in already."""


@message(name="test_elicitation_sep1330_enums")
@frozen
class TestChoices(Request[str]):
    """Ask for choices."""


@frozen
class TestReconnection(Request[str]):
    """Take so long that the client should wait elsewhere."""


@message(name="json_schema_2020_12_tool")
@frozen
class TestSchema(Request[str]):
    """Take an object in an object."""

    name: str = ""
    address: Address = field(factory=Address)


@frozen
class CountTo(Stream[int]):
    """Count, each number a moment after the other."""

    number: int


@frozen
class StaticText(Request[str]):
    """A text."""


@frozen
class StaticBinary(Request[bytes]):
    """An image."""


@frozen
class Data(Request[str]):
    """What is known of an id."""

    id: str


@frozen
class Watched(Request[str]):
    """A text that changes."""


@frozen
class Change(Request[None]):
    """Change the text that is watched."""

    text: str


@frozen
class TestSimplePrompt(Request[str]):
    """Say hello."""


@frozen
class TestPromptWithArguments(Request[str]):
    """Say two things."""

    arg1: str
    arg2: Literal["testValue2", "world"]


@frozen
class TestPromptWithEmbeddedResource(Request[list[PromptMessage]]):
    """Talk about a document."""

    resourceUri: str  # noqa: N815 - the suite's name


@frozen
class TestPromptWithImage(Request[list[ContentBlock]]):
    """Talk about an image."""


@agent(concurrency=8)
class Everything:
    watched: str = "nothing yet"

    @on(TestSimpleText, allow="true")
    def simple_text(self, message: TestSimpleText) -> str:
        return "This is a simple text response for testing."

    @on(TestImageContent, allow="true")
    def image(self, message: TestImageContent) -> Image:
        return Image(PIXEL, "image/png")

    @on(TestAudioContent, allow="true")
    def audio(self, message: TestAudioContent) -> Audio:
        return Audio(SILENCE, "audio/wav")

    @on(TestEmbeddedResource, allow="true")
    def embedded(self, message: TestEmbeddedResource) -> EmbeddedResource:
        return EmbeddedResource(
            TextResource("test://embedded-resource", "This is an embedded resource content.", "text/plain")
        )

    @on(TestMultipleContentTypes, allow="true")
    def mixed(self, message: TestMultipleContentTypes) -> list[ContentBlock]:
        document = TextResource("test://mixed-content-resource", '{"test": "data", "value": 123}', "application/json")
        return [Text("Multiple content types test:"), Image(PIXEL, "image/png"), EmbeddedResource(document)]

    @on(TestToolWithLogging, allow="true")
    async def logging(self, message: TestToolWithLogging) -> str:
        for step in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            await caller_of(message).log("info", step)
            await trio.sleep(STEP)
        return "done"

    @on(TestErrorHandling, allow="true", raises=Broken)
    def fail(self, message: TestErrorHandling) -> str:
        raise Broken("This tool intentionally returns an error for testing")

    @on(TestToolWithProgress, allow="true")
    async def progress(self, message: TestToolWithProgress) -> str:
        for done in (0, 50, 100):
            await caller_of(message).progress(done, 100)
            await trio.sleep(STEP)
        return "done"

    @on(TestSampling, allow="true", raises=Unsupported)
    async def sampling(self, message: TestSampling) -> str:
        return f"LLM response: {await caller_of(message).sample(message.prompt, most_tokens=100)}"

    @on(TestElicitation, allow="true", raises=Unsupported)
    async def elicitation(self, message: TestElicitation) -> str:
        return f"User response: {await caller_of(message).elicit(message.message, User)}"

    @on(TestDefaults, allow="true", raises=Unsupported)
    async def defaults(self, message: TestDefaults) -> str:
        return f"Elicitation completed: {await caller_of(message).elicit('Is this right?', Profile)}"

    @on(TestChoices, allow="true", raises=Unsupported)
    async def choices(self, message: TestChoices) -> str:
        return f"Elicitation completed: {await caller_of(message).elicit('Choose', CHOICES)}"

    @on(TestReconnection, allow="true")
    async def reconnection(self, message: TestReconnection) -> str:
        await caller_of(message).hang_up()
        await trio.sleep(STEP)
        return "the client came back"

    @on(TestSchema, allow="true")
    def schema(self, message: TestSchema) -> str:
        return str(message)

    @on(CountTo, allow="true")
    async def count(self, message: CountTo) -> AsyncIterator[int]:
        for number in range(1, message.number + 1):
            yield number
            await trio.sleep(STEP)

    @resource("test://static-text")
    @on(StaticText, allow="true")
    def static_text(self, message: StaticText) -> str:
        return "This is the content of the static text resource."

    @resource("test://static-binary", type="image/png")
    @on(StaticBinary, allow="true")
    def static_binary(self, message: StaticBinary) -> bytes:
        return PIXEL

    @resource("test://template/{id}/data", type="application/json")
    @on(Data, allow="true")
    def data(self, message: Data) -> str:
        return f'{{"id": "{message.id}", "templateTest": true, "data": "Data for ID: {message.id}"}}'

    @resource("test://watched-resource")
    @on(Watched, allow="true")
    def read_watched(self, message: Watched) -> str:
        return self.watched

    @on(Change, allow="true")
    def change(self, message: Change) -> None:
        self.watched = message.text
        updated("test://watched-resource")

    @prompt
    @on(TestSimplePrompt, allow="true")
    def simple_prompt(self, message: TestSimplePrompt) -> str:
        return "This is a simple prompt for testing."

    @prompt
    @on(TestPromptWithArguments, allow="true")
    def prompt_with_arguments(self, message: TestPromptWithArguments) -> str:
        return f"Prompt with arguments: arg1={message.arg1!r}, arg2={message.arg2!r}"

    @prompt
    @on(TestPromptWithEmbeddedResource, allow="true")
    def prompt_with_document(self, message: TestPromptWithEmbeddedResource) -> list[PromptMessage]:
        document = TextResource(message.resourceUri, "Embedded resource content for testing.", "text/plain")
        return [
            PromptMessage("user", EmbeddedResource(document)),
            PromptMessage("user", Text("Please process the embedded resource above.")),
        ]

    @prompt
    @on(TestPromptWithImage, allow="true")
    def prompt_with_image(self, message: TestPromptWithImage) -> list[ContentBlock]:
        return [Image(PIXEL, "image/png"), Text("Please analyze the image above.")]


agents: App = [Everything]
