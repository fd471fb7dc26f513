import json
import math

import pytest

from core.tokens import ChatTokenizer
from core.wire import Answer, Usage
from gateway.logprobs import render_logprobs
from gateway.replies import Folded
from gateway.responses import chat_body, embeddings_body
from gateway.sse import Calls, ChunkWriter, waiting_comment

WRITER = ChunkWriter("id1", 7, 'a"b')
USAGE = Usage(3, 4, 1)
REQUEST_ID = "c0" + f"{7_500:012x}" + "0" * 18
TOKENIZER = ChatTokenizer.load("v1")
E_ACUTE = (3 + 0xC3, 3 + 0xA9)  # v1 writes bytes as tokens from 3 on


def chunks(raw):
    events = raw.decode().split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [json.loads(event[6:]) if event != "data: [DONE]" else None for event in events]


def test_every_chunk_has_what_old_clients_demand():
    sent = chunks(WRITER.role(0) + WRITER.text(1, 'line\n"é') + WRITER.end(("stop", "length"), USAGE))
    assert sent[-1] is None
    for chunk in sent[:-1]:
        assert (chunk["id"], chunk["object"], chunk["created"], chunk["model"]) == (
            "id1", "chat.completion.chunk", 7, 'a"b',
        )  # fmt: skip
        [choice] = chunk["choices"]
        assert choice.keys() == {"index", "delta", "finish_reason"}
    role, text, first_end, last_end, _ = sent
    assert role["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    assert text["choices"] == [{"index": 1, "delta": {"content": 'line\n"é'}, "finish_reason": None}]
    assert [end["choices"][0]["finish_reason"] for end in (first_end, last_end)] == ["stop", "length"]
    assert [end["choices"][0]["index"] for end in (first_end, last_end)] == [0, 1]


def test_usage_is_on_the_very_last_chunk_only():
    *others, last, _ = chunks(WRITER.text(0, "a") + WRITER.end(("stop", "stop"), USAGE))
    assert all("usage" not in chunk for chunk in others)
    assert last["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert "x_tramontane" not in last


def test_why_an_answer_ended_early():
    last, _ = chunks(WRITER.end(("length",), USAGE, ended_by="credit"))
    assert last["x_tramontane"] == {"ended_by": "credit"}
    last, _ = chunks(WRITER.end(("error",), Usage(), error="Gone."))
    assert last["x_tramontane"] == {"error": "Gone."}


@pytest.mark.parametrize(
    ("position", "wait_ms", "says"),
    [(3, 39_001, b": queued, about 40 s\n\n"), (0, 0, b": queued\n\n"), (-1, 0, b": working\n\n")],
)
def test_comments_while_waiting(position, wait_ms, says):
    assert waiting_comment(position, wait_ms) == says


def test_calls_are_whole_on_the_chunk_that_ends_their_choice():
    entries = [{"id": "a" * 9, "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}]
    calls = {1: Calls(entries)}
    text_end, call_end, _ = chunks(WRITER.end(("stop", "stop"), USAGE, calls=calls))
    assert text_end["choices"] == [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]
    assert call_end["choices"] == [
        {"index": 1, "delta": {"content": "", "tool_calls": entries}, "finish_reason": "tool_calls"}
    ]
    assert call_end["usage"]["total_tokens"] == 7


def test_probabilities_in_a_stream():
    rendered = render_logprobs(TOKENIZER, E_ACUTE, ((-0.25, ((E_ACUTE[0], -0.25), (500, -3.0))), (0.0, ())))
    [chunk] = chunks(WRITER.marked(0, "é", rendered))
    [choice] = chunk["choices"]
    assert (choice["delta"], choice["finish_reason"]) == ({"content": "é"}, None)
    first, second = choice["logprobs"]["content"]
    assert (first["logprob"], first["bytes"], first["token_id"]) == (-0.25, [0xC3], E_ACUTE[0])
    assert [(other["token"], other["logprob"]) for other in first["top_logprobs"]] == [("\ufffd", -0.25), (" U", -3.0)]
    assert (second["bytes"], second["top_logprobs"]) == ([0xA9], [])
    [[call]] = [chunk["choices"] for chunk in chunks(WRITER.end(("stop",), USAGE, calls={0: Calls([], rendered)}))[:1]]
    assert call["logprobs"] == choice["logprobs"]


def test_a_token_that_cannot_be_drawn_has_a_number_too():
    [entry] = render_logprobs(TOKENIZER, (500,), ((0.0, ((501, -math.inf),)),))["content"]
    assert entry["top_logprobs"][0]["logprob"] == -9_999


def whole(*answers, reasons=("stop",), ended_by=None, **options):
    folded = Folded(answers, reasons, Usage(1, 2), 5, (), ended_by)
    return json.loads(chat_body(request_id=REQUEST_ID, model="m", folded=folded, **options))


def test_a_whole_answer_has_its_null_keys():
    body = whole(Answer("a"), Answer(""), reasons=("stop", "length"), ended_by="credit")
    assert (body["id"], body["object"], body["created"], body["model"]) == (REQUEST_ID, "chat.completion", 7, "m")
    assert body["choices"][1] == {
        "index": 1,
        "message": {"role": "assistant", "content": "", "tool_calls": None, "prefix": False},
        "finish_reason": "length",
    }
    assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert body["x_tramontane"] == {"ended_by": "credit"}


def test_a_whole_answer_that_calls():
    text = '[TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}}]'
    [choice] = whole(Answer(text), has_tools=True)["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "tool_calls")
    assert (call["type"], call["function"], call["index"]) == ("function", {"name": "f", "arguments": '{"x": 1}'}, 0)
    for plain in (whole(Answer(text)), whole(Answer(text[:-1]), has_tools=True)):
        assert plain["choices"][0]["message"]["tool_calls"] is None
        assert plain["choices"][0]["finish_reason"] == "stop"


def test_probabilities_of_a_whole_answer():
    [choice] = whole(Answer("é", E_ACUTE, ((-1.0, ()), (-2.0, ()))), tokenizer=TOKENIZER)["choices"]
    assert [entry["logprob"] for entry in choice["logprobs"]["content"]] == [-1.0, -2.0]


def test_vectors_as_numbers_and_as_base64():
    vector = bytes.fromhex("cdcccc3d000000c0")  # 0.1, -2
    fields = {"request_id": "r", "model": "m", "vectors": (vector,), "usage": Usage(2)}
    body = json.loads(embeddings_body(**fields, encoding_format="float"))
    assert body["data"] == [{"object": "embedding", "embedding": [0.1, -2.0], "index": 0}]
    assert body["usage"]["completion_tokens"] == 0
    body = json.loads(embeddings_body(**fields, encoding_format="base64"))
    assert body["data"][0]["embedding"] == "zczMPQAAAMA="
