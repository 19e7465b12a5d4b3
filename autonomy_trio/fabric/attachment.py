"""A node's place at one relay: registered, kept alive, and taken again after a loss."""

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, final

import attrs
import trio

from autonomy_trio.errors import LinkBroken, LinkError, ProtocolError, RelayRefused, RelayUnreachable, TrustError
from autonomy_trio.fabric.links.addresses import RelayAddress
from autonomy_trio.fabric.links.link import PONG, Link, Outbox, attend
from autonomy_trio.logs import get_log, printable
from autonomy_trio.trust.identity import History
from autonomy_trio.trust.records import format_identifier
from autonomy_trio.trust.vault import Vault
from autonomy_trio.wire.constants import KEY_BYTES, SEALED, UNACKNOWLEDGED
from autonomy_trio.wire.frames import (
    Deliver,
    Frame,
    Lookup,
    Nack,
    Parameters,
    Ping,
    Pong,
    Publish,
    Records,
    Send,
    Show,
    Store,
    Stored,
    decode_frame,
    encode_frame,
    join_frames,
    split_frames,
)
from autonomy_trio.wire.mailbox import Connection, make_ack, make_fetch, stored_id
from autonomy_trio.wire.registration import (
    make_register,
    verify_hello,
    verify_welcome,
)

OUTBOX_BYTES: Final = 4 * 1024 * 1024
"""Bytes that wait to leave for one relay."""

REGISTER_LIMIT: Final = 5.0
"""Seconds a relay may take to welcome a node."""

FIRST_PAUSE: Final = 0.1
"""Seconds before the first attempt to come back; each further pause is twice as long."""

LONGEST_PAUSE: Final = 5.0
"""Seconds between attempts to come back; each pause is drawn from its upper half, so that nodes do not come at once."""

LONGEST_SILENCE: Final = 60.0
"""Seconds of silence a relay may ask a node to bear."""

FLUSH_LIMIT: Final = 1.0
"""Seconds in which what still waits may leave when the node closes."""

MOST_NAMED: Final = 3
"""Issuers that an error names."""

TIME_TO_LIVE: Final = 30
"""Seconds after which a packet is of no use to its receiver any more."""

STORED_LIMIT: Final = 10.0
"""Seconds a relay may take to store an envelope."""

MOST_TAKEN: Final = 16 * UNACKNOWLEDGED
"""Envelopes that wait to be acknowledged at one relay, which takes too little."""

LOST: Final = "connection lost"
"""Why an envelope may not be stored: it may be all the same."""

Connect = Callable[[str, trio.Nursery], Awaitable[Link]]
"""Opens a link to a URL; its background tasks run in the nursery."""

_log = get_log()


@final
@attrs.define(eq=False)
class _Storing:
    """An envelope that the relay is to store."""

    refusal: str | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)

    def end(self, refusal: str | None) -> None:
        self.refusal = refusal
        self.ended.set()


