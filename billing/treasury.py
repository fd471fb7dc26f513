"""Credit between SQL and Redis: blocks lent to a cell, taken back when they lie idle, closed with their epoch.

What Redis can spend is held in SQL before Redis hears of it, so a loss of Redis can never be a loss of ours twice: its
epoch ends, its holds stay until the youngest of its requests must be over, and only then are they free again. Each
transfer has an id that both sides remember; whatever failed half way is repeated by `sweep`.
"""

import asyncio
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from billing.accounts import Available, CreditHold, available, hold, lock_account, release
from billing.epochs import EpochRow, LastEpoch, begin_epoch, confirm_epoch, due_epochs, last_epoch
from billing.transfers import CreditTransfer
from core.clock import Clock
from core.db import Database
from core.ids import IdSource
from core.meter.credit import CreditStore

GIFT, RETURN = "gift", "return"
ASKED, HELD, DONE, VOID = "asked", "held", "done", "void"
EPOCH_TRIES = 5
_ID_BYTES = 12


class EpochNotOpenError(Exception):
    """Redis was restarted or wiped, and the next epoch does not stand yet."""


@dataclass(frozen=True, slots=True)
class TreasurySettings:
    """`block_parts`: a block is at most one part of so many of what is available. `closing_ms`: how long after its end
    an epoch keeps its holds, the longest request and some slack. `pending_ms`: a transfer this old was interrupted.
    """

    block_parts: int = 10
    closing_ms: int = 960_000
    pending_ms: int = 5_000
    pending_max: int = 500


@dataclass(frozen=True, slots=True)
class Lent:
    """What came of asking: `given_nano` went to Redis now, `level_nano` is free there with it. `moving_nano` is on its
    way between SQL and Redis; `held_before_nano` is held by epochs that are not closed yet, and may come back.
    """

    given_nano: int
    level_nano: int
    reserved_nano: int
    account: Available
    moving_nano: int
    held_before_nano: int

    @property
    def free_nano(self) -> int:
        """What a request can have as soon as nothing is on its way any more."""
        return self.account.available_nano + self.level_nano + self.moving_nano

    @property
    def balance_nano(self) -> int:
        """What the organisation has left, open reservations included."""
        return self.free_nano + self.reserved_nano


@dataclass(frozen=True, slots=True)
class _Held:
    """What `lend` found in SQL and set aside there; 0 where nothing is missing or too little is left."""

    amount_nano: int
    account: Available
    moving_nano: int
    before_nano: int


