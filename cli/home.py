"""The folder that holds an installation's state: where things lie in it, its lock, its secrets."""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import SetupError

FREE_BYTES_MIN = 256 * 1024**2
SOCKET_PATH_LENGTH_MAX = 100  # the kernel's bound is 108 bytes
LOCK_TRIES = 5
LOCK_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Home:
    """`root` is absolute."""

    root: Path

    @property
    def run(self) -> Path:
        """What belongs to one life of the platform: state, beats, sockets, metrics."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    def beat(self, process: str) -> Path:
        return self.run / f"{process}.beat"

    def socket(self, process: str) -> Path | None:
        """Where it listens for others of this home; None where the path is too long for a socket."""
        path = self.run / f"{process}.sock"
        return path if len(str(path).encode()) < SOCKET_PATH_LENGTH_MAX else None


def prepare(root: Path, free_bytes_min: int = FREE_BYTES_MIN) -> Home:
    """Make the folders that are missing. SetupError: not writable, or too little room on the disk."""
    home = Home(root.absolute())
    with one_sentence(home.root):
        for folder in (home.root, home.run, home.logs, home.redis, home.secrets):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(home.root).free
    if free_bytes < free_bytes_min:
        raise SetupError(
            f"The disk of {home.root} is nearly full: {free_bytes // 1024**2} MB are free, "
            f"{free_bytes_min // 1024**2} MB are needed; make room or set TRAMONTANE_HOME."
        )
    return home


@contextmanager
def one_sentence(place: Path) -> Iterator[None]:
    """Turn what the file system refuses into a SetupError that names the place and the cure."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SetupError(f"The disk of {place} is full; make room or set TRAMONTANE_HOME.") from error
        raise SetupError(f"{place} cannot be used ({error.strerror}); set TRAMONTANE_HOME elsewhere.") from error


def empty_metrics(home: Home) -> None:
    """Counters of an earlier life would be summed into this one's."""
    with one_sentence(home.metrics):
        shutil.rmtree(home.metrics, ignore_errors=True)
        home.metrics.mkdir(mode=0o700, exist_ok=True)


def lock(home: Home) -> int | None:
    """Take the installation for this process; a file descriptor to keep open, or None if another process has it."""
    with one_sentence(home.run):
        descriptor = os.open(home.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)  # `is_locked` of another command holds it for an instant
        else:
            return descriptor
    os.close(descriptor)
    return None


def is_locked(home: Home) -> bool:
    """Whether a platform runs on this home; makes nothing."""
    try:
        descriptor = os.open(home.run / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner reads, all or nothing."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
