"""How one answer is made: the model is asked, its calls are made, and it is asked again, until it calls nothing."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import final

import attrs
import trio

from autonomy_trio.connect.models.chat import ChatPart, ChatReply, ToolBegun, ToolEnded
from autonomy_trio.connect.models.conversations import Conversation
from autonomy_trio.connect.models.messages import Completion, ModelFailed, Part, Said, Text, ToolCall, Usage
from autonomy_trio.connect.models.toolbox import MOST_CALLS, UNKNOWN, Answer

Ask = Callable[[tuple[Said, ...]], AsyncGenerator[Part]]
"""Has the model go on with a conversation."""
Call = Callable[[ToolCall], Awaitable[Answer]]
"""Makes a call, and returns what the model is told of it."""


@final
@attrs.frozen
class Answering:
    """What one answer is made with."""

    conversation: Conversation
    ask: Ask
    call: Call
    most_turns: int
    at_once: int
    """Calls that are made at a time."""

    async def parts(self, text: str) -> AsyncGenerator[ChatPart]:
        """Answer what a user says.

        What is whole is remembered: a call with its answer, also where nobody waited for that any more, so that the
        model does not call again what may have been done.

        Raises:
            ModelFailed: there is no answer.
        """
        usage = Usage()
        fresh = [Said("user", text)]
        for _ in range(self.most_turns):
            found = None
            async with aclosing(self.ask(self.conversation.said_with(fresh))) as parts:
                async for part in parts:
                    if isinstance(part, Text):
                        yield part  # noqa: ASYNC119 - who reads it closes it
                    elif isinstance(part, Completion):
                        found = part
            if found is None:
                raise ModelFailed("cut off", "the model ended its answer in the middle: ask again")
            usage += found.usage
            fresh.append(Said("assistant", found.text, found.calls))
            if not found.calls:
                self.conversation.add(fresh)
                yield ChatReply(found.text, usage, is_cut=found.stopped == "length")
                return
            for call in found.calls:
                yield ToolBegun(call.id, call.name, call.arguments)
            answers = [Answer(UNKNOWN, failed=True) for _ in found.calls]
            try:
                await self._call_all(found.calls, answers)
            finally:
                told = zip(found.calls, answers, strict=True)
                self.conversation.add([*fresh, *(Said("tool", each.text, (), call.id) for call, each in told)])
                fresh = []
            for call, answer in zip(found.calls, answers, strict=True):
                yield ToolEnded(call.id, call.name, answer.text, answer.failed)
        why = f"the model called tools for all of its {self.most_turns} turns and came to no end: ask for less at once"
        raise ModelFailed("turns", why)

    async def _call_all(self, calls: Sequence[ToolCall], answers: list[Answer]) -> None:
        """Make calls, some at a time; each puts what the model is told into its place."""
        places = trio.CapacityLimiter(self.at_once)

        async def make(index: int) -> None:
            async with places:
                answers[index] = await self.call(calls[index])

        async with trio.open_nursery() as nursery:
            for index in range(len(calls)):
                if index < MOST_CALLS:
                    nursery.start_soon(make, index)
                else:
                    answers[index] = Answer(f"Not done: at most {MOST_CALLS} calls at once.", failed=True)
