"""Rewards: advantages and the clipped losses against numbers worked by hand, loops written out, REINFORCE and TRL."""

import importlib
import math
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.heads import ActorCritic, HeadedGPT
from glassgpt.training.objective import IGNORED, Objective, Tally
from glassgpt.training.policy import (
    GRPOLoss,
    PPOLoss,
    gae,
    group_advantages,
    token_rewards,
    whitened,
)

CONFIG = GPTConfig(7, 10, n_layer=1, n_head=2, n_embd=8, position="rope", norm="rmsnorm", tied=False)
B, T = 6, 9
NORMALISATIONS = [("sequence", None), ("tokens", None), ("constant", 12)]


def policy(seed=1):
    """A GPT that is sure of itself: fresh weights are too near to uniform to tell two losses apart."""
    model = GPT(CONFIG, seed=seed).double()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    return model


def actor_critic():
    return ActorCritic(policy(), HeadedGPT(GPT(CONFIG, seed=2).double(), 1, seed=3))


def rows(drift=0.3):
    """Responses of many lengths, by a policy that has drifted since by about `drift` nats a token."""
    rng = np.random.default_rng(0)
    windows = rng.integers(0, 7, (B, T + 1))
    targets = windows[:, 1:].copy()
    for i in range(B):
        targets[i, : i % 3 + 1] = IGNORED
        targets[i, T - i :] = IGNORED
    model = actor_critic()
    logits, values = model(torch.from_numpy(windows[:, :-1]))
    logprobs = torch.log_softmax(logits, -1).gather(-1, torch.from_numpy(windows[:, 1:, None]))[..., 0].detach().numpy()
    return {
        "inputs": windows[:, :-1],
        "targets": targets,
        "logprobs": logprobs + drift * rng.normal(size=(B, T)),
        "reference": logprobs + rng.normal(size=(B, T)),
        "values": values.detach().numpy() + drift * rng.normal(size=(B, T)),
        "advantages": rng.normal(size=(B, T)),
        "returns": rng.normal(size=(B, T)),
    }


def answers(drift=0.3):
    """As `rows`, with one advantage for a whole answer: two groups of three."""
    rewards = np.random.default_rng(5).normal(size=(2, 3))
    return {**rows(drift), "advantages": group_advantages(rewards, scale=True).flatten()}


def part(batch, begin=0, end=None):
    return {name: torch.from_numpy(value[begin:end]) for name, value in batch.items()}


def measured(model, loss):
    """A loss, and its gradient in one line of numbers."""
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, trained, materialize_grads=True)
    return float(loss.detach()), torch.cat([g.flatten() for g in grads])


def assert_alike(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-11, abs=1e-13)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-9, atol=1e-12)
    assert theirs[1].abs().max() > 1e-3


def spoken(batch):
    """Row, place and token of everything said."""
    return [(i, t, int(batch["targets"][i, t])) for i, t in np.ndindex(B, T) if batch["targets"][i, t] != IGNORED]


def lengths(batch):
    return np.count_nonzero(batch["targets"] != IGNORED, axis=1)


def number(x):
    """A constant, as what has a gradient can be compared with."""
    return torch.as_tensor(x, dtype=torch.float64)


