"""AutoGen Core on its ``SingleThreadedAgentRuntime``, without tracing and with its loggers at their default level.

Its fire and forget is ``publish_message``; its ``send_message`` waits for the reply.
"""

import asyncio
from dataclasses import dataclass

from autogen_core import (
    AgentId,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)
from command import run, verify, wall_time
from opentelemetry.trace import NoOpTracerProvider


@dataclass(frozen=True)
class More:
    """Add to a sum."""

    amount: int


@dataclass(frozen=True)
class Total:
    """A sum so far."""

    value: int


@dataclass(frozen=True)
class Add:
    """Add to a sum, and ask for it."""

    amount: int


class Counter(RoutedAgent):
    """Adds up in coroutines."""

    def __init__(self) -> None:
        super().__init__("a counter")
        self.total = 0

    @message_handler
    async def more(self, message: More, ctx: MessageContext) -> None:  # noqa: ARG002 - its signature is AutoGen's
        """Add to the sum."""
        self.total += message.amount

    @message_handler
    async def add(self, message: Add, ctx: MessageContext) -> Total:  # noqa: ARG002 - its signature is AutoGen's
        """Add to the sum, and return it."""
        self.total += message.amount
        return Total(self.total)


async def start() -> SingleThreadedAgentRuntime:
    """Return a running runtime with a counter."""
    runtime = SingleThreadedAgentRuntime(tracer_provider=NoOpTracerProvider())
    await Counter.register(runtime, "counter", Counter)
    await runtime.add_subscription(TypeSubscription(topic_type="counting", agent_type="counter"))
    runtime.start()
    return runtime


async def count(number: int) -> float:
    """Publish, wait until all is handled, and ask once."""
    one, counter, topic = More(1), AgentId("counter", "default"), TopicId("counting", "default")
    runtime = await start()
    with wall_time() as spent:
        for _ in range(number):
            await runtime.publish_message(one, topic)
        await runtime.stop_when_idle()
        runtime.start()
        total = await runtime.send_message(Add(0), counter)
    await runtime.stop()
    verify(total.value, number)
    return spent.seconds


async def ask(number: int) -> float:
    """Ask, one at a time."""
    total, one, counter = Total(0), Add(1), AgentId("counter", "default")
    runtime = await start()
    with wall_time() as spent:
        for _ in range(number):
            total = await runtime.send_message(one, counter)
    await runtime.stop()
    verify(total.value, number)
    return spent.seconds


run(count=lambda number: asyncio.run(count(number)), ask=lambda number: asyncio.run(ask(number)))
