"""A loop over the echo engine and the queue in memory, with a submitter that answers as a gateway would."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Self

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from sentencepiece import SentencePieceProcessor

from core.catalog import Tier
from core.clock import SystemClock
from core.meter.usage import UsageEvent
from core.queue.base import (
    Admission,
    Admitted,
    Claim,
    Extended,
    Extension,
    Finish,
    Price,
    QueueSettings,
    Refused,
    Renewal,
    Repeated,
    Settlement,
    TierBounds,
    WorkerSlot,
)
from core.queue.loop import LoopSettings, WorkLoop
from core.queue.memory import (
    MemoryBroker,
    MemoryCreditStore,
    MemoryQueueKeeper,
    MemorySubmitterQueue,
    MemoryWorkerQueue,
)
from core.queue.observer import Observer
from core.queue.solo import SoloGate
from core.tokenizer_files import tokenizer_file
from core.wire import CHAT, End, Event, Job, Lost, Piece, Sampling
from workers.engines.echo import EchoEngine
from workers.generator import Generator
from workers.text import Vocabulary

TIER = "pool"
LEASE_MS = 6_000
WAIT_S = 20
QUICK = LoopSettings(renew_s=0.02, renew_full_s=0.02, take_wait_s=0.1, extend_pause_s=0.05)
FREE, NANO_PER_TOKEN = Price("1", 0, 0, 0), Price("1", 1_000, 1_000, 1_000)
VOCABULARY = Vocabulary.load("v1")
MODEL = SentencePieceProcessor(model_file=str(tokenizer_file("v1")))


class SteppedClock(SystemClock):
    """The system's, and further by what a test adds."""

    def __init__(self) -> None:
        self.added_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.added_ms


