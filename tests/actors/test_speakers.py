"""Who a message is from: the agent whose code sends it, whatever becomes of that agent's task meanwhile."""

import trio
from attrs import field, frozen

from autonomy_trio import AgentRef, Context, Request, agent, on
from autonomy_trio.actors.runtime import open_runtime


@frozen
class Note:
    text: str


@frozen
class Leave(Request[None]):
    """Leave a task behind, in a nursery that is not the agent's."""


@frozen
class Ping(Request[None]):
    pass


@agent
class Hearer:
    heard: list[tuple[str, str]] = field(factory=list[tuple[str, str]])

    @on(Note)
    def note(self, message: Note, context: Context) -> None:
        self.heard.append((context.sender.id, message.text))


@agent(idle_after=1)
class Leaver:
    nursery: trio.Nursery
    to: AgentRef[Hearer]

    @on(Leave)
    async def leave(self, message: Leave) -> None:
        self.nursery.start_soon(self.later)

    async def later(self) -> None:
        await trio.sleep(10)
        await self.to.tell(Note("at rest"))
        await trio.sleep(10)
        await self.to.tell(Note("ended"))


@agent(idle_after=1)
class Other:
    @on(Ping)
    async def ping(self, message: Ping) -> None:
        await trio.lowlevel.checkpoint()


async def test_what_a_task_left_behind_sends_is_from_its_agent_and_never_from_another(autojump_clock: object) -> None:
    heard: list[tuple[str, str]] = []
    async with open_runtime() as runtime, trio.open_nursery() as nursery:
        hearer = runtime.spawn(lambda: Hearer(heard))
        leaver = runtime.spawn(lambda: Leaver(nursery, hearer))
        await leaver.ask(Leave())
        await trio.sleep(5)
        other = runtime.spawn(Other)
        await other.ask(Ping())  # it takes the crew over that the leaver gave back
        await trio.sleep(10)
        other.stop()
        leaver.stop()
    assert heard == [("leaver", "at rest"), ("leaver", "ended")]
