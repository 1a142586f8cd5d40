"""config.json in Hugging Face's keys, old and new: nothing that changes the maths is passed over."""

import json
from pathlib import Path

import pytest

from glassgpt.errors import DamagedFileError, GlassGPTError, UnsupportedError
from glassgpt.models.config import GPTConfig, RopeScaling
from glassgpt.weights.hf_config import config_from_hf, config_to_hf, eos_tokens, model_type_of

HERE = Path("somewhere/config.json")
SCALING = RopeScaling(8.0, 1.0, 4.0, 16)
LLAMA = GPTConfig(64, 32, 2, 4, 16, bias=False, n_kv_head=2, n_hidden=40, position="rope", norm="rmsnorm", mlp="swiglu",
                  tied=False, norm_epsilon=1e-6)  # fmt: skip
SHAPES = {
    "gpt2 without biases": (GPTConfig(2, 3, 4, 4, 16, bias=False), "gpt2"),
    "gpt2": (GPTConfig(50257, 1024, mlp="gelu_tanh"), "gpt2"),
    "gpt2, one wide": (GPTConfig(5, 1, n_layer=1, n_head=3, n_embd=9), "gpt2"),
    "gpt2 with relu2, untied": (GPTConfig(5, 4, 1, 1, 8, mlp="relu2", tied=False, n_hidden=12), "gpt2"),
    "gpt1": (GPTConfig(5, 4, 1, 1, 8, mlp="gelu_tanh", post_norm=True), "openai-gpt"),
    "llama": (LLAMA, "llama"),
    "llama3": (GPTConfig(**LLAMA.choices() | {"rope_scaling": SCALING, "rope_theta": 5e5}), "llama"),
    "llama with biases": (GPTConfig(**LLAMA.choices() | {"bias": True, "mlp_bias": False}), "llama"),
    "qwen3": (GPTConfig(**LLAMA.choices() | {"qk_norm": True, "head_size": 8}), "qwen3"),
    "sinusoidal": (GPTConfig(5, 4, 1, 2, 8, position="sinusoidal"), "glassgpt"),
    "alibi": (GPTConfig(5, 4, 1, 2, 8, position="alibi"), "glassgpt"),
    "rope, of our own": (GPTConfig(5, 4, 1, 2, 8, position="rope", rope_scaling=SCALING), "glassgpt"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_comes_back_from_its_json(name):
    config, model_type = SHAPES[name]
    assert model_type_of(config) == model_type
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config))), HERE) == config


@pytest.mark.parametrize("name", [name for name, (_, kind) in SHAPES.items() if kind != "glassgpt"])
def test_transformers_reads_what_is_written_as_the_same_shape(name):
    transformers = pytest.importorskip("transformers")
    config, model_type = SHAPES[name]
    content = config_to_hf(config)
    del content["model_type"], content["architectures"]
    theirs = transformers.AutoConfig.for_model(model_type, **content)
    kept = json.loads(theirs.to_json_string(use_diff=False))
    for key in ("architectures", "_attn_implementation", "experts_implementation", "output_router_logits"):
        kept.pop(key, None)
    assert config_from_hf(kept, HERE) == config


def old_llama(**changes):
    """As transformers 4 wrote it."""
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "vocab_size": 64,
        "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "rope_theta": 500000.0,
        "rope_scaling": None, "hidden_act": "silu", "tie_word_embeddings": True, "attention_bias": False,
        "initializer_range": 0.02, "use_cache": True, "transformers_version": "4.40.0", "pretraining_tp": 1,
    } | changes  # fmt: skip


