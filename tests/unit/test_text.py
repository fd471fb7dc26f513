import itertools
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from sentencepiece import SentencePieceProcessor

from core.errors import SetupError
from core.tokenizer_files import tokenizer_file
from workers.text import ChoiceText, Vocabulary

NAMES = ("v1", "v3", "v7")
MODELS = {name: SentencePieceProcessor(model_file=str(tokenizer_file(name))) for name in NAMES}
VOCABULARIES = {name: Vocabulary.load(name) for name in NAMES}
TEKKEN_FILE = str(files("mistral_common") / "data" / "tekken_240911.json")
TEKKEN = Tekkenizer.from_file(TEKKEN_FILE)
TEKKEN_VOCABULARY = Vocabulary.load(TEKKEN_FILE)


def byte(value, name="v1"):
    return MODELS[name].piece_to_id(f"<0x{value:02X}>")


SPACES = [MODELS["v1"].piece_to_id("▁" * count) for count in (1, 2, 3, 4)]
BYTES = [byte(value) for value in range(256)]
UTF8 = [BYTES[b] for b in "é€😀ñ".encode()]
token_ids = st.lists(
    st.one_of(
        st.integers(0, 31_999), st.sampled_from(BYTES), st.sampled_from(UTF8), st.sampled_from([0, 1, 2, *SPACES])
    ),
    max_size=40,
)


def parts(ids, cuts):
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    return [ids[a:b] for a, b in itertools.pairwise(edges)]


def run(text, ids, cuts):
    """What is shown, and how many ids belong to it."""
    shown, used = [], 0
    for part in parts(ids, cuts):
        more, count = text.push(part)
        shown.append(more)
        used += count
        if text.stopped:
            break
    shown.append(text.flush())
    return "".join(shown), used


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300, deadline=None)
@given(ids=token_ids, cuts=st.lists(st.integers(0, 40), max_size=40))
def test_increments_add_up_to_what_the_tokenizer_decodes(name, ids, cuts):
    assert run(ChoiceText(VOCABULARIES[name]), ids, cuts) == (MODELS[name].decode(ids), len(ids))


# Most pieces are whole characters; half of one is what has to be put together, or found to be broken.
tekken_halves = [i for i in range(1_000, 131_072) if "\ufffd" in TEKKEN.decode([i])]
tekken_ids = st.lists(
    st.one_of(st.integers(0, 131_071), st.sampled_from(tekken_halves), st.sampled_from([1, 2, 9])), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(ids=tekken_ids, cuts=st.lists(st.integers(0, 40), max_size=40))
def test_increments_of_a_tekken_vocabulary_add_up_too(ids, cuts):
    assert run(ChoiceText(TEKKEN_VOCABULARY), ids, cuts) == (TEKKEN.decode(ids), len(ids))


@pytest.mark.parametrize("name", [*NAMES, "tekken"])
@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_ids_of_a_text_in_the_middle_of_an_answer_stand_for_its_bytes(name, text):
    vocabulary = VOCABULARIES.get(name, TEKKEN_VOCABULARY)
    assert b"".join([vocabulary.token_bytes(i) for i in vocabulary.encode(text)]) == text.encode()


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=30), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_any_text_survives_and_no_increment_holds_half_a_character(text, cuts):
    ids = MODELS["v1"].encode(text)
    choice = ChoiceText(VOCABULARIES["v1"])
    shown = [choice.push(part)[0] for part in parts(ids, cuts)] + [choice.flush()]
    assert "".join(shown) == MODELS["v1"].decode(ids)
    if "�" not in text:
        assert all("�" not in part for part in shown)


def first_stop(text, stops):
    """Where the text ends if these may not be in it: the stop that is complete first, then the one that began first."""
    hits = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(hits)[1]] if hits else text


small = st.text(alphabet="ab \né", min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(alphabet="ab \né", max_size=30),
    stops=st.lists(small, min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 40), max_size=40),
    min_tokens=st.integers(0, 5),
)
def test_the_text_is_cut_at_the_first_stop_whatever_the_steps(text, stops, cuts, min_tokens):
    ids = MODELS["v1"].encode(text)
    vocabulary = VOCABULARIES["v1"]
    head = ChoiceText(vocabulary).push(ids[:min_tokens])[0]
    tail = MODELS["v1"].decode(ids)[len(head) :]
    choice = ChoiceText(vocabulary, stops, min_tokens)
    shown, used = run(choice, ids, cuts)
    assert shown == head + first_stop(tail, stops)
    assert choice.stopped == any(stop in tail for stop in stops)
    if choice.stopped and used > min_tokens:  # the last id that counts is the one that completed the stop
        before = ChoiceText(vocabulary, stops, min_tokens)
        before.push(ids[: used - 1])
        assert not before.stopped


def test_no_more_is_held_back_than_a_stop_may_still_need():
    choice = ChoiceText(VOCABULARIES["v1"], ("###",))
    assert choice.push([byte(c) for c in b"ab#"]) == ("ab", 3)
    assert choice.push([byte(c) for c in b"c##"]) == ("#c", 3)
    assert choice.push([byte(c) for c in b"#tail"]) == ("", 1)
    assert choice.stopped
    assert choice.flush() == ""


def test_a_character_waits_for_its_last_byte():
    choice = ChoiceText(VOCABULARIES["v1"])
    pushed = [choice.push([byte(c)])[0] for c in "😀€".encode()]
    assert pushed == ["", "", "", "😀", "", "", "€"]
    assert choice.push([byte(0xE2)]) == ("", 1)
    assert choice.flush() == "�"


def test_the_first_space_is_dropped_once_and_runs_are_exact():
    choice = ChoiceText(VOCABULARIES["v1"])
    hello = MODELS["v1"].piece_to_id("▁Hello")
    assert [choice.push([i])[0] for i in (hello, SPACES[2], hello, SPACES[0], SPACES[3])] == [
        "Hello", "   ", " Hello", " ", "    ",
    ]  # fmt: skip


def test_an_unknown_tokenizer_is_named(tmp_path):
    with pytest.raises(SetupError, match="v9"):
        Vocabulary.load("v9")
    other = tmp_path / "tokenizer.model"
    other.write_text("something else")
    with pytest.raises(SetupError, match="not a sentencepiece model"):
        Vocabulary.load(str(other))
    other = tmp_path / "tekken.json"
    for text in ("something else", "{}", "[]", '{"vocab": []}'):
        other.write_text(text)
        with pytest.raises(SetupError, match="not a Tekken vocabulary"):
            Vocabulary.load(str(other))


@pytest.mark.parametrize("name", NAMES)
def test_behind_another_text_the_first_space_belongs_to_the_answer(name):
    ids = VOCABULARIES[name].encode(" blows hard")
    assert run(ChoiceText(VOCABULARIES[name], continues=True), ids, ()) == (" blows hard", len(ids))
    assert run(ChoiceText(VOCABULARIES[name]), ids, ()) == ("blows hard", len(ids))
