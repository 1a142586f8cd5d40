"""GGUF files as models: what transformers computes comes out, and what isn't computed is refused by its name."""

import time
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, UnsupportedError
from glassgpt.models.config import GPTConfig, RopeScaling, parameter_shapes
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.text.bpe import BYTE_SYMBOLS
from glassgpt.weights.gguf_file import read_gguf
from glassgpt.weights.gguf_model import (
    ARCHITECTURES,
    NEUTRAL,
    NEUTRAL_OF_ROPE,
    gguf_config,
    gguf_parameters,
    gguf_roles,
    gguf_tokenizer,
    read_gguf_model,
    rope_factors,
    rows_in_halves,
    rows_in_pairs,
)
from glassgpt.weights.tensors import read_parameters

TOKENS = ["<|end|>", *BYTE_SYMBOLS, "th", "the", "<think>"]
MERGES = ["t h", "th e"]
TYPES = [3] + [1] * 258 + [4]
V = len(TOKENS)

U32, F32, STRING = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.STRING


# ---- files as llama.cpp's converter writes them ----------------------------------------------------------------------


def sizes_of(architecture):
    """Metadata of a tiny model, without the prefix of its architecture."""
    epsilon = "layer_norm_epsilon" if architecture == "gpt2" else "layer_norm_rms_epsilon"
    sizes = {
        "context_length": (32, U32),
        "embedding_length": (16, U32),
        "block_count": (2, U32),
        "feed_forward_length": (24, U32),
        "attention.head_count": (4, U32),
        f"attention.{epsilon}": (1e-5, F32),
    }
    if architecture == "gpt2":
        return sizes
    return sizes | {
        "attention.head_count_kv": (2, U32),
        "attention.key_length": (6, U32),
        "attention.value_length": (6, U32),
        "rope.dimension_count": (6, U32),
        "rope.freq_base": (500.0, F32),
    }


