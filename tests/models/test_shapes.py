"""Every shape of the GPT, in both texts, against transformers on tiny random models: float64, then float32.

transformers computes the norms and angles of Llama and Qwen3 in float32 whatever the model's dtype; for the comparison
in float64 its norm and its angles are put right here.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from glassgpt.check import check_model
from glassgpt.models.config import GPTConfig, RopeScaling
from glassgpt.models.gpt_array import ArrayGPT, gpt
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.positions import sinusoids
from glassgpt.weights.hf_config import config_from_hf
from glassgpt.weights.hf_names import our_parameters
from glassgpt.weights.stored import StoredTensor
from glassgpt.weights.tensors import tensors_of, torch_gpt

transformers = pytest.importorskip("transformers")

GPT2 = {"vocab_size": 37, "n_positions": 24, "n_embd": 24, "n_layer": 3, "n_head": 4, "resid_pdrop": 0.0,
        "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
LLAMA = {"vocab_size": 37, "max_position_embeddings": 24, "hidden_size": 24, "intermediate_size": 40,
         "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 12, "rope_theta": 500.0}  # fmt: skip


def gpt2(**changes):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, **changes))


def llama(**changes):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA | changes))


def qwen3(**changes):
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**LLAMA | changes))


THEIRS = {
    "gpt2": gpt2,
    "gpt2, exact gelu": lambda: gpt2(activation_function="gelu"),
    "gpt2, relu2": lambda: gpt2(activation_function="relu2"),
    "gpt2, narrow inside": lambda: gpt2(n_inner=20),
    "gpt2, untied": lambda: gpt2(tie_word_embeddings=False),
    "gpt1": lambda: transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**GPT2, afn="gelu")),
    "llama": llama,
    "llama, tied, as many key heads": lambda: llama(num_key_value_heads=4, tie_word_embeddings=True),
    "llama3": lambda: llama(rope_parameters=LLAMA3),
    "llama, attention bias": lambda: llama(attention_bias=True),
    "llama, every bias, wide heads": lambda: llama(attention_bias=True, mlp_bias=True, head_dim=10),
    "qwen3": lambda: qwen3(head_dim=8),
    "qwen3, tied, one key head": lambda: qwen3(num_key_value_heads=1, head_dim=8, tie_word_embeddings=True),
}


def exact_norm(self, x):
    epsilon = getattr(self, "variance_epsilon", None)
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def exact_angles(self, x, position_ids):
    """As transformers' own, without its float32; the frequencies are made afresh, in float64, from the config."""
    config = self.config
    rope = config.rope_parameters
    D = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, D, 2, dtype=torch.float64) / D)
    if rope["rope_type"] == "llama3":
        stretched = []
        for frequency in frequencies.tolist():  # as the paper's text puts it, one at a time
            wavelength = 2 * math.pi / frequency
            if wavelength < rope["original_max_position_embeddings"] / rope["high_freq_factor"]:
                stretched.append(frequency)
            elif wavelength > rope["original_max_position_embeddings"] / rope["low_freq_factor"]:
                stretched.append(frequency / rope["factor"])
            else:
                span = rope["high_freq_factor"] - rope["low_freq_factor"]
                smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / span
                stretched.append((1 - smooth) * frequency / rope["factor"] + smooth * frequency)
        frequencies = torch.tensor(stretched, dtype=torch.float64)
    angles = position_ids[..., None].double() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def their_model(name, dtype):
    """A tiny model of transformers whose weights are large enough that every part of the function counts."""
    torch.manual_seed(1)
    model = THEIRS[name]().to(dtype).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            is_norm = parameter.ndim == 1 and parameter_name.endswith("weight")
            parameter.normal_(1.0 if is_norm else 0.0, 0.2 if is_norm else 0.3)
    return model


def our_config_and_parameters(theirs):
    content = theirs.config.to_dict()
    config = config_from_hf(content, Path("config.json"))
    state = {name: StoredTensor.of(value.detach().numpy()) for name, value in theirs.state_dict().items()}
    parameters = our_parameters(state, config, content["model_type"], Path("model.safetensors"))
    return config, {name: tensor.read() for name, tensor in parameters.items()}


def tokens_for(config, batch=3, length=None):
    return np.random.default_rng(0).integers(0, config.vocab_size, (batch, length or config.context_length))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("name", THEIRS)
def test_both_texts_give_the_logits_of_transformers(name, dtype, tolerance, monkeypatch):
    if dtype == torch.float64:
        llama, qwen = transformers.models.llama.modeling_llama, transformers.models.qwen3.modeling_qwen3
        for norm in (llama.LlamaRMSNorm, qwen.Qwen3RMSNorm):
            monkeypatch.setattr(norm, "forward", exact_norm)
        for rotary in (llama.LlamaRotaryEmbedding, qwen.Qwen3RotaryEmbedding):
            monkeypatch.setattr(rotary, "forward", exact_angles)
    theirs = their_model(name, dtype)
    config, params = our_config_and_parameters(theirs)
    tokens = tokens_for(config)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    scale = np.maximum(1, np.abs(expected))
    for ours in (ArrayGPT(config, params), torch_gpt(params, config)):
        logits = ours.sequence_logits(tokens)
        assert logits.dtype == expected.dtype
        assert np.max(np.abs(logits - expected) / scale) < tolerance
        np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


