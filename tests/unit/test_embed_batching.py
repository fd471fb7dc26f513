"""Batches keep to the budget, lose nothing and double nothing, and let small requests pass between large ones."""

from operator import attrgetter

from hypothesis import given
from hypothesis import strategies as st

from embed.batching import PADDING_PART, Batcher, Item, split

BUDGET = 256


def items(name: str, lengths: list[int]) -> list[Item]:
    return [Item(name, index, f"{name}/{index}", tokens) for index, tokens in enumerate(lengths)]


def padded(batch: list[Item]) -> int:
    return len(batch) * max(item.tokens for item in batch)


def drain(batcher: Batcher) -> list[list[Item]]:
    batches = []
    while batch := batcher.next_batch():
        batches.append(batch)
        assert len(batches) <= 10_000
    return batches


LENGTHS = st.lists(st.integers(1, 2 * BUDGET), max_size=40)


@given(st.lists(LENGTHS, max_size=12))
def test_every_text_comes_exactly_once_and_the_budget_holds(requests):
    batcher = Batcher(BUDGET)
    given_items = []
    for number, lengths in enumerate(requests):
        mine = items(f"r{number}", lengths)
        given_items += mine
        batcher.add(f"r{number}", mine)
    batches = drain(batcher)
    key = attrgetter("request_id", "index")
    assert sorted((item for batch in batches for item in batch), key=key) == sorted(given_items, key=key)
    assert all(padded(batch) <= BUDGET or len(batch) == 1 for batch in batches)
    assert len(batcher) == 0


@given(st.lists(st.tuples(LENGTHS, st.integers(0, 3)), min_size=1, max_size=12))
def test_a_request_waits_for_no_more_batches_than_there_are_requests_before_it(arrivals):
    batcher = Batcher(BUDGET)
    bound: dict[str, int] = {}
    for number, (lengths, batches) in enumerate(arrivals):
        name = f"r{number}"
        if lengths:
            batcher.add(name, items(name, lengths))
            bound[name] = number + 1
        for _ in range(batches):
            served = {item.request_id for item in batcher.next_batch()}
            bound = {waiting: left - 1 for waiting, left in bound.items() if waiting not in served}
            assert all(left > 0 for left in bound.values())


@given(LENGTHS)
def test_a_pass_computes_little_padding(lengths):
    for batch in split(items("r", lengths), BUDGET):
        *others, longest = batch
        assert len(batch) * longest.tokens - sum(item.tokens for item in batch) <= BUDGET // PADDING_PART or not others


def test_one_text_overtakes_a_request_of_many():
    batcher = Batcher(BUDGET)
    batcher.add("large", items("large", [64] * 256))
    batcher.next_batch()
    batcher.add("small", items("small", [64]))
    assert "small" in {item.request_id for item in batcher.next_batch()}
    assert {item.request_id for batch in drain(batcher) for item in batch} == {"large"}


def test_a_short_text_waits_for_one_batch_of_long_ones_at_most():
    batcher = Batcher(BUDGET)
    batcher.add("long", items("long", [BUDGET] * 100))
    batcher.add("short", items("short", [3]))
    assert {item.request_id for _ in range(2) for item in batcher.next_batch()} == {"long", "short"}


def test_a_text_over_the_budget_goes_alone():
    batcher = Batcher(BUDGET)
    batcher.add("r", items("r", [BUDGET + 1, 5, 5]))
    assert [[item.tokens for item in batch] for batch in drain(batcher)] == [[BUDGET + 1], [5, 5]]


def test_what_is_dropped_does_not_come():
    batcher = Batcher(BUDGET)
    batcher.add("gone", items("gone", [200, 200]))
    batcher.add("stays", items("stays", [10]))
    batcher.next_batch()
    batcher.drop("gone")
    batcher.drop("never seen")
    assert {item.request_id for batch in drain(batcher) for item in batch} <= {"stays"}
    assert len(batcher) == 0
