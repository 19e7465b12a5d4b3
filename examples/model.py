"""A model is asked, says something in parts, and fills in a class.

export MODEL=openai:gpt-5 OPENAI_API_KEY=…        # or MODEL=openai:llama3.2 MODEL_URL=http://127.0.0.1:11434/v1
python -m examples.model
"""

import os
import sys
from typing import Literal

import trio
from attrs import frozen

from autonomy_trio import open_node
from autonomy_trio.connect.models import Complete, CompleteInParts, Model, ModelFailed, Text, fill
from autonomy_trio.errors import ConfigurationError


@frozen
class Ticket:
    """What a customer wants."""

    kind: Literal["repair", "order", "other"]
    urgent: bool


async def main() -> None:
    """Ask three times."""
    model = Model(
        os.environ.get("MODEL", "openai:gpt-5"),
        name="gpt",
        base_url=os.environ.get("MODEL_URL"),
        allow='principal.team == "support"',
    )
    async with open_node([model]) as node:
        gpt = node.ref("gpt", Model)
        with trio.fail_after(120):
            reply = await gpt.ask(Complete("Name a colour.", most_tokens=50))
        print(f"{reply.text}  ({reply.usage.written} tokens)")

        async with gpt.stream(CompleteInParts("Count to three.", most_tokens=50)) as parts:
            async for part in parts:
                if isinstance(part, Text):
                    print(part.text, end="", flush=True)
        print()

        with trio.fail_after(120):
            print(await fill(gpt, Ticket, "My brakes are broken, and I need them today!", most_tokens=100))


if __name__ == "__main__":
    try:
        trio.run(main)
    except (ConfigurationError, ModelFailed) as error:
        sys.exit(str(error))
