"""Client of a Tramontane platform: `Tramontane`, or `AsyncTramontane` with async and await."""

from __future__ import annotations

from tramontane import errors, types
from tramontane._async.client import AsyncTramontane
from tramontane._async.streams import AsyncChatStream
from tramontane._sync.client import Tramontane
from tramontane._sync.streams import ChatStream
from tramontane.errors import (
    APIError,
    AuthenticationError,
    CapacityExceeded,
    ConfigurationError,
    Conflict,
    ConnectFailed,
    ConnectionLost,
    CreditExhausted,
    CreditReserved,
    EngineFailed,
    InvalidRequest,
    NotFound,
    NotParsed,
    PaymentRequired,
    PermissionDenied,
    RateLimited,
    Refusal,
    RequestInProgress,
    RequestTimeout,
    ServerError,
    SpendingLimitReached,
    StreamInterrupted,
    TimedOut,
    TooManyRounds,
    TooManyTokens,
    TramontaneError,
    Unavailable,
    UnexpectedAnswer,
)
from tramontane.wire.calls import VERSION
from tramontane.wire.config import Retries, Timeouts
from tramontane.wire.decode import Meta
from tramontane.wire.parsing import Parsed
from tramontane.wire.tools import Tool, ToolError, ToolRun, tool_of

__version__ = VERSION

__all__ = [
    "APIError",
    "AsyncChatStream",
    "AsyncTramontane",
    "AuthenticationError",
    "CapacityExceeded",
    "ChatStream",
    "ConfigurationError",
    "Conflict",
    "ConnectFailed",
    "ConnectionLost",
    "CreditExhausted",
    "CreditReserved",
    "EngineFailed",
    "InvalidRequest",
    "Meta",
    "NotFound",
    "NotParsed",
    "Parsed",
    "PaymentRequired",
    "PermissionDenied",
    "RateLimited",
    "Refusal",
    "RequestInProgress",
    "RequestTimeout",
    "Retries",
    "ServerError",
    "SpendingLimitReached",
    "StreamInterrupted",
    "TimedOut",
    "Timeouts",
    "TooManyRounds",
    "TooManyTokens",
    "Tool",
    "ToolError",
    "ToolRun",
    "Tramontane",
    "TramontaneError",
    "Unavailable",
    "UnexpectedAnswer",
    "__version__",
    "errors",
    "tool_of",
    "types",
]
