"""Models written as GGUF: they come back bit for bit, and llama.cpp computes the same logits from them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize

from glassgpt.errors import NumericalError, UsageError, WriteError
from glassgpt.models import gpt_array
from glassgpt.models.config import GPTConfig, RopeScaling, parameter_shapes
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.text.bpe import BYTE_SYMBOLS, BPETokenizer
from glassgpt.weights.gguf_export import export_gguf, exportable_architecture
from glassgpt.weights.gguf_file import read_gguf
from glassgpt.weights.gguf_model import read_gguf_model
from glassgpt.weights.tensors import read_parameters

TOKENS = ["<|endoftext|>", *BYTE_SYMBOLS, "th", "the", "Ġt", "Ġthe", "at", "<think>"]
MERGES = ["t h", "th e", "Ġ the", "Ġ t", "a t"]
V = 280  # more rows than tokens

SIZES = {"vocab_size": V, "context_length": 64, "n_layer": 2, "n_head": 4, "n_embd": 32}
GPT2 = GPTConfig(**SIZES, mlp="gelu_tanh")
LLAMA = GPTConfig(
    **SIZES, bias=False, n_kv_head=2, n_hidden=96, position="rope", norm="rmsnorm", mlp="swiglu", tied=False
)
MODELS = {
    "GPT-2": GPT2,
    "GPT-2, untied and narrow": replace(GPT2, tied=False, n_hidden=40),
    "Llama": LLAMA,
    "Llama with biases and wide heads": replace(LLAMA, bias=True, mlp_bias=True, head_size=16, tied=True),
    "Llama with biases in the MLP": replace(LLAMA, mlp_bias=True, norm_epsilon=1e-6),
    "Llama 3": replace(LLAMA, n_kv_head=1, rope_theta=100.0, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64)),
    "Qwen3": replace(LLAMA, qk_norm=True, head_size=16, rope_theta=1e6, tied=True),
}


def words(merges=MERGES, end_token=0, rule="smollm"):
    user_defined = {"<think>": TOKENS.index("<think>")}
    return BPETokenizer.from_vocabulary(
        TOKENS, merges, rule, {"<|endoftext|>": 0}, Path("words"), user_defined=user_defined, end_token=end_token
    )


@pytest.fixture(scope="module")
def tokenizer():
    return words()


def random_params(config, dtype=np.float32):
    rng = np.random.default_rng(0)
    params = {}
    for name, shape in parameter_shapes(config).items():
        around = 1.0 if name.rsplit(".", 2)[-2].endswith(("ln_1", "ln_2", "ln_f", "norm")) else 0.0
        params[name] = (around + rng.normal(0, 0.2, shape)).astype(dtype)
    return params


@pytest.mark.parametrize("what", MODELS)
def test_float32_models_come_back_bit_for_bit(tmp_path, tokenizer, what):
    config, path = MODELS[what], tmp_path / "model.gguf"
    params = random_params(config)
    export_gguf(config, params, tokenizer, path, chat_template="{{ x }}", name="a name")
    bundle = read_gguf_model(path)
    assert bundle.config == config
    assert bundle.chat_template == "{{ x }}"
    read = read_parameters(bundle)
    assert read.keys() == params.keys()
    for name, value in params.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name].view(np.uint32), value.view(np.uint32))
    assert read_gguf(path).metadata["general.name"] == "a name"


def test_the_tokenizer_comes_back(tmp_path, tokenizer):
    export_gguf(LLAMA, random_params(LLAMA), tokenizer, tmp_path / "model.gguf")
    read = read_gguf_model(tmp_path / "model.gguf").tokenizer()
    text = "the cat at the mat, 2024 <think> Grüße\n\n日本"
    assert read.encode(text) == tokenizer.encode(text)
    assert read.decode(read.encode(text)) == text
    assert read.splitting == tokenizer.splitting
    assert read.user_defined == tokenizer.user_defined
    assert read.end_token == 0
    assert read.special["<|endoftext|>"] == 0
    assert [name for name in read.special if name.startswith("[PAD")] == [f"[PAD{i}]" for i in range(len(TOKENS), V)]


def test_a_model_can_be_written_without_words(tmp_path):
    export_gguf(LLAMA, random_params(LLAMA), None, tmp_path / "model.gguf")
    assert read_gguf_model(tmp_path / "model.gguf").tokenizer() is None


def test_float64_models_are_rounded_to_float32(tmp_path, tokenizer):
    params = random_params(GPT2, np.float64)
    export_gguf(GPT2, params, tokenizer, tmp_path / "model.gguf")
    read = read_parameters(read_gguf_model(tmp_path / "model.gguf"))
    for name, value in params.items():
        np.testing.assert_array_equal(read[name], value.astype(np.float32))


@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
@pytest.mark.parametrize("what", MODELS)
def test_smaller_types_hold_what_gguf_makes_of_the_numbers(tmp_path, tokenizer, what, dtype):
    config = MODELS[what]
    params = random_params(config)
    export_gguf(config, params, tokenizer, tmp_path / "model.gguf", dtype=dtype)
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    kind = GGMLQuantizationType[dtype]
    down = params["h.1.mlp.c_proj.weight"].T
    fits = dtype == "F16" or down.shape[1] % 32 == 0
    expected = quantize(down, kind) if fits else down.astype(np.float16)
    np.testing.assert_array_equal(tensors["blk.1.ffn_down.weight"].data, expected)
    assert tensors["blk.1.attn_norm.weight"].tensor_type == GGMLQuantizationType.F32
    bundle = read_gguf_model(tmp_path / "model.gguf")
    assert bundle.config == config
    read = read_parameters(bundle)
    np.testing.assert_array_equal(read["wte.weight"], dequantize(quantize(params["wte.weight"], kind), kind))
    assert max(np.abs(read[name] - params[name]).max() for name in params) < 0.01


# ---- what llama.cpp cannot compute -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "choice"),
    [
        (replace(GPT2, mlp="gelu"), "mlp = 'gelu'"),
        (replace(GPT2, mlp="relu2"), "mlp = 'relu2'"),
        (replace(GPT2, mlp="swiglu"), "mlp = 'swiglu'"),
        (replace(GPT2, norm="rmsnorm"), "norm = 'rmsnorm'"),
        (replace(GPT2, bias=False), "bias = False"),
        (replace(GPT2, mlp_bias=False), "mlp_bias = False"),
        (replace(GPT2, qk_norm=True), "qk_norm = True"),
        (replace(GPT2, post_norm=True), "post_norm = True"),
        (replace(GPT2, head_size=4), "head_size = 4"),
        (replace(GPT2, position="sinusoidal"), "position = 'sinusoidal'"),
        (replace(GPT2, position="alibi"), "position = 'alibi'"),
        (replace(LLAMA, norm="layernorm"), "norm = 'layernorm'"),
        (replace(LLAMA, mlp="gelu_tanh"), "mlp = 'gelu_tanh'"),
        (replace(LLAMA, post_norm=True), "post_norm = True"),
        (replace(LLAMA, qk_norm=True, bias=True), "bias = True"),
        (replace(LLAMA, qk_norm=True, mlp_bias=True), "mlp_bias = True"),
        (replace(LLAMA, qk_norm=True, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64)), "rope_scaling"),
    ],
)
def test_shapes_that_llama_cpp_does_not_compute_are_refused_by_the_choice(tmp_path, tokenizer, config, choice):
    with pytest.raises(UsageError, match=choice):
        export_gguf(config, random_params(config), tokenizer, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_each_shape_has_its_architecture():
    assert [exportable_architecture(MODELS[what]) for what in ("GPT-2", "Llama 3", "Qwen3")] == [
        "gpt2",
        "llama",
        "qwen3",
    ]


def test_tokenizers_that_llama_cpp_does_not_read_are_refused(tmp_path, tokenizer):
    path = tmp_path / "model.gguf"
    params = random_params(LLAMA)
    with pytest.raises(UsageError, match="no end_token"):
        export_gguf(LLAMA, params, words(end_token=None), path)
    with pytest.raises(UsageError, match="without merges"):
        export_gguf(LLAMA, params, words(merges=[]), path)
    small = replace(LLAMA, vocab_size=100)
    with pytest.raises(UsageError, match=f"{len(TOKENS)} tokens, and the model 100"):
        export_gguf(small, random_params(small), tokenizer, path)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_are_not_the_configs_are_refused(tmp_path, tokenizer):
    params = random_params(LLAMA)
    for wrong in (
        {name: value for name, value in params.items() if name != "ln_f.weight"},
        params | {"ln_f.bias": params["ln_f.weight"]},
        params | {"ln_f.weight": params["ln_f.weight"][1:]},
    ):
        with pytest.raises(UsageError, match="ln_f"):
            export_gguf(LLAMA, wrong, tokenizer, tmp_path / "model.gguf")
    with pytest.raises(UsageError, match="F32, F16, Q8_0"):
        export_gguf(LLAMA, params, tokenizer, tmp_path / "model.gguf", dtype="Q4_K")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_not_written(tmp_path, tokenizer, value):
    params = random_params(LLAMA)
    params["h.1.mlp.c_proj.weight"][3, 4] = value
    with pytest.raises(NumericalError, match=r"h\.1\.mlp\.c_proj"):
        export_gguf(LLAMA, params, tokenizer, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_numbers_too_large_for_the_type_are_not_written(tmp_path, tokenizer):
    params = random_params(LLAMA)
    params["h.1.mlp.c_proj.weight"][3, 4] = 1e6
    with pytest.raises(UsageError, match="more than F16 can"):
        export_gguf(LLAMA, params, tokenizer, tmp_path / "model.gguf", dtype="F16")
    export_gguf(LLAMA, params, tokenizer, tmp_path / "model.gguf")


def test_a_file_that_is_there_is_replaced_only_by_a_whole_one(tmp_path, tokenizer, monkeypatch):
    path = tmp_path / "model.gguf"
    export_gguf(GPT2, random_params(GPT2), tokenizer, path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=r"model\.gguf cannot be written: No space"):
            export_gguf(LLAMA, random_params(LLAMA), tokenizer, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    export_gguf(LLAMA, random_params(LLAMA), tokenizer, path)
    assert read_gguf_model(path).config == LLAMA


# ---- llama.cpp -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_cpp():
    """llama.cpp, if it is installed and made for this machine's processor: started elsewhere first, as it may crash."""
    start = "import llama_cpp; llama_cpp.llama_backend_init()"
    if subprocess.run([sys.executable, "-c", start], capture_output=True).returncode:
        pytest.skip("needs llama-cpp-python, built for this processor")
    return pytest.importorskip("llama_cpp")


