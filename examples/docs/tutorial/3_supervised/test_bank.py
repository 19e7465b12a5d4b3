import pytest
from bank import Account, Balance, Deposit, Share, agents

from autonomy_trio.errors import HandlerFailed
from autonomy_trio.testing import open_test_node


async def test_the_balance_outlives_a_failure_of_the_account() -> None:
    async with open_test_node(agents, expected=ZeroDivisionError) as node:
        account = node.ref("account", Account)
        await account.ask(Deposit(6))
        with pytest.raises(HandlerFailed):
            await account.ask(Share(heirs=0))
        assert await account.ask(Deposit(1)) == Balance(7)
