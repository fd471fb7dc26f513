"""The average of two checkpoints of one run, which often answers better than each: weight averaging, as in Izmailov
et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018), arXiv:1803.05407.

python -m demo.average TARGET FIRST SECOND [--share 0.5]
"""

import argparse
from pathlib import Path

import torch

from demo.answers import load_model
from demo.checkpoint import write_checkpoint


def average(first: Path, second: Path, target: Path, share: float) -> None:
    """TARGET becomes a checkpoint with `share` of the second's weights; it may be one of the two."""
    model, weights = load_model(first), load_model(second).state_dict()
    model.load_state_dict({name: torch.lerp(value, weights[name], share) for name, value in model.state_dict().items()})
    write_checkpoint(model.to(torch.bfloat16), target)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Average two checkpoints of one run.")
    parser.add_argument("target", type=Path)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    given = parser.parse_args()
    average(given.first, given.second, given.target, given.share)


if __name__ == "__main__":
    _main()
