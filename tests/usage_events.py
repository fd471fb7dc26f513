"""Usage events for tests, each different and each reproducible."""

from dataclasses import asdict

from core.meter.usage import UsageEvent

EPOCH = 1


def usage_event(number: int, **changes: object) -> UsageEvent:
    fields = {
        "request_id": f"c0{number:030x}",
        "organisation": "o1",
        "workspace": "w1",
        "key_id": f"k{number % 3}",
        "tier": "mistral-tiny",
        "kind": "chat",
        "outcome": "finished",
        "attempt": 1,
        "streamed": number % 2 == 0,
        "prompt_tokens": 10 + number,
        "completion_tokens": 2 * number,
        "cached_tokens": number % 5,
        "decoded_tokens": 2 * number + 1,
        "cost_nano": 10**12 + number,
        "price_version": "launch",
        "admitted_ms": 1_700_000_000_000 + number,
        "taken_ms": 1_700_000_000_001 + number,
        "first_token_ms": 3,
        "settled_ms": 1_700_000_000_009 + number,
        "epoch": EPOCH,
    }
    return UsageEvent(**{**fields, **changes})


def row(number: int) -> dict[str, object]:
    return asdict(usage_event(number))
