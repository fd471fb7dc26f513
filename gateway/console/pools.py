"""Pools, for operators: who works, what waits, how fast it goes; drain and resume; dead letters."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.responses import Response

from core.errors import NOT_FOUND, UNAVAILABLE, PlatformError
from core.pools import LETTERS_READ_MAX
from gateway.accounts.trail import Target, record
from gateway.console.desk import Changed, Console
from gateway.console.entrance import Fields, NoFields
from gateway.console.listing import answer_table
from gateway.console.live import Parts
from gateway.console.pool_view import LETTER_COLUMNS, PoolView
from gateway.console.table import Column, Table, TableAsked, make_table
from gateway.console.visitor import Visitor
from gateway.desk import QUEUE_AWAY

PATH = "/console/operator/pools"
ANSWER_S = 5.0
WORKER_COLUMNS = (
    Column("worker", "Worker", "cell", lambda row: row["worker"]),
    Column("tier", "Tier"),
    Column("slots", "Slots", "number"),
    Column("held", "Busy", "number"),
    Column("lease_s", "Lease left", "number", unit="s"),
    Column("state", "State", "cell", lambda row: row["state"]),
    Column("actions", "", "cell", lambda _: "", sortable=False),
)


class PoolsAsked(TableAsked):
    """`about`: the table that sort, filter and page mean."""

    about: str = Field(default="workers", pattern="^(workers|letters)$")


class WorkerForm(Fields):
    """Without a worker the whole tier is meant."""

    worker: str = Field(default="", max_length=128)


def pools_router(console: Console) -> APIRouter:
    router, work = console.router(), _Pools(console)

    @router.get("/operator/pools")
    async def show(request: Request, asked: Annotated[PoolsAsked, Query()]) -> Response:
        visitor = await console.operator(request)
        view = await work.view.read()
        letters = await work.view.letters()
        workers = work.workers(view.workers, asked)
        dead = _table("letters", LETTER_COLUMNS, letters, asked)
        context = {"view": view, "letters": dead, "letters_max": LETTERS_READ_MAX, "stream": _stream(workers)}
        table = dead if asked.format == "csv" and asked.about == "letters" else workers
        return await answer_table(console, request, "pages/pools.html", table, visitor=visitor, context=context)

    @router.get("/operator/pools/live")
    async def live(request: Request) -> Response:
        await console.operator(request)

        async def parts() -> Parts:
            visitor = await console.operator(request)
            context = {"view": await work.view.read()}
            return {"tiers": await console.fragment(request, "parts/pools_tiers.html", context, visitor=visitor)}

        return console.live.response(parts)

    @router.get("/operator/pools/live/workers")
    async def live_workers(request: Request, asked: Annotated[PoolsAsked, Query()]) -> Response:
        await console.operator(request)

        async def parts() -> Parts:
            visitor = await console.operator(request)
            context = {"table": work.workers((await work.view.read()).workers, asked)}
            return {"rows": await console.fragment(request, "parts/pools_workers.html", context, visitor=visitor)}

        return console.live.response(parts)

    @router.post("/operator/pools/{tier}/{verb}")
    async def switch(request: Request, tier: str, verb: str) -> Response:
        visitor = await console.operator(request)
        asked = await console.form(request, visitor, WorkerForm)
        if tier not in work.view.tiers or verb not in {"drain", "resume"}:
            raise PlatformError(NOT_FOUND, "There is no such pool.")
        pools = console.services.pools
        change = pools.drain if verb == "drain" else pools.resume
        target = Target("pool", f"{tier}/{asked.worker}" if asked.worker else tier)
        await work.act(visitor, verb, target, lambda: change(tier, asked.worker))
        name = asked.worker or f"The tier {tier}"
        said = "takes nothing more; what it holds goes on." if verb == "drain" else "takes work again."
        return console.done(request, PATH, f"{name} {said}")

    _letters(router, console, work)
    return router


def _letters(router: APIRouter, console: Console, work: "_Pools") -> None:
    @router.post("/operator/pools/letters/{letter}/{verb}")
    async def letter(request: Request, letter: str, verb: str) -> Response:
        visitor = await console.operator(request)
        await console.form(request, visitor, NoFields)
        services = console.services
        target = Target("dead_letter", letter[:64])
        if verb == "drop":
            await work.act(visitor, verb, target, lambda: services.pools.drop(letter))
            return console.done(request, PATH, "The dead letter is gone.")
        if verb != "requeue":
            raise PlatformError(NOT_FOUND, "There is no such page.")
        request_id = services.ids.request_id(services.settings.cell)
        await work.act(visitor, verb, target, lambda: services.pools.requeue(letter, request_id))
        return console.done(request, PATH, f"It runs once more, as {request_id}.")


class _Pools:
    def __init__(self, console: Console) -> None:
        self._console = console
        self.view = PoolView(console)

    def workers(self, rows: Any, asked: PoolsAsked) -> Table:
        return _table("workers", WORKER_COLUMNS, rows, asked)

    async def act(self, visitor: Visitor, verb: str, target: Target, change: Callable[[], Awaitable[bool]]) -> None:
        """Noted in the audit log and done, or neither. Raises PlatformError (NOT_FOUND, UNAVAILABLE)."""
        loop, clock = asyncio.get_running_loop(), self._console.services.clock

        async def ask() -> bool:
            return await change()

        def run(session: Session) -> Changed[None]:
            record(session, visitor.actor, f"{target.kind}.{verb}", target, organisation="", now_ms=clock.now_ms())
            if not asyncio.run_coroutine_threadsafe(ask(), loop).result(ANSWER_S):
                raise PlatformError(NOT_FOUND, "It is not there any more: look at the page again.")
            return None, ()

        try:
            await self._console.change(run)
        except (*QUEUE_AWAY, TimeoutError) as error:
            raise PlatformError(UNAVAILABLE, "Redis does not answer at the moment.", retry_after_s=2) from error


def _table(name: str, columns: Any, rows: Any, asked: PoolsAsked) -> Table:
    mine = asked if asked.about == name else TableAsked()
    return make_table(name, PATH, columns, rows, mine, {"about": name})


def _stream(table: Table) -> str:
    """Of the same rows."""
    return table.link().replace(PATH, f"{PATH}/live/workers", 1)
