from attrs import frozen

from autonomy_trio import Request, agent, on


@frozen
class Balance:
    amount: int


@frozen
class Deposit(Request[Balance]):
    amount: int


@agent
class Account:
    balance: int = 0

    @on(Deposit)
    async def deposit(self, message: Deposit) -> Balance:
        self.balance += message.amount
        return Balance(self.balance)


agents = [Account]
