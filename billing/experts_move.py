"""Samples of chosen experts out of a cell's log into SQL."""

import asyncio

from billing.experts import last_taken_in, take_in
from core.db import Database
from core.experts import ExpertLog, ExpertSample

BATCH = 200


async def move_experts(database: Database, log: ExpertLog, cell: str) -> int:
    """Everything that is there now; how many samples. Interrupted anywhere, the next call goes on. Raises what the
    database and the log raise when they are away.
    """
    moved = 0
    after = await asyncio.to_thread(_after, database, cell)
    while entries := await log.read(after, BATCH):
        moved += await asyncio.to_thread(_take_in, database, cell, entries)
        after = entries[-1][0]
        await log.forget(after)
    return moved


def _after(database: Database, cell: str) -> str:
    with database.reading() as session:
        return last_taken_in(session, cell)


def _take_in(database: Database, cell: str, entries: list[tuple[str, ExpertSample]]) -> int:
    with database.unit_of_work() as session:
        return take_in(session, cell, entries)
