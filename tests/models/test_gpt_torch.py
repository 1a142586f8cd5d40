"""The torch GPT: Karpathy's printed numbers, the array GPT, and what a model may not touch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.models.gpt_torch import GPT
from glassgpt.numerics import log_softmax
from glassgpt.weights.tensors import tensors_of, torch_gpt

PRINTED = json.loads((Path(__file__).parents[1] / "data" / "baby_gpt_reference.json").read_text())
BABY = GPTConfig(**PRINTED["config"])

CONFIGS = [
    GPTConfig(2, 1, 1, 1, 1, bias=False),
    BABY,
    GPTConfig(2, 1, 1, 1, 2, bias=True),
    GPTConfig(3, 7, 3, 2, 12, bias=True),
    GPTConfig(5, 4, 2, 5, 20, bias=False),
    GPTConfig(65, 33, 2, 4, 32, bias=True),
    GPTConfig(300, 64, 1, 8, 64, bias=False),
]


def random_tensors(config, dtype, seed=0):
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(config.n_embd)
    return {
        name: (rng.normal(0, scale, shape) + (name.split(".")[-2].startswith("ln") and name.endswith("weight"))).astype(
            dtype
        )
        for name, shape in parameter_shapes(config).items()
    }


def test_the_baby_gpt_has_12656_parameters_however_they_are_counted():
    model = GPT(BABY, seed=PRINTED["seed"])
    assert sum(parameter.numel() for parameter in model.parameters()) == PRINTED["parameters"] == 12_656
    assert BABY.n_parameters == 12_656
    assert sum(value.size for value in tensors_of(model).values()) == 12_656
    assert sum(int(np.prod(shape)) for shape in parameter_shapes(BABY).values()) == 12_656


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_config_counts_what_the_model_has(config):
    assert sum(parameter.numel() for parameter in GPT(config).parameters()) == config.n_parameters


def test_the_sixteen_initial_probabilities_are_the_printed_ones():
    probs = np.exp(log_softmax(GPT(BABY, seed=PRINTED["seed"]).context_table()))
    for context, expected in PRINTED["initial_probabilities"].items():
        np.testing.assert_allclose(probs[int(context, 2)], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_torch_and_the_plain_arrays_are_one_function(config, dtype, tolerance):
    tensors = random_tensors(config, dtype)
    in_torch, plain = torch_gpt(tensors, config), ArrayGPT(config, tensors)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (4, config.context_length))
    expected = plain.sequence_logits(tokens)
    assert expected.dtype == dtype
    np.testing.assert_allclose(in_torch.sequence_logits(tokens), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(in_torch.next_token_logits(tokens), expected[:, -1], rtol=tolerance, atol=tolerance)


def test_the_seed_alone_decides_the_weights_and_the_global_generator_stays():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = GPT(BABY, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = GPT(BABY, seed=3), GPT(BABY, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert not torch.equal(first.wte.weight, other.wte.weight)


def test_the_output_matrix_is_the_token_embedding():
    model = GPT(BABY)
    assert model.lm_head.weight is model.wte.weight
    assert "lm_head.weight" not in tensors_of(model)


def test_biases_start_at_zero_and_residual_projections_small():
    model = GPT(GPTConfig(50, 8, n_layer=8, n_head=4, n_embd=64))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any(), name
        elif ".ln_" in name or name.startswith("ln_"):
            assert (parameter == 1).all(), name
        else:  # relative error of a standard deviation from n numbers: 4 / sqrt(2 n)
            expected = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02
            assert abs(parameter.std().item() / expected - 1) < 4 / (2 * parameter.numel()) ** 0.5 + 1e-3, name


def test_it_answers_in_kind():
    model = GPT(BABY).double()
    for tokens in ([[0, 1, 1]], [[0, 1, 1, 0, 1]]):
        here = np.array(tokens)
        assert isinstance(model.next_token_logits(tokens), np.ndarray)
        assert isinstance(model.sequence_logits(tokens), np.ndarray)
        there = torch.from_numpy(here)
        for answer, expected in (
            (model.next_token_logits(there), model.next_token_logits(here)),
            (model.sequence_logits(there), model.sequence_logits(here)),
        ):
            assert isinstance(answer, torch.Tensor)
            assert answer.requires_grad
            np.testing.assert_allclose(answer.detach().numpy(), expected, atol=1e-13)


def test_an_array_that_must_not_be_written_to_is_a_context_too():
    contexts = np.array([[0, 1, 1]])
    contexts.flags.writeable = False
    assert GPT(BABY).next_token_logits(contexts).shape == (1, 2)


def test_what_is_no_context_is_refused():
    model = GPT(BABY)
    for wrong in ([[2]], [[-1]], [1, 0], [[0.5]], 1, [[0], [0, 1]], [[]]):
        with pytest.raises(UsageError):
            model.next_token_logits(wrong)
        with pytest.raises(UsageError):
            model.sequence_logits(wrong)


def test_a_table_of_any_length_is_the_definitions():
    model = GPT(BABY).double()
    for length in (1, 2, 3, 4, 6):  # 4 and 6 are longer than the window, which crops them
        np.testing.assert_allclose(
            model.context_table(length), LanguageModel.context_table(model, length), rtol=0, atol=1e-13
        )
    for length in (0, -1):
        with pytest.raises(UsageError, match="at least one token"):
            model.context_table(length)


def test_asking_leaves_the_weights_trainable():
    model = GPT(BABY)
    model.context_table()
    model.next_token_logits([[0, 1]])
    loss = model(torch.tensor([[0, 1, 1]])).square().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
