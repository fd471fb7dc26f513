"""What a running platform tells the other commands: home/run/state.json, mode 0600 since it holds the Redis URL."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from cli.home import Home, is_locked, write_private
from core.settings import Settings

VERSION = 1
START_TIME_FIELD = 19  # of /proc/PID/stat, counted after the program's name


@dataclass(frozen=True, slots=True)
class ProcessState:
    """`started` tells a process from a later one with the same id."""

    name: str
    pid: int
    started: str


@dataclass(frozen=True, slots=True)
class State:
    """`database_url` is None for the SQLite file in home; `engine` and `tiers` are as `up` was told."""

    supervisor: ProcessState
    base_url: str
    redis_url: str
    database_url: str | None
    config: str
    engine: str | None
    tiers: str
    processes: tuple[ProcessState, ...] = ()
    version: int = VERSION


def path_of(home: Home) -> Path:
    return home.run / "state.json"


def write_state(home: Home, state: State) -> None:
    write_private(path_of(home), json.dumps(asdict(state), indent=2) + "\n")


def read_state(home: Home) -> State | None:
    """The last state written, whether or not its platform still runs. None: none, or of another version."""
    try:
        raw = json.loads(path_of(home).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if raw.get("version") != VERSION:
        return None
    supervisor = ProcessState(**raw.pop("supervisor"))
    processes = tuple(ProcessState(**process) for process in raw.pop("processes"))
    return State(supervisor=supervisor, processes=processes, **raw)


def running_state(home: Home) -> State | None:
    """The state of the platform that runs on this home now."""
    return read_state(home) if is_locked(home) else None


def with_processes(state: State, processes: Sequence[tuple[str, int]]) -> State:
    return replace(state, processes=tuple(describe(name, pid) for name, pid in processes))


def describe(name: str, pid: int) -> ProcessState:
    return ProcessState(name=name, pid=pid, started=started(pid) or "")


def started(pid: int) -> str | None:
    """When the process began, in the kernel's own count; None if it is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[START_TIME_FIELD]


def alive(process: ProcessState) -> bool:
    return process.started != "" and started(process.pid) == process.started


def send(process: ProcessState, number: signal.Signals) -> None:
    """Signal a process if it is still the one that was written down."""
    if alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return  # it ended between the look and the signal, which is what a signal is for


def settings_of(settings: Settings, state: State | None) -> Settings:
    """The settings as the running platform has them, whatever this shell's environment lacks."""
    if state is None:
        return settings
    return settings.model_copy(
        update={
            "redis_url": SecretStr(state.redis_url),
            "database_url": None if state.database_url is None else SecretStr(state.database_url),
            "config": Path(state.config),
            "engine": state.engine,
            "tiers": state.tiers,
        }
    )