def new_llama(**changes):
    """As transformers 5 writes it."""
    content = old_llama() | {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    del content["rope_theta"], content["rope_scaling"], content["torch_dtype"]
    return content | changes


def test_both_spellings_of_theta_are_one():
    assert config_from_hf(old_llama(), HERE) == config_from_hf(new_llama(), HERE)
    assert config_from_hf(new_llama(), HERE).rope_theta == 500000.0


def test_both_spellings_of_scaling_are_one():
    stated = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    old = config_from_hf(old_llama(rope_scaling=stated | {"rope_type": "llama3"}), HERE)
    new = config_from_hf(new_llama(rope_parameters=stated | {"rope_type": "llama3", "rope_theta": 500000}), HERE)
    assert old == new
    assert old.rope_scaling == SCALING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": "4"}, "num_hidden_layers should be of type int, and is '4'"),
        ({"num_hidden_layers": 4.0}, "num_hidden_layers should be of type int"),
        ({"num_hidden_layers": True}, "num_hidden_layers should be of type int"),
        ({"num_hidden_layers": None}, "lacks the key 'num_hidden_layers'"),
        ({"attention_bias": 1}, "attention_bias should be of type bool"),
        ({"num_hidden_layers": 0}, "n_layer must be at least 1"),
        ({"num_attention_heads": 5}, "multiple of model.n_head"),
        ({"num_key_value_heads": 3}, "multiple of model.n_kv_head"),
        ({"head_dim": 5}, "must be even"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps should be of type float"),
        ({"rms_norm_eps": -1.0}, "norm_epsilon must be a positive number"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, "rope_theta is 500000.0 and"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks the key 'low_freq_factor'"),
        ({"rope_scaling": "llama3"}, "rope_scaling should be of type dict"),
        (
            {"rope_scaling": {"rope_type": "linear"}, "rope_parameters": {"rope_type": "default"}},
            "contradict each other",
        ),
        ({"hidden_size": 10**400}, "hidden_size is 10000.*and no model's is beyond"),
    ],
)
def test_a_wrong_value_is_named(change, message):
    with pytest.raises(DamagedFileError, match=message) as caught:
        config_from_hf(old_llama(**change), HERE)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba', and GlassGPT reads gpt2"),
        ({"model_type": ["llama"]}, "model_type is"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope scaling of type 'yarn'"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"rope_interleaved": True}, "rope_interleaved is True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"logit_scale": 2.0}, "does not know the key 'logit_scale', which may change the model"),
        ({"auto_map": {"AutoModel": "evil.py"}}, "does not know the key 'auto_map'"),
    ],
)
def test_another_kind_of_model_is_refused_by_the_key_that_says_so(change, message):
    with pytest.raises(UnsupportedError, match=message):
        config_from_hf(old_llama(**change), HERE)


def test_gpt2s_own_switches_are_refused_where_they_change_the_function():
    plain = config_to_hf(GPTConfig(5, 4, 1, 1, 8, mlp="gelu_tanh"))
    for change in (
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"add_cross_attention": True},
        {"activation_function": "swish"},
    ):
        with pytest.raises(UnsupportedError, match=next(iter(change)).replace("activation_function", "activation")):
            config_from_hf(plain | change, HERE)
    with pytest.raises(DamagedFileError, match="n_ctx is 8 and n_positions is 4"):
        config_from_hf(plain | {"n_ctx": 8}, HERE)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen3", "alibi"])
def test_a_config_without_any_one_key_is_refused_or_means_the_same_or_says_a_default(name):
    content = config_to_hf(SHAPES[name][0])
    needed = {"model_type", "vocab_size", "n_positions", "n_layer", "max_position_embeddings", "hidden_size", "alibi"}
    for key in content:
        less = {other: value for other, value in content.items() if other != key}
        try:
            config_from_hf(less, HERE)
        except GlassGPTError as error:
            assert repr(key) in str(error) or key in str(error)
        else:
            assert key not in needed


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_a_config_that_is_no_object_is_refused(content):
    with pytest.raises(DamagedFileError, match=r"config\.json should hold an object"):
        config_from_hf(content, HERE)


def test_end_tokens_are_one_or_many_or_none():
    assert eos_tokens({"eos_token_id": 3}) == [3]
    assert eos_tokens({"eos_token_id": [3, 4]}) == [3, 4]
    assert eos_tokens({"eos_token_id": None}) == eos_tokens({}) == eos_tokens({"eos_token_id": "x"}) == []
