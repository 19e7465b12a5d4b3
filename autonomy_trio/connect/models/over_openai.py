"""Models that speak as OpenAI's chat completions do: OpenAI's own, and the many servers that took its interface."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

import attrs
import openai

from autonomy_trio.connect.models.bodies import open_client
from autonomy_trio.connect.models.events import check_error, count, read_events, read_json, reading, text
from autonomy_trio.connect.models.failures import FOREIGN, Judge
from autonomy_trio.connect.models.messages import Completion, Part, Prompt, Said, Stopped, Text, ToolCall, Usage
from autonomy_trio.connect.models.narrowing import narrowed
from autonomy_trio.connect.models.vendor import CutOffError, Failure, Vendor, Way

_STOPPED: Final[Mapping[Any, Stopped]] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "calls",
    "function_call": "calls",
    "content_filter": "refused",
}
"""What ``finish_reason`` says."""


@attrs.define(eq=False, repr=False)
class OpenAI(Vendor):
    """A model over OpenAI's library."""

    model: str
    client: Any
    """The library's, whose types are known in part."""
    is_vendors: bool
    """Whether it is at OpenAI, which has newer words than most who took over its interface."""
    failures: Judge

    foreign: ClassVar[tuple[type[Exception], ...]] = (openai.OpenAIError, *FOREIGN)

    @classmethod
    def connect(cls, way: Way) -> "OpenAI":
        """Return a model; nothing is sent."""
        http = open_client(way.patience, way.at_once)
        client = openai.AsyncOpenAI(
            api_key=way.key, base_url=way.url, http_client=http, max_retries=0, timeout=http.timeout
        )
        judge = Judge(way.words, way.key, way.patience)
        return cls(way.model, client, way.is_vendors, judge)

    def judge(self, error: Exception, now: float) -> Failure:
        """Say what an exception means."""
        return self.failures.judge(error, now)

    async def complete(self, prompt: Prompt) -> Completion:
        """Send a prompt and wait for all that the model writes."""
        sent = await self.client.chat.completions.with_raw_response.create(**self._request(prompt))
        answer: Any = read_json(sent.http_response.content)
        with reading("a chat completion"):
            choice = answer["choices"][0]
            said, refusal = choice["message"], text(choice["message"].get("refusal"))
            return Completion(
                refusal or text(said.get("content")),
                tuple(_call(each["id"], each["function"]) for each in said.get("tool_calls") or ()),
                _usage(answer.get("usage")),
                "refused" if refusal else _STOPPED.get(choice.get("finish_reason"), "other"),
                text(answer.get("model")) or self.model,
            )

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Part]:
        """Send a prompt and yield what the model writes."""
        asked = {"stream": True, "stream_options": {"include_usage": True}, **self._request(prompt)}
        sent = await self.client.chat.completions.with_raw_response.create(**asked)
        whole = _Whole(self.model)
        async with aclosing(read_events(sent.http_response)) as chunks:
            async for chunk in chunks:
                check_error(chunk)
                with reading("a chunk of a chat completion"):
                    written = whole.add(chunk)
                if written:
                    yield Text(written)  # noqa: ASYNC119 - who reads it closes it
        for call in whole.calls():
            yield call
        yield whole.completion()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.close()

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        request: dict[str, Any] = {"model": self.model, "messages": [_written(each) for each in prompt.said]}
        if prompt.tools:
            request["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": each.name,
                        "description": each.description,
                        "parameters": narrowed(each.schema)[0],
                    },
                }
                for each in prompt.tools
            ]
        if prompt.schema is not None:
            schema, strict = narrowed(prompt.schema)
            shape = {"name": "reply", "schema": schema, "strict": strict}
            request["response_format"] = {"type": "json_schema", "json_schema": shape}
        if prompt.most_tokens is not None:
            request["max_completion_tokens" if self.is_vendors else "max_tokens"] = prompt.most_tokens
        if prompt.temperature is not None:
            request["temperature"] = prompt.temperature
        return request


def _written(said: Said) -> dict[str, Any]:
    if said.role == "tool":
        return {"role": "tool", "content": said.text, "tool_call_id": said.answers}
    written: dict[str, Any] = {"role": said.role, "content": said.text}
    if said.calls:
        written["tool_calls"] = [
            {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
            for each in said.calls
        ]
    return written


def _call(identifier: object, function: Any) -> ToolCall:  # noqa: ANN401 - a vendor's answer
    return ToolCall(text(identifier), text(function["name"]), text(function["arguments"]))


def _usage(usage: Any) -> Usage:  # noqa: ANN401 - a vendor's answer
    """Return the tokens that were counted; not every server counts them."""
    if usage is None:
        return Usage()
    return Usage(count(usage["prompt_tokens"]), count(usage["completion_tokens"]))


@attrs.define
class _Whole:
    """What the chunks of a stream make together."""

    model: str
    written: list[str] = attrs.field(factory=list[str])
    parts: dict[int, list[str]] = attrs.field(factory=dict[int, list[str]])
    """Of each call its id, its name, and the pieces of its arguments."""
    usage: Usage = attrs.field(factory=Usage)
    stopped: Stopped | None = None

    def add(self, chunk: Any) -> str:  # noqa: ANN401 - a vendor's answer
        """Add a chunk, and return the text that is new in it."""
        self.model = text(chunk.get("model")) or self.model
        if chunk.get("usage") is not None:
            self.usage = _usage(chunk["usage"])
        if not chunk["choices"]:
            return ""
        choice: Any = chunk["choices"][0]
        if choice.get("finish_reason") is not None:
            self.stopped = _STOPPED.get(choice["finish_reason"], "other")
        delta: Any = choice.get("delta") or {}
        for piece in delta.get("tool_calls") or ():
            parts, function = self.parts.setdefault(count(piece.get("index", 0)), ["", ""]), piece["function"]
            parts[0] = parts[0] or text(piece.get("id"))
            parts[1] = parts[1] or text(function.get("name"))
            parts.append(text(function.get("arguments")))
        self.written.append(text(delta.get("refusal")) or text(delta.get("content")))
        return self.written[-1]

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls, which are whole at the end.

        Raises:
            CutOffError: there was no end.
        """
        if self.stopped is None:
            raise CutOffError
        return tuple(ToolCall(parts[0], parts[1], "".join(parts[2:])) for _, parts in sorted(self.parts.items()))

    def completion(self) -> Completion:
        return Completion("".join(self.written), self.calls(), self.usage, self.stopped or "other", self.model)
