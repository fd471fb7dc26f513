"""Principals from SQL, behind a bounded cache: the request path costs one HMAC and one look into a dict.

A principal that is out of date is harmless: admission compares its generation and calls it stale.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from sqlalchemy import select

from core.clock import Clock
from core.db import Database, DatabaseUnavailableError
from core.errors import UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.queue.rules import Rule, RuleKind
from gateway.accounts.keys import Pepper, key_id_of, same_digest
from gateway.accounts.models import ApiKey, Organisation, Plan, Workspace
from gateway.principal import Principal

NOT_A_KEY = "Unauthorized: this is not a valid API key."
REVOKED = "Unauthorized: this API key was revoked."
EXPIRED = "Unauthorized: this API key has expired."


@dataclass(frozen=True, slots=True)
class PrincipalSettings:
    """`fresh_s`, `refused_s`: how long an answer stands; `stale_s`: how long a principal serves while SQL is away;
    `lookup_s`: how long a caller waits for SQL; `pause_s`: how long SQL is left alone after it failed.
    """

    cached_max: int = 20_000
    lookups_max: int = 64
    fresh_s: float = 60.0
    refused_s: float = 5.0
    stale_s: float = 600.0
    lookup_s: float = 2.0
    pause_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What SQL said about a key, at a moment: a principal, or why there is none. Times are monotonic seconds."""

    principal: Principal | None
    refusal: str
    fresh_until_s: float
    usable_until_s: float


class _Lru:
    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    def get(self, digest: str) -> _Answer | None:
        answer = self._answers.get(digest)
        if answer is not None:
            self._answers.move_to_end(digest)
        return answer

    def put(self, digest: str, answer: _Answer) -> None:
        self._answers[digest] = answer
        self._answers.move_to_end(digest)
        if len(self._answers) > self._size_max:
            self._answers.popitem(last=False)

    def pop(self, digest: str) -> _Answer | None:
        return self._answers.pop(digest, None)


class SqlPrincipals:
    """Implements `gateway.principal.PrincipalSource`. One for each process, used from one event loop."""

    def __init__(
        self, database: Database, pepper: Pepper, clock: Clock, settings: PrincipalSettings | None = None
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._settings = settings or PrincipalSettings()
        self._known = _Lru(self._settings.cached_max)
        self._refused = _Lru(self._settings.cached_max)  # apart: made-up keys cannot push real ones out
        self._pending: dict[str, asyncio.Task[_Answer | None]] = {}
        self._lookups: set[asyncio.Task[_Answer | None]] = set()
        self._paused_until_s = 0.0

    async def by_key(self, secret: str) -> Principal:
        key_id = key_id_of(secret)
        if key_id is None:
            raise PlatformError(UNAUTHORIZED, NOT_A_KEY)
        digest = self._pepper.digest(secret)
        now_s = self._clock.monotonic_s()
        cached = self._known.get(digest) or self._refused.get(digest)
        answer: _Answer | None = cached
        if cached is None or now_s >= cached.fresh_until_s:
            answer = await self._look_up(digest, key_id)
        if answer is None and cached is not None and self._clock.monotonic_s() < cached.usable_until_s:
            answer = cached
        if answer is None:
            raise PlatformError(UNAVAILABLE, "The key cannot be checked at the moment; try again.", retry_after_s=1)
        if answer.principal is None:
            raise PlatformError(UNAUTHORIZED, answer.refusal)
        return answer.principal

    def forget(self, secret: str) -> None:
        digest = self._pepper.digest(secret)
        if self._known.pop(digest) is not None:
            # A look-up under way may have read what is stale now. If there was nothing to forget, another
            # caller has forgotten it already, and the look-up under way is the new one.
            self._pending.pop(digest, None)

    async def _look_up(self, digest: str, key_id: str) -> _Answer | None:
        """One query for all who ask for the same key at once; None when SQL does not answer."""
        if self._clock.monotonic_s() < self._paused_until_s:
            return None
        task = self._pending.get(digest)
        if task is None:
            if len(self._lookups) >= self._settings.lookups_max:
                return None
            task = asyncio.create_task(self._load(digest, key_id))
            self._pending[digest] = task
            self._lookups.add(task)
            task.add_done_callback(self._lookups.discard)
        try:
            async with asyncio.timeout(self._settings.lookup_s):
                return await asyncio.shield(task)  # a caller who leaves does not end it for the others
        except TimeoutError:
            self._pause()
            return None

    async def _load(self, digest: str, key_id: str) -> _Answer | None:
        answer = None
        try:
            answer = await asyncio.to_thread(self._read, digest, key_id)
        except DatabaseUnavailableError:
            self._pause()
        finally:
            current = self._pending.get(digest) is asyncio.current_task()
            if current:
                del self._pending[digest]
        if current and answer is not None:
            self._known.pop(digest)
            (self._refused if answer.principal is None else self._known).put(digest, answer)
        return answer

    def _pause(self) -> None:
        self._paused_until_s = self._clock.monotonic_s() + self._settings.pause_s

    def _read(self, digest: str, key_id: str) -> _Answer:
        # One statement is one snapshot: the generation is never younger than what it stands for.
        query = (
            select(ApiKey, Organisation.id, Organisation.generation, Plan)
            .join(Workspace, Workspace.id == ApiKey.workspace_id)
            .join(Organisation, Organisation.id == Workspace.organisation_id)
            .join(Plan, Plan.name == Organisation.plan)
            .where(ApiKey.id == key_id)
        )
        asked_s = self._clock.monotonic_s()
        with self._database.reading() as session:
            row = session.execute(query).one_or_none()
        if row is None or not same_digest(row[0].digest, digest):
            return self._refusal(NOT_A_KEY, asked_s)
        key, organisation_id, generation, plan = row
        if key.revoked_ms is not None:
            return self._refusal(REVOKED, asked_s)
        left_s = float("inf") if key.expires_ms is None else (key.expires_ms - self._clock.now_ms()) / 1000
        if left_s <= 0:
            return self._refusal(EXPIRED, asked_s)
        principal = Principal(
            key_id=key.id,
            workspace=key.workspace_id,
            organisation=organisation_id,
            scopes=frozenset(key.scopes),
            generation=generation,
            weight=plan.weight,
            rules=_rules(plan, organisation_id),
        )
        fresh_until_s = asked_s + min(self._settings.fresh_s, left_s)
        return _Answer(principal, "", fresh_until_s, asked_s + min(self._settings.stale_s, left_s))

    def _refusal(self, message: str, asked_s: float) -> _Answer:
        until_s = asked_s + self._settings.refused_s
        return _Answer(None, message, until_s, until_s)


def _rules(plan: Plan, organisation_id: str) -> tuple[Rule, ...]:
    limits = (
        (RuleKind.REQUESTS_PER_MINUTE, plan.requests_per_minute),
        (RuleKind.TOKENS_PER_MINUTE, plan.tokens_per_minute),
        (RuleKind.CONCURRENCY, plan.concurrency),
    )
    return tuple(Rule(kind, "organisation", organisation_id, limit) for kind, limit in limits)