def saying(*probabilities):
    """A policy that draws the first of two tokens with these probabilities, one row's places after another's."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.log(torch.stack([p, 1 - p], dim=-1))


# ---- rewards ----


def test_a_response_pays_for_each_token_and_is_paid_at_its_end():
    mask = np.array([[False, True, True, False], [True, True, True, True]])
    kl = np.array([[9.0, 0.5, -0.25, 9.0], [0.0, 1.0, 2.0, 3.0]])
    rewards = token_rewards(np.array([2.0, -1.0]), kl, mask, 0.1)
    np.testing.assert_allclose(rewards, [[0, -0.05, 2.025, 0], [0, -0.1, -0.2, -1.3]], rtol=1e-15)


def test_a_response_is_paid_its_score_less_beta_times_its_divergence():
    rng = np.random.default_rng(0)
    mask = rows()["targets"] != IGNORED
    score, kl = rng.normal(size=B), rng.normal(size=(B, T))
    total = token_rewards(score, kl, mask, 0.3).sum(axis=1)
    np.testing.assert_allclose(total, score - 0.3 * (kl * mask).sum(axis=1), rtol=1e-12)


def test_rewards_without_a_place_for_them_are_refused():
    mask = np.array([[True, True], [False, False]])
    with pytest.raises(UsageError, match="empty one"):
        token_rewards(np.zeros(2), np.zeros((2, 2)), mask, 0.1)
    with pytest.raises(UsageError, match="each of 2 responses"):
        token_rewards(np.zeros(3), np.zeros((2, 2)), mask, 0.1)
    with pytest.raises(UsageError, match="kl and mask must be"):
        token_rewards(np.zeros(2), np.zeros((2, 3)), mask, 0.1)
    with pytest.raises(UsageError, match="row 1 of the mask has gaps"):
        token_rewards(np.zeros(2), np.zeros((2, 3)), np.array([[0, 1, 1], [1, 0, 1]]), 0.1)


# ---- advantages ----


def test_advantages_worked_by_hand():
    """gamma 0.9, lam 0.8: surprises 0.04, 0.03 and 0.3, each 0.72 of the next one's advantage on top."""
    rewards, values = np.array([[7.0, 0.0, 0.0, 1.0, 7.0]]), np.array([[7.0, 0.5, 0.6, 0.7, 7.0]])
    advantages, returns = gae(rewards, values, np.array([[0, 1, 1, 1, 0]]), gamma=0.9, lam=0.8)
    np.testing.assert_allclose(advantages, [[0, 0.21712, 0.246, 0.3, 0]], rtol=1e-12)
    np.testing.assert_allclose(returns, [[0, 0.71712, 0.846, 1.0, 0]], rtol=1e-12)


def test_advantages_are_the_double_sum_of_the_paper():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, B, T))
    mask = rows()["targets"] != IGNORED
    advantages, returns = gae(rewards, values, mask, 0.97, 0.9)
    for i in range(B):
        places = np.flatnonzero(mask[i])
        v = [*values[i, places], 0.0]
        d = [rewards[i, t] + 0.97 * v[k + 1] - v[k] for k, t in enumerate(places)]
        for k, t in enumerate(places):
            expected = sum((0.97 * 0.9) ** j * d[k + j] for j in range(len(places) - k))
            assert advantages[i, t] == pytest.approx(expected, rel=1e-12)
            assert returns[i, t] == pytest.approx(expected + values[i, t], rel=1e-12)
        assert not advantages[i, ~mask[i]].any()
        assert not returns[i, ~mask[i]].any()


def test_without_discount_returns_are_the_rewards_to_come_and_with_lam_zero_one_step_ahead():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 1, T))
    mask = np.ones((1, T), dtype=bool)
    np.testing.assert_allclose(gae(rewards, values, mask, 1.0, 1.0)[1], rewards[:, ::-1].cumsum(1)[:, ::-1], rtol=1e-12)
    ahead = rewards + 0.9 * np.append(values[:, 1:], [[0.0]], axis=1)
    np.testing.assert_allclose(gae(rewards, values, mask, 0.9, 0.0)[1], ahead, rtol=1e-12)


def test_nothing_outside_the_response_can_reach_an_advantage():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, B, T))
    mask = rows()["targets"] != IGNORED
    spoilt = [np.where(mask, x, np.nan) for x in (rewards, values)]
    for clean, other in zip(gae(rewards, values, mask, 0.9, 0.9), gae(*spoilt, mask, 0.9, 0.9), strict=True):
        np.testing.assert_array_equal(clean, other)


def test_advantages_that_cannot_be_meant_are_refused():
    x, mask = np.zeros((1, 3)), np.array([[1, 0, 1]])
    with pytest.raises(UsageError, match="row 0 of the mask has gaps"):
        gae(x, x, mask, 1.0, 1.0)
    with pytest.raises(UsageError, match=r"gamma must be a number from 0 to 1; got 1\.1"):
        gae(x, x, mask, 1.1, 1.0)
    with pytest.raises(UsageError, match="lam must be"):
        gae(x, x, mask, 1.0, -0.1)
    with pytest.raises(UsageError, match="values and mask must be"):
        gae(x, np.zeros(3), mask, 1.0, 1.0)


