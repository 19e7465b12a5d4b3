"""Accounts in a database: money moves whole or not at all, whatever fails."""

import tempfile
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

from autonomy_trio import Context, Request, agent, on, open_node, pool
from autonomy_trio.connect.sql import Sql
from autonomy_trio.errors import DatastoreRefused, ReplyError


@frozen
class Move(Request[int]):
    payer: str
    payee: str
    amount: int


@frozen
class NotEnough(ReplyError):
    payer: str


@agent
class Bank:
    database: Sql

    async def on_start(self, context: Context) -> None:
        await context.start(self.database.serve)

    @on(Move, raises=(NotEnough,))
    async def move(self, message: Move) -> int:
        try:
            async with self.database.transaction() as transaction:
                change = "UPDATE account SET balance = balance + ? WHERE name = ?"
                await transaction.execute(change, message.amount, message.payee)
                await transaction.execute(change, -message.amount, message.payer)
        except DatastoreRefused as error:
            if error.code == "SQLITE_CONSTRAINT_CHECK":
                raise NotEnough(message.payer) from None
            raise
        rows = await self.database.query("SELECT balance FROM account WHERE name = ?", message.payer)
        return int(rows[0]["balance"])


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = Sql(f"sqlite:{Path(folder) / 'bank.db'}")
        async with database:
            await database.execute("CREATE TABLE account (name TEXT PRIMARY KEY, balance INTEGER CHECK (balance >= 0))")
            await database.execute("INSERT INTO account VALUES ('ann', 100), ('bob', 0)")
        async with open_node() as node:
            bank = node.spawn(pool(partial(Bank, database), 2), "bank")
            print("ann has", await bank.ask(Move("ann", "bob", 70)))
            try:
                await bank.ask(Move("ann", "bob", 70))
            except NotEnough as refused:
                print(f"{refused.payer} has not enough, and bob got nothing:")
            print("bob has", await bank.ask(Move("bob", "ann", 0)))


if __name__ == "__main__":
    trio.run(main)
