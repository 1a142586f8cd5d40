"""Parameters in files: strict about every name, shape and number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from glassgpt.errors import DamagedFileError, NumericalError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_torch import GPT
from glassgpt.weights.tensors import array_gpt, check_tensors, tensors_of, torch_gpt

CONFIG = GPTConfig(3, 4, n_layer=2, n_head=2, n_embd=8)
SOURCE = Path("run") / "model.safetensors"


def tensors(config=CONFIG):
    return tensors_of(GPT(config, seed=1))


@pytest.mark.parametrize("bias", [True, False])
def test_a_model_has_the_expected_names_and_shapes(bias):
    config = GPTConfig(3, 4, n_layer=2, n_head=2, n_embd=8, bias=bias)
    assert {name: value.shape for name, value in tensors(config).items()} == parameter_shapes(config)


def test_linear_matrices_lie_as_gpt2_has_them():
    model = GPT(CONFIG, seed=1)
    there = tensors_of(model)["h.0.attn.c_attn.weight"]
    assert there.shape == (8, 24)
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(there, model.h[0].attn.c_attn.weight.detach().numpy().T)


def test_tensors_are_copies():
    model = GPT(CONFIG, seed=1)
    before = tensors_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    after = tensors_of(model)
    assert all((before[name] != after[name]).all() for name in before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_round_trip_through_bytes_is_exact(dtype):
    first = {name: value.astype(dtype) for name, value in tensors().items()}
    model = torch_gpt(load(save(first)), CONFIG)
    assert model.wte.weight.numpy(force=True).dtype == dtype
    assert model.lm_head.weight is model.wte.weight
    again = tensors_of(model)
    assert again.keys() == first.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    tokens = np.array([[0, 1, 2, 1]])
    np.testing.assert_allclose(
        model.sequence_logits(tokens), array_gpt(first, CONFIG).sequence_logits(tokens), atol=1e-6
    )


def without(name):
    found = tensors()
    del found[name]
    return found


def put(name, value):
    return tensors() | {name: value}


def with_nan():
    found = tensors()
    found["h.1.mlp.c_fc.bias"][3] = np.nan
    return found


@pytest.mark.parametrize(
    ("made", "error", "message"),
    [
        (lambda: without("ln_f.bias"), DamagedFileError, r"lacks 1 of \d+ tensors, ln_f.bias"),
        (lambda: {}, DamagedFileError, r"lacks \d+"),
        (lambda: put("h.2.ln_1.weight", np.ones(8, np.float32)), DamagedFileError, "holds h.2.ln_1.weight"),
        (lambda: put("lm_head.weight", np.ones((3, 8), np.float32)), DamagedFileError, "holds lm_head.weight"),
        (lambda: put("wte.weight", np.ones((4, 8), np.float32)), DamagedFileError, r"should be of shape \(3, 8\)"),
        (lambda: put("h.0.attn.c_attn.weight", np.ones((24, 8), np.float32)), DamagedFileError, r"\(8, 24\)"),
        (lambda: put("ln_f.bias", np.ones(8, np.float16)), DamagedFileError, "float32 or float64"),
        (lambda: put("ln_f.bias", np.ones(8, np.int64)), DamagedFileError, "float32 or float64"),
        (with_nan, NumericalError, "h.1.mlp.c_fc.bias holds NaN"),
        (lambda: put("ln_f.bias", np.full(8, np.inf, np.float32)), NumericalError, "ln_f.bias holds NaN or infinity"),
    ],
)
def test_tensors_that_are_not_the_configs_are_refused(made, error, message):
    with pytest.raises(error, match=message) as caught:
        check_tensors(made(), CONFIG, SOURCE)
    assert "model.safetensors" in str(caught.value)