class Treasury:
    """Used by gateways (a request needs credit), the collector (running requests, idle blocks) and the sweep. Only a
    gateway opens an epoch: before that it tells Redis the generations, so that no key revives.
    """

    def __init__(
        self,
        database: Database,
        store: CreditStore,
        clock: Clock,
        ids: IdSource,
        settings: TreasurySettings | None = None,
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._ids = ids
        self._settings = settings or TreasurySettings()

    async def ensure_epoch(self) -> int:
        """The number of the open epoch. One that is not open is begun in SQL, where one of many callers wins, then in
        Redis. Raises EpochNotOpenError when Redis was restarted meanwhile: ask again.
        """
        known = await self._store.epoch()
        for _ in range(EPOCH_TRIES):
            if known.is_open:
                return known.number
            seen = await asyncio.to_thread(self._last_epoch)
            known = await self._store.epoch()  # after what SQL says: one that is opened there was opened here before
            if known.is_open:
                return known.number
            number = await asyncio.to_thread(self._begin_epoch, seen, known.number)
            if number is not None and await self._store.open_epoch(number):
                await asyncio.to_thread(self._confirm_epoch, number)
                return number
            known = await self._store.epoch()
        raise EpochNotOpenError

    async def lend(self, organisation: str, needed_nano: int, least_nano: int | None = None) -> Lent:
        """Give the organisation's cell what is missing to `needed_nano`, or a whole block if that is more. Where the
        balance does not reach so far, all that is left, if that helps a request of `least_nano` (default: needed_nano).
        Nothing if it has enough. Raises EpochNotOpenError.
        """
        epoch = await self._open_epoch()
        level = await self._store.level(organisation)
        if level.epoch != epoch:
            raise EpochNotOpenError
        missing_nano = needed_nano - level.available_nano
        least_nano = missing_nano if least_nano is None else least_nano - level.available_nano
        transfer_id = self._ids.token(_ID_BYTES)
        found = await asyncio.to_thread(self._hold, transfer_id, organisation, epoch, missing_nano, least_nano)
        if found.amount_nano:
            if not await self._store.give(transfer_id, organisation, epoch, found.amount_nano):
                await asyncio.to_thread(self._void, transfer_id)
                raise EpochNotOpenError
            await asyncio.to_thread(self._done, transfer_id)
        # After SQL: a gift that was done there by then is seen here now. A return that began later was seen before.
        now = await self._store.level(organisation)
        if now.epoch != epoch:
            raise EpochNotOpenError
        return Lent(
            given_nano=found.amount_nano,
            level_nano=now.available_nano,
            reserved_nano=now.reserved_nano,
            account=found.account,
            moving_nano=found.moving_nano + max(0, level.available_nano + found.amount_nano - now.available_nano),
            held_before_nano=found.before_nano,
        )

    async def take_back(self, organisation: str, amount_nano_max: int) -> int:
        """Make free in SQL what lies idle in Redis; how much it was. Raises EpochNotOpenError."""
        epoch = await self._open_epoch()
        transfer_id = self._ids.token(_ID_BYTES)
        await asyncio.to_thread(self._ask_back, transfer_id, organisation, epoch, amount_nano_max)
        return await self._finish_return(transfer_id, organisation, epoch, amount_nano_max)

    async def sweep(self) -> int:
        """Repeat transfers that were interrupted, close epochs whose time is over. How many it dealt with."""
        closed = await asyncio.to_thread(self._close_epochs)
        known = await self._store.epoch()
        if not known.is_open:
            return closed
        pending = await asyncio.to_thread(self._pending)
        for transfer in pending:
            await self._resume(transfer, known.number)
        return closed + len(pending)

    async def _open_epoch(self) -> int:
        known = await self._store.epoch()
        if not known.is_open:
            raise EpochNotOpenError
        return known.number

    async def _resume(self, transfer: CreditTransfer, epoch: int) -> None:
        if transfer.epoch != epoch:
            await asyncio.to_thread(self._leave_to_epoch, transfer.id)
        elif transfer.kind == RETURN:
            await self._finish_return(transfer.id, transfer.organisation, epoch, transfer.amount_nano)
        elif await self._store.give(transfer.id, transfer.organisation, epoch, transfer.amount_nano):
            await asyncio.to_thread(self._done, transfer.id)

    async def _finish_return(self, transfer_id: str, organisation: str, epoch: int, amount_nano_max: int) -> int:
        taken_nano = await self._store.take_back(transfer_id, organisation, epoch, amount_nano_max)
        await asyncio.to_thread(self._taken, transfer_id, taken_nano)
        return taken_nano

    # SQL, each in one transaction

    def _last_epoch(self) -> LastEpoch:
        with self._database.reading() as session:
            return last_epoch(session)

    def _begin_epoch(self, seen: LastEpoch, known: int) -> int | None:
        with self._database.unit_of_work() as session:
            return begin_epoch(session, seen, known, self._clock.now_ms())

    def _confirm_epoch(self, number: int) -> None:
        with self._database.unit_of_work() as session:
            confirm_epoch(session, number, self._clock.now_ms())

    def _hold(self, transfer_id: str, organisation: str, epoch: int, missing_nano: int, least_nano: int) -> _Held:
        with self._database.unit_of_work() as session:
            confirm_epoch(session, epoch, self._clock.now_ms())  # an epoch that carries credit was opened for sure
            account = available(session, organisation)
            block_nano = account.available_nano // self._settings.block_parts
            amount_nano = min(max(missing_nano, block_nano), account.available_nano)
            wanted = missing_nano > 0 and amount_nano > 0 and amount_nano >= least_nano
            if not wanted or not hold(session, organisation, epoch, amount_nano):
                amount_nano = 0
            # Whoever holds or releases takes the same lock: nothing is left out of both figures.
            account = lock_account(session, organisation)
            moving_nano = _moving(session, organisation, epoch)
            if amount_nano:
                session.add(self._transfer(transfer_id, organisation, epoch, GIFT, amount_nano, HELD))
            before = select(CreditHold.held_nano).where(
                CreditHold.organisation == organisation, CreditHold.epoch != epoch
            )
            return _Held(amount_nano, account, moving_nano, sum(session.scalars(before)))

    def _ask_back(self, transfer_id: str, organisation: str, epoch: int, amount_nano_max: int) -> None:
        with self._database.unit_of_work() as session:
            session.add(self._transfer(transfer_id, organisation, epoch, RETURN, amount_nano_max, ASKED))

    def _transfer(
        self, transfer_id: str, organisation: str, epoch: int, kind: str, amount_nano: int, state: str
    ) -> CreditTransfer:
        return CreditTransfer(
            id=transfer_id,
            organisation=organisation,
            epoch=epoch,
            kind=kind,
            amount_nano=amount_nano,
            state=state,
            created_ms=self._clock.now_ms(),
            done_ms=None,
        )

    def _taken(self, transfer_id: str, taken_nano: int) -> None:
        with self._database.unit_of_work() as session:
            transfer = self._end(session, transfer_id, ASKED, DONE)
            if transfer is not None:
                transfer.amount_nano = taken_nano
                release(session, transfer.organisation, transfer.epoch, taken_nano)

    def _done(self, transfer_id: str) -> None:
        with self._database.unit_of_work() as session:
            self._end(session, transfer_id, HELD, DONE)

    def _void(self, transfer_id: str) -> None:
        """Redis has refused it for good: its epoch had ended before."""
        with self._database.unit_of_work() as session:
            transfer = self._end(session, transfer_id, HELD, VOID)
            if transfer is not None:
                release(session, transfer.organisation, transfer.epoch, transfer.amount_nano)

    def _leave_to_epoch(self, transfer_id: str) -> None:
        """Nobody can tell whether it arrived before its epoch ended: its hold ends with the epoch's."""
        with self._database.unit_of_work() as session:
            for state in (HELD, ASKED):
                self._end(session, transfer_id, state, VOID)

    def _end(self, session: Session, transfer_id: str, before: str, after: str) -> CreditTransfer | None:
        """Compare and set; None if somebody else was quicker."""
        changed = session.execute(
            update(CreditTransfer)
            .where(CreditTransfer.id == transfer_id, CreditTransfer.state == before)
            .values(state=after, done_ms=self._clock.now_ms())
            .returning(CreditTransfer.id)
        ).first()
        return None if changed is None else session.get_one(CreditTransfer, transfer_id, populate_existing=True)

    def _pending(self) -> list[CreditTransfer]:
        before_ms = self._clock.now_ms() - self._settings.pending_ms
        query = (
            select(CreditTransfer)
            .where(CreditTransfer.state.in_((HELD, ASKED)), CreditTransfer.created_ms < before_ms)
            .order_by(CreditTransfer.created_ms)
            .limit(self._settings.pending_max)
        )
        with self._database.reading() as session:
            return list(session.scalars(query))

    def _close_epochs(self) -> int:
        """What an ended epoch still holds was not used in time, or is lost in Redis: it is free again."""
        closed = 0
        with self._database.unit_of_work() as session:
            for row in due_epochs(session, self._clock.now_ms() - self._settings.closing_ms):
                self._close(session, row)
                closed += 1
        return closed

    def _close(self, session: Session, row: EpochRow) -> None:
        query = select(CreditHold).where(CreditHold.epoch == row.number).order_by(CreditHold.organisation)
        for left in list(session.scalars(query)):
            if left.held_nano:
                release(session, left.organisation, row.number, left.held_nano)
        row.closed_ms = self._clock.now_ms()


def _moving(session: Session, organisation: str, epoch: int) -> int:
    """Held and not yet seen to be in Redis, or asked back and not yet free here."""
    query = select(CreditTransfer.amount_nano).where(
        CreditTransfer.organisation == organisation,
        CreditTransfer.epoch == epoch,
        CreditTransfer.state.in_((HELD, ASKED)),
    )
    return sum(session.scalars(query))
