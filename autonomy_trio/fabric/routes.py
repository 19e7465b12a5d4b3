"""The way from a ref to an agent on another node."""

import functools
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast, final

import attrs
import trio

from autonomy_trio.actors.delivery import PendingReply
from autonomy_trio.actors.refs import OutsideRef
from autonomy_trio.actors.runtime import Runtime
from autonomy_trio.actors.spec import Spec
from autonomy_trio.actors.streams import CREDIT
from autonomy_trio.errors import MessageError, NotDelivered, NotStored, UsageError
from autonomy_trio.fabric.links.addresses import Address, RelayAddress
from autonomy_trio.fabric.peers.asks import OpenAsk
from autonomy_trio.fabric.peers.outcomes import Expected
from autonomy_trio.fabric.peers.peers import Peers
from autonomy_trio.fabric.sealing import Depot, Sealing
from autonomy_trio.messages import Untyped, encode_payload, item_type, reply_type, wire_name
from autonomy_trio.wire.constants import LARGEST_NUMBER, NAME_CHARACTERS
from autonomy_trio.wire.entries import Ask, Open, Tell, check_size

if TYPE_CHECKING:
    from autonomy_trio.messages import Request, Stream

R = TypeVar("R")
T = TypeVar("T")

_class: Final[Callable[[object], Any]] = type
_MILLISECONDS: Final = 1000


