"""What type checkers must keep refusing of `autonomy_trio.testing`."""

from attrs import frozen

from autonomy_trio import Request, Stream
from autonomy_trio.testing import Probe, TestNode


@frozen
class Total:
    value: int


@frozen
class Add(Request[Total]):
    amount: int


@frozen
class Watch(Stream[int]):
    pass


@frozen
class Note:
    text: str


async def probes(probe: Probe) -> None:
    probe.on(Add).reply(3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    probe.on(Watch).reply("1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    probe.on(Note)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
    note: Total = await probe.receive(Note)  # type: ignore[arg-type] # pyright: ignore[reportAssignmentType]
    del note


def injections(node: TestNode) -> None:
    node.fail_next(node.ref("counter"), ValueError)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
