from dataclasses import replace

import pytest
import structlog
from redis.exceptions import BusyLoadingError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from core.queue.base import Finish, Outcome
from core.queue.outbox import Outbox
from core.queue.patience import Patience
from core.wire import End, Piece


def piece(request_id, first_index, *token_ids, choice=0):
    return Piece(request_id, 1, choice, first_index, token_ids, "".join(f"{i}." for i in token_ids))


def test_pieces_of_a_choice_are_merged_and_choices_and_submitters_are_not():
    outbox = Outbox()
    outbox.add("g1", piece("a", 0, 1, 2))
    outbox.add("g1", piece("a", 0, 7, choice=1))
    outbox.add("g1", piece("a", 2, 3))
    outbox.add("g2", piece("b", 5, 9))
    outbox.add("g1", piece("a", 3, 4))
    assert outbox.tokens == 6
    assert outbox.empty().replies == {
        "g1": [piece("a", 0, 1, 2, 3, 4), piece("a", 0, 7, choice=1)],
        "g2": [piece("b", 5, 9)],
    }
    assert outbox.tokens == 0
    assert outbox.empty().replies == {}


def test_what_is_forgotten_is_neither_sent_nor_settled():
    outbox = Outbox()
    for request_id in ("a", "b"):
        outbox.add("g", piece(request_id, 0, 1, 2))
        outbox.add("g", piece(request_id, 2, 3))
        outbox.finish("g", Finish(End(request_id, 1), "w", Outcome.FINISHED))
    outbox.forget("a")
    assert outbox.tokens == 3
    batch = outbox.empty()
    assert batch.replies == {"g": [piece("b", 0, 1, 2, 3)]}
    assert [finish.end.request_id for _, finish in batch.finishes] == ["b"]


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError(), TimeoutError(), RedisConnectionError(), BusyLoadingError(), ResponseError("MISCONF disk")],
)
async def test_what_time_cures_is_tried_again(error):
    failures = [error, error]

    async def call():
        if failures:
            raise failures.pop()
        return frozenset()

    patience = Patience(structlog.get_logger())
    assert await patience.attempt("send", call) is None
    assert patience.away
    assert await patience.insist("send", call) == frozenset()
    assert not patience.away


async def test_a_defect_surfaces():
    async def call():
        raise ResponseError("ERR user_script: attempt to index a nil value")

    with pytest.raises(ResponseError):
        await Patience(structlog.get_logger()).insist("finish", call)


def test_merged_pieces_keep_their_probabilities():
    outbox = Outbox()
    odds = [(-0.5 * index, ((index, -0.5 * index),)) for index in range(3)]
    pieces = [replace(piece("a", index, index), logprobs=(odds[index],)) for index in range(3)]
    for each in pieces:
        outbox.add("g1", each)
    (merged,) = outbox.empty().replies["g1"]
    assert merged.logprobs == tuple(odds)
