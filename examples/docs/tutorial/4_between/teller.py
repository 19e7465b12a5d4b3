import sys

import trio
from bank import Account, Deposit, Statement

from autonomy_trio import open_node


async def main(account: str) -> None:
    async with open_node(home="teller") as node:
        ref = node.ref(account, Account)
        with trio.fail_after(10):
            balance = await ref.ask(Deposit(10))
        print(f"the balance is {balance.amount}")
        async with ref.stream(Statement()) as entries:
            async for entry in entries:
                print(f"{entry.amount} by {entry.by}")


trio.run(main, sys.argv[1])
