"""The pools over the broker."""

from collections.abc import Sequence

from core.clock import Clock
from core.pools import LETTERS_READ_MAX, DeadLetter, PoolLine, PoolOverview, WorkerLine, rerun
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.tier import TierQueue


class MemoryPools:
    def __init__(self, broker: MemoryBroker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock

    async def overview(self, tiers: Sequence[str]) -> PoolOverview:
        now_ms = self._clock.now_ms()
        lines = {name: _line(name, self._broker.tier(name), now_ms) for name in tiers}
        return PoolOverview(lines, len(self._broker.letters))

    async def drain(self, tier: str, worker_id: str = "") -> bool:
        return self._set(tier, worker_id, drained=True)

    async def resume(self, tier: str, worker_id: str = "") -> bool:
        return self._set(tier, worker_id, drained=False)

    async def dead_letters(self, count: int) -> list[DeadLetter]:
        youngest = list(reversed(self._broker.letters.values()))[: min(count, LETTERS_READ_MAX)]
        return [
            DeadLetter(
                record.request_id,
                record.request_id,
                record.job.tier,
                record.job.organisation,
                record.job.workspace,
                record.lost_ms,
                runnable=True,
            )
            for record in youngest
        ]

    async def requeue(self, letter_id: str, request_id: str) -> bool:
        record = self._broker.letters.get(letter_id)
        if record is None:
            return False
        self._broker.requeue(letter_id, rerun(record.job, request_id, self._clock.now_ms()))
        return True

    async def drop(self, letter_id: str) -> bool:
        return self._broker.letters.pop(letter_id, None) is not None

    async def close(self) -> None: ...

    def _set(self, tier_name: str, worker_id: str, *, drained: bool) -> bool:
        tier = self._broker.tier(tier_name)
        if not worker_id:
            tier.drained = drained
        elif worker_id in tier.workers:
            tier.workers[worker_id].drained = drained
        else:
            return False
        tier.bell.ring()
        return True


def _line(name: str, tier: TierQueue, now_ms: int) -> PoolLine:
    workers = [
        WorkerLine(
            worker.worker_id,
            worker.slots,
            len(worker.held),
            max(0, worker.lease_until_ms - now_ms),
            worker.drained,
        )
        for worker in sorted(tier.workers.values(), key=lambda worker: worker.worker_id)
    ]
    return PoolLine(
        name, tier.drained, tier.queued, tier.running, tier.oldest_wait_ms(now_ms), tier.wait_ms(), tuple(workers)
    )
