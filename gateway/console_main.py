"""The console's process: a gateway that serves its pages alone, to the other gateways, over a Unix socket."""

import os
import socket
from functools import partial
from pathlib import Path

from core.errors import SetupError
from core.settings import read_settings
from gateway.main import run_gateway
from gateway.settings import GatewaySettings

NICENESS = 5  # where processors are short, programs' requests go before pages


def main() -> int:
    """The exit code: 0 after a drain. Raises SetupError with one sentence."""
    settings = read_settings(GatewaySettings)
    path = settings.console_socket
    if path is None:
        raise SetupError("TRAMONTANE_CONSOLE_SOCKET is not set: the console's process listens there.")
    os.nice(NICENESS)
    # Here the pages are served, and handed on no further.
    own = settings.model_copy(update={"console_socket": None})
    return run_gateway("console", own, partial(_listen, path, settings.backlog))


def _listen(path: Path, backlog: int) -> socket.socket:
    """Readable by its owner alone. What an earlier process left there is taken away."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
        listening.listen(backlog)
    except OSError as error:
        raise SetupError(f"Cannot listen on {path}: {error.strerror}.") from error
    return listening
