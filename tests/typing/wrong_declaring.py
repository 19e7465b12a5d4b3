"""What type checkers must refuse where agents are declared; a handler is refused in its line of ``@on``."""

from collections.abc import AsyncIterator
from typing import Literal

from autonomy_trio import AgentRef, Context, Down, Mailbox, agent, message, on
from autonomy_trio.errors import Denied
from tests.typing.vocabulary import (
    Add,
    Client,
    Closed,
    Counter,
    Find,
    Insufficient,
    Note,
    Reset,
    Total,
    Watch,
)


class Messages:
    """Handlers of another message than their ``@on`` says."""

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def another(self, message: Note) -> Total:
        return Total(0)

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def another_plain(self, message: Find, context: Context) -> Total:
        return Total(0)

    @on(Note)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def a_request(self, message: Add) -> None:
        pass

    @on(Watch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def another_stream(self, message: Add) -> AsyncIterator[Total]:
        yield Total(0)

    @on(Down)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def down(self, message: Note) -> None:
        pass


class Parameters:
    """Handlers that cannot be called with a message, or with a message and the context."""

    @on(Note)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def no_message(self) -> None:
        pass

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def more(self, message: Add, context: Context, more: int) -> Total:
        return Total(more)

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def another_context(self, message: Add, context: int) -> Total:
        return Total(context)

    @on(Note)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def no_context(self, message: Note, context: AgentRef[Counter]) -> None:
        pass

    @on(Watch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def a_stream(self, message: Watch, context: int) -> AsyncIterator[Total]:
        yield Total(context)

    @on(Note)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def by_name(self, message: Note, *, context: Context) -> None:
        pass


class Replies:
    """Handlers that answer with another type than their message declares."""

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def another(self, message: Add) -> Note:
        return Note("")

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def another_plain(self, message: Add) -> int:
        return 0

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def nothing(self, message: Add) -> None:
        pass

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def perhaps(self, message: Add, context: Context) -> Total | None:
        return None

    @on(Reset)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def too_much(self, message: Reset) -> Total:
        return Total(0)

    @on(Add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def generator(self, message: Add) -> AsyncIterator[Total]:
        yield Total(0)

    @on(Add, raises=Insufficient)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def returned_error(self, message: Add) -> Insufficient:
        return Insufficient(3)

    @on(Add)
    async def body(self, message: Add) -> Total:
        return message.amount  # type: ignore[return-value] # pyright: ignore[reportReturnType]


class Items:
    """Handlers that stream something else than their message declares."""

    @on(Watch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def another(self, message: Watch) -> AsyncIterator[int]:
        yield 1

    @on(Watch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    async def no_generator(self, message: Watch) -> Total:
        return Total(0)

    @on(Watch)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
    def all_at_once(self, message: Watch) -> list[Total]:
        return []

    @on(Watch)
    async def body(self, message: Watch) -> AsyncIterator[Total]:
        yield 1  # type: ignore[misc] # pyright: ignore[reportReturnType]


@on(3)  # type: ignore[call-overload, untyped-decorator] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def no_class(self: Counter, message: int) -> None:
    pass


@on(Add(3))  # type: ignore[call-overload, untyped-decorator] # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def an_instance(self: Counter, message: Add) -> Total:
    return Total(0)


def options() -> None:
    on(Add, allow=True)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    on(Add, "principal.team == 'payments'")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    on(Add, allowed="principal.team == 'payments'")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    on(Add, raises=ValueError)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
    on(Add, raises=Denied)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
    on(Add, raises=(Insufficient, ValueError))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue]
    on(Add, raises=[Insufficient, Closed])  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    on(Add, raises=Insufficient(3))  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
    on()  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
    message("shop.Note")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    message(name=3)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


@agent(restart="always")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
class Restarted:
    pass


@agent(mailbox=64)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
class Queued:
    pass


@agent(concurrency="4")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
class Concurrent:
    pass


@agent(idle_after=None)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
class Idle:
    pass


@agent(name="counter")  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportUntypedClassDecorator]
class Named:
    pass


@agent
class OwnInit:
    def __init__(self, counter: AgentRef[Counter], *, times: int = 1) -> None:
        self.counter = counter
        self.times = times


@agent
class Derived(Counter):
    bonus: int = 1


@agent
class Late:
    total: int = 0
    name: str  # type: ignore[misc] # pyright: ignore[reportGeneralTypeIssues]


def constructors(client: AgentRef[Client], counter: AgentRef[Counter]) -> None:
    Counter("3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Counter(3, [], 4)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Counter(amount=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Counter(notes="a")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Client()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Client(client)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Client(counter, 3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    OwnInit(counter, 3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    OwnInit(times=3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Derived(bonus="1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Derived(0, [], 1, 2)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    assert Counter().missing  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    Counter().total = "3"  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]


def mailboxes() -> None:
    Mailbox("64")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Mailbox(64, "drop")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Mailbox(64, "block", 3)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Mailbox(size=64)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Mailbox().capacity = 3  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def down(message: Down) -> None:
    reason: Literal["gone"] = message.reason  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    del reason
    message.ref = message.ref  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    assert message.agent  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
