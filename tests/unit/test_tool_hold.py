"""Text that may be a tool call is held back; nothing else is."""

import pytest

from core.tools import split_tool_calls
from gateway.replies import Delta
from gateway.tool_calls import HELD_CHARS_MAX, ToolHold, call_entries

CALL = '[TOOL_CALLS] [{"name": "sky", "arguments": {"at": "noon"}}]'


def told(*texts):
    hold = ToolHold(0)
    return hold, [hold.put(Delta(0, text, 1)) for text in texts]


@pytest.mark.parametrize("texts", [("Blue.",), ("[TOOL", "S]"), (" ", "Blue"), ("See [TOOL_CALLS] []",)])
def test_what_is_no_call_goes_out_whole_and_at_once(texts):
    hold, out = told(*texts, " Really.")
    assert out[:-2] == [None] * (len(texts) - 1)
    assert out[-2] == Delta(0, "".join(texts), len(texts))
    assert out[-1] == Delta(0, " Really.", 1)
    assert hold.calls() is None
    assert hold.release() is None


@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_a_call_is_held_to_its_end(size):
    hold, out = told(*(CALL[i : i + size] for i in range(0, len(CALL), size)))
    assert set(out) == {None}
    [call] = hold.calls().calls
    assert (call.name, call.arguments) == ("sky", '{"at": "noon"}')


@pytest.mark.parametrize("text", ["[TOOL_", CALL[:-1], "[TOOL_CALLS] sky"])
def test_what_was_cut_or_malformed_is_text_after_all(text):
    hold, out = told(text)
    assert (out, hold.calls()) == ([None], None)
    assert hold.release() == Delta(0, text, 1)


def test_a_call_without_end_is_not_held_for_ever():
    hold, out = told("[TOOL_CALLS]", "x" * HELD_CHARS_MAX, "y")
    assert [len(delta.text) if delta else 0 for delta in out] == [0, HELD_CHARS_MAX + 12, 1]
    assert hold.calls() is None


def test_probabilities_stay_with_their_text():
    hold = ToolHold(1)
    assert hold.put(Delta(1, "[T", 1, (5,), ((-1.0, ()),))) is None
    assert hold.put(Delta(1, "hen", 1, (6,), ((-2.0, ()),))) == Delta(1, "[Then", 2, (5, 6), ((-1.0, ()), (-2.0, ())))


def test_entries_are_what_every_client_reads_and_the_same_whenever_they_are_told():
    calls = split_tool_calls('[TOOL_CALLS] [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]')
    entries = call_entries("c0" + "0" * 30, 0, calls)
    assert entries == call_entries("c0" + "0" * 30, 0, calls)
    assert [entry["index"] for entry in entries] == [0, 1]
    assert entries[0]["function"] == {"name": "a", "arguments": "{}"}
    ids = {entry["id"] for choice in (0, 1) for entry in call_entries("c0" + "0" * 30, choice, calls)}
    assert len(ids) == 4
    assert all(len(name) == 9 and name.isalnum() and name.isascii() for name in ids)
