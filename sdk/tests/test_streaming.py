import json

import pytest

from tramontane import errors
from tramontane.errors import StreamInterrupted, TimedOut, UnexpectedAnswer
from tramontane.wire.config import Timeouts
from tramontane.wire.decode import Meta
from tramontane.wire.streaming import ChunkReader

META = Meta(200, {}, "r1")
TIMEOUTS = Timeouts(first_token_s=5, idle_s=7, total_s=60)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {"id": "Xa9fK2m0Q", "type": "function", "function": {"name": "sky", "arguments": "{}"}, "index": 0}


def reader():
    return ChunkReader(META, TIMEOUTS, 0.0, 60.0)


def event(delta=None, reason=None, index=0, logprobs=None, **more):
    choice = {"index": index, "delta": delta or {}, "finish_reason": reason}
    if logprobs:
        choice["logprobs"] = {"content": [{"token": token, "logprob": -1} for token in logprobs]}
    return f"data: {json.dumps({'id': 'i', 'model': 'm', 'created': 1, 'choices': [choice], **more})}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def test_chunks_are_handed_out_and_added_up():
    found = reader()
    chunks = found.feed(event({"role": "assistant", "content": ""}, logprobs=["a"]) + event({"content": "Hel"}), 1.0)
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hel"]
    assert found.folded.text == "Hel"
    found.feed(event({"content": "lo"}, logprobs=["b"]) + event({"content": "Other"}, index=1), 2.0)
    found.feed(event({"content": ""}, "stop"), 2.0)
    assert found.feed(event({"tool_calls": [CALL]}, "tool_calls", 1, usage=USAGE) + DONE + event({"content": "x"}), 3.0)
    assert found.done
    assert found.failure is None
    answer = found.completion()
    assert [choice.message.content for choice in answer.choices] == ["Hello", "Other"]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "tool_calls"]
    assert answer.choices[1].message.tool_calls[0].function.name == "sky"
    assert [token.token for token in answer.choices[0].logprobs.content] == ["a", "b"]
    assert answer.choices[1].logprobs is None
    assert (answer.id, answer.model, answer.created, answer.usage.total_tokens) == ("i", "m", 1, 5)
    assert answer.meta is META
    assert found.feed(b"", 99.0) == []
    assert found.failure is None


def test_before_the_first_chunk_there_is_no_answer():
    found = reader()
    assert found.folded.text == ""
    with pytest.raises(UnexpectedAnswer):
        found.completion()


def test_credit_that_ran_out_is_no_failure():
    found = reader()
    found.feed(event({"content": "a"}, "length", usage=USAGE, x_tramontane={"ended_by": "credit"}) + DONE, 1.0)
    assert found.failure is None
    assert found.completion().x_tramontane.ended_by == "credit"


def test_the_platform_fails_in_the_middle():
    found = reader()
    found.feed(event({"content": "Hel"}) + event({"content": ""}, index=1), 1.0)
    found.feed(event({}, "error"), 1.0)
    assert found.failure is None  # the sentence comes on the last chunk
    chunks = found.feed(event({}, "error", 1, x_tramontane={"error": "The engine failed."}) + DONE, 1.0)
    assert len(chunks) == 1
    assert isinstance(found.failure, StreamInterrupted)
    assert str(found.failure) == "The engine failed. (request r1)"
    assert (found.failure.text, found.failure.request_id) == ("Hel", "r1")


def test_a_failure_without_a_sentence():
    found = reader()
    found.feed(event({}, "error") + DONE, 1.0)
    assert "in the middle" in str(found.failure)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"error": {"message": "Gone."}}, "Gone."),
        ({"error": "Gone."}, "Gone."),
        ({"object": "error", "message": "Gone."}, "Gone."),
        ({"object": "error"}, "the platform failed in the middle of the answer"),
    ],
)
def test_errors_in_the_words_of_other_platforms(body, sentence):
    found = reader()
    assert len(found.feed(event({"content": "a"}) + f"data: {json.dumps(body)}\n\n".encode(), 1.0)) == 1
    assert isinstance(found.failure, StreamInterrupted)
    assert str(found.failure).startswith(sentence)


@pytest.mark.parametrize("data", [b"data: {\n\n", b"data: [1]\n\n", b'data: {"choices": 7}\n\n'])
def test_an_event_that_is_none(data):
    found = reader()
    assert found.feed(data, 1.0) == []
    assert isinstance(found.failure, UnexpectedAnswer)


def test_a_stream_that_just_ends():
    found = reader()
    found.feed(event({"content": "Hel"}), 1.0)
    assert found.feed(b"", 1.0) == []
    assert isinstance(found.failure, StreamInterrupted)
    assert found.failure.text == "Hel"


def test_signs_of_life_are_no_first_token():
    found = reader()
    found.feed(b": queued, about 3 s\n\n", 4.9)
    assert found.failure is None
    found.feed(event({"role": "assistant", "content": ""}), 5.0)
    assert isinstance(found.failure, TimedOut)
    assert (found.failure.phase, found.failure.request_id) == ("first_token", "r1")


def test_after_the_first_token_only_the_total_counts():
    found = reader()
    found.feed(event({"content": "a"}), 4.0)
    found.feed(b": working\n\n", 59.0)
    assert found.failure is None
    found.feed(event({"content": "b"}), 60.0)
    assert found.failure.phase == "total"


def test_failures_of_the_connection_learn_what_was_going_on():
    found = reader()
    found.feed(event({"content": "Hel"}), 1.0)
    broken = found.told(errors.ConnectionLost("ReadError"))
    assert isinstance(broken, StreamInterrupted)
    assert broken.text == "Hel"
    late = found.told(TimedOut("idle", 7.0))
    assert (late.phase, late.request_id) == ("idle", "r1")
    other = errors.UnexpectedAnswer("odd")
    assert found.told(other) is other
