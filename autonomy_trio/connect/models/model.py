"""A model of a vendor as an agent: who may ask it is policy, and its key stays with its node."""

import random
import re
import time
from collections.abc import AsyncIterator, Generator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import ClassVar, Final, cast, final
from urllib.parse import urlsplit

import attrs
import trio

from autonomy_trio.actors.context import Context
from autonomy_trio.actors.declare import agent, on
from autonomy_trio.actors.spec import SPEC, spec_of
from autonomy_trio.annotations import field_names
from autonomy_trio.connect.models.conversations import size_of
from autonomy_trio.connect.models.keys import NO_KEY, read_key
from autonomy_trio.connect.models.libraries import check_extra, open_vendor
from autonomy_trio.connect.models.messages import (
    Complete,
    CompleteInParts,
    Completion,
    ModelFailed,
    ModelStatistics,
    Part,
    Prompt,
    ReadStatistics,
    Said,
    Text,
    ToolCall,
    Usage,
)
from autonomy_trio.connect.models.remarking import reached_by
from autonomy_trio.connect.models.retrying import MOST_TRIES, pause
from autonomy_trio.connect.models.vendor import VENDORS, Failure, Vendor, Way
from autonomy_trio.errors import ConfigurationError, UsageError

AT_ONCE: Final = 8
"""Requests that a model's agent has with the vendor at once, unless it is told otherwise."""
MOST_WAITING: Final = 64
"""Requests that wait for those; one more is refused as ``busy``."""
PATIENCE: Final = 60.0
"""Seconds without a byte after which a vendor is given up, unless the model is told otherwise."""
CLOSING: Final = 1.0
"""Seconds in which its connections have to close when it ends."""
MOST_TEXT: Final = 96 * 1024
"""Bytes of text and calls that one answer may have: it has to fit a message."""


@final
@attrs.define(eq=False)
class _Desk:
    """Who is served, who waits, and what has been done."""

    slots: trio.CapacityLimiter
    answered: int = 0
    failed: int = 0
    retries: int = 0
    usage: Usage = attrs.field(factory=Usage)

    def statistics(self) -> ModelStatistics:
        slots = self.slots.statistics()
        return ModelStatistics(
            slots.borrowed_tokens, slots.tasks_waiting, self.answered, self.failed, self.retries, self.usage
        )


