"""Models that speak as Anthropic's messages do."""

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final, cast

import anthropic
import attrs

from autonomy_trio.connect.models.bodies import open_client
from autonomy_trio.connect.models.events import check_error, count, read_events, read_json, reading, text
from autonomy_trio.connect.models.failures import FOREIGN, Judge
from autonomy_trio.connect.models.messages import Completion, Part, Prompt, Said, Stopped, Text, ToolCall, Usage
from autonomy_trio.connect.models.narrowing import narrowed
from autonomy_trio.connect.models.vendor import CutOffError, Failure, Vendor, Way

MOST_TOKENS: Final = 4096
"""Tokens that a model may write where the prompt does not say; Anthropic wants a number."""

_STOPPED: Final[Mapping[Any, Stopped]] = {
    "end_turn": "end",
    "stop_sequence": "end",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "calls",
    "refusal": "refused",
}
"""What ``stop_reason`` says."""


@attrs.define(eq=False, repr=False)
class Anthropic(Vendor):
    """A model over Anthropic's library."""

    model: str
    client: Any
    """The library's, whose types are known in part."""
    failures: Judge

    foreign: ClassVar[tuple[type[Exception], ...]] = (anthropic.AnthropicError, *FOREIGN)

    @classmethod
    def connect(cls, way: Way) -> "Anthropic":
        """Return a model; nothing is sent."""
        http = open_client(way.patience, way.at_once)
        client = anthropic.AsyncAnthropic(
            api_key=way.key, base_url=way.url, http_client=http, max_retries=0, timeout=http.timeout
        )
        return cls(way.model, client, Judge(way.words, way.key, way.patience))

    def judge(self, error: Exception, now: float) -> Failure:
        """Say what an exception means."""
        return self.failures.judge(error, now)

    async def complete(self, prompt: Prompt) -> Completion:
        """Send a prompt and wait for all that the model writes."""
        sent = await self.client.messages.with_raw_response.create(**self._request(prompt))
        answer: Any = read_json(sent.http_response.content)
        with reading("a message of Anthropic's"):
            blocks = answer["content"]
            return Completion(
                "".join(text(each["text"]) for each in blocks if each["type"] == "text"),
                tuple(
                    ToolCall(text(each["id"]), text(each["name"]), json.dumps(each["input"]))
                    for each in blocks
                    if each["type"] == "tool_use"
                ),
                Usage(count(answer["usage"]["input_tokens"]), count(answer["usage"]["output_tokens"])),
                _STOPPED.get(answer.get("stop_reason"), "other"),
                text(answer.get("model")) or self.model,
            )

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Part]:
        """Send a prompt and yield what the model writes."""
        sent = await self.client.messages.with_raw_response.create(**self._request(prompt), stream=True)
        whole = _Whole(self.model)
        async with aclosing(read_events(sent.http_response)) as events:
            async for event in events:
                check_error(event)
                with reading("an event of Anthropic's"):
                    part = whole.add(event)
                if part is not None:
                    yield part  # noqa: ASYNC119 - who reads it closes it
        yield whole.completion()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.close()

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "max_tokens": prompt.most_tokens or MOST_TOKENS,
            "messages": _written(each for each in prompt.said if each.role != "system"),
        }
        system = "\n\n".join(each.text for each in prompt.said if each.role == "system")
        if system:
            request["system"] = system
        if prompt.tools:
            request["tools"] = [
                {"name": each.name, "description": each.description, "input_schema": narrowed(each.schema)[0]}
                for each in prompt.tools
            ]
        if prompt.schema is not None:
            schema, _ = narrowed(prompt.schema)
            request["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if prompt.temperature is not None:
            request["extra_body"] = {"temperature": prompt.temperature}  # a word that the library no longer has
        return request


def _written(said: Iterable[Said]) -> list[dict[str, Any]]:
    """Write a conversation; what several tools answer is one entry, as Anthropic wants it."""
    written: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for each in said:
        if each.role == "tool":
            if not results:
                written.append({"role": "user", "content": results})
            results.append({"type": "tool_result", "tool_use_id": each.answers, "content": each.text})
            continue
        results = []
        if not each.text and not each.calls:
            continue  # it refuses what is empty, and a model may have said nothing
        written.append({"role": each.role, "content": _blocks(each) if each.calls else each.text})
    return written


def _blocks(said: Said) -> list[dict[str, Any]]:
    before = [{"type": "text", "text": said.text}] if said.text else []
    return [
        *before,
        *({"type": "tool_use", "id": each.id, "name": each.name, "input": _input(each)} for each in said.calls),
    ]


def _input(call: ToolCall) -> object:
    """Return a call's arguments; what is no JSON object was refused as such, and the model told so."""
    try:
        found: object = read_json(call.arguments or "{}")
    except ValueError:
        found = None
    return cast("object", found) if isinstance(found, dict) else {}


@attrs.define
class _Whole:
    """What the events of a stream make together."""

    model: str
    written: list[str] = attrs.field(factory=list[str])
    calls: list[ToolCall] = attrs.field(factory=list[ToolCall])
    usage: Usage = attrs.field(factory=Usage)
    stopped: Stopped | None = None
    begun: tuple[str, str] | None = None
    """The id and name of the call whose arguments are coming."""
    pieces: list[str] = attrs.field(factory=list[str])

    def add(self, event: Any) -> Text | ToolCall | None:  # noqa: ANN401 - a vendor's answer
        """Add an event, and return what is new in it."""
        match event["type"], event:
            case "message_start", {"message": message}:
                self.usage = Usage(count(message["usage"]["input_tokens"]))
                self.model = text(message.get("model")) or self.model
            case "content_block_start", {"content_block": {"type": "tool_use"} as block}:
                self.begun, self.pieces = (text(block["id"]), text(block["name"])), []
            case "content_block_delta", {"delta": {"type": "text_delta", "text": piece}}:
                self.written.append(text(piece))
                return Text(self.written[-1])
            case "content_block_delta", {"delta": {"type": "input_json_delta", "partial_json": piece}}:
                self.pieces.append(text(piece))
            case "content_block_stop", _ if self.begun is not None:
                self.calls.append(ToolCall(*self.begun, "".join(self.pieces) or "{}"))
                self.begun = None
                return self.calls[-1]
            case "message_delta", {"delta": delta, "usage": usage}:
                self.stopped = _STOPPED.get(delta.get("stop_reason"), "other")
                self.usage = Usage(self.usage.read, count(usage["output_tokens"]))
            case _:
                pass
        return None

    def completion(self) -> Completion:
        """Return the whole.

        Raises:
            CutOffError: there was no end.
        """
        if self.stopped is None:
            raise CutOffError
        return Completion("".join(self.written), tuple(self.calls), self.usage, self.stopped, self.model)
