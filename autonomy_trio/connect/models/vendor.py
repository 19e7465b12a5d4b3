"""What a `Model` needs of each vendor."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar, Final

import attrs

from autonomy_trio.connect.models.messages import Completion, ModelFailed, Part, Prompt


class RubbishError(Exception):
    """A vendor's answer that is not what its interface promises; the text says what is wrong with it."""


class CutOffError(Exception):
    """A vendor's answer that ended before it was whole."""


class BrokenStreamError(Exception):
    """A vendor says that it cannot go on with an answer that it has begun."""


@attrs.frozen
class Failure:
    """One try that failed."""

    error: ModelFailed
    again: bool
    """Whether another try may do better."""
    after: float | None = None
    """Seconds that the vendor asks to wait before it."""


class Vendor(ABC):
    """A model over a vendor's library: one try, without limits and without retries."""

    __slots__ = ()

    foreign: ClassVar[tuple[type[Exception], ...]]
    """What a try can end in that `judge` has words for."""

    @abstractmethod
    async def complete(self, prompt: Prompt) -> Completion:
        """Send a prompt and wait for all that the model writes; on cancellation the request ends."""

    @abstractmethod
    def stream(self, prompt: Prompt) -> AsyncGenerator[Part]:
        """Send a prompt and yield what the model writes, a `Completion` last; closing it ends the request."""

    @abstractmethod
    def judge(self, error: Exception, now: float) -> Failure:
        """Say what an exception means; `now` in Unix seconds."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close all connections."""


@attrs.frozen
class Vendors:
    """What is known of a vendor before its library is there."""

    url: str
    """Its own, whatever the environment says to its library: the key is for there."""
    variable: str
    """The environment variable that its own key is in."""


VENDORS: Final[Mapping[str, Vendors]] = {
    "openai": Vendors("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "anthropic": Vendors("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
}


@attrs.frozen
class Way:
    """How a model is reached."""

    vendor: str
    model: str
    """What the vendor calls it."""
    url: str
    is_vendors: bool
    """Whether that is the vendor's own, and no other server's that speaks as it does."""
    key: str = attrs.field(repr=False)
    patience: float
    """Seconds without a byte."""
    at_once: int
    """Connections."""
    words: str
    """What the model is called in a sentence."""
