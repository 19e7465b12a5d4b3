from attrs import frozen

from autonomy_trio import Request, agent, on


@frozen
class Deposit(Request[int]):
    amount: int


@frozen
class Withdraw(Request[int]):
    amount: int


@frozen
class Close(Request[None]):
    pass


@agent
class Account:
    balance: int = 0

    @on(Deposit, allow='principal.team == "payments"')
    async def deposit(self, message: Deposit) -> int:
        self.balance += message.amount
        return self.balance

    @on(Withdraw, allow='principal.team == "payments" && context.message.amount <= 1000')
    async def withdraw(self, message: Withdraw) -> int:
        self.balance -= message.amount
        return self.balance

    @on(Close)
    async def close(self, message: Close) -> None:
        self.balance = 0


agents = [Account]
