"""Score checkpoints on held-out prompts, as Markdown: by skill, overlap with the training, experts, determinism, speed.

python -m demo.evaluate [NAME ...] [--folder demo/weights] [--per-skill 40] [--wrong 0]
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from core.clock import Clock, SystemClock
from demo.answers import answer_all, load_model, tokens_per_second
from demo.examples import Example
from demo.mixture import MIXTURES, held_out
from demo.placing import WEIGHTS
from demo.routing import expert_shares, extremes
from demo.rows import prompt
from demo.score import is_right, overlap, tally
from demo.tiers import Model

SEED = 80_731
ALONE = 16  # prompts that are answered again, each alone
ROUTED = 200  # examples whose tokens are followed to their experts


def report(name: str, folder: Path, per_skill: int, wrong: int, clock: Clock) -> Iterator[str]:
    """Lines of Markdown. `wrong` is how many wrong answers of each skill are shown."""
    model = load_model(folder / name)
    mixture = MIXTURES[name]
    examples = list(held_out(mixture, SEED, per_skill))
    prompts = [prompt(example) for example in examples]
    texts = answer_all(model, prompts)
    size_mb = (folder / name / "model.safetensors").stat().st_size / 1e6
    yield f"### {name}: {size_mb:.1f} MB"
    yield from _skills(examples, texts)
    seen = overlap(examples, mixture, SEED)
    yield (
        f"Of {seen.prompts} held-out prompts {seen.same_prompt} occur word for word in {seen.draws} training examples; "
        f"{seen.same_phrasings} have no phrasing that is new."
    )
    alone = answer_all(model, prompts[:: max(1, len(prompts) // ALONE)], batch=1)
    same = sum(one == many for one, many in zip(alone, texts[:: max(1, len(prompts) // ALONE)], strict=True))
    yield f"Alone and in a batch: the same text for {same} of {len(alone)} prompts."
    rate = tokens_per_second(model, prompts[0], clock)
    yield f"A single stream: {rate:.0f} tokens/s on {torch.get_num_threads()} CPU threads."
    if hasattr(model.config, "num_local_experts"):
        yield from _experts(model, examples[:: max(1, len(examples) // ROUTED)])
    yield from _failures(examples, texts, wrong)


def _skills(examples: Sequence[Example], texts: Sequence[str]) -> Iterator[str]:
    counts = tally(examples, texts)
    rows = [(skill, right, total) for skill, (right, total) in counts.items()]
    rows.append(("all", sum(right for _, right, _ in rows), len(examples)))
    yield from table(("skill", "right", "of", "share"), [(*row, f"{row[1] / row[2]:.0%}") for row in rows])


def _experts(model: Model, examples: Sequence[Example]) -> Iterator[str]:
    shares = expert_shares(model, examples)
    layers = shares["all"].shape[0]
    rows = [
        (domain, layer + 1, *(f"{share:.1%}" for share in by_layer[layer].tolist()))
        for domain, by_layer in shares.items()
        for layer in (0, layers // 2, layers - 1)
    ]
    yield from table(("domain", "layer", *map(str, range(shares["all"].shape[1]))), rows)
    least, most = extremes(shares["all"])
    yield f"Over all layers an expert has {least:.2f} to {most:.2f} times the mean share."


def _failures(examples: Sequence[Example], texts: Sequence[str], wrong: int) -> Iterator[str]:
    shown: Mapping[str, list[str]] = {example.skill: [] for example in examples}
    for example, text in zip(examples, texts, strict=True):
        if not is_right(example, text):
            shown[example.skill].append(f"- {example.skill}: {example.prompt[-1]['content']!r} -> {text!r}")
    yield from (line for lines in shown.values() for line in lines[:wrong])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """A Markdown table with an empty line around."""
    lines = [head, ["---"] * len(head), *rows]
    yield "\n".join(["", *("| " + " | ".join(map(str, line)) + " |" for line in lines), ""])


def _main() -> None:
    parser = argparse.ArgumentParser(description="Score demo checkpoints on prompts that their training never saw.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MIXTURES)}; all that are there")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="default: the weights that the project brings")
    parser.add_argument("--per-skill", type=int, default=40)
    parser.add_argument("--wrong", type=int, default=0, help="wrong answers to show for each skill")
    given = parser.parse_args()
    transformers_logging.disable_progress_bar()
    for name in given.names or [name for name in MIXTURES if (given.folder / name).is_dir()]:
        for line in report(name, given.folder, given.per_skill, given.wrong, SystemClock()):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main()
