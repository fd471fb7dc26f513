"""Train a demo checkpoint, on a CPU or a CUDA device; what was stopped goes on.

    python -m demo.train NAME [--until HH:MM] [--folder .demo-training] [--start demo/weights/NAME] [--rows 10] ...

The rate of learning is constant up to `steps`, or up to the last fifth of the time until HH:MM (UTC); then it falls to
nothing on a copy, which becomes the checkpoint FOLDER/NAME; FOLDER/NAME.pt keeps what a later run trains further.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
from rich.progress import track
from torch.utils.data import DataLoader

from core.clock import Clock, SystemClock
from demo.checkpoint import save_checkpoint
from demo.learning import Learner, load_state, save_state, start_from
from demo.mixture import MIXTURES
from demo.rows import Batch, Batches, Pieces
from demo.tiers import PLANS

SEED = 2_312
SURVEY_EXAMPLES = 20_000  # that tell which pieces are used
COOLING_SHARE = 0.2  # of the time or of the steps
SAVE_EVERY_S = 300.0
LOG_EVERY_STEPS = 20
LOADERS_MAX = 12  # processes that make examples for a CUDA device


@dataclass(frozen=True, slots=True)
class Options:
    name: str
    folder: Path
    until: str | None
    steps: int
    rows: int
    row_tokens: int
    threads: int
    start: Path | None = None
    cooling: float = COOLING_SHARE
    rate: float | None = None

    @property
    def state(self) -> Path:
        return self.folder / f"{self.name}.pt"


def train(options: Options, clock: Clock) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    learner = _learner(options)
    end_s = None if options.until is None else clock.monotonic_s() + _seconds_until(options.until, clock)
    _say(f"{options.name}: {learner.describe()}, from step {learner.step}, seed {SEED}")
    _constant(options, learner, clock, end_s)
    save_state(learner, options.state)
    _cool(options, learner, clock, end_s)
    save_checkpoint(learner.model, learner.pieces, options.folder / options.name)
    _say(f"{options.name}: saved {options.folder / options.name}")


def _learner(options: Options) -> Learner:
    """Where the run stopped; anew, but with its weights, when the corpus has grown since."""
    plan = PLANS[options.name] if options.rate is None else replace(PLANS[options.name], rate=options.rate)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _say(f"{options.name}: looking which pieces the corpus uses ...")
    pieces = Pieces.survey(MIXTURES[options.name], SEED, SURVEY_EXAMPLES)
    if options.state.exists():
        learner = load_state(options.state, plan, device)
        return learner if learner.pieces.have(pieces) else start_from(options.state, plan, pieces, device)
    if options.start is not None:
        return start_from(options.start, plan, pieces, device)
    if plan.start is not None:
        return start_from(options.folder / f"{plan.start}.pt", plan, pieces, device)
    return Learner(plan, pieces, device)


def _constant(options: Options, learner: Learner, clock: Clock, end_s: float | None) -> None:
    """Until the steps are done or the time for cooling has come."""
    start_s = saved_s = clock.monotonic_s()
    cooling_s = None if end_s is None else end_s - options.cooling * (end_s - start_s)
    for batch in _batches(options, learner, clock, options.steps - learner.step):
        learner.learn(batch)
        now_s = clock.monotonic_s()
        if now_s - saved_s > SAVE_EVERY_S:
            save_state(learner, options.state)
            saved_s = now_s
        if cooling_s is not None and now_s > cooling_s:
            return


def _cool(options: Options, learner: Learner, clock: Clock, end_s: float | None) -> None:
    """The rate falls in a straight line, by the time that is left or by steps."""
    start_s, steps = clock.monotonic_s(), max(1, int(options.cooling * learner.step))
    for index, batch in enumerate(_batches(options, learner, clock, options.steps if end_s else steps)):
        done = index / steps if end_s is None else (clock.monotonic_s() - start_s) / max(1e-9, end_s - start_s)
        if done >= 1:
            return
        learner.learn(batch, share=1 - done)


def _batches(options: Options, learner: Learner, clock: Clock, count: int) -> Iterator[Batch]:
    """The next `count` batches, with a progress bar on a terminal and a line now and then elsewhere."""
    first = learner.step
    batches = Batches(MIXTURES[options.name], SEED, options.rows, options.row_tokens, first + max(0, count))
    loaders = LOADERS_MAX if learner.device.type == "cuda" else 0
    loader = DataLoader(
        batches, batch_size=None, sampler=range(first, len(batches)), num_workers=loaders, persistent_workers=False
    )
    start_s = clock.monotonic_s()
    for batch in track(loader, options.name, total=len(batches) - first, disable=not sys.stdout.isatty()):
        yield batch
        done = learner.step - first
        if done and done % LOG_EVERY_STEPS == 0:
            rate = done * batch.ids.numel() / (clock.monotonic_s() - start_s)
            _say(f"step {learner.step}  {learner.figures()}  {rate:.0f} tokens/s")


def _seconds_until(time: str, clock: Clock) -> float:
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    hour, minute = time.split(":")
    then = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    return ((then if then > now else then + timedelta(days=1)) - now).total_seconds()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Train a demo checkpoint.")
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--folder", type=Path, default=Path(".demo-training"))
    parser.add_argument("--until", metavar="HH:MM", help="UTC; stop then, whatever the steps")
    parser.add_argument("--steps", type=int, help="of the constant part")
    parser.add_argument("--start", type=Path, help="the folder of a checkpoint to go on from, where no run was stopped")
    parser.add_argument("--rows", type=int, default=10, help="in a batch")
    parser.add_argument("--cooling", type=float, default=COOLING_SHARE, help="share of the time, or of the steps")
    parser.add_argument("--rate", type=float, help="of learning, before it falls; gentler for what is trained already")
    parser.add_argument("--row-tokens", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    given = vars(parser.parse_args())
    given["steps"] = given["steps"] or PLANS[given["name"]].steps
    options = Options(**given)
    options.folder.mkdir(parents=True, exist_ok=True)
    train(options, SystemClock())


if __name__ == "__main__":
    _main()
