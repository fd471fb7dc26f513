"""Principals from SQL, behind a bounded cache: the request path costs one HMAC and one look into a dict.

A principal that is out of date is harmless: admission compares its generation and calls it stale.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from core.db import Database
from core.errors import UNAUTHORIZED, UNAVAILABLE, PlatformError
from gateway.accounts.keys import Peppers, key_id_of
from gateway.accounts.loading import NOT_A_KEY, inference_standing, load_principal
from gateway.accounts.lookups import Lookups
from gateway.principal import Principal, Standing


@dataclass(frozen=True, slots=True)
class PrincipalSettings:
    """`fresh_s`, `refused_s`: how long an answer stands; `stale_s`: how long a principal serves while SQL is away;
    `lookup_s`: how long a caller waits for SQL; `pause_s`: how long SQL is left alone after it failed. `stale_s` is
    far less than a day: a principal carries only the current calendar windows and the next.
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


@dataclass(frozen=True, slots=True)
class _Judged:
    standing: Standing | None


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
    """Implements `gateway.principal.PrincipalSource`. One for each process, used from one event loop. `tiers` are the
    names whose prices a principal carries.
    """

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        clock: Clock,
        tiers: Sequence[str],
        settings: PrincipalSettings | None = None,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._clock = clock
        self._tiers = tuple(tiers)
        self._settings = settings or PrincipalSettings()
        self._known = _Lru(self._settings.cached_max)
        self._refused = _Lru(self._settings.cached_max)  # apart: made-up keys cannot push real ones out
        self._lookups: Lookups[_Answer] = self._bounded_lookups()
        self._standings: Lookups[_Judged] = self._bounded_lookups()

    async def by_key(self, secret: str) -> Principal:
        key_id = key_id_of(secret)
        if key_id is None:
            raise PlatformError(UNAUTHORIZED, NOT_A_KEY)
        # Nothing beyond this line sees the key itself.
        return await self._known_as(self._peppers.digest(secret), key_id, lambda: self._peppers.digests(secret))

    async def by_id(self, key_id: str) -> Principal:
        return await self._known_as(_entry(key_id), key_id, lambda: None)

    async def _known_as(self, entry: str, key_id: str, digests: Callable[[], Sequence[str] | None]) -> Principal:
        """`entry`: what the answer is cached under."""
        now_s = self._clock.monotonic_s()
        cached = self._known.get(entry) or self._refused.get(entry)
        answer: _Answer | None = cached
        if cached is None or now_s >= cached.fresh_until_s:
            found_by = digests()
            answer = await self._lookups.ask(
                entry, lambda: self._read(key_id, found_by), lambda found: self._keep(entry, found)
            )
        if answer is None and cached is not None and self._clock.monotonic_s() < cached.usable_until_s:
            answer = cached
        if answer is None:
            raise _unavailable()
        if answer.principal is None:
            raise PlatformError(UNAUTHORIZED, answer.refusal)
        return answer.principal

    async def valid(self, key_id: str) -> Standing | None:
        """Asked anew each time, for it is asked when a generation has risen or a key has expired."""
        judged = await self._standings.ask(key_id, lambda: self._judge(key_id), lambda _: None)
        if judged is None:
            raise _unavailable()
        return judged.standing

    def forget(self, secret: str) -> None:
        self._forget(self._peppers.digest(secret))

    def forget_id(self, key_id: str) -> None:
        self._forget(_entry(key_id))

    def _forget(self, entry: str) -> None:
        if self._known.pop(entry) is not None:
            # A look-up under way may have read what is stale now. If there was nothing to forget, another
            # caller has forgotten it already, and the look-up under way is the new one.
            self._lookups.outdate(entry)

    def _bounded_lookups(self) -> Lookups[Any]:
        settings = self._settings
        return Lookups(
            self._clock, running_max=settings.lookups_max, wait_s=settings.lookup_s, pause_s=settings.pause_s
        )

    def _keep(self, entry: str, answer: _Answer) -> None:
        self._known.pop(entry)
        (self._refused if answer.principal is None else self._known).put(entry, answer)

    def _read(self, key_id: str, digests: Sequence[str] | None) -> _Answer:
        asked_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
        with self._database.reading() as session:
            loaded = load_principal(session, key_id, digests, self._tiers, now_ms)
        if loaded.principal is None:
            until_s = asked_s + self._settings.refused_s
            return _Answer(None, loaded.refusal, until_s, until_s)
        # The millisecond that has begun is taken for over: what ends is asked for anew rather than believed too long.
        left_s = float("inf") if loaded.until_ms is None else max(0, loaded.until_ms - now_ms - 1) / 1000
        fresh_until_s = asked_s + min(self._settings.fresh_s, left_s)
        return _Answer(loaded.principal, "", fresh_until_s, asked_s + min(self._settings.stale_s, left_s))

    def _judge(self, key_id: str) -> _Judged:
        with self._database.reading() as session:
            return _Judged(inference_standing(session, key_id, self._clock.now_ms()))


def _entry(key_id: str) -> str:
    """Beside digests, which begin with a number."""
    return f"id:{key_id}"


def _unavailable() -> PlatformError:
    return PlatformError(UNAVAILABLE, "The key cannot be checked at the moment; try again.", retry_after_s=1)
