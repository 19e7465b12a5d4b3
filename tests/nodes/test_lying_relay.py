"""A relay that lies with each kind of frame it sends, in each way there is; once it stops, everything works again."""

import secrets
from collections import Counter as Counts
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import attrs
import pytest
import trio

from autonomy_trio import Node
from autonomy_trio.errors import AutonomyError, DeliveryError, LinkError
from autonomy_trio.fabric.links import Link
from autonomy_trio.wire.frames import (
    Deliver,
    Frame,
    Hello,
    Nack,
    Ping,
    Pong,
    Records,
    Stored,
    Welcome,
    decode_frame,
    encode_frame,
    join_frames,
    split_frames,
)
from tests.support.net import Add, Counter, Net, Note, Notes, Total, open_net, virtual_now

LYING: Final = 40.0
"""Seconds: long enough for a relay that is silent to be given up."""
FAR: Final = f"I{'ab' * 32}/nobody"


@attrs.define(eq=False)
class Lies:
    """What a relay does with frames of one kind, while it lies."""

    kind: type[Frame]
    how: str
    is_lying: bool = False
    told: int = 0
    links: list["LyingLink"] = attrs.field(factory=list)
    seen: list[Frame] = attrs.field(factory=list)

    def about(self, link: "LyingLink", frame: Frame) -> Iterator[Frame]:
        """Return what is handed over in place of one frame."""
        if not isinstance(frame, self.kind) or not self.is_lying:
            yield frame
            yield from link.take_held()
            return
        self.told += 1
        self.seen.append(frame)
        match self.how:
            case "dropped":
                pass
            case "duplicated":
                yield from (frame, frame)
            case "replayed":
                yield from self.seen[-50:]
            case "reordered":
                link.held.append((0.0, frame))
            case "delayed":
                link.held.append((trio.current_time() + 3, frame))
            case "sent to another node":
                others = [each for each in self.links if each is not link]
                (others[0] if others else link).held.append((0.0, frame))
            case _:
                yield forged(frame)
                yield frame


def forged(frame: Frame) -> Frame:
    """Return one like it, with other contents, as whoever does not have the keys can make it."""
    changed: dict[str, Any] = {}
    for name in frame.__struct_fields__:
        value = getattr(frame, name)
        if isinstance(value, bytes):
            changed[name] = secrets.token_bytes(len(value))
    return type(frame)(**{name: changed.get(name, getattr(frame, name)) for name in frame.__struct_fields__})


@attrs.define(eq=False)
class LyingLink:
    """A node's end of a link to that relay."""

    link: Link
    lies: Lies
    remote: str = "memory"
    held: list[tuple[float, Frame]] = attrs.field(factory=list)

    def take_held(self) -> list[Frame]:
        due = [frame for at, frame in self.held if at <= trio.current_time()]
        self.held = [(at, frame) for at, frame in self.held if at > trio.current_time()]
        return due

    async def send(self, message: bytes) -> None:
        await self.link.send(message)

    async def receive(self) -> bytes:
        while True:
            frames = map(decode_frame, split_frames(await self.link.receive()))
            told = [each for frame in frames for each in self.lies.about(self, frame)]
            if told:
                return join_frames(map(encode_frame, told))

    async def aclose(self) -> None:
        self.lies.links.remove(self)
        await self.link.aclose()


@attrs.frozen
class Scene:
    net: Net
    lies: Lies
    server: Node
    alice: Node

    async def connect(self, url: str, nursery: trio.Nursery) -> Link:
        return await connecting(self.net, self.lies)(url, nursery)


def connecting(net: Net, lies: Lies) -> Callable[[str, trio.Nursery], Any]:
    async def connect(url: str, nursery: trio.Nursery) -> Link:
        link = LyingLink(await net.connect(url, nursery), lies)
        lies.links.append(link)
        return link

    return connect


@asynccontextmanager
async def open_scene(lies: Lies) -> AsyncGenerator[Scene]:
    async with open_net() as net:
        connect = connecting(net, lies)
        async with (
            net.node([Counter], connect=connect, publish=["counter"]) as server,
            net.node(connect=connect) as alice,
        ):
            alice.add_credential(server.issue(alice.identifier, team="payments"))
            yield Scene(net, lies, server, alice)


async def work(scene: Scene, done: Counts[str]) -> None:
    """Do a bit of everything, whatever comes of it: an ask, a durable message, a search, a start, an ask for nobody."""
    counter = scene.alice.ref(scene.server.address("counter"), Counter)
    for number in range(4):
        done["asked"] += 1
        with suppress(DeliveryError, trio.TooSlowError), trio.fail_after(4):
            await counter.ask(Add(1))
            done["answered"] += 1
        with suppress(DeliveryError, AutonomyError):
            await counter.tell(Note(str(number)), durable=True)
            done["stored"] += 1
        with suppress(LinkError):
            await scene.alice.find(anyone=True)
        with suppress(DeliveryError, trio.TooSlowError), trio.fail_after(4):
            await scene.alice.ref(FAR).ask(Add(1))
        with suppress(AutonomyError):
            async with scene.net.node(connect=scene.connect, now=virtual_now):
                pass
    await trio.sleep(LYING)


HOW: Final = ("dropped", "duplicated", "replayed", "reordered", "delayed", "sent to another node", "forged")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", [Hello, Welcome, Deliver, Nack, Stored, Records, Ping, Pong])
async def test_a_frame_that_is_forged_lost_repeated_late_or_anothers_does_no_harm_that_lasts(
    kind: type[Frame], how: str, autojump_clock: object
) -> None:
    lies, done = Lies(kind, how), Counts[str]()
    async with open_scene(lies) as scene:
        counter = scene.alice.ref(scene.server.address("counter"), Counter)
        assert await counter.ask(Add(100)) == Total(100)
        lies.is_lying = True
        await work(scene, done)
        lies.is_lying = False
        assert lies.told, f"no {kind.__name__} came that could be lied about"
        for link in list(lies.links):
            await link.link.aclose()  # what a relay says that it has handed over comes again on the next connection
        await trio.sleep(60)
        # All is well again; nothing ran twice, and nothing that was said to be done is not.
        with trio.fail_after(30):
            total = (await counter.ask(Add(0))).value - 100
            notes = await counter.ask(Notes())
        assert done["answered"] <= total <= done["asked"]
        assert len(set(notes)) == len(notes)
        if (kind, how) != (Stored, "forged"):
            assert len(notes) >= done["stored"]
        assert [found.address for found in await scene.alice.find(anyone=True)] == [scene.server.address("counter")]
        assert scene.server.statistics().relays == scene.alice.statistics().relays == 1