def llama_logits(llama_cpp, path, ids):
    model = llama_cpp.Llama(
        str(path), n_ctx=64, verbose=False, logits_all=True, type_k=0, type_v=0, n_threads=1, flash_attn=False
    )
    model.eval(ids)
    return model.scores[: len(ids)].copy(), model


def half_gelu(x):
    """llama.cpp's GELU: on a processor it looks the tanh approximation up in a table of float16."""
    narrow = x.astype(np.float16).astype(np.float64)
    middle = 0.5 * narrow * (1 + np.tanh(np.sqrt(2 / np.pi) * (narrow + 0.044715 * narrow**3)))
    return np.where(x <= -10, 0.0, np.where(x >= 10, x, middle.astype(np.float16)))


@pytest.mark.parametrize("what", MODELS)
def test_llama_cpp_computes_the_same_logits(tmp_path, tokenizer, llama_cpp, monkeypatch, what):
    config, path = MODELS[what], tmp_path / "model.gguf"
    params = random_params(config)
    export_gguf(config, params, tokenizer, path)
    ids = [int(i) for i in np.random.default_rng(1).integers(0, V, 60)]
    model = ArrayGPT(config, {name: value.astype(np.float64) for name, value in params.items()})
    logits, theirs = llama_logits(llama_cpp, path, ids)
    if exportable_architecture(config) == "gpt2":
        np.testing.assert_allclose(logits, model.sequence_logits([ids])[0], atol=1e-2)
        monkeypatch.setattr(gpt_array, "gelu_tanh", half_gelu)
    np.testing.assert_allclose(logits, model.sequence_logits([ids])[0], atol=5e-4 if config == GPT2 else 1e-4)
    text = "the cat at the mat, 2024 Grüße\n\n日本"
    assert theirs.tokenize(text.encode(), add_bos=True) == tokenizer.encode(text)
    assert theirs.token_eos() == tokenizer.end_token


@pytest.mark.parametrize("dtype", ["F16", "Q8_0"])
def test_llama_cpp_reads_the_smaller_types(tmp_path, tokenizer, llama_cpp, dtype):
    path = tmp_path / "model.gguf"
    export_gguf(LLAMA, random_params(LLAMA), tokenizer, path, dtype=dtype)
    bundle = read_gguf_model(path)
    model = ArrayGPT(bundle.config, {name: v.astype(np.float64) for name, v in read_parameters(bundle).items()})
    ids = [int(i) for i in np.random.default_rng(1).integers(0, V, 60)]
    logits, _ = llama_logits(llama_cpp, path, ids)
    expected = model.sequence_logits([ids])[0]  # it rounds what it multiplies to the same type
    assert np.abs(logits - expected).max() < (0.05 if dtype == "F16" else 0.5)
