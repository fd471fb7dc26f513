from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core import wire

ids = st.lists(st.integers(0, 32_000), max_size=8).map(tuple)
samplings = st.builds(
    wire.Sampling,
    max_tokens=st.integers(1, 4096),
    temperature=st.floats(0, 1.5),
    stop=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    seed=st.none() | st.integers(0, 2**63 - 1),
)
jobs = st.builds(
    wire.Job,
    request_id=st.text(max_size=32),
    kind=st.sampled_from([wire.CHAT, wire.EMBED]),
    deadline_ms=st.integers(0, 2**52),
    prompt_tokens=st.integers(0, 2**31),
    cost_expected=st.integers(0, 2**31),
    prompt_ids=ids,
    emitted_ids=st.lists(ids, max_size=2).map(tuple),
    texts=st.lists(st.text(max_size=9), max_size=3).map(tuple),
    sampling=st.none() | samplings,
)
attempts = st.integers(1, 3)
events = st.lists(
    st.builds(wire.Piece, attempt=attempts, choice=st.integers(0, 3), first_index=st.integers(0, 999), token_ids=ids)
    | st.builds(wire.End, attempt=attempts, vectors=st.lists(st.binary(max_size=8), max_size=2).map(tuple))
    | st.builds(wire.Lost, attempt=attempts),
    max_size=5,
)


@given(jobs)
def test_a_job_comes_back_as_it_went(job):
    assert wire.unpack_job(wire.pack_job(job)) == job


def test_a_job_is_read_as_of_its_attempt():
    job = wire.Job("r", "g", "o", "w", "tiny", wire.CHAT, deadline_ms=1, prompt_tokens=1, cost_expected=1)
    assert wire.unpack_job(wire.pack_job(job), 3) == replace(job, attempt=3)


@given(events)
def test_events_come_back_as_they_went(batch):
    assert wire.unpack_events(wire.pack_events(batch)) == batch


def test_a_later_release_may_add_fields_and_kinds():
    raw = wire._pack({"v": 2, "e": [{"k": "weather", "x": 1}, {"k": "lost", "request_id": "r", "attempt": 2, "z": 0}]})
    assert wire.unpack_events(raw) == [wire.Lost("r", 2)]