def test_white_advantages_have_mean_0_and_variance_1_where_they_count():
    mask = rows()["targets"] != IGNORED
    white = whitened(np.where(mask, rows()["advantages"] * 5 + 3, np.inf), mask)
    assert abs(white[mask].mean()) < 1e-12
    assert white[mask].var() == pytest.approx(1, rel=1e-7)
    assert not white[~mask].any()
    np.testing.assert_allclose(whitened([[1.0, 3.0, 8.0]], [[1, 1, 0]]), [[-1, 1, 0]], rtol=1e-7)
    np.testing.assert_array_equal(whitened([[4.0, 8.0]], [[1, 0]]), [[0, 0]])
    np.testing.assert_array_equal(whitened([[4.0, 8.0]], [[0, 0]]), [[0, 0]])


def test_an_answer_is_judged_by_its_group():
    rewards = np.array([[1, 0, 0, 1], [3, 3, 3, 3], [0, 0, 0, 4]])
    np.testing.assert_array_equal(
        group_advantages(rewards, scale=False), [[0.5, -0.5, -0.5, 0.5], [0, 0, 0, 0], [-1, -1, -1, 3]]
    )
    a, b = 0.5 / (math.sqrt(1 / 3) + 1e-4), 1 / (2 + 1e-4)  # the unbiased deviations are sqrt(1/3) and 2
    np.testing.assert_allclose(
        group_advantages(rewards, scale=True), [[a, -a, -a, a], [0, 0, 0, 0], [-b, -b, -b, 3 * b]], rtol=1e-12
    )
    for shape in [(4,), (4, 1)]:
        with pytest.raises(UsageError, match="at least 2 answers"):
            group_advantages(np.zeros(shape), scale=False)


# ---- the tally ----


def test_a_tally_does_not_show_in_what_order_threads_came():
    numbers = np.random.default_rng(0).normal(size=(200, 3)) * 10.0 ** np.arange(-8, 10, 6)

    def drained(order):
        tally = Tally()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: tally.add("x", torch.from_numpy(numbers[i])), order))
        return tally.drain()

    forwards, backwards = drained(range(200)), drained(range(199, -1, -1))
    assert forwards == backwards
    assert forwards["x"] == pytest.approx(numbers.mean(), rel=1e-12)


def test_a_tally_begins_anew_when_it_is_drained_and_notes_nothing_of_nothing():
    tally = Tally()
    tally.add("b", torch.ones(2, requires_grad=True))
    tally.add("a", torch.tensor([[True], [False]]))
    tally.add("c", torch.ones(0))
    assert list(tally.drain().items()) == [("a", 0.5), ("b", 1.0)]
    assert tally.drain() == {}


# ---- PPO ----