def tensors_of(architecture):
    """Random tensors of such a model, (out, in), by llama.cpp's names."""
    shapes = {"token_embd.weight": (V, 16), "output_norm.weight": (16,)}
    for layer in range(2):
        in_layer = {"attn_norm.weight": (16,), "ffn_norm.weight": (16,), "ffn_up.weight": (24, 16)}
        in_layer |= {"ffn_down.weight": (16, 24)}
        if architecture == "gpt2":
            in_layer |= {"attn_qkv.weight": (48, 16), "attn_output.weight": (16, 16), "attn_qkv.bias": (48,)}
            in_layer |= {"attn_output.bias": (16,), "ffn_up.bias": (24,), "ffn_down.bias": (16,)}
            in_layer |= {"attn_norm.bias": (16,), "ffn_norm.bias": (16,)}
        else:
            in_layer |= {"attn_q.weight": (24, 16), "attn_k.weight": (12, 16), "attn_v.weight": (12, 16)}
            in_layer |= {"attn_output.weight": (16, 24), "ffn_gate.weight": (24, 16)}
        if architecture == "qwen3":
            in_layer |= {"attn_q_norm.weight": (6,), "attn_k_norm.weight": (6,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in in_layer.items()}
    if architecture == "gpt2":
        shapes |= {"position_embd.weight": (32, 16), "output_norm.bias": (16,)}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(path, architecture, sizes, tensors, keys=(), words=True, kind=None):
    """A GGUF file by gguf's own writer. `kind`: the type of the matrices, F32 unless given."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, (value, type) in sizes.items():
        writer.add_key_value(f"{architecture}.{name}", value, type)
    for name, value, type in keys:
        writer.add_key_value(name, value, type)
    if words:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(TOKENS)
        writer.add_token_types(TYPES)
        writer.add_token_merges(MERGES)
        writer.add_eos_token_id(0)
    for name, array in tensors.items():
        if kind is None or array.ndim == 1 or name == "position_embd.weight":
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny(tmp_path, architecture, sizes=(), tensors=(), keys=(), without=(), **options):
    """A tiny model's file with changes: sizes and tensors over those that it has, and `without` some of either."""
    all_sizes = sizes_of(architecture) | dict(sizes)
    all_tensors = tensors_of(architecture) | dict(tensors)
    all_sizes = {name: value for name, value in all_sizes.items() if name not in without}
    all_tensors = {name: value for name, value in all_tensors.items() if name not in without}
    return write(tmp_path / "tiny.gguf", architecture, all_sizes, all_tensors, keys, **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tiny_model_has_the_shape_and_the_names_of_its_config(tmp_path, architecture):
    bundle = read_gguf_model(tiny(tmp_path, architecture))
    config = bundle.config
    assert (config.vocab_size, config.context_length, config.n_layer, config.n_head) == (V, 32, 2, 4)
    assert config.tied
    assert config.norm_epsilon == 1e-5  # what was meant by the float32 nearest to it
    assert {name: stored.shape for name, stored in bundle.parameters.items()} == parameter_shapes(config)
    assert {name: value.shape for name, value in read_parameters(bundle).items()} == parameter_shapes(config)
    assert bundle.tokenizer().vocab_size == V
    assert bundle.end_tokens == (0,)
    assert bundle.dtypes() == {"F32": config.n_parameters}
    expected = {
        "gpt2": ("learned", "layernorm", "gelu_tanh", True, True, False, 4, 4),
        "llama": ("rope", "rmsnorm", "swiglu", False, False, False, 2, 6),
        "qwen3": ("rope", "rmsnorm", "swiglu", False, False, True, 2, 6),
    }[architecture]
    names = ("position", "norm", "mlp", "bias", "mlp_bias", "qk_norm", "n_kv_head", "head_size")
    assert tuple(getattr(config, name) for name in names) == expected


# ---- as transformers computes it -------------------------------------------------------------------------------------

LLAMA_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GPT2_NAMES = {
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
    "lm_head": "output", "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def converted(path, model, architecture):
    """What llama.cpp's converter makes of a model of transformers: renamed, GPT-2 turned, Llama's q and k permuted."""
    config = model.config
    names = GPT2_NAMES if architecture == "gpt2" else LLAMA_NAMES
    tensors = {}
    for full, value in model.state_dict().items():
        array = value.numpy()
        *prefix, stem, kind = full.rsplit(".", 3 if ".h." in full or ".layers." in full else 1)
        stem = f"{prefix[1]}.{stem}" if len(prefix) == 2 else stem  # "model.layers.0", "self_attn", "q_proj"
        layer = full.split(".")[2] if prefix else None
        name = names[stem] if stem in names else names[stem.split(".", 1)[1]]
        if name == "output" and config.tie_word_embeddings:
            continue
        if architecture == "gpt2" and array.ndim == 2 and layer is not None:
            array = array.T
        if architecture == "llama" and name in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if name == "attn_q" else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        tensors[f"blk.{layer}.{name}.{kind}" if layer is not None else f"{name}.{kind}"] = np.ascontiguousarray(array)
    return tensors


def transformers_model(architecture, **options):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    if architecture == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=4, n_inner=24, initializer_range=0.3, **options
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        kind = "Llama" if architecture == "llama" else "Qwen3"
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=6, max_position_embeddings=32, initializer_range=0.3, rms_norm_eps=1e-5,
            **options,
        )  # fmt: skip
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():  # norms and biases are 1 and 0 at first, which would hide that two were exchanged
        for value in model.parameters():
            if value.ndim == 1:
                value += 0.3 * torch.randn_like(value)
    return model.eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("gpt2", {}),
        ("gpt2", {"tie_word_embeddings": False}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "tie_word_embeddings": True}),
        (
            "llama",
            {
                "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
                "attention_bias": True,
                "mlp_bias": True,
            },
        ),
        ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "tie_word_embeddings": True}),
    ],
)
def test_logits_are_those_of_transformers(tmp_path, architecture, options):
    torch = pytest.importorskip("torch")
    model = transformers_model(architecture, **options)
    tensors = converted(tmp_path / "a.gguf", model, architecture)
    path = write(tmp_path / "a.gguf", architecture, sizes_of(architecture), tensors)
    bundle = read_gguf_model(path)
    params = {name: value.astype(np.float64) for name, value in read_parameters(bundle).items()}
    ids = np.random.default_rng(0).integers(0, V, (2, 32))
    with torch.no_grad():
        expected = model.double()(torch.from_numpy(ids)).logits.numpy()
    assert np.abs(expected).max() > 1
    # transformers turns queries and keys by angles in float32
    tolerance = 1e-10 if architecture == "gpt2" else 2e-4
    np.testing.assert_allclose(ArrayGPT(bundle.config, params).sequence_logits(ids), expected, atol=tolerance)


