"""A relay that lies about one kind of frame, in one way: a link between each node and an honest relay that does it."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import attrs
import msgspec
import trio

from autonomy_trio.errors import LinkBroken, LinkError, ProtocolError
from autonomy_trio.fabric.links.link import Link
from autonomy_trio.wire.frames import Frame, Send, decode_frame, encode_frame, join_frames, split_frames
from tests.support.net import Net

Attack = Literal["forged", "dropped", "duplicated", "reordered", "delayed", "replayed", "misrouted"]
ATTACKS: Final[Sequence[Attack]] = (
    "forged",
    "dropped",
    "duplicated",
    "reordered",
    "delayed",
    "replayed",
    "misrouted",
)

DELAY: Final = 2.0
KEPT: Final = 50

Out = list[tuple[float, bytes]]
"""What goes on, each after so many seconds."""


@attrs.define(eq=False)
class Liar:
    """What is done to which frames, while it is `active`."""

    net: Net
    frame: type[Frame]
    attack: Attack
    active: bool = False
    done: int = 0
    """How many frames it was done to."""
    links: "list[LyingLink]" = attrs.field(factory=list["LyingLink"])
    kept: deque[bytes] = attrs.field(factory=lambda: deque[bytes](maxlen=KEPT))
    """Frames of that kind that passed, of all nodes."""
    chance: random.Random = attrs.field(factory=lambda: random.Random(7))

    async def connect(self, url: str, nursery: trio.Nursery) -> Link:
        """Open a link that lies."""
        link = LyingLink(await self.net.connect(url, nursery), self, nursery)
        self.links.append(link)
        nursery.start_soon(link.pump)
        return link

    def break_links(self) -> None:
        """Have every node connect again."""
        for link in list(self.links):
            link.scope.cancel()

    def suffer(self, link: "LyingLink", encoded: bytes, *, up: bool) -> Out:
        """Return what becomes of a frame on its way."""
        held, link.held[up] = link.held[up], []
        after: Out = [(0.0, each) for each in held]
        try:
            frame = decode_frame(encoded)
        except ProtocolError:
            return [(0.0, encoded), *after]
        if type(frame) is not self.frame:
            return [(0.0, encoded), *after]
        self.kept.append(encoded)
        if not self.active:
            return [(0.0, encoded), *after]
        self.done += 1
        return [*self._done_to(link, frame, encoded, up=up), *after]

    def _done_to(self, link: "LyingLink", frame: Frame, encoded: bytes, *, up: bool) -> Out:
        true: Out = [(0.0, encoded)]
        every_second = true if self.done % 2 else []
        if self.attack == "reordered":
            link.held[up].append(encoded)
        if self.attack == "misrouted":
            return [*self._misrouted(link, frame, encoded, up=up), *every_second]
        forged: Out = [(0.0, self._forged(frame)) for _ in range(3)] if self.attack == "forged" else []
        again: Out = [(1.0, each) for each in list(self.kept)[-10:]]
        return {
            "dropped": [],
            "reordered": [],
            "duplicated": true * 2,
            "delayed": [(DELAY, encoded)],
            "replayed": true + again,
            "forged": forged + every_second,
        }[self.attack]

    def _misrouted(self, link: "LyingLink", frame: Frame, encoded: bytes, *, up: bool) -> Out:
        for other in self.links:
            if other is not link:
                other.inject(encoded, up=up)
        if not isinstance(frame, Send):
            return []
        return [(0.0, encode_frame(msgspec.structs.replace(frame, destination=self.chance.randbytes(32))))]

    def _forged(self, frame: Frame) -> bytes:
        """Change a field that is bytes, a number or a word, as somebody could who has no keys."""
        changes: dict[str, Callable[[], object]] = {}
        for name in frame.__struct_fields__:
            value: Any = getattr(frame, name)
            if isinstance(value, bytes) and value:
                changes[name] = lambda value=value: self._spoilt(value)
            elif isinstance(value, int) and not isinstance(value, bool) and name not in {"version", "flags"}:
                changes[name] = lambda value=value: max(1, value + self.chance.choice((-1, 1)))
            elif isinstance(value, str | None):
                changes[name] = lambda: self.chance.choice(("no store", "away"))
        if not changes:
            return encode_frame(frame)
        name = self.chance.choice(sorted(changes))
        try:
            return encode_frame(decode_frame(encode_frame(msgspec.structs.replace(frame, **{name: changes[name]()}))))
        except ProtocolError:
            return encode_frame(frame)

    def _spoilt(self, value: bytes) -> bytes:
        at = self.chance.randrange(len(value))
        return value[:at] + bytes((value[at] ^ 1 << self.chance.randrange(8),)) + value[at + 1 :]


@attrs.define(eq=False)
class LyingLink:
    """A node's end of a link."""

    link: Link
    liar: Liar
    nursery: trio.Nursery
    remote: str = "memory"
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    held: dict[bool, list[bytes]] = attrs.field(factory=lambda: {True: list[bytes](), False: list[bytes]()})
    _down: deque[bytes | LinkError] = attrs.field(factory=deque[bytes | LinkError])
    _came: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def pump(self) -> None:
        """Take what comes down."""
        failure: LinkError = LinkBroken("the liar broke it")
        try:
            with self.scope:
                while True:
                    for encoded in split_frames(await self.link.receive()):
                        for delay, each in self.liar.suffer(self, encoded, up=False):
                            self._pass(each, delay, up=False)
        except LinkError as error:
            failure = error
        self._put(failure)

    async def send(self, message: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for encoded in split_frames(message):
            for delay, each in self.liar.suffer(self, encoded, up=True):
                if delay:
                    self._pass(each, delay, up=True)
                else:
                    await self.link.send(join_frames([each]))

    async def receive(self) -> bytes:
        while not self._down:
            await self._came.park()
        await trio.lowlevel.checkpoint()
        found = self._down.popleft()
        if isinstance(found, LinkError):
            self._down.append(found)
            raise found
        return found

    async def aclose(self) -> None:
        if self in self.liar.links:
            self.liar.links.remove(self)
        self.scope.cancel()
        await self.link.aclose()

    def inject(self, encoded: bytes, *, up: bool) -> None:
        """Have a frame of another node go this way."""
        self._pass(encoded, 0.0, up=up)

    def _pass(self, encoded: bytes, delay: float, *, up: bool) -> None:
        if up or delay:
            self.nursery.start_soon(self._later, encoded, delay, up)
        else:
            self._put(join_frames([encoded]))

    async def _later(self, encoded: bytes, delay: float, up: bool) -> None:
        await trio.sleep(delay)
        if not up:
            self._put(join_frames([encoded]))
            return
        try:
            await self.link.send(join_frames([encoded]))
        except LinkError:
            return

    def _put(self, found: bytes | LinkError) -> None:
        self._down.append(found)
        self._came.unpark_all()
