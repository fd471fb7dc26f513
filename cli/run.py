"""One process of the platform by its name: what `up`, docker-compose.yml and the Helm chart start.

    python -m cli.run gateway

The modules are named by strings, so that a gateway never imports what a worker needs.
"""

import importlib
import sys
from enum import StrEnum

from core.errors import SetupError


class ProcessName(StrEnum):
    GATEWAY = "gateway"
    CONSOLE = "console"
    WORKER = "worker"
    EMBED = "embed"
    COLLECTOR = "collector"
    CELERY = "celery"


MODULES = {
    ProcessName.GATEWAY: "gateway.main",
    ProcessName.CONSOLE: "gateway.console_main",
    ProcessName.WORKER: "workers.main",
    ProcessName.EMBED: "embed.main",
    ProcessName.COLLECTOR: "billing.main",
    ProcessName.CELERY: "billing.celery_main",
}


def run(name: ProcessName) -> int:
    """Run until SIGTERM has drained it; the exit code."""
    try:
        code = importlib.import_module(MODULES[name]).main()
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return int(code)


if __name__ == "__main__":
    sys.exit(run(ProcessName(sys.argv[1])))
