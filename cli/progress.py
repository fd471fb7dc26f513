"""What `up` says while it works: a seam with a terminal, a pipe to the waiting parent, and a list for tests."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol, TextIO


@dataclass(frozen=True, slots=True)
class Summary:
    """What a person needs once the platform is ready. `api_key` only when it was made now: it is shown once.
    `login_link` as long as nobody has become the operator of the console.
    """

    base_url: str
    home: str
    api_key: str | None
    chat_model: str | None
    embed_model: str | None
    detached: bool
    login_link: str | None = None


class Progress(Protocol):
    def begin(self, text: str) -> None:
        """Something that takes a while has begun; the time until `done` is shown."""

    def note(self, text: str) -> None:
        """What is going on in it now."""

    def done(self, name: str, detail: str) -> None:
        """One step is complete; further steps may come of the same begin."""

    def warn(self, text: str) -> None: ...

    def ready(self, summary: Summary) -> None:
        """The last word of a start."""


class ProgressPipe:
    """Hands every call on as one JSON line, until `ready`; from then on nobody reads."""

    def __init__(self, pipe: TextIO, later: Progress) -> None:
        self._pipe = pipe
        self._later = later
        self._open = True

    def begin(self, text: str) -> None:
        self._send("begin", text)

    def note(self, text: str) -> None:
        self._send("note", text)

    def done(self, name: str, detail: str) -> None:
        self._send("done", name, detail)

    def warn(self, text: str) -> None:
        if self._open:
            self._send("warn", text)
        else:
            self._later.warn(text)

    def ready(self, summary: Summary) -> None:
        self._send("ready", asdict(summary))
        self._open = False
        self._pipe.close()

    def failed(self, sentence: str) -> None:
        self._send("failed", sentence)

    def _send(self, call: str, *arguments: object) -> None:
        if not self._open:
            return
        try:
            self._pipe.write(json.dumps([call, *arguments]) + "\n")
            self._pipe.flush()
        except BrokenPipeError:
            self._open = False  # the parent was killed; the platform goes on


def replay(lines: Iterable[str], progress: Progress) -> str | None:
    """Make the calls that ProgressPipe wrote down. Answers None once it was ready, else why not: the sentence of the
    failure, or nothing ("") if the lines ended without a word.
    """
    ready = False
    for line in lines:
        call, *arguments = json.loads(line)
        if call == "failed":
            return str(arguments[0])
        if call == "ready":
            progress.ready(Summary(**arguments[0]))
            ready = True
        elif call == "done":
            progress.done(arguments[0], arguments[1])
        else:
            {"begin": progress.begin, "note": progress.note, "warn": progress.warn}[call](arguments[0])
    return None if ready else ""