def test_rows_of_queries_and_keys_change_their_order_and_back():
    rows = np.arange(24)
    assert rows_in_halves(rows[:8], 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    for heads in (1, 2, 3):
        np.testing.assert_array_equal(rows_in_halves(rows_in_pairs(rows, heads), heads), rows)


def test_only_llama_has_its_rows_in_another_order(tmp_path):
    query = tensors_of("llama")["blk.1.attn_q.weight"]
    for architecture in ("llama", "qwen3"):
        read = read_gguf_model(tiny(tmp_path, architecture, tensors={"blk.1.attn_q.weight": query}))
        ours = read.parameters["h.1.attn.c_attn.weight"].read()[:, :24].T
        np.testing.assert_array_equal(ours, rows_in_halves(query, 4) if architecture == "llama" else query)


def test_gate_and_value_lie_side_by_side(tmp_path):
    read = read_gguf_model(tiny(tmp_path, "llama")).parameters["h.0.mlp.c_fc.weight"].read()
    tensors = tensors_of("llama")
    np.testing.assert_array_equal(read[:, :24], tensors["blk.0.ffn_gate.weight"].T)
    np.testing.assert_array_equal(read[:, 24:], tensors["blk.0.ffn_up.weight"].T)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1"])
def test_quantised_parameters_are_what_gguf_makes_of_them(tmp_path, kind):
    kind = GGMLQuantizationType[kind]
    sizes = {"embedding_length": (32, U32), "feed_forward_length": (64, U32)}
    shapes = {name: [2 * n if n in (16, 24) else n for n in value.shape] for name, value in tensors_of("gpt2").items()}
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for layer in range(2):
        tensors[f"blk.{layer}.attn_qkv.weight"] = rng.normal(size=(96, 32)).astype(np.float32)
        tensors[f"blk.{layer}.attn_qkv.bias"] = rng.normal(size=96).astype(np.float32)
        tensors[f"blk.{layer}.ffn_up.weight"] = rng.normal(size=(64, 32)).astype(np.float32)
        tensors[f"blk.{layer}.ffn_up.bias"] = rng.normal(size=64).astype(np.float32)
        tensors[f"blk.{layer}.ffn_down.weight"] = rng.normal(size=(32, 64)).astype(np.float32)
    tensors["position_embd.weight"] = rng.normal(size=(32, 32)).astype(np.float32)
    read = read_gguf_model(tiny(tmp_path, "gpt2", sizes, tensors, kind=kind))
    fused = read.parameters["h.1.attn.c_attn.weight"]
    assert fused.dtype == kind.name
    expected = dequantize(quantize(tensors["blk.1.attn_qkv.weight"], kind), kind).T
    np.testing.assert_array_equal(fused.read(), expected)


def test_parts_of_several_types_are_told_by_all_their_names(tmp_path):
    half = tensors_of("llama")["blk.0.attn_v.weight"].astype(np.float16)
    read = read_gguf_model(tiny(tmp_path, "llama", tensors={"blk.0.attn_v.weight": half}))
    assert read.parameters["h.0.attn.c_attn.weight"].dtype == "F32+F16"
    np.testing.assert_array_equal(read.parameters["h.0.attn.c_attn.weight"].read()[:, 36:], half.T.astype(np.float32))


def test_an_output_matrix_of_its_own_is_untied_even_if_it_equals_the_embeddings(tmp_path):
    same = tensors_of("llama")["token_embd.weight"]
    read = read_gguf_model(tiny(tmp_path, "llama", tensors={"output.weight": same}))
    assert not read.config.tied
    np.testing.assert_array_equal(read.parameters["lm_head.weight"].read(), read.parameters["wte.weight"].read())


def test_numbers_that_are_none_are_refused_when_they_are_read(tmp_path):
    bad = tensors_of("llama")["blk.1.ffn_up.weight"]
    bad[3, 4] = np.inf
    bundle = read_gguf_model(tiny(tmp_path, "llama", tensors={"blk.1.ffn_up.weight": bad}))
    with pytest.raises(NumericalError, match=r"tiny\.gguf.*h\.1\.mlp\.c_fc"):
        read_parameters(bundle)


# ---- Llama 3's wavelengths -------------------------------------------------------------------------------------------


def llama3(theta=500_000.0, head_size=64, scaling=None):
    return GPTConfig(
        V, 32, n_layer=2, n_head=4, n_embd=16, bias=False, head_size=head_size, position="rope", norm="rmsnorm",
        mlp="swiglu", rope_theta=theta, rope_scaling=scaling,
    )  # fmt: skip


def with_factors(tmp_path, factors, head_size=64, theta=500_000.0, **options):
    """The config of a file in which only rope_freqs and what it depends on is as it should be."""
    names = ("attention.key_length", "attention.value_length", "rope.dimension_count")
    sizes = {name: (head_size, U32) for name in names} | {"rope.freq_base": (theta, F32)} | options
    path = tiny(tmp_path, "llama", sizes, {"rope_freqs.weight": np.asarray(factors, np.float32)})
    return gguf_config(read_gguf(path))


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling(8.0, 1.0, 4.0, 8192),  # Llama 3.1
        RopeScaling(32.0, 1.0, 4.0, 8192),  # Llama 3.2
        RopeScaling(4.0, 1.0, 32.0, 2048),
    ],
)
@pytest.mark.parametrize("head_size", [64, 128])
def test_the_rule_behind_stretched_wavelengths_is_found(tmp_path, scaling, head_size):
    factors = rope_factors(llama3(head_size=head_size, scaling=scaling))
    assert with_factors(tmp_path, factors, head_size).rope_scaling == scaling


