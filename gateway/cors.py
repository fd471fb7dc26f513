"""Which web pages may call the API from a browser: none, unless the operator lists their origins."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
EXPOSED = (
    "mistral-correlation-id",
    "retry-after",
    "idempotent-replayed",
    "x-ratelimit-limit-req-minute",
    "x-ratelimit-remaining-req-minute",
    "x-ratelimit-limit-tokens-minute",
    "x-ratelimit-remaining-tokens-minute",
    "x-ratelimit-limit-tokens-month",
    "x-ratelimit-remaining-tokens-month",
    "x-ratelimit-tokens-query-cost",
    "x-tramontane-cost-nano",
    "x-tramontane-ignored",
    "x-tramontane-overhead-ms",
    "x-tramontane-price-version",
    "x-tramontane-queue-ms",
    "x-tramontane-soft-limit",
)
MAX_AGE_S = 600


def with_cors(app: ASGIApp, origins: str) -> ASGIApp:
    """`origins` comma-separated, like https://chat.example; `app` itself when there is none. Without credentials: a
    page sends its key, and no cookies.
    """
    allowed = tuple(origin.strip().rstrip("/") for origin in origins.split(",") if origin.strip())
    if not allowed:
        return app
    return CORSMiddleware(
        app,
        allow_origins=allowed,
        allow_methods=METHODS,
        allow_headers=("*",),
        allow_credentials=False,
        expose_headers=EXPOSED,
        max_age=MAX_AGE_S,
    )
