"""How strictly a body is read: as Mistral's API reads it, or so that what OpenAI clients send passes too."""

from enum import StrEnum

from core.errors import BAD_REQUEST, PlatformError

MODE_HEADER = "x-tramontane-mode"


class Mode(StrEnum):
    STRICT = "strict"
    LENIENT = "lenient"


def mode_of(asked: str | None, lenient: bool) -> Mode:
    """The header wins over the workspace's setting. Raises PlatformError(BAD_REQUEST) for another word."""
    if asked is None:
        return Mode.LENIENT if lenient else Mode.STRICT
    try:
        return Mode(asked.strip().lower())
    except ValueError:
        raise PlatformError(BAD_REQUEST, f"The header {MODE_HEADER} is strict or lenient.") from None