def test_lengths_that_mean_the_same_are_told_with_a_low_factor_of_one(tmp_path):
    factors = rope_factors(llama3(scaling=RopeScaling(8.0, 2.0, 8.0, 16384)))
    assert with_factors(tmp_path, factors).rope_scaling == RopeScaling(8.0, 1.0, 4.0, 8192)


def test_llama_3s_published_factors_are_its_rule():
    """The first, the last, and one between of what llama.cpp's converter writes for Llama 3.1 8B."""
    factors = rope_factors(llama3(head_size=128, scaling=RopeScaling(8.0, 1.0, 4.0, 8192)))
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(8)
    wavelength = 2 * np.pi * 500_000 ** (2 * 30 / 128)
    smooth = (8192 / wavelength - 1) / 3
    assert factors[30] == pytest.approx(1 / ((1 - smooth) / 8 + smooth))


def test_factors_of_one_stretch_nothing(tmp_path):
    assert with_factors(tmp_path, np.ones(32)).rope_scaling is None


@pytest.mark.parametrize(
    "factors", [np.full(32, 4.0), np.linspace(1, 8, 32), np.r_[8.0, np.ones(31)], np.r_[np.ones(31), 1e30]]
)
def test_another_rule_is_refused(tmp_path, factors):
    with pytest.raises(UnsupportedError, match="rope_freqs"):
        with_factors(tmp_path, factors)


@pytest.mark.parametrize("factors", [np.ones(31), np.zeros(32), np.full(32, np.nan), np.r_[np.ones(31), np.inf]])
def test_factors_that_are_none_are_refused(tmp_path, factors):
    with pytest.raises(DamagedFileError, match="rope_freqs"):
        with_factors(tmp_path, factors)


def test_other_architectures_have_no_factors(tmp_path):
    with pytest.raises(DamagedFileError, match=r"holds 'rope_freqs\.weight'"):
        read_gguf_model(tiny(tmp_path, "qwen3", tensors={"rope_freqs.weight": np.ones(3, np.float32)}))


# ---- what is refused -------------------------------------------------------------------------------------------------

WRONG = {bool: True, int: 2, float: 0.5, str: "yarn"}
KINDS = {
    bool: gguf.GGUFValueType.BOOL,
    int: U32,
    float: F32,
    str: STRING,
}


