"""The demo corpus: training and evaluation never share a phrasing or a split combination, and every example encodes."""

import json
import random
import tomllib

import pytest

from core.tools import split_tool_calls
from demo.examples import CORPUS, LANGUAGES, Draw, corpus, is_held
from demo.mixture import MAKERS, MIXTURES, draw_example, held_out
from demo.rows import EOS_ID, encode, prompt, tokenizer
from demo.score import is_right, overlap
from demo.skills import structured, tools


def sections(value):
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from sections(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from sections(inner)


@pytest.mark.parametrize("name", sorted(path.stem for path in CORPUS.glob("*.toml")))
def test_no_phrasing_is_both_trained_and_held_out(name):
    pairs = [
        (section["ask" if key == "held" else key.removeprefix("held_")], held)
        for section in sections(corpus(name))
        for key, held in section.items()
        if key.startswith("held")
    ]
    for trained, held in pairs:
        assert not set(trained) & set(held)
        assert len(set(trained)) == len(trained)
        assert len(set(held)) == len(held)


@pytest.mark.parametrize("name", LANGUAGES)
def test_what_one_skill_holds_out_no_other_trains_on(name):
    trained, held = set(), set()
    for section in sections(corpus(name)):
        for key, phrasings in section.items():
            if isinstance(phrasings, list):
                (held if key.startswith("held") else trained).update(phrasings)
    assert len(held) > 50
    assert not trained & held


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("skill", MAKERS)
def test_every_skill_in_every_language_is_a_conversation_that_encodes(skill, language, held):
    for seed in range(6):
        example = MAKERS[skill](Draw(random.Random(seed), language, held))
        tokens = encode(example)
        start = len(prompt(example))
        assert tokens.ids[:start] == prompt(example)
        assert tokens.ids[-1] == EOS_ID
        assert all(tokens.learnt[start:])
        assert not tokens.learnt[0]
        answered = tokenizer().decode(tokens.ids[start:-1])
        assert is_right(example, answered)
        assert not is_right(example, answered + " and more")
        if example.check == "json":
            assert json.loads(answered) == json.loads(example.answer["content"])
        if example.check == "calls":
            calls = split_tool_calls(answered)
            assert calls is not None
            assert calls.calls[0].name in {tool["function"]["name"] for tool in example.tools}


def test_split_combinations_stay_on_their_side():
    def pairs(held):
        rng = random.Random(3)
        return {
            draw.combination(lambda: (rng.randint(0, 20), rng.randint(0, 20)))
            for draw in (Draw(rng, "en", held) for _ in range(400))
        }

    trained, held = pairs(held=False), pairs(held=True)
    assert len(held) > 20
    assert not trained & held
    assert all(is_held(pair) for pair in held)


def test_training_knows_many_more_names_and_the_evaluation_stays_as_it_is():
    names = corpus("names")
    assert not set(names["users"]) & set(names["more_users"])

    def drawn(held):
        draw = Draw(random.Random(4), "en", held)
        return {draw.fill(names, "users") for _ in range(12_000)}

    assert drawn(held=True) == set(names["users"])
    assert drawn(held=False) == {*names["users"], *names["more_users"]}


def test_training_gives_tools_and_arguments_other_names_and_the_call_follows_the_list():
    def called(held):
        for seed in range(300):
            example = tools.tool_call(Draw(random.Random(seed), "en", held))
            (call,) = example.answer["tool_calls"]
            listed = {tool["function"]["name"]: tool["function"] for tool in example.tools}
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            assert list(arguments) == listed[name]["parameters"]["required"]
            yield (name, *arguments)

    usual = {(key, *tool["arguments"]) for key, tool in corpus("tools").items()}
    assert set(called(held=True)) == usual
    assert len(set(called(held=False))) > 10 * len(usual)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_request_to_extract_can_name_other_fields(language):
    for section in corpus(language)["extract"].values():
        keys = section["keys"]
        for template in section["ask"] + section["held"]:
            before = template.partition(keys[1])[2].partition(keys[2])[0]
            whole = f"{keys[0]}, {keys[1]}{before}{keys[2]}"
            assert whole in template
            for chosen, said in (("x", "x"), ("xy", f"x{before}y"), ("xyz", f"x, y{before}z")):
                assert structured.listing(keys, [*chosen], template) == template.replace(whole, said)
    draws = [structured.chosen_fields(Draw(random.Random(seed), language, held=True)) for seed in range(60)]
    assert {len(json.loads(example.answer["content"])) for example in draws} == {1, 2, 3}


def test_code_is_fenced():
    for seed in range(50):
        answer = structured.code(Draw(random.Random(seed), "en", held=False)).answer["content"]
        first, *body, last = answer.split("\n")
        assert (first, last) == ("```python", "```")
        compile("\n".join(body), "answer", "exec")


@pytest.mark.parametrize("name", MIXTURES)
def test_held_out_prompts_have_something_that_training_never_says(name):
    examples = list(held_out(MIXTURES[name], seed=1, per_skill=6))
    found = overlap(examples, MIXTURES[name], seed=1, draws=600)
    assert (found.same_prompt, found.same_phrasings) == (0, 0)


def test_the_corpus_is_the_same_every_time():
    def drawn():
        rng = random.Random(5)
        return [draw_example(MIXTURES["mistral-small"], rng) for _ in range(50)]

    assert drawn() == drawn()


def test_conversations_teach_every_turn_of_the_assistant():
    rng = random.Random(8)
    examples = (draw_example(MIXTURES["mistral-tiny"], rng) for _ in range(200))
    example = next(example for example in examples if example.skill == "conversation")
    tokens = encode(example)
    taught = "".join(
        tokenizer().decode([id_]) if id_ != EOS_ID else "|"
        for id_, learnt in zip(tokens.ids, tokens.learnt, strict=True)
        if learnt
    )
    assert taught.count("|") == sum(message["role"] == "assistant" for message in example.messages)


@pytest.mark.parametrize("name", MIXTURES)
def test_three_conversations_of_ten_turns_stand_ready_with_one_turn_outside(name):
    path = CORPUS.parent / "conversations" / f"{name}.toml"
    conversations = tomllib.loads(path.read_text(encoding="utf-8"))["conversations"]
    assert [len(conversation["turns"]) for conversation in conversations] == [10, 10, 10]
    assert [sum("outside" in turn for turn in conversation["turns"]) for conversation in conversations] == [1, 1, 1]