class Line:
    """Between loop and queue: can be cut, can lose the next answers, remembers what passed."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._queue = MemoryWorkerQueue(broker)
        self.cut = False
        self.answers_lost: set[str] = set()
        self.messages: list[tuple[str, list[Event]]] = []
        self.finishes: list[Finish] = []
        self.extensions: list[Extension] = []
        self.rooms: list[int] = []
        self.left: list[str] = []

    async def take(self, slot: WorkerSlot, room: int, wait_s: float) -> list[Job]:
        self._ask()
        self.rooms.append(room)
        jobs = await self._queue.take(slot, room, wait_s)
        return jobs if not jobs else self._answer("take", jobs)

    async def renew(self, slot: WorkerSlot) -> Renewal:
        self._ask()
        return await self._queue.renew(slot)

    async def send(self, replies: Mapping[str, Sequence[Event]]) -> frozenset[str]:
        self._ask()
        self.messages += [(submitter, list(events)) for submitter, events in replies.items()]
        return self._answer("send", await self._queue.send(replies))

    async def finish(self, finishes: Sequence[Finish]) -> list[Settlement]:
        self._ask()
        self.finishes += finishes
        return self._answer("finish", await self._queue.finish(finishes))

    async def extend(self, extensions: Sequence[Extension]) -> list[Extended]:
        self._ask()
        self.extensions += extensions
        return self._answer("extend", await self._queue.extend(extensions))

    async def leave(self, slot: WorkerSlot) -> None:
        self._ask()
        self.left.append(slot.worker_id)
        await self._queue.leave(slot)

    def _ask(self) -> None:
        if self.cut:
            raise RedisConnectionError("cut")

    def _answer(self, name, answer):
        if name in self.answers_lost:
            self.answers_lost.remove(name)
            raise RedisConnectionError(f"answer of {name} lost")
        return answer


class Bench:
    def __init__(self, *, slots: int = 8, loop: LoopSettings = QUICK, observer: Observer | None = None, **echo) -> None:
        self.clock = SteppedClock()
        bounds = {TIER: TierBounds(queue_jobs_max=1_000, pool_reserve=0.0)}
        self.broker = MemoryBroker(QueueSettings("c0", LEASE_MS, bounds), self.clock)
        self.keeper = MemoryQueueKeeper(self.broker)
        self.funds = MemoryCreditStore(self.broker)
        self.line = Line(self.broker)
        self.gateway = MemorySubmitterQueue(self.broker, "g1")
        self.log = structlog.get_logger()
        fields = {"name": TIER, "engine": "echo", "weights": "none", "context_tokens": 4_096, "price": {"input": "0"}}
        self.tier = Tier.model_validate({**fields, "echo": {"faults": True, **echo}})
        self.engine = EchoEngine(self.tier, "none", self.clock, self.log)
        self.executor = Generator(self.engine, VOCABULARY, self.log)
        self.gate = SoloGate()
        slot = WorkerSlot("w1", TIER, slots)
        self.loop = WorkLoop(self.line, self.executor, slot, loop, self.clock, self.log, observer, self.gate)
        self.events: dict[str, list[Event]] = defaultdict(list)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        assert await self.funds.open_epoch(1)
        await self.gateway.open()
        await self.executor.start()
        self._tasks = [asyncio.create_task(self.loop.run()), asyncio.create_task(self._listen())]
        return self

    async def __aexit__(self, *_error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.executor.close()

    @property
    def running(self) -> asyncio.Task[None]:
        """The task of the loop's run()."""
        return self._tasks[0]

    async def _listen(self) -> None:
        """Gather what arrives; have lost requests run again, as long as nothing of them was accepted."""
        while True:
            for event in await self.gateway.receive(1.0):
                self.events[event.request_id].append(event)
                if isinstance(event, Lost):
                    await self.gateway.retry(event.request_id, event.attempt)

    async def deaf(self) -> None:
        """The gateway dies."""
        self._tasks[1].cancel()
        await asyncio.wait(self._tasks[1:])
        await self.gateway.close()

    async def ask(
        self,
        request_id: str,
        text: str = "",
        *,
        deadline_ms: int = 600_000,
        covered: int = 0,
        claim: Claim | None = None,
        **sampling,
    ) -> Admitted | Repeated:
        """With `covered` a token costs 1 nano-unit, else nothing."""
        prompt = tuple(MODEL.encode(f"[INST] {text} [/INST]"))
        job = Job(
            request_id=request_id,
            submitter="g1",
            organisation="o",
            workspace="w",
            tier=TIER,
            kind=CHAT,
            deadline_ms=self.clock.now_ms() + deadline_ms,
            prompt_tokens=len(prompt),
            cost_expected=1,
            prompt_ids=prompt,
            sampling=Sampling(**({"max_tokens": 1_000} | sampling)),
            output_covered=covered,
            keep_answer=claim is not None,
        )
        price = NANO_PER_TOKEN if covered else FREE
        admission = Admission(job, "k", 0, (price,), (), covered or 1_000, 1, 600_000, claim)
        answer = await self.gateway.admit(admission)
        assert not isinstance(answer, Refused)
        return answer

    async def end(self, request_id: str) -> End:
        await until(lambda: any(isinstance(event, End) for event in self.events[request_id]))
        return self.events[request_id][-1]

    async def begun(self, request_id: str) -> None:
        await until(lambda: any(isinstance(event, Piece) for event in self.events[request_id]))

    def pieces(self, request_id: str, choice: int = 0) -> list[Piece]:
        found = [event for event in self.events[request_id] if isinstance(event, Piece) and event.choice == choice]
        indices = [piece.first_index for piece in found]
        counts = [len(piece.token_ids) for piece in found]
        assert indices == [sum(counts[:i]) for i in range(len(counts))], "no gap, nothing twice"
        return found

    def text(self, request_id: str, choice: int = 0) -> str:
        return "".join(piece.text for piece in self.pieces(request_id, choice))

    async def usage(self, request_id: str) -> UsageEvent:
        """The one usage event; a settled request has exactly one."""
        await until(lambda: any(event.request_id == request_id for event in self.broker.usage.values()))
        (event,) = [event for event in self.broker.usage.values() if event.request_id == request_id]
        return event


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def settings(**changes: float) -> LoopSettings:
    return replace(QUICK, **changes)
