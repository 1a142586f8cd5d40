"""What turns gradients into updates, by worked answers: schedules, groups, and Muon against NumPy and torch."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch

from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.training.optim import (
    Muon,
    learning_rate_at,
    optimizer_tensors,
    optimizers_for,
    orthogonal,
    restore_optimizers,
    set_learning_rate,
)
from glassgpt.training.recipe import TrainSection

CONFIG = GPTConfig(7, 6, n_layer=2, n_head=2, n_embd=8)


def section(**train):
    return TrainSection(**({"steps": 10, "learning_rate": 1.0, "final_learning_rate": 0.0} | train))


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(optimizer="muon", steps=3, **train):
    """A model after some steps of random gradients, and its optimizers."""
    model = GPT(CONFIG, seed=1)
    made = optimizers_for(model, section(optimizer=optimizer, learning_rate=0.01, **train))
    for step in range(steps):
        take(model, made, step)
    return model, made


def take(model, made, step):
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = draws(*parameter.shape, seed=100 * step + i)
    for optimizer in made:
        optimizer.step()


# ---- schedules ----


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.5, 0.125]),
        ("cosine", [0.5, 1.0, 1.0, 0.5, 0.5 - 0.5 * math.cos(math.pi / 8)]),
        ("wsd", [0.5, 1.0, 1.0, 1.0, 0.625]),
    ],
)
def test_learning_rates_rise_and_follow_their_schedule(schedule, expected):
    train = section(schedule=schedule, warmup_steps=2)
    assert [learning_rate_at(train, step) for step in (0, 1, 2, 6, 9)] == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_the_learning_rate_goes_towards_its_final_share(schedule):
    train = section(steps=10_000, schedule=schedule, final_learning_rate=0.1, learning_rate=2.0)
    rates = [learning_rate_at(train, step) for step in range(10_000)]
    assert rates[0] == 2.0
    assert rates[-1] == pytest.approx(0.2, rel=0.01)
    assert all(a >= b for a, b in pairwise(rates))


def test_a_run_that_is_all_warm_up_and_one_of_no_steps_have_rates():
    assert learning_rate_at(section(steps=4, warmup_steps=4), 3) == 1.0
    assert learning_rate_at(section(steps=0), 0) == 1.0


# ---- groups ----


def names_in(model, group):
    return {name for name, parameter in model.named_parameters() if any(parameter is p for p in group["params"])}


def test_adamw_lets_matrices_decay_and_not_norms_and_biases():
    model = GPT(CONFIG)
    (adamw,) = optimizers_for(model, section(weight_decay=0.1))
    decayed, others = adamw.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert {"wte.weight", "wpe.weight", "h.0.attn.c_attn.weight"} <= names_in(model, decayed)
    assert {"ln_f.weight", "h.1.ln_1.bias", "h.0.mlp.c_fc.bias"} <= names_in(model, others)
    assert names_in(model, decayed) | names_in(model, others) == {name for name, _ in model.named_parameters()}


def test_with_decay_vectors_everything_decays():
    (adamw,) = optimizers_for(GPT(CONFIG), section(weight_decay=0.1, decay_vectors=True))
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1]


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = GPT(CONFIG)
    adamw, muon = optimizers_for(model, section(optimizer="muon"))
    taken = names_in(model, muon.param_groups[0])
    matrices = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert taken == {f"h.{i}.{name}.weight" for i in (0, 1) for name in matrices}
    rest = set().union(*(names_in(model, group) for group in adamw.param_groups))
    assert rest == {name for name, _ in model.named_parameters()} - taken


def test_one_adamw_step_by_hand():
    """After one step the moments' corrections cancel: the step is the sign of the gradient, after the decay."""
    model = GPT(CONFIG, seed=1)
    before = model.wte.weight.detach().clone()
    made = optimizers_for(model, section(learning_rate=0.01, weight_decay=0.5))
    take(model, made, 0)
    expected = before * (1 - 0.01 * 0.5) - 0.01 * model.wte.weight.grad.sign()
    torch.testing.assert_close(model.wte.weight.detach(), expected, rtol=0, atol=1e-6)


# ---- Muon ----


def newton_schulz(matrix, steps):
    """The iteration in float64, from its definition (Jordan 2024)."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x - 4.7750 * a @ x + 2.0315 * a @ a @ x
    return x


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
@pytest.mark.parametrize("steps", [1, 5])
def test_newton_schulz_is_the_one_in_numpy(shape, steps):
    matrix = draws(*shape)
    expected = newton_schulz(matrix.double().numpy(), steps)
    np.testing.assert_allclose(orthogonal(matrix, steps).numpy(), expected, rtol=0, atol=2e-5)


def test_an_orthogonal_update_moves_all_directions_about_equally():
    lengths = np.linalg.svd(orthogonal(draws(24, 60)).numpy(), compute_uv=False)
    assert 0.6 < lengths.min() <= lengths.max() < 1.3
    assert torch.equal(orthogonal(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_two_muon_steps_by_hand():
    weight = torch.nn.Parameter(draws(4, 9))
    expected, momentum = weight.detach().double().numpy(), np.zeros((4, 9))
    muon = Muon([weight], lr=0.1, weight_decay=0.5)
    for seed in (1, 2):
        weight.grad = draws(4, 9, seed=seed)
        grad = weight.grad.double().numpy()
        momentum = 0.95 * momentum + 0.05 * grad
        update = newton_schulz(0.05 * grad + 0.95 * momentum, 5)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(9) * update
        muon.step()
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=0, atol=1e-5)


def test_muon_is_torchs_to_the_rounding_of_bfloat16():
    ours, theirs = (torch.nn.Parameter(draws(12, 20)) for _ in range(2))
    mine = Muon([ours], lr=0.1, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for seed in (1, 2, 3):
        before = ours.detach().clone()
        ours.grad, theirs.grad = draws(12, 20, seed=seed), draws(12, 20, seed=seed)
        mine.step()
        other.step()
        moved = (ours.detach() - before).norm()
        assert (ours.detach() - theirs.detach()).norm() < 0.03 * moved
        with torch.no_grad():
            theirs.copy_(ours)


def test_threads_make_the_same_updates():
    with ThreadPoolExecutor(2) as pool:
        models = [GPT(CONFIG, seed=1) for _ in range(2)]
        for model, each in zip(models, (map, pool.map), strict=True):
            take(model, optimizers_for(model, section(optimizer="muon"), each), 0)
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


# ---- state ----


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_state_put_back_goes_on_bit_for_bit(optimizer):
    model, made = trained(optimizer)
    other, fresh = trained(optimizer, steps=0)
    other.load_state_dict(model.state_dict())
    restore_optimizers(other, fresh, optimizer_tensors(model, made))
    take(model, made, 9)
    take(other, fresh, 9)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_every_group_gets_the_rate():
    _, made = trained("muon", steps=0)
    set_learning_rate(made, 0.125)
    assert {group["lr"] for optimizer in made for group in optimizer.param_groups} == {0.125}
