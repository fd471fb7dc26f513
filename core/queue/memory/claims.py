"""Idempotency-Keys: who claimed one first, for as long as it is remembered, and whose answer nobody has paid for."""

from dataclasses import dataclass

from core.meter.usage import UsageEvent
from core.queue.base import CLAIM_KEPT_MS, Admission, Claim, Repeated


@dataclass(frozen=True, slots=True)
class _Made:
    request_id: str
    digest: str
    streamed: bool
    until_ms: int


class Claims:
    """`unpaid`: by request, the usage event that is due when somebody fetches the answer."""

    def __init__(self) -> None:
        self.unpaid: dict[str, UsageEvent] = {}
        self._made: dict[str, _Made] = {}  # the oldest first: all are kept for the same time

    def repeated(self, claim: Claim | None, now_ms: int) -> Repeated | None:
        self._forget_old(now_ms)
        made = None if claim is None else self._made.get(claim.key)
        if claim is None or made is None:
            return None
        return Repeated(made.request_id, made.digest == claim.digest, made.streamed)

    def make(self, admission: Admission, now_ms: int) -> None:
        claim, job = admission.claim, admission.job
        if claim is not None:
            self._made[claim.key] = _Made(job.request_id, claim.digest, job.streamed, now_ms + CLAIM_KEPT_MS)

    def free(self, claim: Claim) -> None:
        """The request ended in a way that a repetition may cure."""
        self._made.pop(claim.key, None)

    def _forget_old(self, now_ms: int) -> None:
        for key in [key for key, made in self._made.items() if made.until_ms <= now_ms]:
            del self._made[key]
