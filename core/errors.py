"""Every error that a caller can see, in one table: status, type, code.

Source of shapes and codes: Mistral's API, section 3 of the reference. Nothing looks into a message to find out
what happened; `gateway/errors.py` renders, `docs/errors.md` is written from ALL_KINDS.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorKind:
    status: int
    type: str
    code: str | None
    meaning: str


INVALID_MODEL = ErrorKind(400, "invalid_model", "1500", "No tier or alias has this name.")
MESSAGE_ORDER = ErrorKind(400, "invalid_request_message_order", "3230", "The roles come in a wrong order.")
ASSISTANT_MESSAGE = ErrorKind(
    400,
    "invalid_request_assistant_message",
    "3240",
    "An assistant message has neither content nor tool calls.",
)
FUNCTION_CALL = ErrorKind(400, "invalid_function_call", "3280", "A tool call or its id is malformed.")
PROMPT_TOO_LARGE = ErrorKind(400, "invalid_request_prompt", "3210", "Too many texts or tokens to embed at once.")
INVALID_ARGUMENTS = ErrorKind(
    400, "invalid_request_invalid_args", "3051", "The prompt does not fit, or this model cannot do this."
)
GREEDY_TOP_P = ErrorKind(400, "invalid_request_invalid_args", "3054", "temperature 0 demands top_p 1.")
BAD_REQUEST = ErrorKind(400, "invalid_request_error", None, "The request cannot be read as HTTP.")
UNAUTHORIZED = ErrorKind(401, "unauthorized", None, "No key, or not a valid one.")
PAYMENT_REQUIRED = ErrorKind(402, "insufficient_credit", "1310", "The organisation's credit does not cover it.")
SPENDING_LIMIT = ErrorKind(402, "spending_limit_reached", "1312", "A spending cap is used up; raise it.")
CREDIT_RESERVED = ErrorKind(
    429, "credit_reserved", "1311", "Credit would cover it, but open requests hold it: try again when they end."
)
FORBIDDEN = ErrorKind(403, "tier_not_allowed", "1910", "The key may not do this.")
NOT_FOUND = ErrorKind(404, "not_found", None, "No such route or object.")
METHOD_NOT_ALLOWED = ErrorKind(405, "method_not_allowed", None, "The route exists, the verb does not.")
REQUEST_TIMEOUT = ErrorKind(408, "request_timeout", None, "The body took too long to arrive.")
BODY_TOO_LARGE = ErrorKind(413, "request_too_large", None, "The body is larger than body_bytes_max.")
IDEMPOTENCY_RUNNING = ErrorKind(409, "idempotency_key_in_use", "1410", "The request with this key still runs.")
ANSWER_EXPIRED = ErrorKind(409, "answer_expired", "1411", "It ran once with this key; its answer is no longer kept.")
IDEMPOTENCY_MISMATCH = ErrorKind(422, "idempotency_key_reused", "1412", "This key was used with another body.")
CONFLICT = ErrorKind(409, "conflict", None, "The object's state does not allow it, or the name is taken.")
TOO_MANY_ATTEMPTS = ErrorKind(429, "too_many_attempts", "1320", "Too many log-ins were tried: wait.")
NOT_ALLOWED = ErrorKind(403, "not_allowed", "1911", "The caller's role or scope does not allow it.")
UNSUPPORTED_MEDIA = ErrorKind(415, "unsupported_media_type", None, "The body is not application/json.")
VALIDATION = ErrorKind(422, "invalid_request_error", None, "The body is not JSON, or a field is wrong.")
RATE_LIMITED = ErrorKind(429, "rate_limited", "1300", "A limit of requests, tokens or concurrency is reached.")
CAPACITY = ErrorKind(429, "service_tier_capacity_exceeded", "3505", "The tier's queue is full or too slow.")
INTERNAL = ErrorKind(500, "internal_server_error", "3600", "A defect of ours.")
ENGINE_FAILED = ErrorKind(500, "internal_server_error", "3600", "The engine failed on this request; not charged.")
UNAVAILABLE = ErrorKind(503, "unreachable_backend", "1100", "A part of the platform is away; try again.")

ALL_KINDS: tuple[ErrorKind, ...] = (
    BAD_REQUEST, INVALID_MODEL, MESSAGE_ORDER, ASSISTANT_MESSAGE, FUNCTION_CALL, PROMPT_TOO_LARGE, INVALID_ARGUMENTS,
    GREEDY_TOP_P, UNAUTHORIZED, PAYMENT_REQUIRED, SPENDING_LIMIT, FORBIDDEN, NOT_FOUND, METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT, BODY_TOO_LARGE, UNSUPPORTED_MEDIA, VALIDATION, RATE_LIMITED, CAPACITY, INTERNAL, ENGINE_FAILED,
    UNAVAILABLE, CREDIT_RESERVED, IDEMPOTENCY_RUNNING, ANSWER_EXPIRED, IDEMPOTENCY_MISMATCH, CONFLICT,
    TOO_MANY_ATTEMPTS, NOT_ALLOWED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which rule refused: told to the caller word for word. `tier` if it concerns one only."""

    rule: str
    scope: str
    limit: int
    remaining: int
    retry_after_ms: int | None
    tier: str = ""


class PlatformError(Exception):
    """What a caller is told. `message` names what to do; `details` are validation entries (loc, msg, type)."""

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        refusal: Refusal | None = None,
        details: tuple[Mapping[str, object], ...] = (),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.refusal = refusal
        self.details = details


class SetupError(Exception):
    """Something outside the program must be put right first; the message is one sentence for a terminal."""
