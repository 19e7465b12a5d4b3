"""What is said to a model and what it answers, the same for every vendor."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from attrs import field, frozen
from attrs.validators import in_

from autonomy_trio.errors import ReplyError
from autonomy_trio.messages import Request, Stream

Role = Literal["system", "user", "assistant", "tool"]
Stopped = Literal["end", "length", "calls", "refused", "other"]
Kind = Literal[
    "key",
    "unknown model",
    "too long",
    "request",
    "rate",
    "server",
    "no answer",
    "unreachable",
    "cut off",
    "rubbish",
    "busy",
    "misfit",
    "refused",
    "turns",
]


@frozen
class ModelFailed(ReplyError):
    """A model gave no answer that is of use; what a `Model` answers in place of one."""

    kind: Kind
    """What happened.

    ``key``: it was refused. ``unknown model``. ``too long``: the prompt, or the answer. ``request``: it is wrong in
    another way. ``rate``, ``server``: the vendor takes no more, or fails, after all tries. ``no answer``: not in time.
    ``unreachable``: the host, or the model's agent. ``cut off``: the answer broke off. ``rubbish``: it is no answer.
    ``busy``: too many wait. ``misfit``: it is not of the class that was asked for. ``refused``: by the model.
    ``turns``: the model called tools for all it had.
    """
    why: str
    """A sentence that says whose fault it is and what to do."""

    def __str__(self) -> str:
        return self.why


@frozen
class ToolCall:
    """A tool that a model wants to be called."""

    id: str
    """What the answer refers to."""
    name: str
    arguments: str
    """JSON as the model wrote it, which may be wrong."""


@frozen
class Said:
    """One entry of a conversation."""

    role: Role = field(validator=in_(get_args(Role)))
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant: the tools it wants to be called."""
    answers: str = ""
    """Of a tool: the id of the call that it answers."""


@frozen
class ToolOffer:
    """A tool that a model may want to be called."""

    name: str
    """Letters, digits, ``_`` and ``-``, 64 at most."""
    description: str
    schema: Mapping[str, object]
    """The JSON schema of its arguments, an object."""


@frozen
class Usage:
    """Tokens that a model has read and written."""

    read: int = 0
    written: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.read + other.read, self.written + other.written)


@frozen
class Text:
    """The next piece of what a model writes."""

    text: str


@frozen
class Completion:
    """All that a model wrote, and why it stopped."""

    text: str
    calls: tuple[ToolCall, ...]
    usage: Usage
    stopped: Stopped
    """``end`` of its own accord, at the ``length`` that it may write, for ``calls`` of tools, or it ``refused``."""
    model: str
    """Which model the vendor says it was."""


Part: TypeAlias = Text | ToolCall | Completion
"""What a stream brings: text as it is written, each call once it is whole, and the whole at the end."""


def as_conversation(said: str | Sequence[Said]) -> tuple[Said, ...]:
    """Return a conversation; a text alone is what a user said."""
    return (Said("user", said),) if isinstance(said, str) else tuple(said)


@frozen
class Prompt:
    """What a model is asked: the fields of `Complete` and of `CompleteInParts`."""

    said: tuple[Said, ...] = field(converter=as_conversation)
    """The conversation so far; a text alone is what a user said."""
    tools: tuple[ToolOffer, ...] = ()
    """What it may call."""
    schema: Mapping[str, object] | None = None
    """The JSON schema that its text has to fit; see `fill`."""
    most_tokens: int | None = None
    """Tokens that it may write; None for what the model's own limit is."""
    temperature: float | None = None
    """How much chance has a part in it, from 0; None for the vendor's default."""


@frozen
class Complete(Prompt, Request[Completion]):
    """Have a model go on with a conversation; answered with all that it writes."""


@frozen
class CompleteInParts(Prompt, Stream[Part]):
    """Have a model go on with a conversation; answered in parts as they are written."""


@frozen
class ModelStatistics:
    """What a model has done since its agent started."""

    running: int
    """Requests that are with the vendor."""
    waiting: int
    """Requests that wait for their turn."""
    answered: int
    """Requests that were answered."""
    failed: int
    """Requests that ended in `ModelFailed`."""
    retries: int
    """Attempts besides each request's first."""
    usage: Usage
    """Tokens of all that was answered."""


@frozen
class ReadStatistics(Request[ModelStatistics]):
    """Ask a model what it has done; other nodes cannot."""
