import pytest
from bank import Account, Balance, Deposit, Insufficient, Withdraw

from autonomy_trio.testing import open_test_node


async def test_what_is_deposited_can_be_withdrawn() -> None:
    async with open_test_node() as node:
        account = node.spawn(Account)
        await account.ask(Deposit(5))
        assert await account.ask(Withdraw(3)) == Balance(2)


async def test_an_account_is_never_overdrawn() -> None:
    async with open_test_node() as node:
        account = node.spawn(Account)
        with pytest.raises(Insufficient) as refused:
            await account.ask(Withdraw(1))
        assert refused.value.balance == 0
        assert await account.ask(Deposit(1)) == Balance(1)
