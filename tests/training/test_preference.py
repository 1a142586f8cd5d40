"""Preferences: DPO, IPO and Bradley-Terry against TRL's trainers and against sums written out, in float64."""

import importlib
import math
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_expit

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.heads import HeadedGPT
from glassgpt.numerics import log_softmax
from glassgpt.training.objective import IGNORED
from glassgpt.training.preference import PairLoss, RankingLoss, sequence_logprobs
from glassgpt.weights.tensors import tensors_of

CONFIG = GPTConfig(11, 10, n_layer=1, n_head=2, n_embd=16, position="rope", norm="rmsnorm", mlp="swiglu", tied=False)
B, K, T = 5, 4, 9


def policy(seed=1):
    """A GPT that is sure of itself: fresh weights are too near to uniform to tell two losses apart."""
    model = GPT(CONFIG, seed=seed).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    return model


def scorer():
    return HeadedGPT(GPT(CONFIG, seed=1).double(), 1, seed=2)


def pairs():
    """Completions of many lengths, after prompts of many lengths, with padding behind."""
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 11, (B, 2, T + 1))
    targets = windows[..., 1:].copy()
    for i in range(B):
        targets[i, :, : i + 1] = IGNORED
        targets[i, 0, T - i // 2 :] = IGNORED
    reference, _ = sequence_logprobs(
        policy(seed=5)(torch.from_numpy(windows[..., :-1]).flatten(0, 1)), torch.from_numpy(targets).flatten(0, 1)
    )
    return {"inputs": windows[..., :-1], "targets": targets, "reference": reference.detach().numpy().reshape(B, 2)}


def rankings():
    """Of four completions: all apart, two tied, one missing and two tied, one alone, all tied."""
    rng = np.random.default_rng(0)
    last = rng.integers(0, T, (B, K))
    last[2, 1] = -1
    last[3, 1:] = -1
    ranks = np.array([[2, 0, 1, 3], [0, 1, 1, 2], [1, 0, 0, 1], [0, 1, 2, 3], [0, 0, 0, 0]])
    return {"inputs": rng.integers(0, 11, (B, K, T)), "last": last, "ranks": ranks}


def part(batch, begin=0, end=None):
    return {name: torch.from_numpy(value[begin:end]) for name, value in batch.items()}


def measured(model, loss):
    """A loss, and its gradient in one line of numbers."""
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, trained, materialize_grads=True)
    return float(loss.detach()), torch.cat([g.flatten() for g in grads])


def assert_alike(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-11)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-9, atol=1e-12)
    assert theirs[1].abs().max() > 1e-3


def row_logprobs(model, tokens, targets):
    """Sum and count of a row's log-probabilities, token by token, from probabilities."""
    probabilities = torch.softmax(model(tokens[None])[0], dim=-1)
    chosen = [(t, int(target)) for t, target in enumerate(targets) if target != IGNORED]
    return sum(torch.log(probabilities[t, target]) for t, target in chosen), len(chosen)


# ---- log-probabilities of completions ----


def test_the_logprob_of_a_completion_is_the_sum_over_its_targets():
    model, batch = policy(), pairs()
    plain = log_softmax(ArrayGPT(CONFIG, tensors_of(model)).sequence_logits(batch["inputs"].reshape(-1, T)))
    targets = batch["targets"].reshape(-1, T)
    logits = model(torch.from_numpy(batch["inputs"]).flatten(0, 1))
    sums, counts = sequence_logprobs(logits, torch.from_numpy(targets))
    assert sums.dtype == torch.float64
    for i, row in enumerate(targets):
        expected = [plain[i, t, target] for t, target in enumerate(row) if target != IGNORED]
        assert float(sums[i].detach()) == pytest.approx(sum(expected), rel=1e-12)
        assert int(counts[i]) == len(expected)
    by_pair, _ = sequence_logprobs(logits.unflatten(0, (B, 2)), torch.from_numpy(batch["targets"]))
    assert torch.equal(by_pair.flatten(), sums)


