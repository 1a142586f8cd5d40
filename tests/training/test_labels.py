"""Labels of whole texts: cross entropies written out, and the same gradient however the rows are divided."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.heads import HeadedGPT
from glassgpt.training.labels import LabelLoss

CONFIG = GPTConfig(11, 8, n_layer=1, n_head=2, n_embd=8, bias=True)


def classifier():
    return HeadedGPT(GPT(CONFIG, seed=1).double(), 3, seed=2)


def rows(multi, n=7):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (n, 3)).astype(np.float32) if multi else rng.integers(0, 3, n)
    return {"inputs": rng.integers(0, 11, (n, 8)), "last": rng.integers(0, 8, n), "labels": labels}


def part(batch, begin=0, end=None):
    return {name: torch.from_numpy(value[begin:end]) for name, value in batch.items()}


def measured(model, loss):
    """A loss, and its gradient in one line of numbers."""
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, trained, materialize_grads=True)
    return float(loss.detach()), torch.cat([g.flatten() for g in grads])


def test_the_loss_of_one_label_is_minus_its_log_probability_at_the_last_token():
    model, batch, objective = classifier(), rows(multi=False), LabelLoss()
    logits = model(torch.from_numpy(batch["inputs"])).detach().numpy()
    at_last = np.stack([logits[i, batch["last"][i]] for i in range(7)])
    each = [logsumexp(at_last[i]) - at_last[i, batch["labels"][i]] for i in range(7)]
    assert float(objective.loss(model, part(batch)).detach()) == pytest.approx(sum(each), rel=1e-12)
    assert objective.terms(batch) == 7
    right = np.mean(at_last.argmax(axis=1) == batch["labels"])
    assert 0 < right < 1
    assert objective.tally.drain() == {"accuracy": pytest.approx(right)}


def test_the_loss_of_many_labels_is_the_mean_of_their_binary_cross_entropies():
    model, batch, objective = classifier(), rows(multi=True), LabelLoss(multi=True)
    logits = model(torch.from_numpy(batch["inputs"])).detach().numpy()
    expected, right = 0.0, 0
    for i in range(7):
        for j in range(3):
            p = expit(logits[i, batch["last"][i], j])
            expected -= np.log(p if batch["labels"][i, j] else 1 - p) / 3
            right += (p > 0.5) == bool(batch["labels"][i, j])
    assert float(objective.loss(model, part(batch)).detach()) == pytest.approx(expected, rel=1e-12)
    assert 0 < right < 21
    assert objective.tally.drain() == {"accuracy": pytest.approx(right / 21)}


@pytest.mark.parametrize("multi", [False, True])
def test_dividing_the_rows_changes_neither_loss_nor_gradient(multi):
    model, batch, objective = classifier(), rows(multi), LabelLoss(multi)
    whole_loss, whole_grad = measured(model, objective.loss(model, part(batch)))
    parts = [measured(model, objective.loss(model, part(batch, a, b))) for a, b in ((0, 1), (1, 5), (5, 7))]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole_loss, rel=1e-12)
    torch.testing.assert_close(sum(grad for _, grad in parts), whole_grad, rtol=1e-10, atol=1e-13)
    assert whole_grad.abs().max() > 0.01


def test_padding_after_the_last_token_counts_for_nothing():
    model, batch, objective = classifier(), rows(multi=False), LabelLoss()
    padded = {**batch, "inputs": np.where(np.arange(8) > batch["last"][:, None], 0, batch["inputs"])}
    assert (padded["inputs"] != batch["inputs"]).any()
    assert torch.equal(objective.loss(model, part(padded)), objective.loss(model, part(batch)))


def test_rows_that_cannot_be_meant_are_refused():
    batch, model = rows(multi=False), classifier()
    with pytest.raises(UsageError, match="add labels"):
        LabelLoss().terms({"inputs": batch["inputs"], "last": batch["last"]})
    for place in (-1, 8):
        with pytest.raises(UsageError, match="places of texts of 8 tokens"):
            LabelLoss().terms({**batch, "last": np.full(7, place)})
    for label in (-100, 3):
        with pytest.raises(UsageError, match="from 0 to 2; got"):
            LabelLoss().loss(model, part({**batch, "labels": np.full(7, label)}))
    with pytest.raises(UsageError, match="must have the shape"):
        LabelLoss(multi=True).loss(model, part(batch))
