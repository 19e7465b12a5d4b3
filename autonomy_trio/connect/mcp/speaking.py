"""The agent that speaks for MCP clients: what they ask, agents are asked by it, as by any other agent of the node."""

from typing import Any, Final

import trio
from attrs import frozen

from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.spec import Mailbox
from autonomy_trio.connect.mcp.caller import Channel, calling
from autonomy_trio.connect.tools import Told, Tool
from autonomy_trio.errors import CallFailed
from autonomy_trio.messages import Request

MOST_CALLS: Final = 64
"""Calls that are under way at once, of all clients; as many again wait."""

CALL_LIMIT: Final = 600.0
"""Seconds that a call may take: a person may be asked in it."""


@frozen
class Call(Request[Any]):
    """What a client asks; it is replied to with the reply, or with the `CallFailed` that says why there is none."""

    tool: Tool
    message: Any
    channel: Channel
    told: Told | None = None
    """Called with each item of a stream."""


@frozen
class Collected:
    """What a stream has yielded."""

    items: list[Any]
    complete: bool


@agent(concurrency=MOST_CALLS, mailbox=Mailbox(MOST_CALLS), inherit=False)
class Mcp:
    """Speaks for MCP clients."""

    @on(Call)
    async def call(self, message: Call) -> Any:  # noqa: ANN401 - a handler's reply
        """Ask an agent for a client."""
        try:
            with trio.fail_after(CALL_LIMIT), calling(message.message, message.channel):
                if message.told is None:
                    return await message.tool.ask(message.message)
                return Collected(*await message.tool.collect(message.message, message.told))
        except CallFailed as error:
            return error
        except trio.TooSlowError:
            return CallFailed(f"{message.tool.agent.name} did not answer in {CALL_LIMIT:g} s: it may have done it")
