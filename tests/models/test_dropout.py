"""Dropout: masks by place alone, the same from C and from torch, and gradients that are those of the plain formula."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import glassgpt.models.dropout as module
from glassgpt.models.config import GPTConfig
from glassgpt.models.dropout import MASK, Dropout, dropped, factors
from glassgpt.models.gpt_torch import GPT

N = 1 << 18  # numbers of a mask whose statistics are taken
SIGMAS = 5.0
PINNED = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1]

needs_native = pytest.mark.skipif(module._native() is None, reason="there is no C compiler")


@pytest.fixture
def plain(monkeypatch):
    """As where there is no compiler."""
    monkeypatch.setattr(module, "_native", lambda: None)


def mask(p=0.2, seed=1, step=2, row=3, place=0, size=N):
    """What one row is multiplied by."""
    dropout = Dropout(p, seed, step, row)
    dropout.place = place
    return dropout(torch.ones(1, size))[0]


def draws(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- masks ----


def test_a_row_has_the_mask_of_its_number_wherever_the_step_is_cut():
    x = draws(6, 5, 7)
    whole = Dropout(0.3, seed=1, step=9)(x)
    for first, last in ((0, 1), (1, 4), (4, 6)):
        torch.testing.assert_close(
            Dropout(0.3, 1, 9, first_row=first)(x[first:last]), whole[first:last], rtol=0, atol=0
        )


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_the_share_that_falls_out_is_p_and_the_mean_stays(p):
    kept = mask(p)
    share = float((kept == 0).double().mean())
    assert abs(share - p) < SIGMAS * math.sqrt(p * (1 - p) / N)
    assert kept[kept > 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-6)
    assert float(kept.double().mean()) == pytest.approx(1, abs=SIGMAS * math.sqrt(p / (1 - p) / N))


def test_masks_of_other_seeds_steps_rows_and_places_have_nothing_in_common():
    masks = [mask(), mask(seed=2), mask(step=3), mask(row=4), mask(place=1), mask(seed=2**64 - 1), mask().roll(1)]
    centred = [(one - one.mean()) / one.std() for one in masks]
    for a, b in combinations(centred, 2):
        assert abs(float((a * b).mean())) < SIGMAS / math.sqrt(N)


def test_every_call_is_another_place():
    dropout, x = Dropout(0.5, 1, 2), torch.ones(1, 1000)
    assert not torch.equal(dropout(x), dropout(x))


def test_masks_stay_what_they_were_in_earlier_versions():
    """A run that goes on after an upgrade needs the very masks it began with."""
    assert (mask(0.5, size=32) > 0).int().tolist() == PINNED


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1 - 1e-12])
@needs_native
def test_c_and_torch_make_the_same_masks(p):
    masks = Dropout(p, 5, 6)._next_masks(3)
    x = draws(3, 11, 13)
    torch.testing.assert_close(dropped(x, masks), x * factors(masks, 143).view(3, 11, 13), rtol=0, atol=0)


def test_no_dropout_changes_nothing_and_nearly_all_stays_finite():
    x = draws(2, 50)
    assert torch.equal(Dropout(0.0, 1, 1)(x), x)
    assert torch.isfinite(Dropout(1 - 1e-16, 1, 1)(x)).all()


def test_masks_are_described_as_c_reads_them():
    assert MASK.itemsize == 16
    assert [MASK.fields[name][1] for name in ("key", "below", "scale")] == [0, 8, 12]


# ---- gradients ----


def test_the_gradient_of_a_mask_is_the_mask(plain):
    x = draws(2, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: Dropout(0.4, 1, 2)(x), x)


def test_the_gradient_of_attention_is_right():
    q, k, v = (draws(2, 2, 5, 3, seed=i, dtype=torch.float64).requires_grad_() for i in range(3))
    assert torch.autograd.gradcheck(lambda *x: Dropout(0.4, 1, 2).attend(*x, None), (q, k, v))


def plain_attention(q, k, v, p):
    """The formula, with the mask as a multiplication."""
    masks = Dropout(p, 1, 2)._next_masks(len(q))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    later = torch.ones(q.shape[2], q.shape[2]).triu(1).bool()
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(later, -math.inf)
    weights = F.softmax(scores, dim=-1)
    return (weights * factors(masks, weights[0].numel()).view(weights.shape)) @ v


@needs_native
@pytest.mark.parametrize("T", [1, 5, 64, 65, 150])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_attention_in_c_is_the_formula_there_and_back(T, kv_heads):
    q = draws(2, T, 4, 8, seed=1).transpose(1, 2).requires_grad_()
    k, v = (draws(2, kv_heads, T, 8, seed=i).mul_(2).requires_grad_() for i in (2, 3))
    grad = draws(2, 4, T, 8, seed=4)
    ours, theirs = Dropout(0.3, 1, 2).attend(q, k, v, None), plain_attention(q, k, v, 0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    pairs = zip(torch.autograd.grad(ours, (q, k, v), grad), torch.autograd.grad(theirs, (q, k, v), grad), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=2e-5)


@needs_native
def test_attention_in_c_bears_scores_of_any_size_and_tells_of_nan():
    q, k, v = (draws(1, 1, 70, 8, seed=i) for i in range(3))
    ours, theirs = Dropout(0.3, 1, 2).attend(1e4 * q, k, v, None), plain_attention(1e4 * q, k, v, 0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    k[0, 0, 3, 0] = math.nan
    assert torch.isnan(Dropout(0.3, 1, 2).attend(q, k, v, None)[0, 0, 3:]).all()


@needs_native
def test_in_bfloat16_masks_are_the_same_and_attention_is_as_near_as_bfloat16_is():
    x = draws(2, 9, 9)
    assert torch.equal(Dropout(0.5, 1, 2)(x.bfloat16()) == 0, Dropout(0.5, 1, 2)(x) == 0)
    q, k, v = (draws(2, 2, 9, 8, seed=i).bfloat16().requires_grad_() for i in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        ours = Dropout(0.3, 1, 2).attend(q, k, v, None)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(
        ours.float(), plain_attention(q.float(), k.float(), v.float(), 0.3), rtol=0.02, atol=0.02
    )
    assert all(torch.isfinite(grad).all() for grad in torch.autograd.grad(ours.float().sum(), (q, k, v)))


# ---- in the model ----


@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
@needs_native
def test_a_model_gives_the_same_with_and_without_a_compiler(position, monkeypatch):
    model = GPT(GPTConfig(11, 20, n_layer=2, n_head=2, n_embd=8, position=position), seed=1)
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 11, (3, 20)))
    ours = model(tokens, dropout=Dropout(0.2, 1, 2))
    monkeypatch.setattr(module, "_native", lambda: None)
    torch.testing.assert_close(ours, model(tokens, dropout=Dropout(0.2, 1, 2)), rtol=1e-5, atol=1e-6)


def test_without_a_dropout_nothing_falls_out_even_in_training_mode():
    model = GPT(GPTConfig(11, 20, n_layer=1, n_head=2, n_embd=8), seed=1).train()
    tokens = torch.arange(11)[None]
    assert torch.equal(model(tokens), model.eval()(tokens))
    assert not torch.equal(model(tokens, dropout=Dropout(0.2, 1, 2)), model(tokens))
