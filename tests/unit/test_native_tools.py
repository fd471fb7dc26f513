"""Tokenizers with tool tokens of their own, by configuration: the prompt that mistral-common writes, the call that a
model of that tokenizer answers with, and the way of its ids through a worker's text back to a call.
"""

import json
from importlib.resources import files

import pytest
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from core.errors import PlatformError
from core.grammars import CallableTool, GrammarCheck, calls_grammar, calls_or_text_grammar
from core.tokenizer_files import tokenizer_file
from core.tokens import ChatTokenizer
from core.tools import MARKER, Call, split_tool_calls
from workers.engines.grammar import Grammars
from workers.text import ChoiceText, Vocabulary

DATA = files("mistral_common") / "data"
NATIVE = {
    "v2": str(DATA / "mistral_instruct_tokenizer_240216.model.v2"),
    "v3": "v3",
    "v3-tekken": "v3-tekken",
    "v7": "v7",
}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Of a place.", "parameters": PARAMETERS}}
    for name in ("sky", "sea")
]
CALLS = [Call("sky", '{"city": "Köln"}'), Call("sea", '{"city": "Brest 🌊"}')]


def asked(calls=()):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which sky, and which sea?"}]
    if calls:
        listed = [
            {
                "id": f"abcdefgh{number}",
                "type": "function",
                "function": {"name": each.name, "arguments": each.arguments},
            }
            for number, each in enumerate(calls)
        ]
        turns.append({"role": "assistant", "content": "", "tool_calls": listed})
        turns += [
            {"role": "tool", "name": each.name, "content": '{"colour": "blue"}', "tool_call_id": f"abcdefgh{number}"}
            for number, each in enumerate(calls)
        ]
    return turns


@pytest.fixture(scope="module", params=NATIVE)
def name(request):
    return NATIVE[request.param]


@pytest.fixture(scope="module")
def calls(name):
    """v2 takes one result for a turn."""
    return CALLS[:1] if name.endswith("v2") else CALLS


@pytest.fixture(scope="module")
def tokenizer(name):
    return ChatTokenizer.load(name)


@pytest.fixture(scope="module")
def vocabulary(name):
    return Vocabulary.load(name)


@pytest.fixture(scope="module")
def grammars(tokenizer, vocabulary):
    return Grammars(vocabulary, [tokenizer.eos_id], len(vocabulary.surfaces))


def answered(tokenizer, calls):
    """The ids of the calls, as mistral-common writes them into a conversation."""
    ids = tokenizer.encode_chat(asked(calls), TOOLS)
    start = ids.index(tokenizer.tool_form.token_id)
    return ids[start : ids.index(tokenizer.eos_id, start)]


def shown(vocabulary, ids):
    """What a worker sends of them, token by token."""
    choice = ChoiceText(vocabulary.with_tool_marker())
    return "".join(choice.push((token_id,))[0] for token_id in ids) + choice.flush()


def test_the_prompt_is_that_of_mistral_common_with_its_tool_tokens(name, tokenizer, calls):
    theirs = MistralTokenizer.from_file(str(tokenizer_file(name)))
    for turns in (asked(), asked(calls)):
        request = ChatCompletionRequest.from_openai(messages=turns, tools=TOOLS, model="tier")
        ours = list(tokenizer.encode_chat(turns, TOOLS))
        assert ours == theirs.encode_chat_completion(request).tokens
        base = theirs.instruct_tokenizer.tokenizer
        for marker in ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"):
            assert ours.count(base.get_special_token(marker)) == 1
    assert ours.count(base.get_special_token("[TOOL_RESULTS]")) == len(calls)
    assert tokenizer.tool_form.token_id == base.get_special_token(MARKER)


def test_a_call_in_native_tokens_is_read_as_the_call_that_it_is(tokenizer, vocabulary, calls):
    text = shown(vocabulary, answered(tokenizer, calls))
    assert text.startswith(MARKER)
    assert split_tool_calls(text).calls == tuple(
        Call(each.name, json.dumps(json.loads(each.arguments), ensure_ascii=False)) for each in calls
    )


def test_the_token_shows_only_where_tools_were_offered(tokenizer, vocabulary, calls):
    ids = answered(tokenizer, calls)
    plain = ChoiceText(vocabulary)
    assert MARKER not in "".join(plain.push((token_id,))[0] for token_id in ids) + plain.flush()


@pytest.mark.parametrize("may_be_text", [False, True])
def test_grammars_demand_the_token_and_allow_what_mistral_common_writes(tokenizer, grammars, calls, may_be_text):
    tools = [CallableTool(name, PARAMETERS) for name in ("sky", "sea")]
    make = calls_or_text_grammar if may_be_text else calls_grammar
    grammar = make(tokenizer.tool_form, tools, parallel=True)
    GrammarCheck().check(grammar)
    constraint = grammars.begin(grammar, answered(tokenizer, calls))
    assert constraint is not None, "every token of it is allowed"
    assert constraint.allowed(end=True)[tokenizer.eos_id]
    first = grammars.begin(grammar).allowed(end=True)
    assert first[tokenizer.tool_form.token_id]
    assert may_be_text or first.sum() == 1


def test_text_never_becomes_a_tool_token(tokenizer):
    marker = tokenizer.tool_form.token_id
    ids = tokenizer.encode_chat([{"role": "user", "content": f"Say {MARKER} [] [TOOL_RESULTS] please."}], TOOLS)
    assert marker not in ids


def test_a_later_form_of_calls_is_refused_and_not_misread(tmp_path):
    """v11 and v13 write calls in another way; mistral-common brings no file of theirs, so one is made of v3's."""
    raw = json.loads((DATA / "tekken_240718.json").read_bytes())
    raw["config"]["version"] = "v11"
    names = [token["token_str"] for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    names += [token.value for token in SpecialTokens if token.value not in names]
    raw["special_tokens"] = [{"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(names)]
    later = tmp_path / "tekken.json"
    later.write_text(json.dumps(raw))
    tokenizer = ChatTokenizer.load(str(later))
    assert tokenizer.tool_form is None
    assert tokenizer.encode_chat(asked())
    with pytest.raises(PlatformError, match="Function calling is not enabled"):
        tokenizer.encode_chat(asked(), TOOLS)
