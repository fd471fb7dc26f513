"""Structured logs: one JSON object a line on stderr. Prompts, answers and key material are never logged."""

import logging
import sys

import structlog

LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
SECRET_NAMES = ("key", "secret", "password", "token", "authorization", "pepper", "redis_url", "database_url")
REDACTED = "[redacted]"


def set_up_logs(process: str, level: str) -> structlog.stdlib.BoundLogger:
    """Configure once, in a process's main; the answer is passed down."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS.get(level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    log: structlog.stdlib.BoundLogger = structlog.get_logger().bind(process=process)
    return log


def redact(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The last line of defence; secrets are typed as SecretStr long before."""
    for name in event:
        if name.lower() in SECRET_NAMES or name.lower().endswith(("_secret", "_password")):
            event[name] = REDACTED
    return event
