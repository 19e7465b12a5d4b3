from attrs import frozen

from autonomy_trio import Context, Request, agent, on


@frozen
class SwitchOn(Request[None]):
    pass


@frozen
class SwitchOff:
    pass


@frozen
class IsLit(Request[bool]):
    pass


@frozen
class Used:
    seconds: int


@agent
class Lamp:
    """Goes out after a minute, and tells the meter."""

    is_lit: bool = False

    @on(SwitchOn)
    async def switch_on(self, message: SwitchOn, context: Context) -> None:
        self.is_lit = True
        context.after(60, SwitchOff())

    @on(SwitchOff)
    async def switch_off(self, message: SwitchOff, context: Context) -> None:
        self.is_lit = False
        await context.ref("meter").tell(Used(60))

    @on(IsLit)
    async def answer(self, message: IsLit) -> bool:
        return self.is_lit
