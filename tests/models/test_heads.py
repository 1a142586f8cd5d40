"""Heads on a GPT's trunk: the function that an lm_head of the same matrix is, and what may be shared."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.heads import ActorCritic, HeadedGPT
from glassgpt.weights.tensors import tensors_of

SHAPES = {
    "gpt2": GPTConfig(11, 8, n_layer=2, n_head=2, n_embd=16, bias=True, tied=False),
    "llama": GPTConfig(
        11, 8, n_layer=2, n_head=2, n_embd=16, position="rope", norm="rmsnorm", mlp="swiglu", tied=False
    ),
    "tied": GPTConfig(11, 8, n_layer=1, n_head=2, n_embd=16),
}


def tokens(n=3, length=6):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 11, (n, length)))


# ---- one head ----


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_a_head_gives_what_an_lm_head_of_its_matrix_would_and_its_bias(shape):
    config = SHAPES[shape]
    model = HeadedGPT(GPT(config, seed=1).double(), 11, seed=2)
    nn.init.normal_(model.head.bias)
    matrix = model.head.weight.detach().numpy()
    plain = ArrayGPT(config, {**tensors_of(model.gpt), "lm_head.weight": matrix})
    expected = plain.sequence_logits(tokens().numpy()) + model.head.bias.detach().numpy()
    np.testing.assert_allclose(model(tokens()).detach().numpy(), expected, rtol=1e-12, atol=1e-12)


def test_a_head_is_drawn_as_said_from_its_seed_alone():
    config = GPTConfig(5, 4, n_layer=1, n_head=1, n_embd=24)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    model = HeadedGPT(GPT(config), 40_000, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    weight = model.head.weight.detach()
    assert float(weight.std()) == pytest.approx(1 / math.sqrt(25), rel=0.005)  # 960,000 draws: 0.07 % is one sigma
    assert abs(float(weight.mean())) < 1e-3
    assert not model.head.bias.any()
    assert torch.equal(HeadedGPT(GPT(config, seed=9), 40_000, seed=3).head.weight, weight)
    assert not torch.equal(HeadedGPT(GPT(config), 40_000, seed=4).head.weight, weight)


def test_a_head_has_the_type_of_its_trunk_and_the_same_draws():
    narrow, wide = (HeadedGPT(GPT(SHAPES["gpt2"]).to(dtype), 3, seed=1).head for dtype in (torch.float32, torch.double))
    assert wide.weight.dtype == torch.double
    assert torch.equal(narrow.weight.double(), wide.weight)


def test_what_comes_later_does_not_change_what_a_head_says():
    model = HeadedGPT(GPT(SHAPES["llama"], seed=1).double(), 2)
    changed = tokens()
    changed[:, 4:] = (changed[:, 4:] + 1) % 11
    before, after = model(tokens()), model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).any()


def test_documents_reach_the_trunk():
    model = HeadedGPT(GPT(SHAPES["llama"], seed=1).double(), 2)
    apart = model(tokens(), documents=torch.tensor([[0, 0, 0, 1, 1, 1]] * 3))
    torch.testing.assert_close(apart[:, 3:], model(tokens()[:, 3:]))  # rope: where a document begins doesn't matter


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_that_is_trained_gets_a_gradient(shape):
    model = HeadedGPT(GPT(SHAPES[shape], seed=1), 2)
    model(tokens()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert model.gpt.lm_head.weight.requires_grad == (shape == "tied")


def test_a_head_without_outputs_is_refused():
    with pytest.raises(UsageError, match="at least 1 number; got n_out 0"):
        HeadedGPT(GPT(SHAPES["gpt2"]), 0)


# ---- actor and critic ----


def test_actor_and_critic_are_the_two_models_side_by_side():
    policy, critic = GPT(SHAPES["gpt2"], seed=1).double(), HeadedGPT(GPT(SHAPES["llama"], seed=2).double(), 1)
    logits, values = ActorCritic(policy, critic)(tokens())
    assert torch.equal(logits, policy(tokens()))
    assert values.shape == (3, 6)
    assert torch.equal(values, critic(tokens()).squeeze(-1))


def test_what_the_critic_learns_leaves_the_policy_alone_and_the_other_way_round():
    model = ActorCritic(GPT(SHAPES["gpt2"], seed=1), HeadedGPT(GPT(SHAPES["gpt2"], seed=1), 1))
    for i, (learns, rests) in enumerate([(model.policy, model.critic), (model.critic, model.policy)]):
        model.zero_grad()
        model(tokens())[i].square().sum().backward()
        assert all(p.grad is not None for p in learns.parameters() if p.requires_grad)
        assert all(p.grad is None for p in rests.parameters())


def test_critics_that_cannot_be_meant_are_refused():
    policy = GPT(SHAPES["gpt2"])
    with pytest.raises(UsageError, match="a critic gives 1 number; this one gives 2"):
        ActorCritic(policy, HeadedGPT(GPT(SHAPES["gpt2"]), 2))
    with pytest.raises(UsageError, match="a trunk each"):
        ActorCritic(policy, HeadedGPT(policy, 1))
    with pytest.raises(UsageError, match="vocabulary of 11 and a context of 8, the critic of 12 and 8"):
        ActorCritic(policy, HeadedGPT(GPT(GPTConfig(12, 8, n_layer=1, n_head=1, n_embd=4)), 1))