def test_ppo_worked_by_hand():
    """Ratios 1.5, 1.5, 0.5, 0.5 with a clip of 0.2: where the ratio has gone the advantage's way, the clip holds it."""
    logits, values = saying(0.6, 0.6, 0.2, 0.2)[None], torch.tensor([[1.0, 0.0, 0.3, 2.0]], dtype=torch.float64)
    batch = {
        "inputs": np.zeros((1, 4), dtype=np.int64),
        "targets": np.zeros((1, 4), dtype=np.int64),
        "logprobs": np.log([[0.4] * 4]),
        "advantages": np.array([[1.0, -1.0, 1.0, -1.0]]),
        "values": np.array([[0.0, 0.1, 0.2, 1.0]]),
        "returns": np.array([[1.0, 1.0, 1.0, 1.0]]),
    }

    def loss(**settings):
        objective = PPOLoss(clip=0.2, value_clip=0.25, **settings)
        return objective, float(objective.loss(lambda tokens: (logits, values), part(batch)))

    policy_loss = -1.2 + 1.5 - 0.5 + 0.8
    assert loss(value_weight=0.0)[1] == pytest.approx(policy_loss, rel=1e-12)
    errors = [0.75**2, 1.0, 0.7**2, 1.0]  # the clipped values are 0.25, 0, 0.3, 1.25
    objective, total = loss(value_weight=0.5)
    assert total == pytest.approx(policy_loss + 0.5 * sum(errors) / 2, rel=1e-12)
    entropy = -2 * (0.6 * math.log(0.6) + 0.4 * math.log(0.4) + 0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert loss(value_weight=0.0, entropy_weight=0.1)[1] == pytest.approx(policy_loss - 0.1 * entropy, rel=1e-12)
    assert objective.tally.drain() == {
        "approximate_kl": pytest.approx((0.5 - math.log(1.5) - 0.5 - math.log(0.5)) / 2, rel=1e-12),
        "clip_fraction": 0.5,
        "entropy": pytest.approx(entropy / 4, rel=1e-12),
        "value_error": pytest.approx((0 + 1 + 0.49 + 1) / 4, rel=1e-12),
    }
    assert objective.terms(batch) == 4


def plain_ppo_loss(model, batch, clip, value_clip, value_weight, entropy_weight):
    """The paper's objective token by token, from probabilities, by cases; and how often each case came."""
    logits, values = model(torch.from_numpy(batch["inputs"]))
    probabilities = torch.softmax(logits, dim=-1)
    total, cases = 0.0, defaultdict(int)
    for i, t, token in spoken(batch):
        p, a = probabilities[i, t], batch["advantages"][i, t]
        ratio = p[token] / math.exp(batch["logprobs"][i, t])
        policy_loss = -a * (min(ratio, number(1 + clip)) if a > 0 else max(ratio, number(1 - clip)))
        held = (a > 0 and ratio > 1 + clip) or (a < 0 and ratio < 1 - clip)
        old, wanted, value = batch["values"][i, t], batch["returns"][i, t], values[i, t]
        near = value
        if value_clip is not None and abs(float(value.detach()) - old) > value_clip:
            near = old + math.copysign(value_clip, float(value.detach()) - old)
        value_loss = max((value - wanted) ** 2, number((near - wanted) ** 2)) / 2
        cases["policy held" if held else "policy free"] += 1
        cases["value held" if near is not value and value_loss.grad_fn is None else "value free"] += 1
        total = total + policy_loss + value_weight * value_loss + entropy_weight * (p * torch.log(p)).sum()
    return total, cases


@pytest.mark.parametrize("clip", [0.1, 0.2])
@pytest.mark.parametrize("value_clip", [0.2, None])
@pytest.mark.parametrize("entropy_weight", [0.0, 0.05])
def test_ppo_gives_the_loss_and_gradient_of_the_paper(clip, value_clip, entropy_weight):
    model, batch = actor_critic(), rows()
    objective = PPOLoss(clip, value_clip, 0.7, entropy_weight)
    expected, cases = plain_ppo_loss(model, batch, clip, value_clip, 0.7, entropy_weight)
    assert_alike(measured(model, objective.loss(model, part(batch))), measured(model, expected))
    assert min(cases["policy held"], cases["policy free"], cases["value free"]) > 0
    assert (cases["value held"] > 0) == (value_clip is not None)
    assert objective.tally.drain()["clip_fraction"] == pytest.approx(cases["policy held"] / len(spoken(batch)))
    assert objective.terms(batch) == len(spoken(batch))


def test_the_first_step_of_ppo_is_reinforce():
    model, batch = actor_critic(), rows(drift=0.0)
    loss, grad = measured(model, PPOLoss(value_weight=0.0).loss(model, part(batch)))
    assert loss == pytest.approx(-sum(batch["advantages"][i, t] for i, t, _ in spoken(batch)), rel=1e-12)
    logprobs = torch.log_softmax(model(torch.from_numpy(batch["inputs"]))[0], dim=-1)
    reinforce = -sum(batch["advantages"][i, t] * logprobs[i, t, token] for i, t, token in spoken(batch))
    expected = measured(model, reinforce)[1]
    torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 0.1


def test_settings_of_ppo_that_cannot_be_meant_are_refused():
    for settings, message in [
        ({"clip": 1.5}, "clip must be a number from 0 to 1; got 1.5"),
        ({"value_clip": -0.1}, "value_clip must be"),
        ({"value_weight": math.inf}, "value_weight must be a number of 0 or more; got inf"),
        ({"entropy_weight": -1}, "entropy_weight must be"),
    ]:
        with pytest.raises(UsageError, match=message):
            PPOLoss(**settings)
    with pytest.raises(UsageError, match="add values, returns"):
        PPOLoss().terms({name: value for name, value in rows().items() if name not in ("values", "returns")})


# ---- GRPO ----


def test_grpo_worked_by_hand():
    """Answers of one and of two tokens: ratios 1.5; 0.5 and 2. Advantages 1 and -2. The reference says all at 0.4."""
    logits = saying(0.6, 0.5, 0.2, 0.8).view(2, 2, 2)
    batch = {
        "inputs": np.zeros((2, 2), dtype=np.int64),
        "targets": np.array([[0, IGNORED], [0, 0]]),
        "logprobs": np.log([[0.4, 0.4], [0.4, 0.4]]),
        "advantages": np.array([1.0, -2.0]),
        "reference": np.log([[0.4, 0.4], [0.4, 0.4]]),
    }

    def loss(*settings):
        objective = GRPOLoss(*settings)
        return objective, float(objective.loss(lambda tokens: logits, part(batch))), objective.terms(batch)

    first, second, third = -1.28, 2 * 0.8, 2 * 2.0
    assert loss("sequence", 0.2, 0.28, 0.0)[1:] == (pytest.approx(first + (second + third) / 2, rel=1e-12), 2)
    assert loss("tokens", 0.2, 0.28, 0.0)[1:] == (pytest.approx(first + second + third, rel=1e-12), 3)
    assert loss("constant", 0.2, 0.28, 0.0, 8)[1:] == (pytest.approx((first + second + third) / 8, rel=1e-12), 2)
    k3 = [2 / 3 - 1 - math.log(2 / 3), 2 - 1 - math.log(2), 0.5 - 1 - math.log(0.5)]
    objective, total, _ = loss("tokens", 0.2, 0.28, 0.1)
    assert total == pytest.approx(first + second + third + 0.1 * sum(k3), rel=1e-12)
    noted = objective.tally.drain()
    assert noted["reference_kl"] == pytest.approx(sum(k3) / 3, rel=1e-12)
    assert noted["clip_fraction"] == pytest.approx(2 / 3)


def plain_grpo_loss(model, batch, normalise, low, high, beta, constant):
    """The papers' objectives over the whole step, divided as they say, from probabilities, by cases."""
    probabilities = torch.softmax(model(torch.from_numpy(batch["inputs"])), dim=-1)
    of_answers, held = [0.0] * B, 0
    for i, t, token in spoken(batch):
        p, a = probabilities[i, t, token], batch["advantages"][i]
        ratio = p / math.exp(batch["logprobs"][i, t])
        held += bool((a > 0 and ratio > 1 + high) or (a < 0 and ratio < 1 - low))
        gain = a * (min(ratio, number(1 + high)) if a > 0 else max(ratio, number(1 - low)))
        back = math.exp(batch["reference"][i, t]) / p
        of_answers[i] = of_answers[i] - gain + beta * (back - torch.log(back) - 1)
    if normalise == "sequence":
        return sum(total / n for total, n in zip(of_answers, lengths(batch), strict=True)) / B, held
    return sum(of_answers) / (sum(lengths(batch)) if normalise == "tokens" else B * constant), held


@pytest.mark.parametrize(("normalise", "constant"), NORMALISATIONS)
@pytest.mark.parametrize(("low", "high", "beta"), [(0.2, 0.2, 0.0), (0.2, 0.28, 0.04), (0.1, 0.5, 1.0)])
def test_grpo_gives_the_losses_and_gradients_of_the_papers(normalise, constant, low, high, beta):
    model, batch = policy(), answers()
    objective = GRPOLoss(normalise, low, high, beta, constant)
    expected, held = plain_grpo_loss(model, batch, normalise, low, high, beta, constant)
    loss = objective.loss(model, part(batch)) / objective.terms(batch)
    assert_alike(measured(model, loss), measured(model, expected))
    assert 0 < held < len(spoken(batch))
    assert objective.tally.drain()["clip_fraction"] == pytest.approx(held / len(spoken(batch)))


def test_the_first_step_of_grpo_has_a_loss_of_zero_and_the_gradient_of_reinforce():
    model, batch = policy(), answers(drift=0.0)
    objective = GRPOLoss(beta=0.0)
    loss, grad = measured(model, objective.loss(model, part(batch)) / objective.terms(batch))
    assert loss == pytest.approx(-batch["advantages"].mean(), abs=1e-14)
    assert abs(loss) < 1e-14
    noted = objective.tally.drain()
    assert noted["clip_fraction"] == 0
    assert abs(noted["approximate_kl"]) < 1e-14
    logprobs = torch.log_softmax(model(torch.from_numpy(batch["inputs"])), dim=-1)
    weights = batch["advantages"] / lengths(batch) / B
    expected = measured(model, -sum(weights[i] * logprobs[i, t, token] for i, t, token in spoken(batch)))[1]
    torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 0.01


def test_a_policy_that_is_its_own_reference_is_not_drawn_to_it():
    model, batch = policy(), answers(drift=0.0)
    batch["reference"], batch["advantages"] = batch["logprobs"], np.zeros(B)
    loss, grad = measured(model, GRPOLoss(beta=1.0).loss(model, part(batch)))
    assert abs(loss) < 1e-13
    assert grad.abs().max() < 1e-12


def test_the_mean_divergence_over_draws_is_the_kullback_leibler_divergence():
    """Over both tokens, each as often as the policy draws it: 0.75 log(0.75 / 0.5) + 0.25 log(0.25 / 0.5)."""
    logits = saying(*[0.75] * 4)[None]
    batch = {
        "inputs": np.zeros((1, 4), dtype=np.int64),
        "targets": np.array([[0, 0, 0, 1]]),
        "logprobs": np.log([[0.75, 0.75, 0.75, 0.25]]),
        "advantages": np.zeros(1),
        "reference": np.log([[0.5] * 4]),
    }
    objective = GRPOLoss()
    objective.loss(lambda tokens: logits, part(batch))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert objective.tally.drain()["reference_kl"] == pytest.approx(expected, rel=1e-12)


def test_settings_of_grpo_that_cannot_be_meant_are_refused():
    for settings, message in [
        ({"normalise": "mean"}, "one of sequence, tokens, constant; got 'mean'"),
        ({"clip_low": 1.1}, "clip_low must be"),
        ({"clip_high": -0.1}, "clip_high must be a number of 0 or more; got -0.1"),
        ({"beta": math.nan}, "beta must be"),
        ({"normalise": "constant"}, "a constant goes with"),
        ({"constant": 12}, "a constant goes with"),
        ({"normalise": "constant", "constant": 0}, "constant must be a number of 1 or more; got 0"),
    ]:
        with pytest.raises(UsageError, match=message):
            GRPOLoss(**settings)
    without = {name: value for name, value in answers().items() if name != "reference"}
    with pytest.raises(UsageError, match="add reference"):
        GRPOLoss(beta=0.1).terms(without)
    assert GRPOLoss(beta=0.0).terms(without) == B


# ---- both ----


@pytest.mark.parametrize(
    "objective",
    [PPOLoss(entropy_weight=0.1), *(GRPOLoss(normalise, constant=c) for normalise, c in NORMALISATIONS)],
    ids=["ppo", *(f"grpo-{normalise}" for normalise, _ in NORMALISATIONS)],
)
def test_dividing_the_rows_changes_neither_loss_nor_gradient_nor_tally(objective: Objective):
    is_ppo = isinstance(objective, PPOLoss)
    model, batch = (actor_critic(), rows()) if is_ppo else (policy(), answers())
    whole = measured(model, objective.loss(model, part(batch)))
    noted = objective.tally.drain()
    spans = ((4, 6), (0, 1), (1, 4))
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda span: measured(model, objective.loss(model, part(batch, *span))), spans))
    assert_alike((sum(loss for loss, _ in parts), sum(grad for _, grad in parts)), whole)
    assert objective.tally.drain() == pytest.approx(noted, rel=1e-12)
    assert 0 < noted["clip_fraction"] < 1
    terms = [objective.terms({name: value[a:b] for name, value in batch.items()}) for a, b in spans]
    assert sum(terms) == objective.terms(batch)


