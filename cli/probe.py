"""Whether a process does its work, for container health checks: its beat is fresh and says that it is ready.

    python -m cli.probe /run/tramontane/gateway.beat [http://127.0.0.1:8000/health/ready]

Light on purpose: it is started every few seconds. A gateway is asked over HTTP, too.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from cli.health import is_ready
from core.heartbeat import read_beat

USAGE = "usage: python -m cli.probe FILE [URL]\n"


def probe(beat_file: Path, url: str | None) -> str | None:
    """What is wrong, for a person; None if nothing is."""
    beat = read_beat(beat_file)
    if beat is None:
        return "no fresh heartbeat"
    if not beat.ready:
        return beat.note or "not ready"
    if url is not None and not is_ready(url):
        return f"{url} does not answer 200"
    return None


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 if it works, 1 if not, 2 for a wrong command line."""
    if not 1 <= len(arguments) <= 2:
        sys.stderr.write(USAGE)
        return 2
    wrong = probe(Path(arguments[0]), arguments[1] if len(arguments) == 2 else None)
    sys.stdout.write(f"{wrong or 'ready'}\n")
    return 0 if wrong is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
