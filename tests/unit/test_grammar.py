"""Grammars over a vocabulary, without a model: what may come next, at the beginning, in the middle and at the end."""

import json
import random
from importlib.resources import files

import numpy as np
import pytest

from workers.engines.grammar import Grammars
from workers.text import ChoiceText, Vocabulary

EOS = 2
TEKKEN = str(files("mistral_common") / "data" / "tekken_240911.json")
NAMES = ("v1", "v3", TEKKEN)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"enum": ["small", "large"]}},
    "required": ["name", "size"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
JSON = f"start: %json {json.dumps(SCHEMA)}"


@pytest.fixture(scope="module")
def vocabularies():
    return {name: Vocabulary.load(name) for name in NAMES}


@pytest.fixture(scope="module")
def grammars(vocabularies):
    return {name: Grammars(vocabulary, [EOS], len(vocabulary.surfaces)) for name, vocabulary in vocabularies.items()}


def allowed(constraint, *, end=True) -> set[int]:
    return set(np.flatnonzero(constraint.allowed(end=end)).tolist())


def walk(constraint, seed, tokens_max=200):
    """Allowed tokens at random, up to the end."""
    rnd, ids = random.Random(seed), []
    while len(ids) < tokens_max:
        token_id = rnd.choice(sorted(allowed(constraint)))
        if token_id == EOS:
            return ids
        constraint.append(token_id)
        ids.append(token_id)
    raise AssertionError("no end")


def text(vocabulary, ids):
    choice = ChoiceText(vocabulary)
    return choice.push(ids)[0] + choice.flush()


@pytest.mark.parametrize("name", NAMES)
def test_any_walk_gives_what_the_grammar_describes(vocabularies, grammars, name):
    shown = {text(vocabularies[name], walk(grammars[name].begin(JSON), seed)) for seed in range(30)}
    assert len(shown) > 20
    for answer in map(json.loads, shown):
        assert list(answer) == ["name", "size"]
        assert len(answer["name"]) <= 6
        assert answer["size"] in {"small", "large"}


def test_an_answer_may_begin_with_the_space_that_is_not_shown(vocabularies, grammars):
    """That is how a model learned to begin a turn."""
    vocabulary = vocabularies["v1"]
    first = {vocabulary.surfaces[i] for i in allowed(grammars["v1"].begin('start: "Yes" | "No"'))}
    assert {"Yes", " Yes", "No", " No"} <= first
    assert " " not in first
    constraint = grammars["v1"].begin('start: "Yes" | "No"')
    constraint.append(vocabulary.surfaces.index(" No"))
    assert constraint.complete
    assert not constraint.broken
    constraint = grammars["v1"].begin('start: "a" "Yes"')
    constraint.append(vocabulary.surfaces.index("a"))
    assert " Yes" not in {vocabulary.surfaces[i] for i in allowed(constraint)}, "only at the beginning"


def test_a_complete_grammar_allows_the_end_alone(grammars):
    constraint = grammars["v1"].begin('start: "x"')
    assert not constraint.complete
    assert EOS not in allowed(constraint)
    constraint.append(next(iter(allowed(constraint))))
    assert constraint.complete
    assert allowed(constraint) == allowed(constraint, end=False) == {EOS}


def test_an_end_that_may_wait_waits_for_min_tokens(grammars):
    constraint = grammars["v1"].begin("start: /[ab]+/")
    constraint.append(next(iter(allowed(constraint))))
    assert EOS in allowed(constraint)
    assert EOS not in allowed(constraint, end=False)
    assert len(allowed(constraint, end=False)) > 1


def test_tokens_of_an_earlier_attempt_are_gone_through(grammars):
    ids = walk(grammars["v1"].begin(JSON), 5)
    whole = grammars["v1"].begin(JSON)
    for position, token_id in enumerate(ids):
        assert allowed(grammars["v1"].begin(JSON, ids[:position])) == allowed(whole)
        whole.append(token_id)
    assert grammars["v1"].begin(JSON, ids).complete
    assert grammars["v1"].begin(JSON, [*ids, ids[0]]) is None


def test_a_token_that_is_not_allowed_breaks_it_and_nothing_else(grammars):
    broken, other = grammars["v1"].begin(JSON), grammars["v1"].begin(JSON)
    broken.append(5_000)
    assert broken.broken
    assert allowed(broken) == {EOS}
    assert not other.broken
    assert len(walk(other, 1)) > 5


@pytest.mark.parametrize("bad", ["", "start: %json {", "start: <NOBODY>", 'start: "a', "start: other"])
def test_what_is_no_grammar_is_refused(grammars, bad):
    assert grammars["v1"].begin(bad) is None


@pytest.mark.parametrize("name", ["v3", TEKKEN])
def test_control_tokens_are_part_of_grammars_and_of_no_text(vocabularies, grammars, name):
    vocabulary = vocabularies[name]
    marker = next(i for i, piece in vocabulary.controls.items() if piece == "[TOOL_CALLS]")
    for begin in ("<TOOL_CALLS>", f"<[{marker}]>"):
        constraint = grammars[name].begin(f'start: {begin} "[]"')
        assert allowed(constraint) == {marker}
        constraint.append(marker)
        ids = [marker, *walk(constraint, 1)]
        assert text(vocabulary, ids) == "[]"
        assert text(vocabulary.with_tool_marker(), ids) == "[TOOL_CALLS][]"
    free = allowed(grammars[name].begin("start: /(.|\\n)*/"))
    assert free.isdisjoint(set(vocabulary.controls) - {EOS})
    assert len(free) > 20_000


def test_ids_beyond_the_vocabulary_are_never_allowed(vocabularies):
    grammars = Grammars(vocabularies["v1"], [EOS, 40_000], 40_064)
    mask = grammars.begin("start: /x?/").allowed(end=True)
    assert len(mask) >= 40_064
    assert set(np.flatnonzero(mask[32_000:]) + 32_000) == {40_000}


def test_a_model_without_an_end_has_no_grammars(vocabularies):
    assert Grammars(vocabularies["v1"], [], 32_000).begin('start: "x"') is None
