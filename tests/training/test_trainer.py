"""One step of training: the same gradient however it is divided, clipped, and refused where it is not finite."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.threads import using
from glassgpt.training.objective import IGNORED, NextToken
from glassgpt.training.optim import optimizer_tensors, restore_optimizers
from glassgpt.training.recipe import TrainSection
from glassgpt.training.trainer import Choices, Trainer

CONFIG = GPTConfig(11, 8, n_layer=2, n_head=2, n_embd=16, position="rope", norm="rmsnorm", mlp="swiglu", qk_norm=True)


@pytest.fixture(autouse=True)
def one_thread_by_itself():
    """What is small is slower on two, many times so on a busy machine."""
    with using(1):
        yield


def rows(n=32):
    """Windows of which each has another number of targets that count."""
    windows = np.random.default_rng(0).integers(0, 11, (n, 9))
    targets = windows[:, 1:].copy()
    for i in range(n):
        targets[i, : i % 8] = IGNORED
    return {"inputs": windows[:, :-1], "targets": targets}


def states(made):
    """What the optimizers remember."""
    return [value for optimizer in made.optimizers for state in optimizer.state.values() for value in state.values()]


def trainer(threads=1, **train):
    section = TrainSection(steps=100, batch_size=32, schedule="constant", **train)
    return Trainer(GPT(CONFIG, seed=3), section, NextToken(), Choices(threads=threads), seed=5)


def gradients(made, batch, step=7):
    loss = made.add_gradients(step, batch)
    return loss, {name: parameter.grad.clone() for name, parameter in made.model.named_parameters()}


def assert_alike(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    for name, grad in theirs[1].items():
        torch.testing.assert_close(ours[1][name], grad, rtol=1e-4, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


# ---- one gradient ----


def test_without_parts_it_is_the_mean_over_all_targets_that_count():
    model, batch = GPT(CONFIG, seed=3), rows()
    tokens, targets = torch.from_numpy(batch["inputs"]), torch.from_numpy(batch["targets"])
    loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    loss.backward()
    expected = float(loss.detach()), {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_alike(gradients(trainer(), batch), expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("at_once", [None, 1, 3, 8])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_gradient_does_not_depend_on_how_the_batch_is_divided(dropout, at_once, threads):
    """Parts of unequal numbers of targets, too: dividing by each part's own mean would show (transformers#34191)."""
    divided = gradients(trainer(threads, dropout=dropout, micro_batch_size=at_once), rows())
    assert_alike(divided, gradients(trainer(dropout=dropout), rows()))


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_step_twice_is_the_same_to_the_last_bit(threads):
    first, second = (gradients(trainer(threads, dropout=0.3), rows()) for _ in range(2))
    assert first[0] == second[0]
    assert all(torch.equal(grad, second[1][name]) for name, grad in first[1].items())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_in_bfloat16_the_gradient_is_as_near_as_bfloat16_is(dropout):
    made = trainer(dropout=dropout)
    made.choices = Choices("bfloat16")
    loss, grads = gradients(made, rows())
    expected_loss, expected = gradients(trainer(dropout=dropout), rows())
    assert loss == pytest.approx(expected_loss, rel=1e-2)
    for name, grad in expected.items():
        assert (grads[name] - grad).norm() < 0.05 * grad.norm(), name


@pytest.mark.parametrize("threads", [1, 2])
def test_with_dropout_weights_and_state_are_all_that_a_run_needs_to_go_on_bit_for_bit(threads):
    whole, begun, other = (trainer(threads, dropout=0.3, optimizer="muon") for _ in range(3))
    for i in range(4):
        whole.step(i, rows())
    for i in range(2):
        begun.step(i, rows())
    other.model.load_state_dict(begun.model.state_dict())
    restore_optimizers(other.model, other.optimizers, optimizer_tensors(begun.model, begun.optimizers))
    for i in range(2, 4):
        other.step(i, rows())
    assert all(torch.equal(value, other.model.state_dict()[name]) for name, value in whole.model.state_dict().items())


def test_dropout_is_another_in_another_step():
    made = trainer(dropout=0.3)
    assert made.add_gradients(1, rows()) != made.add_gradients(2, rows())


def test_more_threads_than_windows_are_no_matter():
    assert_alike(gradients(trainer(threads=4), rows(2)), gradients(trainer(), rows(2)))


@pytest.mark.parametrize("threads", [1, 2])
def test_torch_has_as_many_threads_after_a_step_as_before(threads):
    before = torch.get_num_threads()
    trainer(threads, optimizer="muon").step(0, rows())
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_steps_lower_the_loss_of_a_batch_that_is_seen_again(optimizer):
    made = trainer(threads=2, optimizer=optimizer, learning_rate=1e-2)
    losses = [made.step(i, rows(4)).loss for i in range(60)]
    assert losses[0] == pytest.approx(np.log(11), rel=0.05)
    assert losses[-1] < 0.5


def test_a_batch_without_a_target_that_counts_is_refused():
    batch = rows()
    batch["targets"][:] = IGNORED
    with pytest.raises(UsageError, match="step 7 has no target that counts"):
        trainer().step(7, batch)


# ---- the update ----


class Spy:
    """In an optimizer's place: remembers the gradients that it was given."""

    def __init__(self, model):
        self.model, self.param_groups, self.grads = model, [{"lr": 0.0}], {}

    def step(self):
        self.grads = {name: parameter.grad.clone() for name, parameter in self.model.named_parameters()}

    def zero_grad(self):
        self.model.zero_grad()


def spied(**train):
    made = trainer(**train)
    made.optimizers = [Spy(made.model)]
    return made, made.optimizers[0]


@pytest.mark.parametrize("largest", [0.01, 0.0, 100.0])
def test_a_gradient_longer_than_allowed_is_shortened_and_keeps_its_direction(largest):
    _, whole = gradients(trainer(), rows(), step=0)
    norm = float(torch.stack([grad.square().sum() for grad in whole.values()]).sum().sqrt())
    made, spy = spied(grad_clip=largest)
    assert made.step(0, rows()).grad_norm == pytest.approx(norm, rel=1e-5)
    factor = largest / norm if largest == 0.01 else 1.0
    for name, grad in whole.items():
        torch.testing.assert_close(spy.grads[name], grad * factor, rtol=1e-4, atol=1e-7)


def test_the_learning_rate_of_the_step_reaches_every_optimizer():
    made = trainer(optimizer="muon", learning_rate=0.4, warmup_steps=4)
    assert made.step(0, rows()).learning_rate == pytest.approx(0.1)
    assert [group["lr"] for optimizer in made.optimizers for group in optimizer.param_groups] == pytest.approx(
        [0.1] * 3
    )
    assert all(parameter.grad is None for parameter in made.model.parameters())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_refused_before_anything_changes(bad, threads):
    made = trainer(threads, optimizer="muon")
    made.step(0, rows())
    with torch.no_grad():
        made.model.h[1].mlp.c_proj.weight[0, 0] = bad
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    kept = [
        value.clone() for optimizer in made.optimizers for state in optimizer.state.values() for value in state.values()
    ]
    with pytest.raises(NumericalError, match=r"is not finite at step 1 .*lower train\.learning_rate"):
        made.step(1, rows())
    assert all(torch.equal(a, b) for a, b in zip(kept, states(made), strict=True))
    for name, value in made.model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    assert all(parameter.grad is None for parameter in made.model.parameters())