@pytest.mark.parametrize("objective", [PPOLoss(), GRPOLoss()], ids=["ppo", "grpo"])
def test_rows_in_which_nothing_is_said_add_neither_loss_nor_gradient(objective):
    is_ppo = isinstance(objective, PPOLoss)
    model, batch = (actor_critic(), rows()) if is_ppo else (policy(), answers())
    batch["targets"][:] = IGNORED
    loss, grad = measured(model, objective.loss(model, part(batch)))
    assert loss == 0
    assert not grad.any()
    assert objective.tally.drain() == {}


@pytest.mark.parametrize("objective", [PPOLoss(), GRPOLoss()], ids=["ppo", "grpo"])
def test_nothing_outside_the_responses_can_reach_a_loss(objective):
    is_ppo = isinstance(objective, PPOLoss)
    model, batch = (actor_critic(), rows()) if is_ppo else (policy(), answers())
    outside = batch["targets"] == IGNORED
    spoilt = {
        name: np.where(outside, np.nan, value) if value.shape == (B, T) and value.dtype.kind == "f" else value
        for name, value in batch.items()
    }
    clean, other = (measured(model, objective.loss(model, part(b))) for b in (batch, spoilt))
    assert clean[0] == other[0]
    assert torch.equal(clean[1], other[1])