def test_logprobs_are_computed_in_float32_at_least_and_an_empty_completion_has_none():
    logits = torch.tensor([[[0.0, 3.0]], [[0.0, 3.0]]], dtype=torch.bfloat16)
    sums, counts = sequence_logprobs(logits, torch.tensor([[1], [IGNORED]]))
    assert sums.dtype == torch.float32
    assert sums.tolist() == [pytest.approx(-math.log1p(math.exp(-3)), rel=1e-6), 0.0]
    assert counts.tolist() == [1, 0]


# ---- pairs ----


def plain_pair_loss(model, batch, kind, beta, smoothing):
    """The papers' formulas, pair by pair, with no function of torch.nn."""
    total = 0.0
    for i in range(B):
        gains = []
        for j in range(2):
            logprob, count = row_logprobs(model, torch.from_numpy(batch["inputs"][i, j]), batch["targets"][i, j])
            gain = logprob - batch["reference"][i, j]
            gains.append(gain / count if kind == "ipo" else gain)
        margin = gains[0] - gains[1]
        if kind == "ipo":
            total = total + (margin - 1 / (2 * beta)) ** 2
        else:
            right = 1 / (1 + torch.exp(-beta * margin))
            total = total - (1 - smoothing) * torch.log(right) - smoothing * torch.log(1 - right)
    return total


@pytest.mark.parametrize(
    ("kind", "beta", "smoothing"), [("dpo", 0.1, 0.0), ("dpo", 0.7, 0.0), ("dpo", 0.3, 0.2), ("ipo", 0.4, 0.0)]
)
def test_pairs_give_the_losses_and_gradients_of_the_papers(kind, beta, smoothing):
    model, batch, objective = policy(), pairs(), PairLoss(kind, beta, smoothing)
    expected = measured(model, plain_pair_loss(model, batch, kind, beta, smoothing))
    assert_alike(measured(model, objective.loss(model, part(batch))), expected)
    assert objective.terms(batch) == B


@pytest.mark.parametrize(("beta", "smoothing"), [(0.1, 0.0), (0.5, 0.3)])
def test_a_policy_that_is_its_own_reference_is_at_log_two_and_leaves_it_along_the_better_completion(beta, smoothing):
    model, batch = policy(), pairs()
    chosen, rejected = (
        sum(row_logprobs(model, torch.from_numpy(batch["inputs"][i, j]), batch["targets"][i, j])[0] for i in range(B))
        for j in range(2)
    )
    sums, _ = sequence_logprobs(
        model(torch.from_numpy(batch["inputs"]).flatten(0, 1)), part(batch)["targets"].flatten(0, 1)
    )
    batch["reference"] = sums.detach().numpy().reshape(B, 2)
    loss, grad = measured(model, PairLoss("dpo", beta, smoothing).loss(model, part(batch)))
    assert loss == pytest.approx(B * math.log(2), rel=1e-12)
    _, direction = measured(model, chosen - rejected)
    torch.testing.assert_close(grad, -beta * (0.5 - smoothing) * direction, rtol=1e-9, atol=1e-12)


def test_pairs_worked_by_hand():
    """One token after one token: pi 0.8 and 0.2, reference 0.5 and 0.25, so m = log 1.6 - log 0.8 = log 2."""
    logits = torch.log(torch.tensor([[[0.8, 0.2]], [[0.8, 0.2]]], dtype=torch.float64))
    batch = {
        "inputs": np.zeros((1, 2, 1), dtype=np.int64),
        "targets": np.array([[[0], [1]]]),
        "reference": np.log([[0.5, 0.25]]),
    }

    def loss(*settings):
        return float(PairLoss(*settings).loss(lambda tokens: logits, part(batch)))

    assert loss("dpo", 1.0) == pytest.approx(math.log(1.5), rel=1e-12)  # sigmoid(log 2) is 2/3
    assert loss("dpo", 2.0) == pytest.approx(math.log(1.25), rel=1e-12)  # 4/5
    assert loss("dpo", 1.0, 0.25) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(3), rel=1e-12)
    assert loss("ipo", 0.5) == pytest.approx((math.log(2) - 1) ** 2, rel=1e-12)
    objective = PairLoss("dpo", 2.0)
    objective.loss(lambda tokens: logits, part(batch))
    assert objective.tally.drain() == {
        "accuracy": 1.0,
        "chosen_reward": pytest.approx(2 * math.log(1.6)),
        "margin": pytest.approx(2 * math.log(2)),
        "rejected_reward": pytest.approx(2 * math.log(0.8)),
    }


