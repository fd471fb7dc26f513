"""A job from its take until its end is sent, as the work loop sees it."""

from dataclasses import dataclass, replace

from core.queue.base import Finish, Outcome
from core.queue.executor import Ended
from core.wire import End, Job, Piece

DEADLINE_PASSED = "The request ran past its deadline."


@dataclass(slots=True)
class Held:
    """`outcome` is set once we have stopped it, and says why; `ended_by` names the rule if it was one. `unread`: its
    submitter is gone, and the answer is only kept. `covered` and `delivered` are output tokens over all choices;
    `covered` 0: nothing bounds them. `dry_refusals`: how often in a row it was refused more with nothing left.
    """

    job: Job
    worker_id: str
    taken_s: float
    first_token_ms: int = 0
    outcome: Outcome | None = None
    ended_by: str = ""
    unread: bool = False
    ended: bool = False
    covered: int = 0
    delivered: int = 0
    dry_refusals: int = 0

    @property
    def over(self) -> bool:
        """Ended, or about to: nobody waits for more of it."""
        return self.ended or self.outcome is not None

    def put_out(self, piece: Piece, now_s: float) -> None:
        if piece.token_ids and not self.first_token_ms:
            self.first_token_ms = max(1, round(1000 * (now_s - self.taken_s)))
        self.delivered += len(piece.token_ids)

    def last_word(self, ended: Ended) -> Finish:
        self.ended = True
        end, outcome = ended.end, self.outcome or Outcome.FINISHED
        if ended.failed:
            outcome = Outcome.FAILED
        elif outcome is Outcome.TIMEOUT:
            end = replace(end, error=DEADLINE_PASSED)
        elif outcome is Outcome.FINISHED and self.ended_by:
            end = _cut_short(end, self.ended_by)
        if outcome is Outcome.FINISHED and self.unread:
            outcome = Outcome.GATEWAY_LOST
        return Finish(end, self.worker_id, outcome, self.first_token_ms, self.job.keep_answer)


def _cut_short(end: End, ended_by: str) -> End:
    """The choices that we stopped are as long as money allowed; those that ended by themselves stay as they are."""
    if "error" not in end.finish_reasons:
        return end
    reasons = tuple(["length" if reason == "error" else reason for reason in end.finish_reasons])
    return replace(end, finish_reasons=reasons, ended_by=ended_by)