@final
@attrs.define(eq=False)
class Attachment:
    """One relay that a node is registered with, for as long as `run` runs."""

    relay: RelayAddress
    _vault: Vault
    _connect: Connect
    _deliver: Callable[["Attachment", bytes, bytes], None]
    """Takes the hint where a packet comes from, and the packet; never waits."""
    _on_attached: Callable[[], None]
    _now: Callable[[], float]
    _on_refused: Callable[[bytes, str], None] = lambda destination, reason: None  # noqa: ARG005 - the shape of the call
    """Takes a destination that the relay could not reach, and its reason."""
    _see: Callable[[History], None] = lambda _: None
    """Takes the relay's history, and raises `TrustError` when it may not count."""
    _on_sealed: Callable[["Attachment", bytes], None] = lambda _, packet: None  # noqa: ARG005 - the shape of the call
    """Takes a sealed envelope; never waits."""
    _shown_to: Callable[[Collection[bytes]], Sequence[bytes]] = lambda _: ()
    """Returns what to show to a relay that asks for credentials of these issuers."""
    on_records: Callable[["Attachment", Records], None] = lambda _, records: None  # noqa: ARG005 - as above
    """Takes the answer to a lookup in the relay's directory."""
    on_detached: Callable[[], None] = lambda: None
    """Called when the relay was lost, with what it had taken and not delivered."""
    is_attached: bool = False
    times_attached: int = 0
    _asks_for: tuple[bytes, ...] = ()
    """The issuers whose credentials the relay asked for last."""
    _running: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _outbox: Outbox = attrs.field(factory=lambda: Outbox(OUTBOX_BYTES))
    _fetches: bool = False
    _connection: Connection | None = None
    _sequence: int = 0
    """Of the next FETCH or ACK on this connection."""
    _unstored: dict[bytes, _Storing] = attrs.field(factory=dict[bytes, _Storing])
    """What the relay has not said STORED of, by its `stored_id`."""
    _taken: deque[bytes] = attrs.field(factory=deque[bytes])
    """What is to be acknowledged, when the relay takes it."""
    _acknowledging: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    @property
    def pin(self) -> str | None:
        """Which relay it is, where that is pinned."""
        return None if self.relay.pin is None else format_identifier(self.relay.pin)

    @property
    def is_clear(self) -> bool:
        """Whether the relay is there, and nothing waits to leave for it."""
        return self.is_attached and not self._outbox.size

    def carry(self, destination: bytes, packet: bytes) -> bool:
        """Queue a packet for another node; False where it was dropped, for the relay is away or takes too little."""
        if not self.is_attached:
            return False
        is_added = self._outbox.add(join_frames([encode_frame(Send(destination, 0, TIME_TO_LIVE, packet))]))
        self._outbox.flush()
        return is_added

    async def store(self, destination: bytes, packet: bytes, time_to_live: int) -> str | None:
        """Have a sealed envelope stored for another node.

        Args:
            destination: the other node.
            packet: the envelope.
            time_to_live: seconds after which it is of no use.

        Returns:
            None when the relay has it on its disk, else why not, in a word.
        """
        identifier, storing = stored_id(packet), _Storing()
        frame = join_frames([encode_frame(Store(destination, time_to_live, packet))])
        while self.is_attached and not self._outbox.put(frame):
            await self._outbox.wait_room()
        if not self.is_attached:
            return LOST
        self._unstored[identifier] = storing
        try:
            with trio.move_on_after(STORED_LIMIT):
                await storing.ended.wait()
                return storing.refusal
        finally:
            self._unstored.pop(identifier, None)
        return "no answer"

    def fetch(self) -> None:
        """Have what is stored for this node handed over, on this connection and those that follow."""
        self._fetches = True
        if self.is_attached:
            self._ask_for_stored()

    def acknowledge(self, identifier: bytes) -> None:
        """Have a stored envelope forgotten; without a connection, or with too many, it comes again."""
        if self.is_attached and len(self._taken) < MOST_TAKEN:
            self._taken.append(identifier)
            self._acknowledging.unpark_all()

    def request(self, frame: Publish | Lookup) -> bool:
        """Queue what the relay's directory is asked or told; False where it was dropped."""
        return self.is_attached and self._outbox.put(join_frames([encode_frame(frame)]))

    def show(self) -> None:
        """Show the relay what the node shows now, if it asked for credentials and there is room."""
        if self.is_attached and self._asks_for:
            self._outbox.put(join_frames([encode_frame(Show(tuple(self._shown_to(self._asks_for))))]))

    async def wait_room(self) -> None:
        """Return when packets can be queued again; at once while the relay is away."""
        await self._outbox.wait_room()

    async def flush(self) -> None:
        """Return when all that waited has left, or `FLUSH_LIMIT` seconds have passed."""
        if self.is_attached:
            with trio.move_on_after(FLUSH_LIMIT):
                await self._outbox.wait_empty()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Attach, and attach again after each loss, until cancelled; started once it is attached for the first time.

        Raises:
            RelayUnreachable: the first attempt met nobody.
            RelayRefused: the first attempt met a relay that is not the pinned one, or that refused.
        """
        with self._running:
            await self._keep_attached(task_status)

    @property
    def is_storing(self) -> bool:
        """Whether something is to be stored that the relay has not answered yet."""
        return bool(self._unstored)

    def stop(self) -> None:
        """End `run`, and with it the link in good order."""
        self._running.cancel()

    async def _keep_attached(self, task_status: trio.TaskStatus[None]) -> None:
        pause = FIRST_PAUSE
        while True:
            before, began = self.times_attached, trio.current_time()
            try:
                await self._attach(task_status)
            except (LinkError, ProtocolError) as error:
                if self.times_attached == 0:
                    raise self._first_failure(error) from None
                if self.times_attached > before:
                    _log.warning("relay lost", relay=self.relay.url, reason=str(error))
                else:
                    _log.debug("relay still away", relay=self.relay.url, reason=str(error))
            if self.times_attached > before and trio.current_time() - began > LONGEST_PAUSE:
                # Only what lasted is a new beginning: two nodes with one identity would chase each other without rest.
                pause = FIRST_PAUSE
            await trio.sleep(pause * (0.5 + secrets.randbelow(1000) / 2000))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _first_failure(self, error: LinkError | ProtocolError) -> LinkError:
        if isinstance(error, (RelayUnreachable, RelayRefused)):
            return error
        if self._asks_for:
            issuers = " or ".join(format_identifier(each) for each in self._asks_for[:MOST_NAMED])
            return RelayRefused(
                f"{self.relay.url} did not let this node in ({error}): it asks for a credential of {issuers}"
            )
        return RelayRefused(
            f"{self.relay.url} did not let this node in ({error}): "
            "is it a relay with room for more, and is the clock right?"
        )

    async def _attach(self, task_status: trio.TaskStatus[None]) -> None:
        """Connect, register and serve once; returns or raises when the connection has ended."""
        failure: LinkError | ProtocolError = LinkBroken(f"{self.relay.url} closed the connection")
        async with trio.open_nursery() as nursery:
            try:
                link = await self._connect(self.relay.url, nursery)
                try:
                    parameters = await self._register(link)
                    self.is_attached, self._sequence = True, 0
                    self.times_attached += 1
                    if self.times_attached == 1:
                        self._warn_once()
                        task_status.started()
                    else:
                        _log.info("relay back", relay=self.relay.url)
                    self._on_attached()
                    if self._fetches:
                        self._ask_for_stored()
                    failure = await self._converse(link, parameters)
                finally:
                    self._detach()
                    with trio.CancelScope(shield=True):
                        await link.aclose()
            except (LinkError, ProtocolError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        raise failure

    def _detach(self) -> None:
        """Let go of what the relay will not carry any more."""
        was_attached, self.is_attached = self.is_attached, False
        self._outbox.discard()
        self._taken.clear()
        for storing in self._unstored.values():
            storing.end(LOST)
        if was_attached:
            self.on_detached()

    def _warn_once(self) -> None:
        if self.relay.is_exposed:
            why = (
                "the network sees who registers there, and could put another relay in its place: write wss:// or pin it"
            )
            _log.warning("relay is neither pinned nor behind TLS", relay=self.relay.url, why=why)

    async def _register(self, link: Link) -> Parameters:
        """Prove to the relay who this node is, and have it prove which relay it is."""
        with trio.move_on_after(REGISTER_LIMIT):
            hello = _only(split_frames(await link.receive()))
            greeting, bundle = verify_hello(hello, self._now())
            if self.relay.pin is not None and bundle.identifier != self.relay.pin:
                found, wanted = format_identifier(bundle.identifier), format_identifier(self.relay.pin)
                raise RelayRefused(f"{self.relay.url} is the relay {found}, not {wanted} as pinned")
            try:
                self._see(bundle.history)
            except TrustError as error:
                raise RelayRefused(f"{self.relay.url} is not to be trusted: {error}") from None
            self._asks_for = greeting.issuers
            shown = self._shown_to(greeting.issuers) if greeting.issuers else ()
            nonce = secrets.token_bytes(KEY_BYTES)
            register = make_register(self._vault, hello, shown, nonce, self._now())
            await link.send(join_frames([register]))
            welcome = _only(split_frames(await link.receive()))
            parameters = verify_welcome(welcome, hello, register, bundle).parameters
            self._connection = Connection(greeting.nonce, nonce)
            return parameters
        raise RelayUnreachable(f"{self.relay.url} did not welcome this node in {REGISTER_LIMIT:g} s: is it a relay?")

    async def _converse(self, link: Link, parameters: Parameters) -> LinkError | ProtocolError:
        """Read and write until the link has ended; return how."""
        failures: list[LinkError | ProtocolError] = []
        outbox = self._outbox
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, link, outbox, failures)
            nursery.start_soon(self._keep_acknowledging)
            try:
                await self._read(link, outbox, parameters)
            except (LinkError, ProtocolError) as error:
                failures.append(error)
            nursery.cancel_scope.cancel()
        return failures[0]

    async def _read(self, link: Link, outbox: Outbox, parameters: Parameters) -> None:
        gone_after = min(max(parameters.gone_after, 2), LONGEST_SILENCE)
        ping_after = min(max(parameters.ping_after, 1), gone_after - 1)

        def take(message: bytes) -> float:
            for encoded in split_frames(message):
                self._take(decode_frame(encoded), outbox)
            return 0.0

        await attend(link, outbox, take, ping_after=ping_after, gone_after=gone_after)

    def _take(self, frame: Frame, outbox: Outbox) -> None:
        match frame:
            case Deliver() if _is_sealed(frame.packet):
                self._on_sealed(self, frame.packet)
            case Deliver():
                self._deliver(self, frame.source, frame.packet)
            case Ping():
                outbox.put_urgent(PONG)
            case Nack():
                self._on_refused(frame.destination, printable(frame.reason))
            case Stored():
                if (storing := self._unstored.get(frame.id)) is not None:
                    storing.end(None if frame.refusal is None else printable(frame.refusal))
            case Pong():
                pass
            case Records():
                self.on_records(self, frame)
            case _:
                raise ProtocolError(f"a relay sends no {type(frame).__name__.upper()} to a registered node")

    def _ask_for_stored(self) -> None:
        connection, sequence = self._next_request()
        self._outbox.put(join_frames([make_fetch(self._vault, connection, sequence, UNACKNOWLEDGED)]))

    async def _keep_acknowledging(self) -> None:
        while True:
            while not self._taken:
                await self._acknowledging.park()
            # What was taken meanwhile goes into one ACK, for each has a signature.
            await self._outbox.wait_room()
            ids = [self._taken.popleft() for _ in range(min(len(self._taken), UNACKNOWLEDGED))]
            connection, sequence = self._next_request()
            self._outbox.put(join_frames([make_ack(self._vault, connection, sequence, ids)]))
            await trio.lowlevel.checkpoint()

    def _next_request(self) -> tuple[Connection, int]:
        assert self._connection is not None  # noqa: S101 - it is attached
        sequence, self._sequence = self._sequence, self._sequence + 1
        return self._connection, sequence


async def _write(link: Link, outbox: Outbox, failures: list[LinkError | ProtocolError]) -> None:
    try:
        await outbox.write_to(link)
    except LinkBroken as error:
        # The reader sees the end too, after what the relay sent before it left.
        failures.append(error)


def _only(frames: list[bytes]) -> bytes:
    if len(frames) != 1:
        raise ProtocolError("a relay welcomes with one frame at a time")
    return frames[0]


def _is_sealed(packet: bytes) -> bool:
    """Tell whether a packet is by its kind a sealed envelope, which no session opens."""
    return packet[1:2] == bytes((SEALED,))
