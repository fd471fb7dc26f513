"""What one example of the demo corpus is, and the drawing of phrases and fills that it is made from.

Every draw is either of the training or held out. Phrasings are split by hand: the corpus files keep `held` ones apart.
Fills with many combinations are split by a checksum of them, so that neither side ever sees the other's.
"""

import random
import tomllib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from core.errors import SetupError

CORPUS = Path(__file__).parent / "corpus"
LANGUAGES = ("en", "fr", "de", "es", "it")
HELD_SHARE = 8  # one combination of fills in so many is held out
DRAWS_MAX = 10_000
MORE_SHARE = 0.6  # of the fills that training draws where it has more

Check = Literal["text", "json", "calls"]
Domain = Literal["language", "code", "arithmetic", "json"]


@dataclass(frozen=True, slots=True)
class Example:
    """A conversation that ends with the answer wanted. `phrasings` are the templates used, for the overlap report."""

    skill: str
    language: str
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    check: Check = "text"
    domain: Domain = "language"
    phrasings: frozenset[str] = frozenset()

    @property
    def prompt(self) -> tuple[Mapping[str, Any], ...]:
        return self.messages[:-1]

    @property
    def answer(self) -> Mapping[str, Any]:
        return self.messages[-1]


@dataclass(slots=True)
class Draw:
    """One example's source of randomness. `held` draws take held-out phrasings and fills, and nothing else."""

    rng: random.Random
    language: str
    held: bool
    phrasings: set[str] = field(default_factory=set)

    @property
    def words(self) -> Mapping[str, Any]:
        return corpus(self.language)

    def phrase(self, section: Mapping[str, Any], key: str = "ask", **fills: object) -> str:
        """One phrasing of `section`, filled in: of `held` or `held_KEY` for a held-out draw."""
        held_key = "held" if key == "ask" else f"held_{key}"
        template = self.rng.choice(section[held_key if self.held and held_key in section else key])
        self.phrasings.add(template)
        return str(template.format_map(fills)) if fills else str(template)

    def choose(self, values: Sequence[Any]) -> Any:
        return self.rng.choice(values)

    def fill(self, section: Mapping[str, Any], key: str) -> str:
        """One word of `section`. Training takes many of `more_KEY` too, for it to repeat words and not recall them."""
        more = () if self.held else section.get(f"more_{key}", ())
        return str(self.rng.choice(more if more and self.rng.random() < MORE_SHARE else section[key]))

    def combination(self, draw: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Fills from `draw`, redrawn until they are on this draw's side of the split."""
        for _ in range(DRAWS_MAX):
            fills = draw()
            if is_held(fills) == self.held:
                return fills
        raise SetupError(f"No combination of {draw} is on this side of the split.")

    def example(self, skill: str, messages: Sequence[Mapping[str, Any]], **rest: Any) -> Example:
        return Example(skill, self.language, tuple(messages), phrasings=frozenset(self.phrasings), **rest)


def is_held(fills: tuple[Any, ...]) -> bool:
    return zlib.crc32(repr(fills).encode()) % HELD_SHARE == 0


@cache
def corpus(name: str) -> Mapping[str, Any]:
    """One file of the corpus: a language, `names` or `tools`."""
    return tomllib.loads((CORPUS / f"{name}.toml").read_text(encoding="utf-8"))


def user(text: str) -> Mapping[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> Mapping[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> Mapping[str, Any]:
    return {"role": "system", "content": text}
