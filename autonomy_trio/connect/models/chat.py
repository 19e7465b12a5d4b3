"""What is said to a model agent, and what it answers."""

from typing import TypeAlias

from attrs import frozen

from autonomy_trio.connect.models.messages import Text, Usage
from autonomy_trio.messages import Request, Stream


@frozen
class ChatReply:
    """What an agent answers in a conversation."""

    text: str
    usage: Usage
    """Tokens of all turns that the answer took."""
    is_cut: bool = False
    """Whether the model stopped at the length that it may write."""


@frozen
class ToolBegun:
    """A tool that the model called."""

    call: str
    tool: str
    arguments: str
    """JSON as the model wrote it."""


@frozen
class ToolEnded:
    """What came of a call, as the model was told."""

    call: str
    tool: str
    told: str
    failed: bool


ChatPart: TypeAlias = Text | ToolBegun | ToolEnded | ChatReply
"""What a stream brings: text as it is written, tools as they are called and have ended, and the reply at the end."""


@frozen
class Chat(Request[ChatReply]):
    """Say something in a conversation, which is the sender's own: nobody else takes part under the same name."""

    conversation: str
    text: str


@frozen
class ChatInParts(Stream[ChatPart]):
    """Say something in a conversation; answered in parts as they come."""

    conversation: str
    text: str


@frozen
class Approve(Request[bool]):
    """Ask a person, or who decides for one, whether a model may call a tool; nothing runs before the answer."""

    tool: str
    arguments: str
    """JSON of the message that will be sent, every field of it."""
    asker: str
    """Whose conversation it is: an identifier, or the name of an agent of the same node."""
    conversation: str
