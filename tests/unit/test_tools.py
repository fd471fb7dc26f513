import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.tools import CALLS_MAX, MARKER, Call, ToolCalls, split_tool_calls

NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
TOO_MANY = ", ".join([json.dumps({"name": "f", "arguments": {}})] * (CALLS_MAX + 1))
ARGUMENTS = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3)


@given(st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3), st.sampled_from(["", " "]))
def test_what_was_called_is_read_back(called, space):
    text = space + MARKER + space + json.dumps([{"name": name, "arguments": arguments} for name, arguments in called])
    found = split_tool_calls(text)
    assert found is not None
    assert found.content == ""
    assert [(call.name, json.loads(call.arguments)) for call in found.calls] == called


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The sky is blue.",
        f"As in {MARKER} []",
        MARKER,
        f"{MARKER} []",
        f'{MARKER} [{{"name": "f", "arguments": {{}}',
        f'{MARKER} {{"name": "f", "arguments": {{}}}}',
        f'{MARKER} [{{"name": "f"}}]',
        f'{MARKER} [{{"name": "", "arguments": {{}}}}]',
        f'{MARKER} [{{"name": "f", "arguments": "{{}}"}}]',
        f'{MARKER} [{{"name": "f", "arguments": {{}}}}] and more',
        f"{MARKER} {'[' * 100_000}",
        f'{MARKER} [{{"name": "f", "arguments": {{"a": {"1" * 5_000}}}}}]',
        f"{MARKER} [{TOO_MANY}]",
    ],
)
def test_what_is_no_complete_call_stays_text(text):
    assert split_tool_calls(text) is None


def test_a_key_that_is_more_than_name_and_arguments_does_no_harm():
    text = f'{MARKER} [{{"name": "f", "arguments": {{"a": 1}}, "id": "x"}}]'
    assert split_tool_calls(text) == ToolCalls("", (Call("f", '{"a": 1}'),))
