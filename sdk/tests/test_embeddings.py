import base64
import struct

import pytest

from tramontane.errors import Problem, TooManyTokens, UnexpectedAnswer
from tramontane.wire.embeddings import TEXTS_MAX, TOKENS_MAX, EmbeddingJob, guess_tokens, split, vector_of

REFUSED = TooManyTokens(Problem(400, "Too many tokens", "3210"))


def packed(*numbers):
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def serve(job, batch, vector=lambda text: packed(len(text))):
    data = [{"object": "embedding", "embedding": vector(text), "index": i} for i, text in enumerate(batch.texts)]
    usage = {"prompt_tokens": len(batch.texts), "completion_tokens": 0, "total_tokens": len(batch.texts)}
    job.accept(batch, job.call(batch).read({"id": f"r{batch.start}", "model": "e", "data": data, "usage": usage}))


def test_batches_keep_both_bounds_and_the_order():
    many = ["x"] * 1_000
    assert [len(batch.texts) for batch in split(many)] == [256, 256, 256, 232]
    long = ["word " * 2_000] * 10
    found = split(long)
    assert all(sum(guess_tokens(text) for text in batch.texts) <= TOKENS_MAX for batch in found)
    assert [text for batch in found for text in batch.texts] == long
    assert [batch.start for batch in found] == [0, 4, 8]
    huge = ["y" * 10**6, "x"]
    assert [len(batch.texts) for batch in split(huge)] == [1, 1]
    assert len(split(["x"] * TEXTS_MAX)) == 1
    assert guess_tokens("語") > guess_tokens("a")


def test_a_job_puts_answers_together():
    texts = ["x" * (index % 7) for index in range(600)]
    job = EmbeddingJob("mistral-embed", texts, output_dimension=None, metadata={"a": 1})
    first = job.call(job.batches[0])
    assert first.keyed
    assert {name: value for name, value in first.body.items() if name != "input"} == {
        "model": "mistral-embed",
        "encoding_format": "base64",
        "metadata": {"a": 1},
    }
    done = []
    while job.batches:
        serve(job, job.batches[0])
        done.append(job.done)
    assert done == [256, 512, 600]
    response = job.response()
    assert [item.embedding for item in response.data] == [[float(index % 7)] for index in range(600)]
    assert [item.index for item in response.data] == list(range(600))
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (600, 600)
    assert (response.ids, response.model) == (["r0", "r256", "r512"], "e")


def test_a_refused_batch_is_cut_in_two():
    job = EmbeddingJob("e", ["a", "bb", "ccc"])
    job.refused(job.batches[0], REFUSED)
    assert [(batch.start, tuple(batch.texts)) for batch in job.batches] == [(0, ("a",)), (1, ("bb", "ccc"))]
    serve(job, job.batches[0])
    job.refused(job.batches[0], REFUSED)
    while job.batches:
        serve(job, job.batches[0])
    assert [item.embedding for item in job.response().data] == [[1.0], [2.0], [3.0]]
    alone = EmbeddingJob("e", "text")
    with pytest.raises(TooManyTokens):
        alone.refused(alone.batches[0], REFUSED)


def test_one_text_and_none():
    job = EmbeddingJob("e", "hello")
    assert job.call(job.batches[0]).body["input"] == ["hello"]
    with pytest.raises(ValueError, match="no text"):
        EmbeddingJob("e", [])


def test_vectors():
    assert vector_of(packed(1.0, -2.5)) == [1.0, -2.5]
    assert vector_of([1, 2.5]) == [1.0, 2.5]
    for wrong in ("", "é", "AAA", "AAAA", None, [1, "x"], 7):
        with pytest.raises(UnexpectedAnswer):
            vector_of(wrong)


def test_answers_with_other_texts():
    job = EmbeddingJob("e", ["a", "b"])
    batch = job.batches[0]
    usage = {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}
    for data in ([{"index": 2, "embedding": packed(1)}], [{"index": 0, "embedding": packed(1)}]):
        with pytest.raises(UnexpectedAnswer):
            job.accept(batch, job.call(batch).read({"model": "e", "data": data, "usage": usage}))
