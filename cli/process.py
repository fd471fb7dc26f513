"""One child process: what to start, where its words go, how it is asked to end."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import SetupError

TETHER = Path(__file__).with_name("tether.py")
LOG_BYTES_MAX = 8 * 1024**2
LOG_TAIL_LINES = 12
LOG_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """`stage` orders the life: started upwards, stopped downwards. `beat` None: no heart-beat to wait for.
    `drain_s` is how long it may take to end after SIGTERM.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    stage: int
    drain_s: float
    beat: Path | None = None
    pass_fds: tuple[int, ...] = ()


class ChildFailedError(SetupError):
    """A process ended, or never became ready, while the platform was starting."""


async def spawn(spec: ProcessSpec) -> asyncio.subprocess.Process:
    """Start it in its own session (Ctrl-C is the supervisor's to hear), tied to this process's life."""
    if spec.beat is not None:
        spec.beat.unlink(missing_ok=True)
    bound_log(spec.log)
    log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *tethered(spec.argv),
            env=dict(spec.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=spec.pass_fds,
            start_new_session=True,
        )
    finally:
        os.close(log)


def tethered(argv: tuple[str, ...]) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *argv)


async def end(process: asyncio.subprocess.Process, drain_s: float, hurry: asyncio.Event) -> None:
    """SIGTERM, then SIGKILL for the whole session when drain_s is over or somebody is in a hurry."""
    signal_group(process.pid, signal.SIGTERM, whole=False)
    waits = {asyncio.ensure_future(process.wait()), asyncio.ensure_future(hurry.wait())}
    await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if process.returncode is None:
        signal_group(process.pid, signal.SIGKILL, whole=True)
        await process.wait()


def signal_group(pid: int, number: signal.Signals, *, whole: bool) -> None:
    try:
        if whole:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        return  # already gone


def bound_log(path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Put a log that has grown too long aside as NAME.log.1; writers append, so cutting under them is safe."""
    if path.exists() and path.stat().st_size > bytes_max:
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        os.truncate(path, 0)


def log_tail(path: Path) -> str:
    """The last lines, for a person who asks why."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
