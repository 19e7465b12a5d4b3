from attrs import frozen

from autonomy_trio import Context, Request, agent, on
from autonomy_trio.errors import ReplyError

TELLERS = 'principal.role == "teller"'


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


@agent
class Account:
    balance: int = 0

    @on(Deposit, allow=TELLERS)
    async def deposit(self, message: Deposit, context: Context) -> Balance:
        self.balance += message.amount
        context.log.info("deposited", amount=message.amount, by=context.sender.id)
        return Balance(self.balance)

    @on(Withdraw, allow=TELLERS, raises=(Insufficient,))
    async def withdraw(self, message: Withdraw) -> Balance:
        if message.amount > self.balance:
            raise Insufficient(self.balance)
        self.balance -= message.amount
        return Balance(self.balance)


agents = [Account]
