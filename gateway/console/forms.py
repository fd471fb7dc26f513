"""What a page's form sends: a small urlencoded body, read once, checked by a pydantic model."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request
from pydantic import BaseModel, ValidationError

from core.errors import BODY_TOO_LARGE, NOT_ALLOWED, UNSUPPORTED_MEDIA, VALIDATION, PlatformError
from gateway.accounts.sessions import check_csrf
from gateway.replies import ClientLeft

FORM_BYTES_MAX = 256 * 1024
FIELDS_MAX = 500
FORM_TYPE = "application/x-www-form-urlencoded"
CSRF = "csrf"
CSRF_HEADER = "x-csrf-token"
FOREIGN = "This form comes from another site, or from a session that has ended: open the page again."

Model = TypeVar("Model", bound=BaseModel)
Fields = Mapping[str, str | list[str]]


async def read_form(request: Request) -> Fields:
    """A field that came once is a text, one that came more often a list. Raises PlatformError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise PlatformError(UNSUPPORTED_MEDIA, f"Send the form as {FORM_TYPE}.")
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > FORM_BYTES_MAX:
            raise PlatformError(BODY_TOO_LARGE, f"A form has at most {FORM_BYTES_MAX} bytes.")
    if await request.is_disconnected():
        raise ClientLeft
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError as error:
        raise PlatformError(VALIDATION, "The form cannot be read.") from error
    out: dict[str, str | list[str]] = {}
    for name, value in pairs:
        known = out.get(name)
        if known is None:
            out[name] = value
        else:
            out[name] = [*known, value] if isinstance(known, list) else [known, value]
    return out


def check_origin(request: Request, public_url: str) -> None:
    """A browser says where a form stands; one on another site is refused. Raises PlatformError (NOT_ALLOWED)."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    known = {request.headers.get("host", ""), urlsplit(public_url).netloc}
    if urlsplit(origin).netloc not in known:
        raise PlatformError(NOT_ALLOWED, FOREIGN)


def check_token(request: Request, fields: Fields, session_token: str) -> None:
    """Raises PlatformError (NOT_ALLOWED)."""
    given = fields.get(CSRF) or request.headers.get(CSRF_HEADER) or ""
    if not isinstance(given, str) or not check_csrf(session_token, given):
        raise PlatformError(NOT_ALLOWED, FOREIGN)


def parse_form(model: type[Model], fields: Fields) -> Model:
    """Empty texts count as not sent, and white space around texts is dropped. Raises PlatformError (VALIDATION) that
    names the first wrong field.
    """
    said = {}
    for name, value in fields.items():
        trimmed = [each.strip() for each in value] if isinstance(value, list) else value.strip()
        if name != CSRF and trimmed:
            said[name] = trimmed
    try:
        return model.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = str(first["loc"][0]) if first["loc"] else None
        reason = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        label = "" if param is None else f"{param.replace('_', ' ').capitalize()}: "
        raise PlatformError(VALIDATION, f"{label}{reason}.", param=param) from error
