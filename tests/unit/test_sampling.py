"""Draws follow their seed, position and bounds, whatever else is in the batch."""

import random
from collections import Counter

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from core.wire import Sampling
from workers.engines.sampling import Draw, choose

EOS = (2,)


def draw(request_id="r", choice=0, emitted=(), prompt=(), **sampling) -> Draw:
    return Draw(Sampling(max_tokens=100, **{"temperature": 1.0, **sampling}), request_id, choice, emitted, prompt)


def pick(scores: torch.Tensor, draws: list[Draw]) -> list[int]:
    scores = scores.clone()
    choose(scores, draws, EOS)
    return scores[: len(draws)].argmax(dim=-1).tolist()


def chosen(row: list[float], count: int, **sampling) -> Counter[int]:
    """How often each token is drawn at `count` positions of one request."""
    scores = torch.tensor(row).repeat(count, 1)
    return Counter(pick(scores, [draw(emitted=(0,) * position, **sampling) for position in range(count)]))


def test_temperature_zero_takes_the_largest():
    scores = torch.randn(5, 300)
    assert pick(scores, [draw(temperature=0.0)] * 5) == scores.argmax(dim=-1).tolist()


def test_a_row_is_drawn_alike_alone_and_in_any_batch():
    torch.manual_seed(1)
    scores = torch.randn(40, 32_000)
    rnd = random.Random(1)
    kinds = [
        {"seed": row, "temperature": rnd.choice([0.0, 0.3, 1.0, 1.5]), "top_p": rnd.choice([0.1, 0.9, 1.0])}
        for row in range(40)
    ]
    together = pick(scores, [draw(**kind) for kind in kinds])
    alone = [pick(scores[row : row + 1], [draw(**kind)])[0] for row, kind in enumerate(kinds)]
    assert together == alone


@pytest.mark.parametrize("vocabulary", [3, 128, 300, 32_000])
def test_frequencies_are_the_softmax(vocabulary):
    row = [-20.0] * vocabulary
    row[0], row[1], row[-1] = 1.0, 0.0, 2.0
    counts = chosen(row, 2_000, seed=3)
    expected = torch.softmax(torch.tensor([1.0, 0.0, 2.0]), dim=-1)
    for token_id, share in zip((0, 1, vocabulary - 1), expected.tolist(), strict=True):
        assert abs(counts[token_id] / 2_000 - share) < 0.05


def test_temperature_sharpens():
    assert chosen([1.0, 0.0, 2.0], 1_000, seed=3, temperature=0.2)[2] > 950


@pytest.mark.parametrize(("top_p", "allowed"), [(0.01, {2}), (0.64, {2}), (0.7, {2, 0}), (0.95, {2, 0, 1})])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, allowed):
    # Shares: token 2 has 0.665, token 0 has 0.245, token 1 has 0.09.
    assert set(chosen([1.0, 0.0, 2.0], 500, seed=3, top_p=top_p)) == allowed


def test_top_p_keeps_the_proportions_inside():
    counts = chosen([1.0, 0.0, 2.0], 3_000, seed=3, top_p=0.7)
    assert abs(counts[2] / 3_000 - 0.731) < 0.03  # 0.665 of 0.665 + 0.245


@pytest.mark.parametrize(("top_p", "distinct"), [(0.4, 300), (0.002, 15)])
def test_a_wide_and_a_tiny_nucleus(top_p, distinct):
    """Nearly flat scores, as random weights give. The tiny one is missed by every attempt and has to be sorted out."""
    row = torch.cat([torch.full((10_000,), 0.001), torch.zeros(10_000)]) + torch.arange(20_000, 0, -1) * 1e-7
    counts = chosen(row.tolist(), 400, seed=3, top_p=top_p)
    assert len(counts) > distinct
    assert max(counts) < 20_000 * top_p


def test_nothing_of_probability_zero_is_drawn():
    row = [-torch.inf] * 1_000
    row[500] = 0.0
    assert set(chosen(row, 300, seed=3)) == {500}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"seed": 1}, {"seed": 2}),
        ({"seed": 1}, {"seed": 1, "choice": 1}),
        ({"seed": 1}, {"seed": 1, "emitted": (7,)}),
        ({"request_id": "a"}, {"request_id": "b"}),
        ({"request_id": "1"}, {"seed": 1}),
    ],
)
def test_seed_choice_position_and_request_each_give_other_numbers(one, other):
    assert draw(**one).uniform() != draw(**other).uniform()


def test_a_seed_gives_the_same_numbers_in_any_request():
    assert draw(request_id="a", seed=5).uniform() == draw(request_id="b", seed=5).uniform()


def test_a_continued_choice_goes_on_with_the_same_numbers():
    whole = draw(seed=5)
    for token_id in (8, 9, 8):
        whole.append(token_id)
    continued = draw(seed=5, emitted=(8, 9, 8))
    assert (continued.uniform(), continued.counts) == (whole.uniform(), whole.counts)