# ---- TRL's own trainer, handed our log-probabilities (slow: TRL takes ten seconds to import) ----


class Alone:
    """The accelerator of one process, as far as a loss asks for it."""

    device, num_processes = torch.device("cpu"), 1

    def gather(self, x):
        return x

    def reduce(self, x, reduction):
        return x


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize(
    ("normalise", "constant", "trls"),
    [("sequence", None, "grpo"), ("tokens", None, "dapo"), ("constant", 12, "dr_grpo")],
)
def test_grpo_gives_the_losses_gradients_and_figures_of_trl(normalise, constant, trls, beta):
    pytest.importorskip("trl")
    trainer = importlib.import_module("trl.trainer.grpo_trainer").GRPOTrainer
    selective_log_softmax = importlib.import_module("trl.trainer.utils").selective_log_softmax
    model, batch = policy(), answers()
    given = part(batch)
    mask = given["targets"] != IGNORED
    logits = model(given["inputs"])
    logprobs = selective_log_softmax(logits, given["targets"].clamp(min=0))
    entropies = torch.distributions.Categorical(logits=logits).entropy().detach()
    its_self = SimpleNamespace(
        model=model, accelerator=Alone(), aux_loss_enabled=False, top_entropy_quantile=1.0, beta=beta,
        off_policy_mask_threshold=None, importance_sampling_level="token", loss_type=trls, epsilon_low=0.2,
        epsilon_high=0.28, use_vllm=False, current_gradient_accumulation_steps=1, max_completion_length=constant,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        _entropy_bonus_enabled=False, _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, entropies, None),
    )  # fmt: skip
    loss = trainer._compute_loss(
        its_self,
        model,
        {
            "prompt_ids": given["inputs"][:, :0],
            "prompt_mask": given["inputs"][:, :0],
            "completion_ids": given["inputs"],
            "completion_mask": mask.long(),
            "advantages": given["advantages"],
            "old_per_token_logps": given["logprobs"],
            "ref_per_token_logps": given["reference"],
            "num_items_in_batch": mask.sum(),
        },
    )
    objective = GRPOLoss(normalise, 0.2, 0.28, beta, constant)
    ours = objective.loss(model, given) / objective.terms(batch)
    assert_alike(measured(model, ours), measured(model, loss))
    noted, figures = objective.tally.drain(), its_self._metrics["train"]
    assert noted["clip_fraction"] == pytest.approx(figures["clip_ratio/region_mean"][0], rel=1e-6)
    assert noted["entropy"] == pytest.approx(figures["entropy"][0], rel=1e-6)
    if beta:
        assert noted["reference_kl"] == pytest.approx(figures["kl"][0], rel=1e-6)


@pytest.mark.slow
def test_group_advantages_are_made_with_the_deviation_of_trl():
    pytest.importorskip("trl")
    nanstd = importlib.import_module("trl.trainer.utils").nanstd
    rewards = np.random.default_rng(0).normal(size=(3, 5))
    r = torch.from_numpy(rewards)
    expected = (r - r.mean(dim=1, keepdim=True)) / (nanstd(r, dim=1, keepdim=True) + 1e-4)
    np.testing.assert_allclose(group_advantages(rewards, scale=True), expected.numpy(), rtol=1e-12)
