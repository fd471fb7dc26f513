"""Answers of a fixed form: fields out of a sentence as JSON, a fact as JSON, a paragraph as a sentence, a function."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from demo.examples import Draw, Example, assistant, corpus, user
from demo.skills.everyday import fact, name

AGE_MIN, AGE_MAX = 18, 79
COUNT_MAX = 20
FIRST_HOUR, LAST_HOUR = 8, 20


def extraction(draw: Draw) -> Example:
    """The fields of one sentence."""
    question, fields = _extracted(draw, lambda keys: keys)
    return _as_json(draw, "extraction", question, fields)


def chosen_fields(draw: Draw) -> Example:
    """Those of the fields that are asked for, in the order asked for."""
    question, fields = _extracted(draw, lambda keys: draw.rng.sample(keys, draw.rng.randint(1, len(keys))))
    return _as_json(draw, "fields", question, fields)


def json_answer(draw: Draw) -> Example:
    question, _, word = fact(draw)
    asked = draw.phrase(draw.words["json"], q=question)
    return _as_json(draw, "json", asked, {"answer": word})


def keyed_json_answer(draw: Draw) -> Example:
    """Under the key asked for."""
    section = draw.words["json_key"]
    question, _, word = fact(draw)
    key = draw.fill(section, "keys")
    return _as_json(draw, "json key", draw.phrase(section, q=question, k=key), {key: word})


def _as_json(draw: Draw, skill: str, question: str, answer: Mapping[str, Any]) -> Example:
    text = json.dumps(answer, ensure_ascii=False)
    return draw.example(skill, [user(question), assistant(text)], check="json", domain="json")


def _extracted(draw: Draw, choose: Callable[[Sequence[str]], Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """The question after the fields that `choose` takes of all, and what they are."""
    kind = draw.choose(tuple(draw.words["extract"]))
    section = draw.words["extract"][kind]
    fields = dict(zip(section["keys"], draw.combination(lambda: _fields(draw, kind)), strict=True))
    spoken = dict(zip(_FILLS[kind], fields.values(), strict=True))
    text = draw.phrase(section, "text", **spoken)
    chosen = choose(section["keys"])
    question = listing(section["keys"], chosen, draw.phrase(section, t=text))
    return question, {key: fields[key] for key in chosen}


def listing(keys: Sequence[str], chosen: Sequence[str], question: str) -> str:
    """The question with `chosen` in the place of all three keys: "a, b and c", or "a, b, c"."""
    first, second, third = map(re.escape, keys)

    def listed(match: re.Match[str]) -> str:
        return match["before"].join((", ".join(chosen[:-1]), chosen[-1])) if len(chosen) > 1 else chosen[0]

    return re.sub(f"{first}, {second}(?P<before>,? (?:\\w+ )?){third}", listed, question, count=1)


def summary(draw: Draw) -> Example:
    """Three sentences, of which the middle one does not matter."""
    section, fill = draw.words["summary"], draw.words["fill"]
    day, who, city, count, item = draw.combination(
        lambda: (
            draw.choose(fill["days"]),
            name(draw),
            draw.fill(fill, "cities"),
            draw.rng.randint(2, COUNT_MAX),
            draw.fill(fill, "items"),
        )
    )
    known = {"day": day, "n": who, "c": city, "k": count, "item": item, "w": draw.choose(section["weather"])}
    text = " ".join(draw.phrase(section, part, **known) for part in ("first", "middle", "last"))
    return draw.example("summary", [user(draw.phrase(section, t=text)), assistant(section["answer"].format_map(known))])


def code(draw: Draw) -> Example:
    """A small Python function out of a closed set, fenced as in Markdown; the request is in English."""
    section = corpus("code")
    function = draw.choose(section["functions"])
    question = draw.phrase(section, f=draw.phrase(function, "means"))
    return draw.example(
        "code", [user(question), assistant(f"```python\n{function['code'].strip()}\n```")], domain="code"
    )


# What the sentences of the corpus call the fields, whatever the language calls the keys.
_FILLS = {
    "person": ("name", "age", "city"),
    "order": ("name", "count", "item"),
    "meeting": ("name", "day", "hour"),
}


def _fields(draw: Draw, kind: str) -> tuple[Any, ...]:
    fill, rng = draw.words["fill"], draw.rng
    match kind:
        case "person":
            return name(draw), rng.randint(AGE_MIN, AGE_MAX), draw.fill(fill, "cities")
        case "order":
            return name(draw), rng.randint(2, COUNT_MAX), draw.fill(fill, "items")
        case _:
            return name(draw), draw.choose(fill["days"]), rng.randint(FIRST_HOUR, LAST_HOUR)
