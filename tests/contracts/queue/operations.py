"""Random lives of a cell: operations as plain data, played on any world, answered with what anyone could observe."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from core.queue.base import (
    Admitted,
    Claim,
    Extension,
    Finish,
    Outcome,
    Refused,
    Standing,
    WorkerSlot,
)
from core.queue.rules import Rule, RuleKind, Window
from core.wire import BATCH, CHAT, EMBED, INTERACTIVE, Answer, End, Job, Lost, Usage
from tests.contracts.queue.world import NANO_PER_TOKEN, SETTINGS, START_MS, World

SEEDED_NANO = {"a": 2_000, "b": 10**6, "c": 10**9}
WEIGHTS = {"a": 1, "b": 2, "c": 4}
WORKERS = (WorkerSlot("w1", "tiny", 4), WorkerSlot("w2", "tiny", 2), WorkerSlot("w3", "short", 2))
WINDOWS = (
    Window("first", START_MS - 60_000, START_MS + 60_000),
    Window("second", START_MS + 60_000, START_MS + 10**9),
)
SPEND = Rule(RuleKind.SPEND_PER_DAY, "organisation", "any", 20_000, windows=WINDOWS)
TOKENS = Rule(RuleKind.TOKENS_PER_MONTH, "workspace", "any", 9_000, windows=WINDOWS)
RULES = (
    (),
    (Rule(RuleKind.CONCURRENCY, "tier", "all", 6),),
    (Rule(RuleKind.REQUESTS_PER_MINUTE, "key", "key1", 4), Rule(RuleKind.CONCURRENCY, "tier", "all", 6)),
    # Refills of 1 and 1/4 a millisecond: exact in binary, so that both sides can be compared to the last digit.
    (Rule(RuleKind.TOKENS_PER_MINUTE, "workspace", "x", 60_000), Rule(RuleKind.CONCURRENCY, "tier", "all", 6)),
    (Rule(RuleKind.TOKENS_PER_MINUTE, "workspace", "y", 15_000),),
    (replace(SPEND, hard=False, limit=500), SPEND, Rule(RuleKind.REQUESTS_PER_SECOND, "key", "key1", 2, "tiny")),
    (TOKENS, Rule(RuleKind.CONCURRENCY, "tier", "all", 6)),
)
CALENDARS = (SPEND, TOKENS)
PRICES = (NANO_PER_TOKEN, replace(NANO_PER_TOKEN, version="p2", output_nano=3_333, start_ms=START_MS + 50_000))
ANSWERS = (Answer("The whole of it."),)
OPEN_RULE = RULES[1][0]
CHANGES_WHAT_IS_HEARD = frozenset({"advance", "pass_", "lose", "leave", "strike"})
NOBODY = "c0" + "f" * 30

Operation = tuple[Any, ...]


@dataclass(frozen=True)
class Wish:
    """An admission to try. `left_ms`: until its deadline; `wait_ms`: how long its caller would wait in the queue."""

    organisation: str
    workspace: str
    band: str
    tier: str
    kind: str
    prompt_tokens: int
    output_reserved: int
    cost_expected: int
    rules: tuple[Rule, ...]
    left_ms: int
    wait_ms: int
    claim: Claim | None


_index = st.integers(0, 30)
_latest = st.integers(-4, -1)
_tokens = st.sampled_from([5, 11, 30, 600, 25_000])
_organisation = st.sampled_from(sorted(SEEDED_NANO))
_outcome = st.sampled_from([Outcome.FINISHED] * 4 + list(Outcome))
_usage = st.builds(
    lambda prompt, completion, cached: Usage(prompt, completion, min(prompt, cached)),
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(0, 20),
)
admits = st.tuples(
    st.just("admit"),
    st.builds(
        Wish,
        organisation=_organisation,
        workspace=st.sampled_from(["one", "two"]),
        band=st.sampled_from([INTERACTIVE, INTERACTIVE, BATCH]),
        tier=st.sampled_from(["tiny", "tiny", "tiny", "short"]),
        kind=st.sampled_from([CHAT, CHAT, EMBED]),
        prompt_tokens=st.integers(1, 200),
        output_reserved=st.sampled_from([0, 10, 500, 20_000]),
        cost_expected=st.integers(1, 100),
        rules=st.sampled_from(RULES),
        left_ms=st.sampled_from([700_000, 700_000, 700_000, 3_000]),
        wait_ms=st.sampled_from([10**9, 10**9, 2_000]),
        claim=st.sampled_from([None, None, *[Claim(key, body) for key in ("k1", "k2") for body in ("x", "x", "y")]]),
    ),
)
OPERATIONS = {
    "admit": (12, admits),
    "take": (10, st.tuples(st.just("take"), st.sampled_from(WORKERS), st.sampled_from([0, 1, 1, 2, 4]))),
    "finish": (10, st.tuples(st.just("finish"), _index, _usage, _outcome, st.booleans())),
    "finish last": (6, st.tuples(st.just("finish"), st.just(-1), _usage, _outcome, st.booleans())),
    "extend": (8, st.tuples(st.just("extend"), st.lists(st.tuples(_latest, _tokens), min_size=1, max_size=3))),
    "give": (2, st.tuples(st.just("give"), st.integers(0, 9), _organisation, st.sampled_from([1, 500, 40_000]))),
    "take back": (2, st.tuples(st.just("take_back"), st.integers(0, 9), _organisation, st.sampled_from([1, 10**12]))),
    "hungry": (1, st.just(("hungry",))),
    "epoch": (1, st.tuples(st.just("epoch"), st.booleans(), st.booleans())),
    "seed": (1, st.tuples(st.just("seed"), st.sampled_from(CALENDARS), st.sampled_from([0, 100, 19_000]))),
    "states": (2, st.tuples(st.just("states"), st.sampled_from(RULES))),
    "cancel": (3, st.tuples(st.just("cancel"), _index, st.integers(0, 30), st.sampled_from(list(Outcome)[1:]))),
    "retry": (1, st.tuples(st.just("retry"), _index, st.integers(1, 4))),
    "decide": (2, st.tuples(st.just("decide"), st.booleans())),
    "renew": (3, st.tuples(st.just("renew"), st.sampled_from(WORKERS))),
    "leave": (1, st.tuples(st.just("leave"), st.sampled_from(WORKERS))),
    "lose": (1, st.tuples(st.just("lose"), st.sampled_from([WORKERS[:1], WORKERS[1:]]))),
    "strike": (3, st.tuples(st.just("strike"), st.sampled_from(WORKERS[:2]), st.integers(1, 3))),
    "advance": (4, st.tuples(st.just("advance"), st.sampled_from([1, 250, 1_000, 2_500, 13_000, 70_000]))),
    "pass": (2, st.tuples(st.just("pass_"), st.sampled_from([1_000, 2_500]))),
    "standing": (1, st.tuples(st.just("standing"), _index)),
}
_names = st.sampled_from([name for name, (weight, _) in OPERATIONS.items() for _ in range(weight)])
operations = st.lists(_names.flatmap(lambda name: OPERATIONS[name][1]), min_size=20, max_size=80)


@dataclass
class Player:
    """Plays operations on one world and remembers what a caller would: jobs, takes, losses heard of."""

    world: World
    jobs: list[Job] = field(default_factory=list)
    taken: list[tuple[WorkerSlot, Job]] = field(default_factory=list)
    reserved_nano: dict[str, int] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    number: int = 1
    moved_nano: Counter[tuple[int, str]] = field(default_factory=Counter)
    transfers: set[str] = field(default_factory=set)

    async def start(self) -> None:
        await self._fund_all()
        await self._seed_all()
        await self.world.keeper.reap()

    async def play(self, operation: Operation) -> Any:
        name, *arguments = operation
        answer = await getattr(self, name)(*arguments)
        if name in CHANGES_WHAT_IS_HEARD:  # the gateway listens again and again, so its stream lives
            await self.listen()
        return answer

    async def admit(self, wish: Wish) -> Any:
        job = self.world.job(
            wish.organisation,
            workspace=f"{wish.organisation}-{wish.workspace}",
            band=wish.band,
            tier=wish.tier,
            kind=wish.kind,
            prompt_tokens=wish.prompt_tokens,
            cost_expected=wish.cost_expected,
            # Off the seconds in which the clock moves: whether a deadline is over is never a matter of one instant.
            deadline_ms=self.world.clock.now_ms() + wish.left_ms + 137,
        )
        answer = await self.world.try_admit(
            job,
            output_reserved=wish.output_reserved,
            rules=wish.rules,
            weight=WEIGHTS[wish.organisation],
            queue_wait_ms_max=wish.wait_ms,
            prices=PRICES,
            # A claim is always a workspace's own, as gateways make them.
            claim=wish.claim and replace(wish.claim, key=f"{job.workspace}:{wish.claim.key}"),
        )
        if isinstance(answer, Admitted):
            self.jobs.append(job)
            self.reserved_nano[job.request_id] = answer.cost_reserved_nano
        return answer

    async def take(self, slot: WorkerSlot, room: int) -> Any:
        jobs = await self.world.take(slot, room)
        self.taken += [(slot, job) for job in jobs]
        return [(job.request_id, job.attempt) for job in jobs]

    async def extend(self, wishes: list[tuple[int, int]]) -> Any:
        if not self.taken:
            return None
        chosen = [(*self.taken[index % len(self.taken)], tokens) for index, tokens in wishes]
        return await self.world.workers.extend(
            [Extension(job.request_id, job.attempt, slot.worker_id, tokens) for slot, job, tokens in chosen]
        )

    async def give(self, number: int, organisation: str, amount_nano: int) -> Any:
        """Ids come again, and are answered as before, whatever they ask for."""
        return await self._transfer(f"gift-{number}", organisation, amount_nano)

    async def take_back(self, number: int, organisation: str, amount_nano: int) -> Any:
        return await self._transfer(f"return-{number}", organisation, -amount_nano)

    async def hungry(self) -> Any:
        return sorted([(each.organisation, each.needed_nano) for each in await self.world.funds.hungry(0)])

    async def epoch(self, restart: bool, seed: bool) -> Any:
        """Redis was restarted, and billing has not heard of it; or it opens the next epoch."""
        if restart:
            await self.world.restart()
        else:
            self.number += 1
            assert await self.world.funds.open_epoch(self.number)
            await self._fund_all()
        if seed:
            await self._seed_all()
        return await self.world.funds.epoch()

    async def seed(self, rule: Rule, used: int) -> None:
        for window in WINDOWS:
            await self.world.counters.seed(rule, window, used)

    async def states(self, rules: tuple[Rule, ...]) -> Any:
        return await self.world.counters.states(rules)

    async def _fund_all(self) -> None:
        for name, amount_nano in SEEDED_NANO.items():
            assert await self._transfer(f"{name}-{self.number}", name, amount_nano)

    async def _seed_all(self) -> None:
        for rule in CALENDARS:
            await self.seed(rule, 0)

    async def _transfer(self, transfer_id: str, organisation: str, amount_nano: int) -> Any:
        funds, epoch = self.world.funds, await self.world.funds.epoch()
        answer: int
        if amount_nano > 0:
            answer = await funds.give(transfer_id, organisation, epoch.number, amount_nano)
            moved_nano = amount_nano
        else:
            answer = await funds.take_back(transfer_id, organisation, epoch.number, -amount_nano)
            moved_nano = -answer
        if epoch.is_open and transfer_id not in self.transfers:
            self.transfers.add(transfer_id)
            self.moved_nano[epoch.number, organisation] += moved_nano
        return answer

    async def finish(self, index: int, usage: Usage, outcome: Outcome, whole: bool) -> Any:
        """Any take there ever was, so that zombies speak too; a negative index counts from the last."""
        if not self.taken:
            return None
        slot, job = self.taken[index % len(self.taken)]
        end = End(job.request_id, job.attempt, ("stop",), usage, answers=ANSWERS if whole else ())
        (settlement,) = await self.world.workers.finish([Finish(end, slot.worker_id, outcome)])
        return settlement

    async def cancel(self, index: int, bound: int, outcome: Outcome) -> Any:
        job = self._any_job(index)
        self.cancelled.add(job)
        return seen(await self.world.gateway.cancel(job, bound, outcome))

    async def retry(self, index: int, attempt: int) -> Any:
        """Mostly wrong attempts; a submitter never runs again what it has cancelled."""
        job = self._any_job(index)
        return None if job in self.cancelled else seen(await self.world.gateway.retry(job, attempt))

    async def decide(self, again: bool) -> Any:
        """What a submitter does with the losses it has heard of."""
        losses, self.lost = self.lost, []
        answers = []
        for loss in sorted(losses, key=lambda each: each.request_id):
            if again and loss.request_id not in self.cancelled:
                answers.append(seen(await self.world.gateway.retry(loss.request_id, loss.attempt)))
            else:
                answers.append(seen(await self.world.gateway.cancel(loss.request_id, 0)))
        return answers

    async def renew(self, slot: WorkerSlot) -> Any:
        renewal = await self.world.workers.renew(slot)
        return renewal.held, sorted(renewal.cancelled)

    async def leave(self, slot: WorkerSlot) -> None:
        await self.world.workers.leave(slot)

    async def lose(self, alive: tuple[WorkerSlot, ...]) -> Any:
        """Everyone falls silent but those named, as far as they still have a lease."""
        lost = await self.world.keeper.reap()
        for _ in range(8):
            self.world.clock.advance(1_000)
            for slot in alive:
                await self.world.workers.renew(slot)
            lost += await self.world.keeper.reap()
        return lost

    async def strike(self, slot: WorkerSlot, times: int) -> Any:
        """A job is taken, its worker dies, and its submitter has it run again."""
        answers = []
        for _ in range(times):
            answers += [await self.take(slot, 1), await self.lose(())]
            await self.listen()
            answers.append(await self.decide(again=True))
        return answers

    async def advance(self, ms: int) -> None:
        """Nobody looks meanwhile, not even the reaper."""
        self.world.clock.advance(ms)

    async def pass_(self, ms: int) -> Any:
        return await self.world.pass_time(ms)

    async def standing(self, index: int) -> Any:
        return seen(await self.world.gateway.standing(self._any_job(index)))

    async def listen(self) -> Sequence[Lost]:
        heard = await self.world.gateway.receive(0.001)
        self.lost += [event for event in heard if isinstance(event, Lost)]
        return self.lost

    async def end_all(self) -> None:
        """Nobody works any more: the deadlines end whatever is open."""
        for _ in range(3):
            self.world.clock.advance(800_000)
            await self.world.keeper.reap()
            self.world.clock.advance(1_000)
            await self.world.keeper.reap()

    async def snapshot(self) -> Any:
        """Everything that a refused operation must leave as it was."""
        stats = await self.world.keeper.stats(list(SETTINGS.tiers))
        levels = {name: await self.world.funds.level(name) for name in SEEDED_NANO}
        return stats, levels, await self.world.open_in_scope(OPEN_RULE)

    def _any_job(self, index: int) -> str:
        return self.jobs[index % len(self.jobs)].request_id if self.jobs else NOBODY


def seen(standing: Standing) -> Any:
    """A standing without what is each implementation's own: the wording of errors, and where exactly a batch job stands
    among those that have aged into the other band.
    """
    plain = replace(standing, queue_position=min(standing.queue_position, 0))
    end = standing.end
    return plain if end is None else replace(plain, end=replace(end, error="yes" if end.error else None))


def refused(answer: Any) -> bool:
    return isinstance(answer, Refused) or getattr(answer, "accepted", True) is False
