"""The one place where errors become HTTP: Mistral's shapes, bounded, with nothing of our insides."""

from dataclasses import dataclass
from typing import Any

import orjson

from core.errors import METHOD_NOT_ALLOWED, NOT_FOUND, UNAUTHORIZED, VALIDATION, ErrorKind, PlatformError, Refusal
from gateway.headers import JSON_TYPE, RawHeaders, refusal_headers

EXTENSION = "x_tramontane"
NO_ROUTE = "no Route matched with those values"
INTERNAL_MESSAGE = "Service unavailable."
MESSAGE_CHARS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Rendered:
    status: int
    headers: RawHeaders
    body: bytes


def render(error: PlatformError, request_id: str) -> Rendered:
    """401 in the gateway's shape, 422 with `detail`, everything else flat."""
    kind = error.kind
    if kind == UNAUTHORIZED:
        body: dict[str, Any] = {"message": "Unauthorized", "request_id": request_id}
    elif kind == VALIDATION:
        body = _validation(error)
    else:
        body = flat(kind, error.message, error.param)
    if error.refusal is not None:
        body[EXTENSION] = {"refused_by": _refused_by(error.refusal)}
    headers = [(b"content-type", JSON_TYPE)]
    if kind == UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    retry_after_s = _retry_after_s(error)
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    if error.refusal is not None:
        headers += refusal_headers(error.refusal)
    return _rendered(kind.status, headers, body)


def render_no_route(request_id: str) -> Rendered:
    body = {"message": NO_ROUTE, "request_id": request_id}
    return _rendered(NOT_FOUND.status, [(b"content-type", JSON_TYPE)], body)


def render_method_not_allowed(allow: str) -> Rendered:
    body = flat(METHOD_NOT_ALLOWED, f"This path answers {allow}.", None)
    return _rendered(METHOD_NOT_ALLOWED.status, [(b"content-type", JSON_TYPE), (b"allow", allow.encode("ascii"))], body)


def flat(kind: ErrorKind, message: str, param: str | None) -> dict[str, Any]:
    return {
        "object": "error",
        "message": message[:MESSAGE_CHARS_MAX],
        "type": kind.type,
        "param": param,
        "code": kind.code,
        "raw_status_code": kind.status,
    }


def _validation(error: PlatformError) -> dict[str, Any]:
    """Both wrappings that Mistral's clients have been seen to read: some look into `message`, some only at `detail`."""
    detail = error.details or (
        {
            "type": "value_error",
            "loc": ["body"] if error.param is None else ["body", error.param],
            "msg": error.message[:MESSAGE_CHARS_MAX],
        },
    )
    return {
        "object": "error",
        "message": {"detail": list(detail)},
        "type": VALIDATION.type,
        "param": None,
        "code": None,
        "detail": list(detail),
    }


def _refused_by(refusal: Refusal) -> dict[str, Any]:
    named = {
        "rule": refusal.rule,
        "scope": refusal.scope,
        "limit": refusal.limit,
        "remaining": refusal.remaining,
        "retry_after_ms": refusal.retry_after_ms,
    }
    return {**named, "tier": refusal.tier} if refusal.tier else named


def _retry_after_s(error: PlatformError) -> int | None:
    if error.retry_after_s is not None:
        return max(1, error.retry_after_s)
    if error.refusal is not None and error.refusal.retry_after_ms is not None:
        return max(1, -(-error.refusal.retry_after_ms // 1_000))
    return None


def _rendered(status: int, headers: RawHeaders, body: dict[str, Any]) -> Rendered:
    raw = orjson.dumps(body)
    return Rendered(status, [*headers, (b"content-length", b"%d" % len(raw))], raw)
