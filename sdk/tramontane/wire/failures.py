"""From an answer with an error status to the exception that stands for it."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Mapping, Optional, Tuple, Type

from tramontane.errors import (
    APIError,
    AuthenticationError,
    CapacityExceeded,
    Conflict,
    CreditExhausted,
    CreditReserved,
    Detail,
    EngineFailed,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    PermissionDenied,
    Problem,
    RateLimited,
    Refusal,
    RequestInProgress,
    RequestTimeout,
    ServerError,
    SpendingLimitReached,
    TooManyTokens,
    Unavailable,
)

MESSAGE_CHARS_MAX = 1_000
MS_PER_S = 1_000
REQUEST_ID_HEADERS = ("mistral-correlation-id", "x-kong-request-id")

BY_CODE: Dict[str, Type[APIError]] = {
    "1310": CreditExhausted,
    "1311": CreditReserved,
    "1312": SpendingLimitReached,
    "1410": RequestInProgress,
    "3210": TooManyTokens,
    "3505": CapacityExceeded,
    "3600": EngineFailed,
}
BY_STATUS: Dict[int, Type[APIError]] = {
    401: AuthenticationError,
    402: PaymentRequired,
    403: PermissionDenied,
    404: NotFound,
    408: RequestTimeout,
    409: Conflict,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def failure_of(status: int, headers: Mapping[str, str], raw: bytes, now_s: float) -> APIError:
    """`headers` with names in small letters; `now_s` since 1970, for dates in Retry-After."""
    body = _body(raw)
    code = body.get("code")
    code = None if code is None else str(code)
    refusal = _refusal(body)
    message, details = _message(body, raw, status)
    problem = Problem(
        status=status,
        message=message[:MESSAGE_CHARS_MAX],
        code=code,
        type=_text(body.get("type")),
        param=_text(body.get("param")),
        request_id=request_id_of(headers) or _text(body.get("request_id")),
        retry_after_s=_retry_after_s(headers, refusal, now_s),
        refusal=refusal,
        details=details,
    )
    return _class_of(status, code)(problem)


def request_id_of(headers: Mapping[str, str]) -> Optional[str]:
    return next((headers[name] for name in REQUEST_ID_HEADERS if name in headers), None)


def _class_of(status: int, code: Optional[str]) -> Type[APIError]:
    """A code counts only under a status of its family, so that a proxy's words cannot turn 402 into a retry."""
    found = BY_CODE.get(code or "")
    general = BY_STATUS.get(status) or (ServerError if status >= 500 else InvalidRequest)
    if found is None:
        return general
    fits = issubclass(found, general) or (found is CapacityExceeded and status == 429)
    return found if fits else general


def _body(raw: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(body: Mapping[str, Any], raw: bytes, status: int) -> Tuple[str, Tuple[Detail, ...]]:
    said = body.get("message")
    nested = said.get("detail") if isinstance(said, dict) else body.get("detail")
    details = _details(nested)
    if details:
        return "; ".join(_shown(detail) for detail in details), details
    for text in (said, nested):
        if isinstance(text, str) and text:
            return text, ()
    plain = " ".join(raw[:MESSAGE_CHARS_MAX].decode("utf-8", "replace").split())
    return plain[:200] or f"status {status} without a word", ()


def _details(entries: Any) -> Tuple[Detail, ...]:
    if not isinstance(entries, list):
        return ()
    return tuple(
        Detail(_place(entry.get("loc")), str(entry.get("msg", "")), str(entry.get("type", "")))
        for entry in entries
        if isinstance(entry, dict)
    )


def _place(loc: Any) -> Tuple[Any, ...]:
    return tuple(loc) if isinstance(loc, list) else ()


def _shown(detail: Detail) -> str:
    where = ".".join(str(part) for part in detail.loc if part != "body")
    return f"{where}: {detail.message}" if where else detail.message


def _refusal(body: Mapping[str, Any]) -> Optional[Refusal]:
    extension = body.get("x_tramontane")
    told = extension.get("refused_by") if isinstance(extension, dict) else None
    if not isinstance(told, dict):
        return None
    return Refusal(
        rule=str(told.get("rule", "")),
        scope=str(told.get("scope", "")),
        limit=_whole(told.get("limit")) or 0,
        remaining=_whole(told.get("remaining")) or 0,
        retry_after_ms=_whole(told.get("retry_after_ms")),
        tier=_text(told.get("tier")),
    )


def _retry_after_s(headers: Mapping[str, str], refusal: Optional[Refusal], now_s: float) -> Optional[float]:
    """The most exact of what was said; never below zero."""
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / MS_PER_S
    said = headers.get("retry-after")
    if refusal is not None and refusal.retry_after_ms is not None and said is not None:
        return max(0.0, refusal.retry_after_ms / MS_PER_S)
    if said is None:
        return None
    seconds = _number(said)
    return _until(said, now_s) if seconds is None else seconds


def _until(date: str, now_s: float) -> Optional[float]:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now_s)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _number(text: Optional[str]) -> Optional[float]:
    """None for what is no number of digits: signs, words, infinity."""
    said = (text or "").strip()
    return float(said) if said.isascii() and said.replace(".", "", 1).isdigit() and len(said) < 16 else None


def _whole(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) else None