def test_alibi_is_that_of_mpt(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self)  # its softmax and its slopes stay in float64
    torch.manual_seed(1)
    sizes = {"vocab_size": 37, "max_seq_len": 24, "d_model": 24, "n_layers": 2}
    for n_head, tolerance in ((4, 1e-9), (6, 1e-6)):  # a power of two; and not, where its slopes are of float32
        config = transformers.MptConfig(**sizes, n_heads=n_head, attn_config={"alibi": True})
        theirs = transformers.MptForCausalLM(config).double().eval()
        ours = GPTConfig(37, 24, 2, n_head, 24, bias=False, position="alibi", mlp="gelu")
        params = {"wte.weight": theirs.transformer.wte.weight}
        for i, block in enumerate(theirs.transformer.blocks):
            params |= {
                f"h.{i}.ln_1.weight": block.norm_1.weight, f"h.{i}.ln_2.weight": block.norm_2.weight,
                f"h.{i}.attn.c_attn.weight": block.attn.Wqkv.weight.T,
                f"h.{i}.attn.c_proj.weight": block.attn.out_proj.weight.T,
                f"h.{i}.mlp.c_fc.weight": block.ffn.up_proj.weight.T,
                f"h.{i}.mlp.c_proj.weight": block.ffn.down_proj.weight.T,
            }  # fmt: skip
        params["ln_f.weight"] = theirs.transformer.norm_f.weight
        params = {name: value.detach().numpy() for name, value in params.items()}
        params |= {name.replace("weight", "bias"): 0 * value for name, value in params.items() if ".ln_" in f".{name}"}
        tokens = tokens_for(ours)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(tokens)).logits.numpy()
        for model in (ArrayGPT(ours, params), torch_gpt(params, ours)):
            np.testing.assert_allclose(model.sequence_logits(tokens), expected, rtol=tolerance, atol=tolerance)


def test_sinusoidal_positions_are_gpt2_with_sines_for_its_table():
    theirs = their_model("gpt2", torch.float64)
    table = [
        [(math.sin if i % 2 == 0 else math.cos)(t / 10000 ** (2 * (i // 2) / 24)) for i in range(24)] for t in range(24)
    ]
    np.testing.assert_allclose(sinusoids(24, 24), table, rtol=0, atol=1e-14)
    with torch.no_grad():
        theirs.transformer.wpe.weight.copy_(torch.tensor(table, dtype=torch.float64))
    config, params = our_config_and_parameters(theirs)
    ours = GPTConfig(**config.choices() | {"position": "sinusoidal"})
    del params["wpe.weight"]
    tokens = tokens_for(config)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    for model in (ArrayGPT(ours, params), torch_gpt(params, ours)):
        np.testing.assert_allclose(model.sequence_logits(tokens), expected, rtol=1e-9, atol=1e-9)


OURS = {
    "gpt2": GPTConfig(11, 7, 2, 2, 8, mlp="gelu_tanh"),
    "gpt1": GPTConfig(11, 7, 2, 2, 8, mlp="gelu_tanh", post_norm=True),
    "sinusoidal relu2": GPTConfig(11, 7, 2, 2, 8, position="sinusoidal", mlp="relu2", norm="rmsnorm"),
    "alibi": GPTConfig(11, 7, 2, 3, 9, position="alibi", bias=False),
    "alibi, shared keys, untied": GPTConfig(3, 6, 2, 4, 8, position="alibi", n_kv_head=2, tied=False),
    "llama": GPTConfig(11, 7, 2, 4, 8, False, 2, position="rope", norm="rmsnorm", mlp="swiglu", tied=False),
    "llama3": GPTConfig(
        3, 6, 2, 2, 8, position="rope", norm="rmsnorm", mlp="swiglu", rope_scaling=RopeScaling(4, 1, 4, 3)
    ),
    "qwen3": GPTConfig(3, 6, 2, 4, 8, False, 2, 6, position="rope", norm="rmsnorm", mlp="swiglu", qk_norm=True),
    "post-norm with rope": GPTConfig(3, 6, 2, 2, 8, position="rope", post_norm=True),
}  # fmt: skip


def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    return {name: value + rng.normal(0, 0.3, value.shape) for name, value in tensors_of(GPT(config)).items()}


@pytest.mark.parametrize("name", OURS)
def test_every_shape_keeps_the_contract_in_both_texts(name):
    params = random_params(OURS[name])
    for model in (torch_gpt(params, OURS[name]), ArrayGPT(OURS[name], params)):
        check_model(model, tolerance=1e-9)


@pytest.mark.parametrize("name", OURS)
def test_every_shape_counts_its_parameters(name):
    config = OURS[name]
    assert sum(parameter.numel() for parameter in GPT(config).parameters()) == config.n_parameters
    assert config == GPTConfig(**config.choices())


@pytest.mark.parametrize("name", OURS)
def test_every_shape_runs_in_jax_and_in_array_api_strict(name):
    config, params = OURS[name], random_params(OURS[name])
    tokens = tokens_for(config)
    expected = gpt(tokens, params, config)
    strict = pytest.importorskip("array_api_strict")
    there = gpt(strict.asarray(tokens), {key: strict.asarray(value) for key, value in params.items()}, config)
    np.testing.assert_allclose(np.asarray(there), expected, rtol=0, atol=1e-11)
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        there = {key: jax.numpy.asarray(value) for key, value in params.items()}
        compiled = jax.jit(lambda tokens, params: gpt(tokens, params, config))(jax.numpy.asarray(tokens), there)
        np.testing.assert_allclose(np.asarray(compiled), expected, rtol=0, atol=1e-11)