def test_uniform_numbers_are_uniform():
    numbers = [draw(seed=1, emitted=(0,) * position).uniform() for position in range(2_000)]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert abs(sum(numbers) / len(numbers) - 0.5) < 0.03


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_end_is_masked_until_min_tokens(temperature):
    scores = torch.tensor([[0.0, 1.0, 50.0]])
    assert pick(scores, [draw(temperature=temperature, seed=1, min_tokens=2, emitted=(1,))]) != [2]
    assert pick(scores, [draw(temperature=temperature, seed=1, min_tokens=2, emitted=(1, 1))]) == [2]


def test_penalties_count_output_tokens_only():
    scores = torch.tensor([[1.0, 1.5, 0.9]])
    assert pick(scores, [draw(temperature=0.0, presence_penalty=0.55, emitted=(1,))]) == [0]
    assert pick(scores, [draw(temperature=0.0, presence_penalty=0.55)]) == [1]
    assert pick(scores, [draw(temperature=0.0, frequency_penalty=0.3, emitted=(1,))]) == [1]
    assert pick(scores, [draw(temperature=0.0, frequency_penalty=0.3, emitted=(1, 1))]) == [0]


def test_a_penalty_falls_on_its_own_row():
    scores = torch.tensor([[1.0, 1.5], [1.0, 1.5]])
    draws = [draw(temperature=0.0, presence_penalty=2.0, emitted=(1,)), draw(temperature=0.0)]
    assert pick(scores, draws) == [0, 1]


def test_the_repetition_penalty_is_that_of_transformers_over_prompt_and_output():
    torch.manual_seed(2)
    scores, prompt, emitted = torch.randn(1, 300), (5, 7, 7, 290), (11, 5)
    expected = RepetitionPenaltyLogitsProcessor(penalty=1.7)(torch.tensor([[*prompt, *emitted]]), scores.clone())
    one = draw(temperature=0.0, repetition_penalty=1.7, prompt=prompt, emitted=emitted[:1])
    one.append(emitted[1])
    penalised = scores.clone()
    choose(penalised, [one], ())
    assert torch.equal(penalised, expected)


@pytest.mark.parametrize(("top_k", "allowed"), [(1, {2}), (2, {2, 0}), (3, {2, 0, 1}), (0, {2, 0, 1}), (99, {2, 0, 1})])
def test_top_k_keeps_the_likeliest(top_k, allowed):
    assert set(chosen([1.0, 0.0, 2.0], 500, seed=3, top_k=top_k)) == allowed


def test_top_p_counts_shares_of_what_top_k_keeps():
    # Of the two likeliest, token 2 has 0.731: enough for 0.7, which among all three it is not.
    assert set(chosen([1.0, 0.0, 2.0], 500, seed=3, top_p=0.7)) == {2, 0}
    assert set(chosen([1.0, 0.0, 2.0], 500, seed=3, top_p=0.7, top_k=2)) == {2}


def test_log_probabilities_are_of_what_the_model_said_and_of_their_own_row():
    torch.manual_seed(3)
    scores = torch.randn(4, 500)
    said = torch.log_softmax(scores, dim=-1)
    draws = [
        draw(seed=1, temperature=0.3, top_k=3, presence_penalty=2.0, emitted=(4, 5), logprobs=3),
        draw(seed=1),
        draw(temperature=0.0, min_tokens=9, repetition_penalty=1.5, prompt=(1, 2), logprobs=0),
        draw(seed=2, temperature=1.5, logprobs=2),
    ]
    tokens = pick(scores, draws)
    assert [len(one.reports) for one in draws] == [1, 0, 1, 1]
    for row in (0, 2, 3):
        own, top = draws[row].reports[0]
        assert own == pytest.approx(said[row, tokens[row]].item(), abs=1e-5)
        assert len(top) == draws[row].logprobs
        likeliest = said[row].topk(len(top))
        assert [token_id for token_id, _ in top] == likeliest.indices.tolist()
        assert [value for _, value in top] == pytest.approx(likeliest.values.tolist(), abs=1e-5)


def test_a_position_that_is_computed_again_is_reported_once():
    one = draw(temperature=0.0, emitted=(3,), logprobs=1)
    pick(torch.tensor([[1.0, 2.0]]), [one])
    pick(torch.tensor([[1.0, 2.0]]), [one])
    one.append(1)
    pick(torch.tensor([[9.0, 2.0]]), [one])
    assert [top[0][0] for _, top in one.reports] == [1, 0]


def test_more_log_probabilities_than_tokens_exist_are_all_of_them():
    one = draw(temperature=0.0, logprobs=20)
    pick(torch.tensor([[1.0, 2.0, 3.0]]), [one])
    assert [token_id for token_id, _ in one.reports[0][1]] == [2, 1, 0]


def test_rows_without_a_draw_are_left_alone():
    scores = torch.zeros(3, 10)
    choose(scores, [draw(seed=1)], EOS)
    assert torch.equal(scores[1:], torch.zeros(2, 10))


def test_broken_weights_break_no_bounds():
    assert pick(torch.full((1, 10), torch.nan), [draw(seed=1)])[0] in range(10)
