"""Beanie on Sluice's pool: every operation of its documents goes through the turnstile.

Needs beanie and sluice-mongodb.
"""

import asyncio
import os
from typing import Annotated

from beanie import Document, Indexed, init_beanie
from pymongo.asynchronous.client_session import AsyncClientSession

from sluice import Options, Sluice, statistics

OPTIONS = Options(url=os.environ.get("MONGODB_URL", "mongodb://localhost:27017"), database="shop", max_pool_size=4)


class Account(Document):
    owner: Annotated[str, Indexed(unique=True)]
    balance: int = 0


async def transfer(sluice: Sluice, giver: Account, taker: Account, amount: int) -> None:
    """Both accounts change, or neither."""

    async def move(session: AsyncClientSession) -> None:
        await giver.inc({Account.balance: -amount}, session=session)
        await taker.inc({Account.balance: amount}, session=session)

    await sluice.with_transaction(move)


async def main() -> None:
    async with Sluice(OPTIONS) as sluice:
        await init_beanie(sluice.database, document_models=[Account])
        await Account.find_all().delete()
        accounts = [Account(owner=f"owner {number}", balance=100) for number in range(16)]
        await asyncio.gather(*(account.insert() for account in accounts))  # sharing 4 connections
        await transfer(sluice, accounts[0], accounts[1], 30)
        richest = await Account.find(Account.balance > 100).to_list()
        pool = statistics.summarize([sluice.snapshot()]).pool
    print(f"{[(account.owner, account.balance) for account in richest]}")
    print(f"{pool.use_time.count} uses of {pool.total_created} connections in all runs")


if __name__ == "__main__":
    asyncio.run(main())
