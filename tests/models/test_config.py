"""The shape of a GPT: counts and refusals."""

import pytest

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig, parameter_counts


def test_the_baby_gpt_has_12656_parameters():
    assert GPTConfig(2, 3, n_layer=4, n_head=4, n_embd=16, bias=False).n_parameters == 12_656


def test_gpt2_has_the_published_number_of_parameters():
    assert GPTConfig(50257, 1024).n_parameters == 124_439_808
    assert GPTConfig(50257, 1024, n_layer=48, n_head=25, n_embd=1600).n_parameters == 1_557_611_200


@pytest.mark.parametrize(
    "choices", [{}, {"bias": False}, {"norm": "rmsnorm", "qk_norm": True, "mlp": "swiglu", "tied": False}]
)
def test_the_parts_are_those_of_arithmetic_and_add_up(choices):
    config = GPTConfig(50, 8, n_layer=3, n_head=2, n_embd=16, **choices)
    counts = parameter_counts(config)
    assert sum(counts.values()) == config.n_parameters
    gated, bias = 1 + (config.mlp == "swiglu"), config.bias
    assert counts["token embeddings"] == 50 * 16 and counts["position embeddings"] == 8 * 16
    assert counts["queries, keys, values"] == 3 * (16 * 48 + bias * 48)
    assert counts["into the MLP"] == 3 * gated * (16 * 64 + bias * 64)
    assert counts.get("output layer", 0) == (0 if config.tied else 50 * 16)


@pytest.mark.parametrize("name", ["vocab_size", "context_length", "n_layer", "n_head", "n_embd"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused_by_name(name, value):
    sizes = {"vocab_size": 2, "context_length": 3, "n_layer": 1, "n_head": 1, "n_embd": 4} | {name: value}
    with pytest.raises(UsageError, match=rf"model\.{name} must be at least 1, got {value}"):
        GPTConfig(**sizes)


def test_one_token_is_no_vocabulary():
    with pytest.raises(UsageError, match="at least 2"):
        GPTConfig(1, 3, 1, 1, 4)


def test_heads_must_share_the_width_evenly():
    with pytest.raises(UsageError, match="got 10 and 4"):
        GPTConfig(2, 3, n_layer=1, n_head=4, n_embd=10)