@pytest.mark.parametrize("name", [*NEUTRAL, *NEUTRAL_OF_ROPE])
def test_keys_that_change_the_maths_are_refused_unless_they_do_not(tmp_path, name):
    allowed = (NEUTRAL | NEUTRAL_OF_ROPE)[name]
    kind = type(allowed[0])
    for value in allowed:
        gguf_config(read_gguf(tiny(tmp_path, "llama", {name: (value, KINDS[kind])})))
    wrong = not allowed[0] if kind is bool else WRONG[kind]
    with pytest.raises(UnsupportedError, match=rf"llama\.{name} is {wrong!r}"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", {name: (wrong, KINDS[kind])})))
    with pytest.raises(UnsupportedError, match=name):  # of another type
        gguf_config(read_gguf(tiny(tmp_path, "llama", {name: ([1, 2], gguf.GGUFValueType.ARRAY)})))


@pytest.mark.parametrize(
    "key",
    [
        "llama.expert_shared_count",
        "llama.rope.scaling.yarn_log_multiplier",
        "llama.attention.sliding_window_pattern",
        "llama.something.new",
        "gpt2.context_length",
        "adapter.type",
        "xielu.alpha_p",
        "context_length",
    ],
)
def test_keys_that_are_not_known_are_refused(tmp_path, key):
    with pytest.raises(UnsupportedError, match=f"key '{key}'"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", keys=[(key, 0, U32)])))


@pytest.mark.parametrize(
    "key", ["general.license", "quantize.imatrix.file", "tokenizer.ggml.precompiled", "split.note"]
)
def test_keys_about_where_a_file_comes_from_are_passed_over(tmp_path, key):
    gguf_config(read_gguf(tiny(tmp_path, "llama", keys=[(key, "x", STRING)])))


def test_a_gpt2_that_claims_rotary_positions_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match=r"gpt2\.rope\.freq_base"):
        gguf_config(read_gguf(tiny(tmp_path, "gpt2", {"rope.freq_base": (500.0, F32)})))


@pytest.mark.parametrize("architecture", ["gemma3", "phi3", "qwen3moe", "clip", "", "llama\n"])
def test_other_architectures_are_refused_by_their_name(tmp_path, architecture):
    path = tiny(tmp_path, "llama", keys=[("general.architecture", architecture, STRING)])
    with pytest.raises(UnsupportedError, match="computes gpt2, llama, qwen3"):
        gguf_config(read_gguf(path))


def test_adapters_and_projectors_are_refused(tmp_path):
    with pytest.raises(UnsupportedError, match=r"general\.type is 'adapter'"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", keys=[("general.type", "adapter", STRING)])))


@pytest.mark.parametrize("name", ["rope.dimension_count", "attention.key_length", "attention.value_length"])
def test_heads_of_unequal_widths_are_refused(tmp_path, name):
    with pytest.raises(UnsupportedError, match="equally wide"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", {name: (4, U32)})))


@pytest.mark.parametrize(
    "name",
    ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
     "attention.layer_norm_rms_epsilon"],
)  # fmt: skip
def test_a_key_that_is_missing_or_of_the_wrong_type_is_refused(tmp_path, name):
    with pytest.raises(DamagedFileError, match=rf"lacks llama\.{name}"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", without=[name])))
    for value, kind in ((-1, gguf.GGUFValueType.INT32), ("4", STRING), ([4, 4], gguf.GGUFValueType.ARRAY)):
        if name.endswith("epsilon") and value == -1:
            continue
        with pytest.raises(DamagedFileError, match=rf"llama\.{name} should be a"):
            gguf_config(read_gguf(tiny(tmp_path, "llama", {name: (value, kind)})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attention.layer_norm_rms_epsilon", float("nan")),
        ("attention.layer_norm_rms_epsilon", 0.0),
        ("rope.freq_base", float("inf")),
        ("rope.freq_base", -1.0),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, name, value):
    with pytest.raises(DamagedFileError, match="contradicts itself"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", {name: (value, F32)})))


@pytest.mark.parametrize("n_layer", [3, 10**9, 2**31 - 1, 2**32 - 1])
def test_layers_that_are_not_there_are_refused_at_once(tmp_path, n_layer):
    path = tiny(tmp_path, "llama", {"block_count": (n_layer, U32)})
    started = time.monotonic()
    with pytest.raises(DamagedFileError, match=r"layers|a size|lacks"):
        read_gguf_model(path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_length", 2**32 - 1),
        ("embedding_length", 2**30),
        ("feed_forward_length", 10**9),
        ("attention.head_count", 2**30),
        ("attention.head_count_kv", 2**30),
        ("attention.head_count", 0),
        ("attention.head_count_kv", 3),
        ("embedding_length", 15),
    ],
)
def test_sizes_that_do_not_fit_the_tensors_are_refused(tmp_path, name, value):
    with pytest.raises(DamagedFileError):
        read_gguf_model(tiny(tmp_path, "llama", {name: (value, U32)}))


def test_a_context_that_is_not_the_positions_is_refused(tmp_path):
    with pytest.raises(DamagedFileError, match=r"position_embd\.weight should be of shape \(31, 16\)"):
        read_gguf_model(tiny(tmp_path, "gpt2", {"context_length": (31, U32)}))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_that_is_missing_is_missed(tmp_path, architecture):
    for name in tensors_of(architecture):
        with pytest.raises(DamagedFileError, match=r"lacks|no matrix token_embd"):
            read_gguf_model(tiny(tmp_path, architecture, without=[name]))


@pytest.mark.parametrize(
    "name",
    ["blk.2.attn_q.weight", "blk.0.attn_q.bias", "blk.0.attn_q_norm.weight", "position_embd.weight", "cls.weight"],
)
def test_a_tensor_too_many_is_refused(tmp_path, name):
    with pytest.raises(DamagedFileError, match=r"holds|lacks"):
        read_gguf_model(tiny(tmp_path, "llama", tensors={name: np.ones(24, np.float32)}))


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    turned = tensors_of("llama")["blk.1.ffn_up.weight"].T.copy()
    with pytest.raises(
        DamagedFileError, match=r"blk\.1\.ffn_up\.weight should be of shape \(24, 16\).*and is \(16, 24\)"
    ):
        read_gguf_model(tiny(tmp_path, "llama", tensors={"blk.1.ffn_up.weight": turned}))


def test_more_tokens_than_embeddings_are_refused(tmp_path):
    with pytest.raises(DamagedFileError, match="9 tokens, and the embeddings"):
        gguf_config(read_gguf(tiny(tmp_path, "llama", {"vocab_size": (9, U32)})))


# ---- the tokenizer ---------------------------------------------------------------------------------------------------


def test_the_tokenizer_is_the_one_in_the_file(tmp_path):
    path = tiny(tmp_path, "llama", keys=[("tokenizer.chat_template", "{{ messages }}", STRING)])
    read = read_gguf(path)
    tokenizer = gguf_tokenizer(read, path)
    assert tokenizer.encode("the") == [258]
    assert tokenizer.decode(tokenizer.encode("the <think> Grüße")) == "the <think> Grüße"
    assert tokenizer.special == {"<|end|>": 0}
    assert tokenizer.user_defined == {"<think>": V - 1}
    assert tokenizer.end_token == 0
    assert gguf_roles(read, path) == {"eos": 0}
    assert read_gguf_model(path).chat_template == "{{ messages }}"


def test_a_model_without_words_has_no_tokenizer(tmp_path):
    bundle = read_gguf_model(tiny(tmp_path, "llama", words=False))
    assert bundle.tokenizer() is None
    assert bundle.end_tokens == ()
    assert bundle.chat_template is None


@pytest.mark.parametrize(
    ("key", "value", "kind", "match"),
    [
        ("model", "llama", STRING, "tokenizer.ggml.model is 'llama'"),
        ("model", [1], gguf.GGUFValueType.ARRAY, "tokenizer.ggml.model should be a text"),
        ("pre", "tekken", STRING, "tekken"),
        ("pre", 3, U32, "tokenizer.ggml.pre should be a text"),
        ("tokens", TOKENS[:-1], gguf.GGUFValueType.ARRAY, f"{V - 1} tokens, and the embeddings of {V}"),
        ("tokens", [*TOKENS, "more"], gguf.GGUFValueType.ARRAY, f"{V + 1} tokens, and the embeddings of {V}"),
        ("tokens", [*TOKENS[:-1], "the"], gguf.GGUFValueType.ARRAY, "no other token has"),
        ("tokens", [*TOKENS[:-1], "<0x-1>"], gguf.GGUFValueType.ARRAY, None),
        ("tokens", 3, U32, "lacks the list"),
        ("merges", ["t h", "th x y"], gguf.GGUFValueType.ARRAY, "merge 2"),
        ("merges", ["t h", "th z"], gguf.GGUFValueType.ARRAY, "needs the token"),
        ("merges", [1, 2], gguf.GGUFValueType.ARRAY, "lacks the list"),
        ("token_type", TYPES[:-1], gguf.GGUFValueType.ARRAY, "from 1 to 6"),
        ("token_type", [0, *TYPES[1:]], gguf.GGUFValueType.ARRAY, "from 1 to 6"),
        ("token_type", [7, *TYPES[1:]], gguf.GGUFValueType.ARRAY, "from 1 to 6"),
        ("token_type", 3, U32, "from 1 to 6"),
        ("eos_token_id", V, U32, "eos_token_id"),
        ("eos_token_id", "0", STRING, "eos_token_id"),
        ("bos_token_id", 2**32 - 1, U32, "bos_token_id"),
    ],
)
def test_words_that_are_wrong_are_refused_by_name(tmp_path, key, value, kind, match):
    path = tmp_path / "words.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    words = {
        "model": ("gpt2", STRING),
        "pre": ("gpt-2", STRING),
        "tokens": (TOKENS, gguf.GGUFValueType.ARRAY),
        "merges": (MERGES, gguf.GGUFValueType.ARRAY),
        "token_type": (TYPES, gguf.GGUFValueType.ARRAY),
    } | {key: (value, kind)}
    for name, (content, content_kind) in words.items():
        writer.add_key_value(f"tokenizer.ggml.{name}", content, content_kind)
    writer.add_tensor("token_embd.weight", np.ones((V, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if match is None:  # a name like any other: nothing in it is taken for a number
        assert gguf_tokenizer(read_gguf(path), path).token_bytes(V - 1) == b"<0x-1>"
        return
    with pytest.raises(GlassGPTError, match=match) as caught:
        gguf_tokenizer(read_gguf(path), path)
    assert "words.gguf" in str(caught.value)


# ---- mutations -------------------------------------------------------------------------------------------------------


def check_mutations(tmp_path, architecture, count, seed):
    """A file with a few wrong bytes gives an error of ours, or a model whose untouched tensors are what they were."""
    path = tiny(tmp_path, architecture)
    sound = path.read_bytes()
    original = read_gguf(path)
    numbers = {name: stored.read() for name, stored in original.tensors.items()}
    data_start = min(place.offset for place in original.places.values())
    mutant = tmp_path / "mutant.gguf"
    rng = np.random.default_rng(seed)
    loaded = 0
    for _ in range(count):
        at = int(rng.integers(data_start if rng.random() < 0.8 else len(sound)))
        changed = bytearray(sound)
        kind = int(rng.integers(4))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + 4] = rng.bytes(4)
        elif kind == 2:
            changed[at : at + 8] = int(rng.choice([0, 1, 255, 2**31, 2**40, 2**63 - 1])).to_bytes(8, "little")
        else:
            del changed[at : at + int(rng.integers(1, 40))]
        mutant.write_bytes(changed)
        try:
            bundle = read_gguf_model(mutant)
            read_parameters(bundle)
            bundle.tokenizer()
            ArrayGPT(bundle.config, read_parameters(bundle))
        except GlassGPTError as error:
            assert len(str(error)) < 700
            continue
        loaded += 1
        if at >= data_start:
            read = read_gguf(mutant)
            for name, place in original.places.items():
                moved = len(changed) < len(sound)  # all that lies behind
                if place.end <= at or (at + 8 <= place.offset and not moved):
                    np.testing.assert_array_equal(read.tensors[name].read(), numbers[name])
    assert 0 < loaded < count


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_mutants_are_refused_or_harmless(tmp_path, architecture):
    check_mutations(tmp_path, architecture, 200, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_thousands_of_mutants_are_refused_or_harmless(tmp_path, architecture):
    check_mutations(tmp_path, architecture, 3000, seed=1)


def test_a_config_of_another_shape_finds_nothing(tmp_path):
    read = read_gguf(tiny(tmp_path, "llama"))
    with pytest.raises(DamagedFileError, match="lacks"):
        gguf_parameters(read, replace(gguf_config(read), n_layer=3))


def test_messages_name_the_file(tmp_path):
    path = tiny(tmp_path, "llama", without=["output_norm.weight"])
    with pytest.raises(DamagedFileError, match=str(Path("tiny.gguf"))):
        read_gguf_model(path)
