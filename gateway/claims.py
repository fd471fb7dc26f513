"""From the header Idempotency-Key to the claim that admission makes."""

import hashlib

from starlette.types import Scope

from core.errors import VALIDATION, PlatformError
from core.queue.base import Claim
from gateway.middleware import header

KEY_HEADER = b"idempotency-key"
KEY_CHARS_MAX = 255


def claim_of(scope: Scope, route: str, workspace: str, body: bytes) -> Claim | None:
    """None without the header. The same key in another workspace or on another route is another claim; two bodies are
    the same if all their bytes are. Raises PlatformError(VALIDATION).
    """
    key = header(scope, KEY_HEADER)
    if key is None:
        return None
    if not 0 < len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.decode("ascii").isprintable():
        message = f"1 to {KEY_CHARS_MAX} printable ASCII characters"
        detail = {"type": "value_error", "loc": ("header", KEY_HEADER.decode("ascii")), "msg": message}
        raise PlatformError(VALIDATION, message, details=(detail,))
    named = b"\0".join((workspace.encode(), route.encode(), key))
    return Claim(hashlib.sha256(named).hexdigest(), hashlib.sha256(body).hexdigest())