@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_dividing_pairs_changes_neither_loss_nor_gradient_nor_tally(kind):
    model, batch, objective = policy(), pairs(), PairLoss(kind)
    whole = measured(model, objective.loss(model, part(batch)))
    noted = objective.tally.drain()
    parts = [measured(model, objective.loss(model, part(batch, a, b))) for a, b in ((3, 5), (0, 1), (1, 3))]
    assert_alike((sum(loss for loss, _ in parts), sum(grad for _, grad in parts)), whole)
    assert objective.tally.drain() == pytest.approx(noted, rel=1e-12)
    assert 0 < noted["accuracy"] < 1


def test_an_empty_completion_under_ipo_is_no_division_by_zero():
    model, batch = policy(), pairs()
    batch["targets"][0, 1] = IGNORED
    batch["reference"][0, 1] = 0.0
    _, grad = measured(model, PairLoss("ipo").loss(model, part(batch)))
    assert torch.isfinite(grad).all()


def test_pair_settings_and_rows_that_cannot_be_meant_are_refused():
    for settings, message in [
        ({"kind": "kto"}, "one of dpo, ipo; got 'kto'"),
        ({"beta": 0.0}, "beta must be"),
        ({"beta": math.nan}, "beta must be"),
        ({"label_smoothing": 0.6}, "label_smoothing must be a number from 0 to 0.5; got 0.6"),
        ({"kind": "ipo", "label_smoothing": 0.1}, "ipo has no label_smoothing"),
    ]:
        with pytest.raises(UsageError, match=message):
            PairLoss(**settings)
    with pytest.raises(UsageError, match="add reference"):
        PairLoss().terms({name: value for name, value in pairs().items() if name != "reference"})


# ---- rankings ----


def plain_ranking_loss(scores, batch, centre):
    """The sum over rankings of the mean over their pairs, one by one; and how many rankings have any."""
    total, rankings_with_pairs = 0.0, 0
    for i in range(len(scores)):
        each = [
            -log_expit(scores[i, w] - scores[i, l]) + centre * (scores[i, w] + scores[i, l]) ** 2
            for w in range(K)
            for l in range(K)  # noqa: E741
            if min(batch["last"][i, w], batch["last"][i, l]) >= 0 and batch["ranks"][i, w] < batch["ranks"][i, l]
        ]
        total += np.mean(each) if each else 0.0
        rankings_with_pairs += bool(each)
    return total, rankings_with_pairs


def scores_of(model, batch):
    numbers = model(torch.from_numpy(batch["inputs"]).flatten(0, 1)).view(B, K, T)
    return torch.stack([torch.stack([numbers[i, k, batch["last"][i, k]] for k in range(K)]) for i in range(B)])


@pytest.mark.parametrize("centre", [0.0, 0.01, 3.0])
def test_rankings_give_the_sum_over_pairs_written_out(centre):
    model, batch, objective = scorer(), rankings(), RankingLoss(centre)
    expected, count = plain_ranking_loss(scores_of(model, batch).detach().numpy(), batch, centre)
    assert float(objective.loss(model, part(batch)).detach()) == pytest.approx(expected, rel=1e-12)
    assert objective.terms(batch) == count == 3
    there = scores_of(model, batch).detach().numpy()[batch["last"] >= 0]
    assert there.size == B * K - 4
    assert objective.tally.drain()["reward"] == pytest.approx(there.mean(), rel=1e-12)


