"""Which experts were chosen, as workers would have sampled it: by hour for a week, by day for three months."""

import random
from collections import Counter
from collections.abc import Sequence
from math import exp

from sqlalchemy.orm import Session

from benchmarks.bulk import load
from benchmarks.console.people import DAY_MS
from benchmarks.console.traffic import weight_of
from billing.experts import ALL_WORKSPACES, HOUR_MS, ExpertCount, ExpertDay

LAYERS, EXPERTS, CHOSEN = 32, 8, 2  # as of Mixtral
DAYS, DAYS_BY_HOUR = 89, 7
TOKENS_PER_HOUR = 90_000  # sampled, of all workspaces, in a busy hour

Key = tuple[str, str, int, int, int]


def seed_experts(session: Session, tiers: Sequence[str], workspaces: Sequence[str], end_ms: int, days: int) -> int:
    """How many rows."""
    chance = random.Random(5)
    hours: Counter[Key] = Counter()
    by_day: Counter[Key] = Counter()
    for tier in tiers:
        liking = [[exp(chance.gauss(0, 0.16)) for _ in range(EXPERTS)] for _ in range(LAYERS)]
        liking[LAYERS // 2][3] *= 1.9  # one that is chosen too often, as an operator should find it
        for number in range(min(DAYS, days)):
            day_ms = end_ms - end_ms % DAY_MS - number * DAY_MS
            step_ms = HOUR_MS if number < DAYS_BY_HOUR else DAY_MS
            for start_ms in range(day_ms, min(day_ms + DAY_MS, end_ms), step_ms):
                for place, workspace in enumerate(workspaces):
                    busy = weight_of(start_ms, 0.5) * step_ms / HOUR_MS / (place + 2)
                    for layer, likes in enumerate(liking):
                        for expert, like in enumerate(likes):
                            count = int(TOKENS_PER_HOUR * busy * CHOSEN * like * chance.uniform(0.9, 1.1) / EXPERTS)
                            for owner in (workspace, ALL_WORKSPACES):
                                by_day[tier, owner, day_ms, layer, expert] += count
                                if step_ms == HOUR_MS:
                                    hours[tier, owner, start_ms, layer, expert] += count
    for model, start, sums in ((ExpertCount, "hour_ms", hours), (ExpertDay, "day_ms", by_day)):
        rows = ((*key, count) for key, count in sorted(sums.items()))
        load(session, model, ("tier", "workspace", start, "layer", "expert", "count"), rows)
    return len(hours) + len(by_day)
