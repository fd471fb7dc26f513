"""Answers of a fixed form: fields out of a sentence as JSON, a fact as JSON, a paragraph as a sentence, a function."""

import json
from typing import Any

from demo.examples import Draw, Example, assistant, corpus, user
from demo.skills.everyday import fact, name

AGE_MIN, AGE_MAX = 18, 79
COUNT_MAX = 20
FIRST_HOUR, LAST_HOUR = 8, 20


def extraction(draw: Draw) -> Example:
    """The fields of one sentence, in the order asked for."""
    kind = draw.choose(tuple(draw.words["extract"]))
    section = draw.words["extract"][kind]
    fields = dict(zip(section["keys"], draw.combination(lambda: _fields(draw, kind)), strict=True))
    spoken = dict(zip(_FILLS[kind], fields.values(), strict=True))
    text = draw.phrase(section, "text", **spoken)
    answer = json.dumps(fields, ensure_ascii=False)
    question = draw.phrase(section, t=text)
    return draw.example("extraction", [user(question), assistant(answer)], check="json", domain="json")


def json_answer(draw: Draw) -> Example:
    question, _, word = fact(draw)
    asked = draw.phrase(draw.words["json"], q=question)
    answer = json.dumps({"answer": word}, ensure_ascii=False)
    return draw.example("json", [user(asked), assistant(answer)], check="json", domain="json")


def summary(draw: Draw) -> Example:
    """Three sentences, of which the middle one does not matter."""
    section, fill = draw.words["summary"], draw.words["fill"]
    day, who, city, count, item = draw.combination(
        lambda: (
            draw.choose(fill["days"]),
            name(draw),
            draw.choose(fill["cities"]),
            draw.rng.randint(2, COUNT_MAX),
            draw.choose(fill["items"]),
        )
    )
    known = {"day": day, "n": who, "c": city, "k": count, "item": item, "w": draw.choose(section["weather"])}
    text = " ".join(draw.phrase(section, part, **known) for part in ("first", "middle", "last"))
    return draw.example("summary", [user(draw.phrase(section, t=text)), assistant(section["answer"].format_map(known))])


def code(draw: Draw) -> Example:
    """A small Python function out of a closed set; the request is in English."""
    section = corpus("code")
    function = draw.choose(section["functions"])
    question = draw.phrase(section, f=draw.phrase(function, "means"))
    return draw.example("code", [user(question), assistant(function["code"].strip())], domain="code")


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
            return name(draw), rng.randint(AGE_MIN, AGE_MAX), draw.choose(fill["cities"])
        case "order":
            return name(draw), rng.randint(2, COUNT_MAX), draw.choose(fill["items"])
        case _:
            return name(draw), draw.choose(fill["days"]), rng.randint(FIRST_HOUR, LAST_HOUR)