@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_the_gradient_of_rankings_is_that_of_finite_differences(centre):
    batch = rankings()
    scores = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (B, K))).requires_grad_()
    at_all = scores.flatten()[:, None, None].expand(B * K, T, 1)
    (grad,) = torch.autograd.grad(RankingLoss(centre).loss(lambda tokens: at_all, part(batch)), scores)
    for i, k in np.ndindex(B, K):
        up, down = (scores.detach().numpy().copy() for _ in range(2))
        up[i, k] += 1e-5
        down[i, k] -= 1e-5
        slope = (plain_ranking_loss(up, batch, centre)[0] - plain_ranking_loss(down, batch, centre)[0]) / 2e-5
        assert float(grad[i, k]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_rankings_worked_by_hand():
    """Scores log 3, 0, log 2, ranked 0, 2, 1: the pairs are at odds of 3, 1.5 and 2."""
    scores = torch.tensor([math.log(3), 0.0, math.log(2)], dtype=torch.float64)[:, None, None]
    batch = {
        "inputs": np.zeros((1, 3, 1), np.int64),
        "last": np.zeros((1, 3), np.int64),
        "ranks": np.array([[0, 2, 1]]),
    }
    objective = RankingLoss()
    loss = float(objective.loss(lambda tokens: scores, part(batch)))
    assert loss == pytest.approx((math.log(4 / 3) + math.log(5 / 3) + math.log(3 / 2)) / 3, rel=1e-12)
    assert objective.tally.drain() == {
        "accuracy": 1.0,
        "margin": pytest.approx((math.log(3) + math.log(1.5) + math.log(2)) / 3),
        "reward": pytest.approx(math.log(6) / 3),
    }
    worse = {**batch, "ranks": np.array([[0, 1, 2]])}  # the model has the last two the wrong way round
    objective.loss(lambda tokens: scores, part(worse))
    assert objective.tally.drain()["accuracy"] == pytest.approx(2 / 3)


def test_dividing_rankings_changes_neither_loss_nor_gradient_nor_tally():
    model, batch, objective = scorer(), rankings(), RankingLoss(0.1)
    whole = measured(model, objective.loss(model, part(batch)))
    noted = objective.tally.drain()
    spans = ((3, 5), (0, 1), (1, 3))
    parts = [measured(model, objective.loss(model, part(batch, a, b))) for a, b in spans]
    assert_alike((sum(loss for loss, _ in parts), sum(grad for _, grad in parts)), whole)
    assert objective.tally.drain() == pytest.approx(noted, rel=1e-12)
    terms = [objective.terms({name: value[a:b] for name, value in batch.items()}) for a, b in spans]
    assert terms == [0, 1, 2]


def test_a_ranking_without_a_pair_adds_neither_loss_nor_gradient():
    model, batch = scorer(), rankings()
    loss, grad = measured(model, RankingLoss(0.1).loss(model, part(batch, 3)))
    assert loss == 0
    assert not grad.any()


def test_scores_may_shift_together_unless_they_are_centred():
    model, batch = scorer(), rankings()
    (free,) = torch.autograd.grad(RankingLoss().loss(model, part(batch)), [model.head.bias])
    assert abs(float(free)) < 1e-12
    (centred,) = torch.autograd.grad(RankingLoss(0.1).loss(model, part(batch)), [model.head.bias])
    scores = scores_of(model, batch).detach()
    pairs_of = [
        [(1, 2), (1, 0), (1, 3), (2, 0), (2, 3), (0, 3)],
        [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)],
        [(2, 0), (2, 3)],
    ]
    expected = sum(np.mean([0.4 * float(scores[i, w] + scores[i, v]) for w, v in p]) for i, p in enumerate(pairs_of))
    assert float(centred) == pytest.approx(expected, rel=1e-10)


def test_rankings_that_cannot_be_meant_are_refused():
    with pytest.raises(UsageError, match="centre must be a number of 0 or more; got -1"):
        RankingLoss(-1)
    with pytest.raises(UsageError, match="add ranks"):
        RankingLoss().terms({name: value for name, value in rankings().items() if name != "ranks"})
    for place in (-2, T):
        with pytest.raises(UsageError, match="places of texts of 9 tokens"):
            RankingLoss().terms({**rankings(), "last": np.full((B, K), place)})


# ---- TRL's own trainers, handed our log-probabilities and scores (slow: TRL takes ten seconds to import) ----


class Alone:
    """The accelerator of one process, as far as a loss asks for it."""

    device = torch.device("cpu")

    def gather(self, x):
        return x

    gather_for_metrics = gather


