"""Hugging Face's names for our parameters: a table that reads back what it writes."""

from pathlib import Path

import numpy as np
import pytest

from glassgpt.errors import DamagedFileError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.weights.hf_names import BUFFERS, hf_sources, hf_tensors, our_parameters
from glassgpt.weights.stored import StoredTensor

HERE = Path("somewhere/model.safetensors")
LLAMA = GPTConfig(7, 5, 2, 4, 8, False, 2, 6, 10, position="rope", norm="rmsnorm", mlp="swiglu", tied=False)
CONFIGS = {
    "gpt2": GPTConfig(7, 5, 2, 2, 8),
    "openai-gpt": GPTConfig(7, 5, 2, 2, 8, mlp="gelu_tanh", post_norm=True),
    "llama": LLAMA,
    "qwen3": GPTConfig(**LLAMA.choices() | {"qk_norm": True, "bias": True, "mlp_bias": False, "tied": True}),
    "glassgpt": GPTConfig(7, 5, 2, 2, 8, position="alibi", tied=False),
}


def params_of(config):
    """Every number another one, so that none can be taken for another."""
    shapes, start, params = parameter_shapes(config), 0, {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        params[name] = np.arange(start, start + size, dtype=np.float32).reshape(shape)
        start += size
    return params


def stored(tensors):
    return {name: StoredTensor.of(value) for name, value in tensors.items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_written_under_their_names_is_read_under_ours(kind):
    config, params = CONFIGS[kind], params_of(CONFIGS[kind])
    there = hf_tensors(params, config, kind)
    assert sum(value.size for value in there.values()) == config.n_parameters
    for prefix in ("", "transformer."):
        prefixed = {prefix * (name != "lm_head.weight") + name: value for name, value in there.items()}
        read = our_parameters(stored(prefixed), config, kind, HERE)
        assert read.keys() == params.keys()
        for name, tensor in read.items():
            assert tensor.shape == params[name].shape
            np.testing.assert_array_equal(tensor.read(), params[name])


def test_queries_keys_and_values_lie_side_by_side_and_turned():
    there = hf_tensors(params_of(LLAMA), LLAMA, "llama")
    ours = params_of(LLAMA)["h.1.attn.c_attn.weight"]  # (8, 4 heads of 6, then 2, then 2)
    np.testing.assert_array_equal(there["model.layers.1.self_attn.q_proj.weight"], ours[:, :24].T)
    np.testing.assert_array_equal(there["model.layers.1.self_attn.k_proj.weight"], ours[:, 24:36].T)
    np.testing.assert_array_equal(there["model.layers.1.self_attn.v_proj.weight"], ours[:, 36:].T)
    ours = params_of(LLAMA)["h.0.mlp.c_fc.weight"]
    np.testing.assert_array_equal(there["model.layers.0.mlp.gate_proj.weight"], ours[:, :10].T)
    np.testing.assert_array_equal(there["model.layers.0.mlp.up_proj.weight"], ours[:, 10:].T)
    assert there["model.layers.0.mlp.up_proj.weight"].flags.c_contiguous


def test_names_of_each_kind_are_those_of_its_files():
    assert "h.0.attn.c_attn.weight" in hf_tensors(params_of(CONFIGS["gpt2"]), CONFIGS["gpt2"], "gpt2")
    names = hf_sources(CONFIGS["openai-gpt"], "openai-gpt")
    assert names["wte.weight"].names == ("tokens_embed.weight",) and names["wpe.weight"].names == (
        "positions_embed.weight",
    )
    assert hf_sources(CONFIGS["qwen3"], "qwen3")["h.1.attn.q_norm.weight"].names == (
        "model.layers.1.self_attn.q_norm.weight",
    )


def test_masks_and_frequencies_of_old_files_are_passed_over_and_biases_are_not():
    for name in ("h.0.attn.bias", "h.11.attn.masked_bias", "model.layers.3.self_attn.rotary_emb.inv_freq",
                 "position_ids", "rotary_emb.inv_freq"):  # fmt: skip
        assert BUFFERS.match(name)
    for config, kind in ((CONFIGS["gpt2"], "gpt2"), (CONFIGS["qwen3"], "qwen3")):
        assert not any(BUFFERS.match(name) for name in hf_tensors(params_of(config), config, kind))


def test_a_tensor_under_both_names_is_refused():
    there = hf_tensors(params_of(CONFIGS["gpt2"]), CONFIGS["gpt2"], "gpt2")
    there["transformer.ln_f.bias"] = there["ln_f.bias"]
    with pytest.raises(DamagedFileError, match=r"model\.safetensors holds transformer\.ln_f\.bias"):
        our_parameters(stored(there), CONFIGS["gpt2"], "gpt2", HERE)


@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_each_tensor_that_is_missing_or_of_another_shape_is_named(kind):
    config = CONFIGS[kind]
    there = hf_tensors(params_of(config), config, kind)
    for name, value in there.items():
        with pytest.raises(DamagedFileError, match=f"lacks 1 of the {len(there)} tensors .*, {name}"):
            our_parameters(stored({key: x for key, x in there.items() if key != name}), config, kind, HERE)
        for other in (value[None], value[..., :-1], value.reshape(-1)[:-1]):
            with pytest.raises(DamagedFileError, match=f"{name} should be of shape"):
                our_parameters(stored(there | {name: other}), config, kind, HERE)


def test_a_tied_head_is_compared_when_it_is_read_and_not_before():
    config = CONFIGS["gpt2"]
    there = hf_tensors(params_of(config), config, "gpt2")
    read = our_parameters(stored(there | {"lm_head.weight": there["wte.weight"] + 1}), config, "gpt2", HERE)
    assert read["wte.weight"].shape == (7, 8)
    with pytest.raises(DamagedFileError, match="set tie_word_embeddings to false"):
        read["wte.weight"].read()
    equal = our_parameters(stored(there | {"lm_head.weight": there["wte.weight"]}), config, "gpt2", HERE)
    np.testing.assert_array_equal(equal["wte.weight"].read(), there["wte.weight"])


@pytest.mark.parametrize("n_layer", [10**9, 6, 3])
def test_more_layers_than_there_are_tensors_for_are_refused_at_once(n_layer):
    there = hf_tensors(params_of(CONFIGS["gpt2"]), CONFIGS["gpt2"], "gpt2")
    config = GPTConfig(7, 5, n_layer, 2, 8)
    with pytest.raises(DamagedFileError, match=r"too few for|lacks \d+ of"):
        our_parameters(stored(there), config, "gpt2", HERE)
