"""What the scripts of `core/meter/scripts` are told about requests, and how their answers read."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgpack

from core.errors import Refusal
from core.meter.credit_redis import packed_rule
from core.queue.base import (
    Admission,
    Admitted,
    Finish,
    OpenRequest,
    Outcome,
    Refused,
    RefusedBy,
    Repeated,
    RequestState,
    Settlement,
    Standing,
    TierBounds,
)
from core.queue.rules import RuleState
from core.wire import End, Usage, pack_events, unpack_events

END_KEPT_BYTES_MAX = 16_384
ANSWER_KEPT_BYTES_MAX = 1_572_864  # 256 embeddings of 1 024 floats fit

REFUSED, ADMITTED, REPEATED = range(3)
OPEN_FIELDS = ("s", "a", "adm", "tk", "m")

# What a submitter is told whose request was settled without an end that could be kept.
OUTCOME_SENTENCES = {
    Outcome.FINISHED: "The answer was lost on its way, and is too large to be kept.",
    Outcome.FAILED: "The worker was lost and the request could not be run again; nothing is charged.",
    Outcome.TIMEOUT: "The request passed its deadline; nothing is charged.",
    Outcome.CANCELLED: "The request was cancelled before it started; nothing is charged.",
    Outcome.GATEWAY_LOST: "The gateway that asked is gone; nothing is charged.",
}


def packed_admission(admission: Admission, bounds: TierBounds) -> Any:
    job = admission.job
    meta = {
        "id": job.request_id,
        "org": job.organisation,
        "ws": job.workspace,
        "key": admission.key_id,
        "tier": job.tier,
        "band": job.band,
        "kind": job.kind,
        "sub": job.submitter,
        "str": job.streamed,
        "dl": job.deadline_ms,
        "cost": job.cost_expected,
        "pt": job.prompt_tokens,
        "out": admission.output_reserved,
        "prices": [
            (price.version, price.input_nano, price.cached_nano, price.output_nano, price.start_ms)
            for price in admission.prices
        ],
        "weight": admission.weight,
        "gen": admission.generation,
        "wait": admission.queue_wait_ms_max,
        "qmax": bounds.queue_jobs_max,
        "rules": [packed_rule(rule) for rule in admission.rules],
    }
    if admission.claim is not None:
        meta["cl"] = (admission.claim.key, admission.claim.digest)
    return msgpack.packb(meta)


def admission_answer(admission: Admission, answer: Sequence[Any]) -> Admitted | Refused | Repeated:
    if answer[0] == REFUSED:
        return _refused(admission, answer)
    if answer[0] == REPEATED:
        _, request_id, same_body, streamed = answer
        return Repeated(request_id.decode(), bool(same_body), bool(streamed))
    _, admitted_ms, reserved_nano, queue_wait_ms, version, credit_left_nano, *pairs = answer
    states = tuple(
        [
            RuleState(rule, remaining, reset_ms)
            for rule, remaining, reset_ms in zip(admission.rules, pairs[::2], pairs[1::2], strict=True)
        ]
    )
    return Admitted(
        request_id=admission.job.request_id,
        admitted_ms=admitted_ms,
        cost_reserved_nano=reserved_nano,
        queue_wait_ms=queue_wait_ms,
        rules=states,
        price_version=version.decode(),
        credit_left_nano=credit_left_nano,
    )


def _refused(admission: Admission, answer: Sequence[Any]) -> Refused:
    _, by, name, scope, limit, remaining, retry_ms, number, reserved_nano = answer
    rule = admission.rules[number - 1] if number else None
    refusal = Refusal(
        rule=name.decode(),
        scope=scope.decode() if rule is None else rule.scope,
        limit=limit,
        remaining=remaining,
        retry_after_ms=None if retry_ms < 0 else retry_ms,
        tier="" if rule is None else rule.tier,
    )
    why = RefusedBy(by.decode())
    return Refused(why, refusal, reserved_nano, None if why is RefusedBy.STALE else rule)


def finish_arguments(finish: Finish) -> tuple[Any, ...]:
    end = finish.end
    usage = end.usage
    kept = pack_events([end])
    bytes_max = ANSWER_KEPT_BYTES_MAX if finish.keep_answer or end.answers else END_KEPT_BYTES_MAX
    return (
        end.request_id,
        end.attempt,
        finish.worker_id,
        finish.outcome.value,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        finish.first_token_ms,
        kept if len(kept) <= bytes_max else b"",
        int(bool(end.answers or end.vectors)),
    )


def settlement_answer(end: End, answer: Sequence[int]) -> Settlement:
    """The end to send: without what is only kept."""
    accepted, prompt, completion, cached, cost_nano = answer
    if not accepted:
        return Settlement(accepted=False, end=end)
    billed = replace(end, usage=Usage(prompt, completion, cached), cost_nano=cost_nano, answers=())
    return Settlement(accepted=True, end=billed)


def standing_answer(request_id: str, answer: Sequence[Any]) -> Standing:
    name, attempt, ended, position, wait_ms, *settled = answer
    state = RequestState(name.decode())
    if state is not RequestState.SETTLED:
        return Standing(state, attempt, None, position, wait_ms)
    outcome, prompt, completion, cached, cost_nano = settled
    if ended:
        end = unpack_events(ended)[0]
        assert isinstance(end, End)
    else:  # settled without a worker's word
        sentence = OUTCOME_SENTENCES[Outcome(outcome.decode())]
        end = End(request_id, attempt, finish_reasons=("error",), error=sentence)
    end = replace(end, usage=Usage(prompt, completion, cached), cost_nano=cost_nano)
    return Standing(state, attempt, end)


def open_request_answer(request_id: str, fields: Sequence[bytes | None]) -> OpenRequest:
    """Of OPEN_FIELDS of its record."""
    state, attempt, admitted_ms, taken_ms, packed = fields
    assert state is not None, "without a state there is no record"
    meta = msgpack.unpackb(packed)
    standing = RequestState(state.decode())
    return OpenRequest(
        request_id=request_id,
        organisation=meta["org"],
        workspace=meta["ws"],
        key_id=meta["key"],
        tier=meta["tier"],
        state=standing,
        attempt=int(attempt or 1),
        streamed=bool(meta["str"]),
        prompt_tokens=meta["pt"],
        admitted_ms=int(admitted_ms or 0),
        taken_ms=int(taken_ms or 0) if standing is RequestState.RUNNING else 0,
    )
