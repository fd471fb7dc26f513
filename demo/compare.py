"""Checkpoints side by side on the same held-out prompts, as one Markdown table of shares that are right.

python -m demo.compare NAME ... [--makers MAKER ...] [--folder demo/weights] [--per-skill 200] [--seed N]
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers.utils import logging as transformers_logging

from demo.answers import answer_all, load_model
from demo.evaluate import SEED, table
from demo.mixture import MAKERS, MIXTURES, held_out
from demo.placing import WEIGHTS
from demo.rows import prompt
from demo.score import is_right

STRUCTURED = ("extraction", "json_answer", "chosen_fields", "keyed_json_answer", "tool_call", "tool_result")


def comparison(
    names: Sequence[str], makers: Sequence[str], folder: Path, per_skill: int, seed: int = SEED
) -> Iterator[str]:
    """Rows are makers of examples, in the languages of the last tier, and all of them together; columns are tiers."""
    examples = list(held_out(MIXTURES[names[-1]], seed, per_skill, makers))
    prompts = [prompt(example) for example in examples]
    columns = []
    for name in names:
        texts = answer_all(load_model(folder / name), prompts)
        right = [is_right(example, text) for example, text in zip(examples, texts, strict=True)]
        counts = [sum(right[start : start + per_skill]) for start in range(0, len(right), per_skill)]
        columns.append([f"{count / per_skill:.1%}" for count in counts] + [f"{sum(counts) / len(right):.1%}"])
    yield from table(("", *names), list(zip((*makers, "all"), *columns, strict=True)))


def _main() -> None:
    parser = argparse.ArgumentParser(description="Compare demo checkpoints on the same held-out prompts.")
    parser.add_argument("names", nargs="+", choices=MIXTURES, metavar="NAME")
    parser.add_argument("--makers", nargs="+", choices=MAKERS, metavar="MAKER", default=STRUCTURED)
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="default: the weights that the project brings")
    parser.add_argument("--per-skill", type=int, default=200)
    parser.add_argument("--seed", type=int, default=SEED, help="another draws other held-out prompts")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    for line in comparison(given.names, given.makers, given.folder, given.per_skill, given.seed):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    _main()
