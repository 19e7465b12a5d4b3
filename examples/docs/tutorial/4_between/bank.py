from collections import deque
from collections.abc import AsyncGenerator

from attrs import field, frozen

from autonomy_trio import Context, Request, Stream, agent, on

TELLERS = 'principal.role == "teller"'


@frozen
class Balance:
    amount: int


@frozen
class Deposit(Request[Balance]):
    amount: int


@frozen
class Entry:
    amount: int
    by: str


@frozen
class Statement(Stream[Entry]):
    pass


@agent
class Account:
    balance: int = 0
    entries: deque[Entry] = field(factory=lambda: deque[Entry](maxlen=100))

    @on(Deposit, allow=TELLERS)
    async def deposit(self, message: Deposit, context: Context) -> Balance:
        self.balance += message.amount
        self.entries.append(Entry(message.amount, context.sender.id))
        context.log.info("deposited", amount=message.amount)
        return Balance(self.balance)

    @on(Statement, allow=TELLERS)
    async def statement(self, message: Statement) -> AsyncGenerator[Entry]:
        for entry in list(self.entries):
            yield entry


agents = [Account]
