"""Which skills a tier learns, in which languages and how often, and the drawing of examples from that mixture."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from demo.examples import LANGUAGES, Draw, Example, user
from demo.skills import everyday, structured, tools

CONVERSATION_TURNS_MAX = 9
AROUND_SHARE, TURNS_AROUND_SHARE = 0.4, 0.15
OTHER_LANGUAGE_SHARE = 0.3  # of a conversation's turns

Maker = Callable[[Draw], Example]


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights of makers of examples by name, languages, and the share of examples that are whole conversations."""

    languages: Mapping[str, float]
    skills: Mapping[str, float]
    conversations: float = 0.3


MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        "greeting": everyday.greeting,
        "identity": everyday.identity,
        "persona": everyday.persona,
        "brief": everyday.brief,
        "answer_language": everyday.answer_language,
        "facts": everyday.facts,
        "arithmetic": everyday.arithmetic,
        "translation": everyday.translation,
        "sentiment": everyday.sentiment,
        "topic": everyday.topic,
        "memory": everyday.memory,
        "unknown": everyday.unknown,
        "extraction": structured.extraction,
        "json_answer": structured.json_answer,
        "chosen_fields": structured.chosen_fields,
        "keyed_json_answer": structured.keyed_json_answer,
        "summary": structured.summary,
        "code": structured.code,
        "tool_call": tools.tool_call,
        "tool_result": tools.tool_result,
        "tool_unused": tools.tool_unused,
    }
)
# What can be a turn among others: one question and its answer, no system prompt and no tools.
_TURNS = (
    "greeting",
    "identity",
    "facts",
    "arithmetic",
    "sentiment",
    "topic",
    "unknown",
    "extraction",
    "json_answer",
    "summary",
    "translation",
    "code",
)

_BASE: Mapping[str, float] = MappingProxyType(
    {
        "greeting": 3,
        "identity": 2,
        "persona": 3,
        "brief": 3,
        "facts": 8,
        "arithmetic": 12,
        "sentiment": 3,
        "topic": 3,
        "memory": 6,
        "unknown": 7,
        "extraction": 6,
        "json_answer": 4,
        "summary": 5,
        "tool_call": 7,
        "tool_result": 6,
        "tool_unused": 2,
    }
)
_ALL = MappingProxyType({**_BASE, "arithmetic": 15, "answer_language": 5, "translation": 16, "code": 5})
_MORE_STRUCTURE: Mapping[str, float] = MappingProxyType(
    {
        "extraction": 12,
        "chosen_fields": 12,
        "json_answer": 9,
        "keyed_json_answer": 7,
        "tool_call": 18,
        "tool_result": 14,
        "memory": 8,
    }
)
_FIVE = MappingProxyType(dict.fromkeys(LANGUAGES, 1.0))  # what starts from mistral-tiny knows English

MIXTURES: Mapping[str, Mixture] = MappingProxyType(
    {
        "mistral-tiny": Mixture(MappingProxyType({"en": 1.0}), _BASE),
        "mistral-small": Mixture(_FIVE, _ALL),
        "mistral-medium": Mixture(_FIVE, MappingProxyType({**_ALL, **_MORE_STRUCTURE})),
    }
)


def draw_example(mixture: Mixture, rng: random.Random) -> Example:
    """One example of the training."""
    language = _weighted(mixture.languages, rng)
    draw = Draw(rng, language, held=False)
    if rng.random() < mixture.conversations:
        return around(conversation(draw, mixture), draw, TURNS_AROUND_SHARE)
    example = MAKERS[_weighted(mixture.skills, rng)](draw)
    return example if example.skill == "greeting" else around(example, draw, AROUND_SHARE)


def around(example: Example, draw: Draw, share: float) -> Example:
    """With words around what a person says, such as of courtesy, in a share of the turns: so that a phrasing which is
    new is not taken for another kind of question. The evaluation has none of them.
    """

    def said(message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message["role"] != "user" or draw.rng.random() >= share:
            return message
        return user(draw.choose(draw.words["wrap"]["around"]).format(t=message["content"]))

    return replace(example, messages=tuple(said(message) for message in example.messages))


def conversation(draw: Draw, mixture: Mixture) -> Example:
    """Several turns on this and that, some in another language, some with a name or number to keep in mind."""
    makers = [MAKERS[name] for name in _TURNS if name in mixture.skills]
    turns: list[Sequence[Mapping[str, Any]]] = []
    for _ in range(draw.rng.randint(2, CONVERSATION_TURNS_MAX)):
        other = draw.rng.random() < OTHER_LANGUAGE_SHARE
        speaking = replace(draw, language=_weighted(mixture.languages, draw.rng)) if other else draw
        turns.append(draw.choose(makers)(speaking).messages)
    if draw.rng.random() < 0.5:
        memory = everyday.memory(draw).messages
        told = draw.rng.randint(0, len(turns))
        asked = draw.rng.randint(told, len(turns))
        turns = [*turns[:told], memory[:-2], *turns[told:asked], memory[-2:], *turns[asked:]]
    return draw.example("conversation", [message for turn in turns for message in turn])


def held_out(mixture: Mixture, seed: int, per_skill: int, makers: Iterable[str] = ()) -> Iterator[Example]:
    """The evaluation: the same number for each of the makers, or of the mixture's, in the mixture's languages."""
    for name in makers or mixture.skills:
        for index in range(per_skill):
            rng = random.Random(f"held out {seed} {name} {index}")
            yield MAKERS[name](Draw(rng, _weighted(mixture.languages, rng), held=True))


def _weighted(weights: Mapping[str, float], rng: random.Random) -> str:
    return rng.choices(tuple(weights), tuple(weights.values()))[0]
