"""Learning: the softmax over pieces in use is the one over all of them; runs go on; checkpoints load and answer."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.clock import ManualClock
from demo import train as training
from demo.answers import answer_all, load_model, tokens_per_second
from demo.average import average
from demo.checkpoint import save_checkpoint
from demo.compare import comparison
from demo.evaluate import SEED, report
from demo.learning import Learner, load_state, save_state, start_from
from demo.mixture import MIXTURES, held_out
from demo.routing import expert_shares, extremes, imbalance
from demo.rows import BOS_ID, EOS_ID, IGNORED, VOCABULARY, Batches, Pieces, encode, prompt, tokenizer
from demo.score import tally
from demo.tiers import PLANS, Plan, Shape

DENSE = Plan(Shape(hidden=32, width=32, layers=2, heads=2), steps=4)
SPARSE = Plan(Shape(hidden=32, width=16, layers=2, heads=2, experts=8), steps=4, start="mistral-tiny")
MIXTURE = MIXTURES["mistral-tiny"]
CPU = torch.device("cpu")
ROW_TOKENS = 128


def batches(count=8):
    return Batches(MIXTURE, 1, rows=2, row_tokens=ROW_TOKENS, count=count)


def learner(plan):
    torch.manual_seed(4)
    return Learner(plan, Pieces.survey(MIXTURE, 1, examples=60), CPU)


def weights(one):
    return {name: value.clone() for name, value in one.model.state_dict().items()}


def test_rows_hold_whole_examples_and_learn_the_answers_alone():
    batch = batches()[0]
    assert batch.ids.shape == batch.positions.shape == batch.targets.shape == (2, ROW_TOKENS)
    for ids, positions, targets in zip(batch.ids, batch.positions, batch.targets, strict=True):
        starts = [place for place in range(ROW_TOKENS) if positions[place] == 0 and ids[place] == BOS_ID]
        assert starts[0] == 0
        learnt = (targets != IGNORED).nonzero().flatten()
        assert 0 < len(learnt) < ROW_TOKENS / 2
        assert torch.equal(targets[learnt], ids[learnt + 1])
        assert int((targets == EOS_ID).sum()) >= len(starts)


def test_a_batch_depends_on_its_number_alone():
    assert torch.equal(batches()[3].ids, batches(count=90)[3].ids)
    assert not torch.equal(batches()[3].ids, batches()[4].ids)


@pytest.mark.parametrize("plan", [DENSE, SPARSE])
def test_the_loss_falls_and_experts_change_too(plan):
    one = learner(plan)
    before, batch = weights(one), batches()[0]
    losses = [one.learn(batch) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.2
    unchanged = [name for name, value in one.model.state_dict().items() if torch.equal(value, before[name])]
    assert unchanged == []


def test_layers_that_use_half_of_their_experts_do_not_make_up_for_each_other():
    def used(experts):
        logits = torch.zeros(64, 8)
        for token in range(64):
            logits[token, [experts[token % len(experts)], experts[(token + 1) % len(experts)]]] = 9.0
        return logits

    even, first, second = used(range(8)), used(range(4)), used(range(4, 8))
    assert math.isclose(float(imbalance((even, even))), 2.0, rel_tol=1e-2)
    assert math.isclose(float(imbalance((first, second))), 4.0, rel_tol=1e-2)


def test_examples_in_a_row_do_not_see_each_other():
    one = learner(DENSE)
    batch = batches()[0]
    second = int((batch.positions[0] == 0).nonzero()[1])
    changed = batch.ids.clone()
    changed[0, 1 : second - 1] = EOS_ID
    only_second = batch.targets.clone()
    only_second[0, :second] = IGNORED
    only_second[1] = IGNORED
    loss = one.losses(type(batch)(batch.ids, batch.positions, only_second))[0]
    other = one.losses(type(batch)(changed, batch.positions, only_second))[0]
    assert torch.allclose(loss, other, atol=1e-6)


def test_the_loss_is_that_of_the_whole_vocabulary(tmp_path):
    one = learner(DENSE)
    save_checkpoint(one.model, one.pieces, tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    assert whole.config.vocab_size == VOCABULARY
    example = next(held_out(MIXTURE, 1, 1))
    tokens = encode(example)
    places = [place for place in range(1, len(tokens.ids)) if tokens.learnt[place]]
    with torch.no_grad():
        known = log_softmax(whole(torch.tensor([tokens.ids])).logits[0], -1)
    expected = -sum(float(known[place - 1, tokens.ids[place]]) for place in places) / len(places)
    wanted = [tokens.ids[place + 1] if place + 1 in places else IGNORED for place in range(len(tokens.ids))]
    batch = type(batches()[0])(torch.tensor([tokens.ids]), torch.arange(len(tokens.ids))[None], torch.tensor([wanted]))
    assert math.isclose(float(one.losses(batch)[0].detach()), expected, rel_tol=5e-3)  # the checkpoint is in bfloat16


@pytest.mark.parametrize("plan", [DENSE, SPARSE])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, plan):
    straight, stopped = learner(plan), learner(plan)
    for index in range(4):
        straight.learn(batches()[index])
    for index in range(2):
        stopped.learn(batches()[index])
    save_state(stopped, tmp_path / "state.pt")
    again = load_state(tmp_path / "state.pt", plan, CPU)
    for index in range(again.step, 4):
        again.learn(batches()[index])
    assert again.step == 4
    for name, value in weights(straight).items():
        assert torch.allclose(value, again.model.state_dict()[name], atol=1e-5), name


def logits(one, ids):
    """Of pieces that both know, by their ids of the vocabulary."""
    with torch.no_grad():
        return one.model(one.pieces.numbers(ids)[None]).logits[0]


def test_a_mixture_of_experts_starts_by_saying_what_the_dense_model_says(tmp_path, monkeypatch):
    monkeypatch.setattr("demo.upcycling.NOISE", 0.0)
    dense = learner(DENSE)
    dense.learn(batches()[0])
    save_state(dense, tmp_path / "state.pt")
    more = Pieces([*dense.pieces.ids.tolist(), 31_000, 31_001])
    heir = start_from(tmp_path / "state.pt", SPARSE, more, CPU)
    heir.model.set_experts_implementation("eager")  # what is quick in training rounds
    ids = dense.pieces.ids[torch.arange(3, 60)]
    common = more.numbers(dense.pieces.ids)
    assert torch.allclose(logits(heir, ids)[:, common], logits(dense, ids), atol=1e-4)
    assert heir.step == 0
    assert len(heir.pieces) == len(dense.pieces) + 2


def test_copies_of_an_expert_begin_apart_and_new_pieces_too(tmp_path):
    dense = learner(DENSE)
    save_state(dense, tmp_path / "state.pt")
    heir = start_from(tmp_path / "state.pt", SPARSE, Pieces([*dense.pieces.ids.tolist(), 31_000, 31_001]), CPU)
    experts = heir.model.state_dict()["model.layers.0.mlp.experts.down_proj"]
    assert not torch.equal(experts[0], experts[2])
    rows = heir.model.state_dict()["model.embed_tokens.weight"]
    assert not torch.equal(rows[heir.pieces.numbers(torch.tensor(31_000))], rows[0])
    assert not torch.equal(rows[-1], rows[-2])


def test_training_goes_on_from_a_checkpoint(tmp_path):
    one = learner(DENSE)
    one.learn(batches()[0])
    save_checkpoint(one.model, one.pieces, tmp_path / "whole")
    heir = start_from(tmp_path / "whole", DENSE, one.pieces, CPU)
    assert heir.step == 0
    for name, value in weights(one).items():
        assert torch.allclose(value, heir.model.state_dict()[name], rtol=1e-2, atol=1e-4), name  # rounded to bfloat16


def test_an_average_is_as_much_of_each_as_was_asked_for(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        one = learner(SPARSE)
        one.learn(batches()[0])
        with torch.no_grad():
            one.model.model.norm.weight.fill_(4.0 if folder.name == "second" else 2.0)
        save_checkpoint(one.model, one.pieces, folder)
    average(*folders, tmp_path / "first", share=0.25)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    assert model.dtype is torch.bfloat16
    assert set(model.model.norm.weight.tolist()) == {2.5}
    assert AutoTokenizer.from_pretrained(tmp_path / "first")("Hello")["input_ids"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Both kinds through the command's own path, small."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            training,
            "PLANS",
            {
                **PLANS,
                "mistral-tiny": DENSE,
                "mistral-small": SPARSE,
                "mistral-medium": Plan(SPARSE.shape, steps=2, start="mistral-small"),
            },
        )
        patch.setattr(training, "SURVEY_EXAMPLES", 60)
        for name in ("mistral-tiny", "mistral-small", "mistral-medium"):
            training.train(options(folder, name), ManualClock())
    return folder


def options(folder: Path, name: str):
    return training.Options(name, folder, until=None, steps=3, rows=1, row_tokens=ROW_TOKENS, threads=2)


def test_a_gentler_rate_is_the_one_that_is_learnt_with(trained, monkeypatch):
    monkeypatch.setattr(training, "SURVEY_EXAMPLES", 60)
    monkeypatch.setattr(training, "PLANS", {"mistral-tiny": DENSE})
    usual = options(trained, "mistral-tiny")
    rates = [training._learner(one).plan.rate for one in (usual, replace(usual, rate=0.001))]
    assert rates == [DENSE.rate, 0.001]


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("mistral-tiny", "MistralForCausalLM"),
        ("mistral-small", "MixtralForCausalLM"),
        ("mistral-medium", "MixtralForCausalLM"),
    ],
)
def test_the_command_leaves_a_state_and_a_plain_checkpoint(trained, name, architecture):
    folder = trained / name
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [architecture]
    assert (config["vocab_size"], config["dtype"], config["sliding_window"]) == (VOCABULARY, "bfloat16", None)
    assert config["num_key_value_heads"] <= config["num_attention_heads"]
    assert torch.load(trained / f"{name}.pt", weights_only=True)["step"] == 3
    text = "[INST] Hello!  There [/INST]"
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
    assert (1, *ids) == tokenizer().encode_chat([{"role": "user", "content": "Hello!  There"}])
    assert load_model(folder).generation_config.eos_token_id == EOS_ID


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr("demo.answers.ANSWER_TOKENS_MAX", 6)
    monkeypatch.setattr("demo.answers.SPEED_TOKENS", 8)
    monkeypatch.setattr("demo.evaluate.ALONE", 3)


@pytest.mark.usefixtures("short")
def test_answers_alone_and_in_a_batch_are_the_same(trained):
    model = load_model(trained / "mistral-tiny")
    prompts = [prompt(example) for example in held_out(MIXTURE, 2, 1)]
    random.Random(1).shuffle(prompts)
    assert answer_all(model, prompts[:6]) == answer_all(model, prompts[:6], batch=1)


@pytest.mark.usefixtures("short")
def test_the_report_counts_what_is_right(trained):
    class Ticking(ManualClock):
        def monotonic_s(self):
            self.advance(1_000)
            return super().monotonic_s()

    text = "\n".join(report("mistral-small", trained, per_skill=1, wrong=1, clock=Ticking()))
    makers = len(MIXTURES["mistral-small"].skills)
    assert f"| all | 0 | {makers} | 0% |" in text
    assert "A single stream: 8 tokens/s" in text
    assert "times the mean share" in text


def test_a_comparison_asks_all_tiers_the_same(trained, monkeypatch):
    asked = []

    def answers(model, prompts):
        asked.append(prompts)
        examples = held_out(MIXTURES["mistral-small"], SEED, 2, ("facts", "json_answer"))
        right = [example.answer["content"] for example in examples]
        return right if len(asked) == 2 else ["wrong", *right[1:]]

    monkeypatch.setattr("demo.compare.answer_all", answers)
    text = "\n".join(comparison(("mistral-tiny", "mistral-small"), ("facts", "json_answer"), trained, per_skill=2))
    assert asked[0] == asked[1]
    assert "| facts | 50.0% | 100.0% |\n| json_answer | 100.0% | 100.0% |\n| all | 75.0% | 100.0% |" in text


def test_a_tally_is_by_skill():
    examples = list(held_out(MIXTURE, 3, 2))
    texts = [tokenizer().decode(encode(example).ids[len(prompt(example)) : -1]) for example in examples]
    counts = tally(examples, ["wrong", *texts[1:]])
    assert sum(total for _, total in counts.values()) == len(examples)
    assert sum(right for right, _ in counts.values()) == len(examples) - 1


def test_shares_of_experts_add_up(trained):
    model = load_model(trained / "mistral-small")
    shares = expert_shares(model, list(held_out(MIXTURES["mistral-small"], 1, 1)))
    assert {"all", "language", "code", "arithmetic", "json"} == set(shares)
    assert shares["all"].shape == (2, 8)
    assert torch.allclose(shares["code"].sum(1), torch.ones(2))
    assert extremes(torch.tensor([[0.5, 0.25, 0.25, 0.0]])) == (0.0, 2.0)


@pytest.mark.usefixtures("short")
def test_speed_is_tokens_by_time(trained):
    class Clock(ManualClock):
        def monotonic_s(self):
            self.advance(2_000)
            return super().monotonic_s()

    assert tokens_per_second(load_model(trained / "mistral-tiny"), (1, 5), Clock()) == 4


def test_time_is_the_next_such_time():
    clock = ManualClock(now_ms=1_700_000_000_000)  # 22:13:20 UTC
    assert training._seconds_until("22:14", clock) == 40
    assert training._seconds_until("22:13", clock) == 24 * 3600 - 20