def trl_pair_loss(model, batch, kind, beta, smoothing=0.0):
    """TRL's DPOTrainer on one batch, the chosen ones first as it wants them."""
    pytest.importorskip("trl")
    trainer = importlib.import_module("trl.trainer.dpo_trainer").DPOTrainer
    selective_log_softmax = importlib.import_module("trl.trainer.utils").selective_log_softmax
    inputs, targets = (torch.from_numpy(batch[name]).transpose(0, 1).flatten(0, 1) for name in ("inputs", "targets"))
    mask = targets != IGNORED
    logprobs = selective_log_softmax(model(inputs), targets.clamp(min=0)) * mask
    zeros = torch.zeros_like(logprobs)
    outputs = SimpleNamespace(log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=mask)
    completion = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1).long()  # a place per token, the first too
    its_self = SimpleNamespace(
        model=model, accelerator=Alone(), aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        f_divergence_type="reverse_kl", beta=beta, label_smoothing=smoothing, loss_types=[kind], loss_weights=[1.0],
        use_weighting=False, _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    given = {
        "input_ids": completion,
        "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
        "ref_chosen_logps": torch.from_numpy(batch["reference"][:, 0]),
        "ref_rejected_logps": torch.from_numpy(batch["reference"][:, 1]),
    }
    loss = trainer._compute_loss(its_self, lambda **_: outputs, given, return_outputs=False)
    return loss, {name: values[0] for name, values in its_self._metrics["train"].items()}


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.parametrize(("kind", "trls"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_pairs_give_the_loss_gradient_and_figures_of_trl(kind, trls, beta):
    model, batch, objective = policy(), pairs(), PairLoss(kind, beta)
    loss, figures = trl_pair_loss(model, batch, trls, beta)
    assert_alike(measured(model, objective.loss(model, part(batch)) / objective.terms(batch)), measured(model, loss))
    if kind == "dpo":  # TRL's rewards are sums under IPO too
        noted = objective.tally.drain()
        for ours, theirs in [("chosen_reward", "chosen"), ("rejected_reward", "rejected"), ("margin", "margins")]:
            assert noted[ours] == pytest.approx(figures[f"rewards/{theirs}"], rel=1e-6)
        assert noted["accuracy"] == pytest.approx(figures["rewards/accuracies"], rel=1e-6)


@pytest.mark.slow
def test_smoothed_labels_give_the_loss_and_gradient_of_trl():
    """TRL 1.16 smooths labels in AOT alone, which sorts the pairs of a batch: with one pair it is conservative DPO."""
    model, batch = policy(), pairs()
    each = ({name: value[i : i + 1] for name, value in batch.items()} for i in range(B))
    expected = sum(trl_pair_loss(model, pair, "aot", 0.3, 0.2)[0] for pair in each)
    assert_alike(measured(model, PairLoss("dpo", 0.3, 0.2).loss(model, part(batch))), measured(model, expected))


@pytest.mark.slow
@pytest.mark.parametrize("centre", [None, 0.01])
def test_rankings_of_two_give_the_loss_and_gradient_of_trl(centre):
    pytest.importorskip("trl")
    trainer = importlib.import_module("trl.trainer.reward_trainer").RewardTrainer
    model, batch = scorer(), {name: value[:, :2] for name, value in rankings().items()}
    batch["last"], batch["ranks"] = np.abs(batch["last"]), np.array([[0, 1]] * B)
    scores = torch.stack(
        [
            model(torch.from_numpy(x))[torch.arange(2), at, 0]
            for x, at in zip(batch["inputs"], batch["last"], strict=True)
        ]
    )
    its_self = SimpleNamespace(
        model=model, accelerator=Alone(), args=SimpleNamespace(center_rewards_coefficient=centre),
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    outputs = SimpleNamespace(logits=scores.T.reshape(-1, 1))
    loss = trainer.compute_loss(its_self, lambda **_: outputs, {"attention_mask": torch.ones(1, dtype=torch.long)})
    objective = RankingLoss(centre or 0.0)
    assert_alike(measured(model, objective.loss(model, part(batch)) / objective.terms(batch)), measured(model, loss))
    noted, figures = objective.tally.drain(), its_self._metrics["train"]
    assert noted["accuracy"] == pytest.approx(figures["accuracy"][0], rel=1e-6)
    assert noted["margin"] == pytest.approx(figures["margin"][0], rel=1e-6)