@final
@attrs.frozen(repr=False)
class RemoteRef(OutsideRef[Any]):
    """A ref over a session with the agent's node."""

    _address: Address
    _peers: Peers = attrs.field(repr=False, eq=False)
    _runtime: Runtime = attrs.field(repr=False)
    _attach: Callable[[RelayAddress], None] = attrs.field(repr=False, eq=False)
    _sealing: Sealing = attrs.field(repr=False, eq=False)
    _depots: Callable[[RelayAddress | None], Sequence[Depot]] = attrs.field(repr=False, eq=False)
    """Where something for a node can be stored, given the relay in its address."""
    _spec: Spec | None = attrs.field(default=None, repr=False, eq=False)
    """What the agent's class declares, where that is known here."""

    @property
    def name(self) -> str:
        """The agent's name on its node."""
        return self._address.agent

    @property
    def address(self) -> str:
        """The agent's address."""
        return str(self._address)

    async def tell(self, message: object, *, durable: bool = False) -> None:
        """Queue a message for its node, or have it stored for when that is back."""
        entry = self._tell(message)
        if durable:
            await self._store(entry)
            return
        await self._peers.tell(self._address.node, entry)

    def tell_nowait(self, message: object) -> None:
        """Queue a message for its node, or raise `MailboxFull`."""
        entry = self._tell(message)
        self._peers.tell_nowait(self._address.node, entry)

    async def ask(self, message: "Request[R]") -> R:
        """Send a request and wait for its reply."""
        deadline, reply = trio.current_effective_deadline(), PendingReply()
        if deadline != float("inf"):
            return cast("R", await self._ask(message, reply, deadline))
        keeper = self._runtime.keeper
        try:
            # One task keeps the limit of all asks: a scope for each would cost more than its encoding.
            return cast("R", await self._ask(message, reply, keeper.add_ask(reply), limited=True))
        finally:
            keeper.asks.pop(reply, None)

    def stream(self, message: "Stream[T]") -> AbstractAsyncContextManager[AsyncIterator[T]]:
        """Open a stream of replies."""
        recipient, name, payload = _checked(self.name), _name(message), encode_payload(message)
        sender = self._prepare()
        kind = None if isinstance(message, Untyped) else item_type(type(message))
        expected = Expected(name, kind, self._address, self._foreseen(message))

        def opening(number: int) -> Open:
            return Open(number, recipient, name, payload, CREDIT, sender, 0)

        return self._peers.stream(self._address.node, opening, expected)

    def watch(self, told: Callable[[str], None]) -> Callable[[], None]:
        """See `OutsideRef.watch`."""
        recipient = _checked(self.name)
        return self._peers.watch(self._address.node, recipient, self._prepare(), told)

    def stop(self) -> NoReturn:
        """Refuse: an agent is stopped on its own node."""
        raise UsageError(f"{self.address} is on another node: an agent is stopped there")

    async def stopped(self) -> NoReturn:
        """Refuse: an agent's end is known on its own node."""
        await trio.lowlevel.checkpoint()
        raise UsageError(f"{self.address} is on another node: its end is known there")

    async def _ask(self, message: object, reply: PendingReply, deadline: float, *, limited: bool = False) -> Any:  # noqa: ANN401 - the reply's type is the request's
        recipient, (name, kind), payload = _checked(self.name), _request(message), encode_payload(message)
        sender = self._prepare()
        expected = Expected(name, kind, self._address, self._foreseen(message))
        remaining = max(0.0, deadline - trio.current_time()) * _MILLISECONDS
        limit = min(math.ceil(remaining), LARGEST_NUMBER)
        entry = Ask(self._peers.new_request(), recipient, name, payload, limit, sender, 0)
        opened = OpenAsk(entry, reply, expected, deadline)
        return await self._peers.ask(self._address.node, opened, waits_until=deadline if limited else math.inf)

    def _foreseen(self, message: object) -> Sequence[type[Exception]]:
        handler = None if self._spec is None else self._spec.handler_of(type(message))
        return () if handler is None else handler.raises

    async def _store(self, entry: Tell) -> None:
        check_size(entry)
        node, sealing = self._address.node, self._sealing
        bundle = sealing.bundle(node)
        if bundle is None or self._peers.must_ask(node, entry):
            bundle = await self._peers.meet(node) or bundle
        if bundle is None or self._peers.must_ask(node, entry):
            bundle = await sealing.look_up(node) or bundle
        refusal = self._peers.may_send(node, entry)
        if refusal is not None:
            raise NotStored(str(refusal))
        if bundle is None:
            raise NotStored(
                f"{entry.name} was not stored for {self.address}: its node is away, was never met from here, and is not"
                " known to the relays, so no key is known to seal it with; ask it something once while it is there"
            )
        await sealing.tell(bundle, entry, lambda: self._depots(self._address.relay), self.address)

    def _tell(self, message: object) -> Tell:
        cls = _class(message)
        name = _name(message) if cls is Untyped else _class_name(cls)
        return Tell(_checked(self._address.agent), name, encode_payload(message), self._prepare(), 0)

    def _prepare(self) -> int:
        """See that something can be sent; return who sends it."""
        cell = self._runtime.speaking()
        if self._runtime.draining and cell is None:
            msg = "the node is stopping: nothing was sent"
            raise NotDelivered(msg)
        if self._address.relay is not None:
            self._attach(self._address.relay)
        return self._peers.sessions.voices.of(cell)


def _name(message: object) -> str:
    return _checked(message.name) if isinstance(message, Untyped) else _class_name(_class(message))


@functools.cache
def _class_name(cls: Any) -> str:  # noqa: ANN401 - a class
    return _checked(wire_name(cls))


def _request(message: object) -> tuple[str, object | None]:
    """Return a message's wire name and the type of its reply."""
    return (_checked(message.name), None) if isinstance(message, Untyped) else _class_request(_class(message))


@functools.cache
def _class_request(cls: Any) -> tuple[str, object | None]:  # noqa: ANN401 - a class
    return _checked(wire_name(cls)), reply_type(cls)


@functools.lru_cache
def _checked(name: str) -> str:
    """Refuse a name that the other node would end the session for, or that has no bytes, while its sender is there."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise MessageError(f"{name!r} is half a character somewhere: no agent and no message is called that") from None
    if len(name) > NAME_CHARACTERS:
        raise MessageError(f"{name[:50]!r}… has {len(name)} characters: a name has at most {NAME_CHARACTERS}")
    return name
