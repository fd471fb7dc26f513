"""Small talk, facts, arithmetic, labels, memory, system prompts, and what the model does not know."""

from collections.abc import Mapping
from typing import Any

from demo.examples import LANGUAGES, Draw, Example, assistant, corpus, system, user

SUM_MAX = 20
FACTOR_MAX = 10
NUMBER_MAX = 99
LANGUAGE_NAMES = {"en": "English", "fr": "French", "de": "German", "es": "Spanish", "it": "Italian"}


def greeting(draw: Draw) -> Example:
    return _fixed(draw, draw.choose(("greet", "greet", "bye", "thanks")), "greeting")


def identity(draw: Draw) -> Example:
    return _fixed(draw, "identity", "identity")


def facts(draw: Draw) -> Example:
    question, answer, _ = fact(draw)
    return draw.example("facts", [user(question), assistant(answer)])


def fact(draw: Draw, *, kinds: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """A question of the closed set, its answer as a sentence, and as a word."""
    section = draw.words["facts"][draw.choose(kinds or tuple(draw.words["facts"]))]
    known = draw.choose(tuple(section["of"]))
    word = section["of"][known]
    return draw.phrase(section, x=known), section["answer"].format(x=known, y=word), word


def arithmetic(draw: Draw) -> Example:
    question, result = calculation(draw)
    return draw.example("arithmetic", [user(question), assistant(result)], domain="arithmetic")


def calculation(draw: Draw) -> tuple[str, str]:
    """Sums and differences are split by their numbers too; a product that was never seen cannot be worked out.

    Differences are learnt over twice the range that is asked for, for there to be enough of them.
    """
    section, rng = draw.words["arithmetic"], draw.rng
    match draw.choose(("plus", "minus", "times")):
        case "plus":
            left, right = draw.combination(lambda: (rng.randint(0, SUM_MAX), rng.randint(0, SUM_MAX)))
            return draw.phrase(section, "plus", a=left, b=right), f"{left} + {right} = {left + right}"
        case "minus":
            most = SUM_MAX // 2 if draw.held else SUM_MAX
            right, rest = draw.combination(lambda: (rng.randint(0, most), rng.randint(0, most)))
            left = right + rest
            return draw.phrase(section, "minus", a=left, b=right), f"{left} - {right} = {rest}"
        case _:
            left, right = rng.randint(0, FACTOR_MAX), rng.randint(0, FACTOR_MAX)
            return draw.phrase(section, "times", a=left, b=right), f"{left} x {right} = {left * right}"


def sentiment(draw: Draw) -> Example:
    section = draw.words["sentiment"]
    label = draw.rng.randrange(2)
    text = draw.phrase(
        section, "text", thing=draw.choose(section["things"]), word=draw.choose(section[("good", "bad")[label]])
    )
    return draw.example("sentiment", [user(draw.phrase(section, t=text)), assistant(section["labels"][label])])


def topic(draw: Draw) -> Example:
    section = draw.words["topic"]
    label = draw.choose(tuple(section["words"]))
    text = draw.phrase(section, "text", n=name(draw), word=draw.choose(section["words"][label]))
    return draw.example("topic", [user(draw.phrase(section, t=text)), assistant(label)])


def memory(draw: Draw) -> Example:
    """Told, something else in between or nothing, then asked back."""
    section = draw.words["memory"]
    if draw.rng.random() < 0.5:
        known = {"n": name(draw)}
        kind = "name"
    else:
        (number,) = draw.combination(lambda: (draw.rng.randint(2, NUMBER_MAX),))
        known = {"k": number}
        kind = "number"
    turns = [user(draw.phrase(section, f"{kind}_tell", **known)), assistant(section[f"{kind}_told"].format(**known))]
    for _ in range(draw.choose((0, 0, 1, 1, 2))):
        other = draw.choose((greeting, identity, facts, arithmetic))(draw)
        turns += other.messages
    turns += [user(draw.phrase(section, f"{kind}_ask")), assistant(section[f"{kind}_answer"].format(**known))]
    return draw.example("memory", turns)


def unknown(draw: Draw) -> Example:
    section = draw.words["unknown"]
    thing = draw.phrase(section, "things")
    question = draw.phrase(section, q=thing, n=name(draw))
    return draw.example("unknown", [user(question), assistant(section["answer"])])


def persona(draw: Draw) -> Example:
    section = draw.words["persona"]
    who = draw.fill(corpus("names"), "personas")
    told = system(draw.phrase(section, "system", n=who))
    return draw.example("system", [told, user(draw.phrase(section)), assistant(section["answer"].format(n=who))])


def brief(draw: Draw) -> Example:
    told = system(draw.phrase(draw.words["brief"], "system"))
    question, _, word = fact(draw)
    return draw.example("system", [told, user(question), assistant(word)])


def answer_language(draw: Draw) -> Example:
    """Asked in one language, told by the system prompt to answer in another."""
    other = draw.choose([language for language in LANGUAGES if language != draw.language])
    told = system(draw.phrase(corpus("en")["language"], "system", l=LANGUAGE_NAMES[other]))
    kind = draw.choose(("greet", "bye", "identity", "unknown"))
    if kind == "unknown":
        question = draw.phrase(draw.words["unknown"], q=draw.phrase(draw.words["unknown"], "things"), n=name(draw))
    else:
        question = draw.phrase(draw.words[kind])
    return draw.example("system", [told, user(question), assistant(corpus(other)[kind]["answer"])])


def translation(draw: Draw) -> Example:
    """A word or short phrase, named in the language that the question is asked in."""
    entries = corpus("translation")
    source, target = draw.rng.sample(LANGUAGES, 2)
    words = entries["words"]
    entry = words[draw.choose(tuple(words))]
    names: Mapping[str, Any] = entries["languages"][draw.language]
    question = draw.phrase(entries["phrasings"][draw.language], w=entry[source], l=names[target])
    return draw.example("translation", [user(question), assistant(entry[target])])


def name(draw: Draw) -> str:
    return draw.fill(corpus("names"), "users")


def _fixed(draw: Draw, key: str, skill: str) -> Example:
    section = draw.words[key]
    return draw.example(skill, [user(draw.phrase(section)), assistant(section["answer"])])
