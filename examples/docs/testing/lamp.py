from attrs import frozen

from autonomy_trio import Context, Request, agent, on


@frozen
class SwitchOn(Request[None]):
    pass


@frozen
class SwitchOff:
    after: int


@frozen
class IsLit(Request[bool]):
    pass


@frozen
class Used:
    seconds: int


@frozen
class Budget(Request[int]):
    pass


@agent
class Lamp:
    """Is lit for as many seconds as the meter has left, and tells the meter."""

    is_lit: bool = False

    @on(SwitchOn)
    async def switch_on(self, message: SwitchOn, context: Context) -> None:
        seconds = await context.ref("meter").ask(Budget())
        if seconds:
            self.is_lit = True
            context.after(seconds, SwitchOff(seconds))

    @on(SwitchOff)
    async def switch_off(self, message: SwitchOff, context: Context) -> None:
        self.is_lit = False
        await context.ref("meter").tell(Used(message.after))

    @on(IsLit, allow="true")
    async def answer(self, message: IsLit) -> bool:
        return self.is_lit
