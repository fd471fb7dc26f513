"""A file that a live process touches every second: what `up`, container probes and `status` look at.

It tells more than that a process exists: a process beats only while it can do its work.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BEAT_S = 1.0
STALE_S = 10.0


@dataclass(frozen=True, slots=True)
class Beat:
    """`note` is for a person who waits: "loading mistral-tiny"."""

    ready: bool
    note: str = ""


class Heartbeat:
    def __init__(self, path: Path | None) -> None:
        self._path = path

    def beat(self, beat: Beat) -> None:
        """Write, or do nothing where no file was asked for."""
        if self._path is None:
            return
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(beat)), encoding="utf-8")
        temporary.replace(self._path)


def read_beat(path: Path) -> Beat | None:
    """The last beat, or None if there is none or it is older than STALE_S."""
    try:
        age_s = time.time() - path.stat().st_mtime  # noqa: TID251 - compared with a file's own time
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return Beat(ready=bool(raw["ready"]), note=str(raw["note"])) if age_s < STALE_S else None
