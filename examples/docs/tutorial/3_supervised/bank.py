from attrs import field, frozen

from autonomy_trio import Context, Request, agent, on, supervise
from autonomy_trio.errors import ReplyError

TELLERS = 'principal.role == "teller"'


@frozen
class Entry:
    amount: int


@frozen
class Total(Request[int]):
    pass


@agent
class Ledger:
    amounts: list[int] = field(factory=list)

    @on(Entry)
    async def enter(self, message: Entry) -> None:
        self.amounts.append(message.amount)

    @on(Total)
    async def total(self, message: Total) -> int:
        return sum(self.amounts)


@frozen
class Balance:
    amount: int


@frozen
class Deposit(Request[Balance]):
    amount: int


@frozen
class Withdraw(Request[Balance]):
    amount: int


@frozen
class Insufficient(ReplyError):
    balance: int


@frozen
class Share(Request[int]):
    heirs: int


@agent
class Account:
    balance: int = 0

    async def on_start(self, context: Context) -> None:
        self.balance = await context.ref("ledger", Ledger).ask(Total())

    @on(Deposit, allow=TELLERS)
    async def deposit(self, message: Deposit, context: Context) -> Balance:
        return await self.move(message.amount, context)

    @on(Withdraw, allow=TELLERS, raises=(Insufficient,))
    async def withdraw(self, message: Withdraw, context: Context) -> Balance:
        if message.amount > self.balance:
            raise Insufficient(self.balance)
        return await self.move(-message.amount, context)

    @on(Share, allow=TELLERS)
    async def share(self, message: Share) -> int:
        return self.balance // message.heirs

    async def move(self, amount: int, context: Context) -> Balance:
        await context.ref("ledger", Ledger).tell(Entry(amount))
        self.balance += amount
        return Balance(self.balance)


agents = [supervise(Ledger, Account, strategy="rest_for_one")]