@agent
class Model:
    """A model of a vendor, to be listed among a node's agents: ``agents=[Model("openai:gpt-5", name="gpt")]``.

    Other agents ask it `Complete`, or open a `CompleteInParts`; both answer `ModelFailed` where there is no answer.
    Agents of other nodes do so by ``node.ref(address, Model)``, and never see the key.

    Args:
        model: the vendor, ``openai`` or ``anthropic``, and what it calls the model.
        base_url: a server that speaks as the vendor does; its environment key is not sent there.
        name: the agent's; by default the model's, with ``_`` for what a name in Cedar cannot have.
        allow: a Cedar condition on who may ask it from another node. Without one, nobody.
        key_variable: the environment variable that holds the key; the vendor's own by default.
        key_file: a file that holds the key and nothing else, in place of a variable.
        at_once: requests that are with the vendor at once; `MOST_WAITING` more wait, and the rest is refused.
        patience: seconds without a byte from the vendor after which a try has failed.
        most_tokens: tokens that it may write, whatever is asked for.

    Raises:
        ConfigurationError: a parameter cannot be right; when it is started, that its key or the library is missing.

    Cancelling who asks ends the HTTP request. 429, 5xx, timeouts and broken connections are tried again up to
    `MOST_TRIES` times, as long as the asker's deadline lets it; a stream only before its first part.
    """

    __agent_patient__: ClassVar[bool] = True

    model: str
    base_url: str | None = attrs.field(default=None, kw_only=True)
    name: str | None = attrs.field(default=None, kw_only=True)
    allow: str | None = attrs.field(default=None, kw_only=True)
    key_variable: str | None = attrs.field(default=None, kw_only=True)
    key_file: str | Path | None = attrs.field(default=None, kw_only=True)
    at_once: int = attrs.field(default=AT_ONCE, kw_only=True)
    patience: float = attrs.field(default=PATIENCE, kw_only=True)
    most_tokens: int | None = attrs.field(default=None, kw_only=True)
    _served: "type[Model] | None" = attrs.field(default=None, init=False, repr=False)
    _vendor: Vendor | None = attrs.field(default=None, init=False, repr=False)
    _desk: _Desk | None = attrs.field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        vendor, _, model = self.model.partition(":")
        if vendor not in VENDORS or not model:
            known = " or ".join(f'"{each}:NAME"' for each in VENDORS)
            raise ConfigurationError(f"Model({self.model!r}): write {known}")
        if type(self.at_once) is not int or self.at_once < 1:
            raise ConfigurationError(f"{self.model}: at_once={self.at_once!r}: give a number, at least 1")
        if not 0 < self.patience < float("inf"):
            raise ConfigurationError(f"{self.model}: patience={self.patience!r}: give seconds, more than 0")
        if self.base_url is not None:
            _check_url(self.model, self.base_url)

    def __call__(self) -> "Model":
        """Build the agent, as a node does when it starts it."""
        check_extra(self.model.partition(":")[0])
        self._key()
        if self._served is None:
            self._served = self._declare()
        options = {name: getattr(self, name) for name in field_names(Model).all}
        return self._served(**options)

    async def on_start(self, context: Context) -> None:
        """Open the vendor's library; nothing is sent."""
        del context
        if type(self) is Model:
            raise UsageError(f"{self.model}: list the Model itself, or spawn it, and no partial of the class")
        vendor, _, model = self.model.partition(":")
        url = self.base_url or VENDORS[vendor].url
        way = Way(
            vendor=vendor,
            model=model,
            url=url,
            is_vendors=self.base_url is None,
            key=self._key(),
            patience=self.patience,
            at_once=self.at_once,
            words=f"{self.model} at {urlsplit(url).netloc}",
        )
        self._vendor = open_vendor(way)
        self._desk = _Desk(trio.CapacityLimiter(self.at_once))

    async def on_stop(self, context: Context) -> None:
        """Close all connections."""
        del context
        if self._vendor is not None:
            with trio.move_on_after(CLOSING, shield=True):
                await self._vendor.aclose()

    @on(Complete, raises=ModelFailed)
    async def complete(self, message: Complete, context: Context) -> Completion:
        """Have the model go on with a conversation."""
        vendor, desk = self._open()
        prompt = self._limited(message)
        with _slot(desk) as slot:
            await desk.slots.acquire_on_behalf_of(slot)
            tries = 0
            while True:
                tries += 1
                try:
                    found = await vendor.complete(prompt)
                except vendor.foreign as error:
                    failure = vendor.judge(error, time.time())
                else:
                    return self._checked(found)
                await self._recover(failure, tries, context)

    @on(CompleteInParts, raises=ModelFailed)
    async def complete_in_parts(self, message: CompleteInParts, context: Context) -> AsyncIterator[Part]:
        """Have the model go on with a conversation, in parts as they are written."""
        vendor, desk = self._open()
        prompt = self._limited(message)
        with _slot(desk) as slot:
            await desk.slots.acquire_on_behalf_of(slot)
            tries = 0
            while True:
                tries += 1
                begun = False
                failure = None
                room = MOST_TEXT
                async with aclosing(vendor.stream(prompt)) as parts:
                    try:
                        async for part in parts:
                            begun = True
                            room -= _size(part)
                            if room < 0:
                                raise self._too_long(MOST_TEXT - room)
                            yield self._checked(part) if isinstance(part, Completion) else part  # noqa: ASYNC119 - who reads it closes it
                    except vendor.foreign as error:
                        failure = vendor.judge(error, time.time())
                if failure is None:
                    return
                await self._recover(attrs.evolve(failure, again=failure.again and not begun), tries, context)

    @on(ReadStatistics)
    def statistics(self, message: ReadStatistics) -> ModelStatistics:
        """Say what the model has done since its agent started."""
        del message
        return self._open()[1].statistics()

    def _open(self) -> tuple[Vendor, _Desk]:
        assert self._vendor is not None  # noqa: S101 - handlers run after on_start
        assert self._desk is not None  # noqa: S101 - as above
        return self._vendor, self._desk

    def _key(self) -> str:
        if self.key_variable is None and self.key_file is None and self.base_url is not None:
            return NO_KEY
        variable = self.key_variable or VENDORS[self.model.partition(":")[0]].variable
        return read_key(self.model, variable, None if self.key_file is None else Path(self.key_file))

    def _declare(self) -> "type[Model]":
        """Make the class of this model's agent, with its own name and with who may ask it."""
        name = self.name or re.sub(r"\W+", "_", self.model.partition(":")[2], flags=re.ASCII).strip("_")
        words = "".join(each.capitalize() for each in re.split(r"[\W_]+", name, flags=re.ASCII))
        handlers = {
            "complete": reached_by(Model.complete, Complete, self.allow, ModelFailed),
            "complete_in_parts": reached_by(Model.complete_in_parts, CompleteInParts, self.allow, ModelFailed),
        }
        body = {"__doc__": f"The model {self.model}.", "__module__": __name__, **handlers}
        # Each that runs or waits has a worker; one is left to refuse what is too much, and for turns of streams.
        declare = agent(concurrency=self.at_once + MOST_WAITING + 1, inherit=False)
        served = declare(cast("type[Model]", type(f"Model{words}", (Model,), body)))
        setattr(served, SPEC, attrs.evolve(spec_of(served), name=name))
        return served

    def _limited(self, prompt: Prompt) -> Prompt:
        """Return a prompt that asks for no more tokens than the model may write."""
        most = [each for each in (prompt.most_tokens, self.most_tokens) if each is not None]
        return attrs.evolve(prompt, most_tokens=min(most, default=None))

    def _checked(self, found: Completion) -> Completion:
        """Count what was answered, and refuse what fits no message."""
        assert self._desk is not None  # noqa: S101 - as in `_open`
        size = size_of(Said("assistant", found.text, found.calls))
        self._desk.usage += found.usage
        if size > MOST_TEXT:
            raise self._too_long(size)
        self._desk.answered += 1
        return found

    def _too_long(self, size: int) -> ModelFailed:
        self._open()[1].failed += 1
        why = f"{self.model} wrote {size:,} bytes; a message has room for {MOST_TEXT:,}: give it fewer most_tokens"
        return ModelFailed("too long", why)

    async def _recover(self, failure: Failure, tries: int, context: Context) -> None:
        """Wait until a request is to be tried again.

        Raises:
            ModelFailed: it is not.
        """
        _, desk = self._open()
        seconds = pause(tries, failure.after, random.random())  # noqa: S311 - to spread, no secret
        is_last = tries >= MOST_TRIES or trio.current_time() + seconds >= context.deadline
        if not failure.again or is_last:
            desk.failed += 1
            context.log.warning("the model gave no answer", kind=failure.error.kind, tries=tries)
            raise failure.error
        desk.retries += 1
        context.log.info("the model is asked again", kind=failure.error.kind, tries=tries, pause=round(seconds, 1))
        await trio.sleep(seconds)


def _size(part: Part) -> int:
    """Return about how many bytes a part brings that are new."""
    match part:
        case Text(text):
            return len(text.encode())
        case ToolCall():
            return size_of(Said("assistant", "", (part,)))
        case Completion():
            return 0


@contextmanager
def _slot(desk: _Desk) -> Generator[object]:
    """Give back the slot that is taken for the token in the block, if it is.

    Raises:
        ModelFailed: too many wait for one already.
    """
    slots = desk.slots
    if slots.available_tokens <= 0 and slots.statistics().tasks_waiting >= MOST_WAITING:
        desk.failed += 1
        raise ModelFailed("busy", f"the model has {MOST_WAITING} requests waiting: ask later")
    token = object()
    try:
        yield token
    finally:
        if token in slots.statistics().borrowers:
            slots.release_on_behalf_of(token)


def _check_url(model: str, url: str) -> None:
    """Refuse what is no address of a server, and a secret in one, which would stand in logs.

    Raises:
        ConfigurationError: it is.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{model}: base_url is no http:// or https:// address")
    if parts.username or parts.password or parts.query:
        raise ConfigurationError(f"{model}: base_url has a secret in it: give it by key_file= or key_variable=")
