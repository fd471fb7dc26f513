"""Refusals on their way to the log, off the request path: written once a second, above a rate counted only."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from redis.exceptions import RedisError
from structlog.stdlib import BoundLogger

from core.errors import INTERNAL, PlatformError
from core.meter.refusals import RefusalEvent, RefusalLog
from gateway.principal import Principal

FLUSH_S = 1.0
REFUSALS_PER_S = 100
BUFFERED_MAX = 5_000


@dataclass(slots=True)
class _Of:
    """One organisation's refusals since the last flush."""

    kept: list[RefusalEvent] = field(default_factory=list)
    left_out: int = 0


class RefusalBuffer:
    """Holds at most REFUSALS_PER_S of each organisation and BUFFERED_MAX in all, but at least one of each, which
    carries the number of those left out.
    """

    def __init__(self, log: RefusalLog, logger: BoundLogger) -> None:
        self._log = log
        self._logger = logger
        self._by_organisation: dict[str, _Of] = {}
        self._buffered = 0

    def note(self, event: RefusalEvent) -> None:
        """Costs about a microsecond; never waits, never fails."""
        of = self._by_organisation.get(event.organisation)
        if of is None:
            of = self._by_organisation[event.organisation] = _Of()
        full = len(of.kept) >= REFUSALS_PER_S or self._buffered >= BUFFERED_MAX
        if of.kept and full:
            of.left_out += 1 + event.left_out
        else:
            of.kept.append(event)
            self._buffered += 1

    def note_error(
        self, error: PlatformError, request_id: str, route: str, who: Principal | None, tier: str, now_ms: int
    ) -> None:
        """Remember why a request was refused; our own failures are in the log of the process instead."""
        refusal = error.refusal
        if refusal is None and error.kind.status >= INTERNAL.status:
            return
        self.note(
            RefusalEvent(
                request_id=request_id,
                organisation="" if who is None else who.organisation,
                workspace="" if who is None else who.workspace,
                key_id="" if who is None else who.key_id,
                route=route,
                tier=tier,
                status=error.kind.status,
                code=error.kind.code or error.kind.type,
                rule="" if refusal is None else refusal.rule,
                scope="" if refusal is None else refusal.scope,
                limit=0 if refusal is None else refusal.limit,
                remaining=0 if refusal is None else refusal.remaining,
                at_ms=now_ms,
                retry_after_s=error.retry_after_s,
            )
        )

    async def run(self) -> None:
        """Flush once a second, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted. Where Redis is away it stays noted, within the same bounds."""
        events = list(self._drained())
        try:
            await self._log.append(events)
        except (RedisError, OSError) as error:
            self._logger.warning("refusals_wait", error=f"{type(error).__name__}: {error}")
            for event in events:
                self.note(event)

    def _drained(self) -> Iterator[RefusalEvent]:
        noted, self._by_organisation, self._buffered = self._by_organisation, {}, 0
        for of in noted.values():
            yield from of.kept[:-1]
            last = of.kept[-1]
            yield replace(last, left_out=last.left_out + of.left_out)
