"""The GPT as plain functions over arrays: a whole GPT forward pass on one screen.

Written against the array API standard, so that NumPy runs this text to explain and check, and JAX runs the same text to
differentiate (`jax.grad` of `language_model_loss`), compile (`jax.jit`) and batch (`jax.vmap`). Parameters are a flat
dict under GPT-2's own checkpoint names; a Linear layer's matrix maps rows, x @ w, as in those files. Shapes stand on
the line where they change: B texts, T tokens, C = n_embd, H query heads, K key heads, D = head_size, V = vocab_size.

GPT-2 is `gpt`, `attention`, `mlp`, `linear`, `layer_norm`, `softmax` and `gelu_tanh` (Radford et al., "Language Models
are Unsupervised Multitask Learners", 2019); below them stands what other shapes put in the place of one of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from array_api_compat import array_namespace

from glassgpt.interface import Array, LanguageModel, as_contexts
from glassgpt.models.config import GPTConfig
from glassgpt.models.positions import alibi_slopes, rope_angles, sinusoids

Params = Mapping[str, Array]


def gpt(tokens: Array, params: Params, config: GPTConfig) -> Array:
    """Logits after every prefix: int array (B, T), T <= context_length, to float array (B, T, V)."""
    xp = array_namespace(params["wte.weight"])
    x = xp.take(params["wte.weight"], xp.reshape(tokens, (-1,)), axis=0)  # (B, T) -> (B*T, C)
    x = add_positions(xp.reshape(x, (*tokens.shape, config.n_embd)), params, config)  # -> (B, T, C)
    for layer in range(config.n_layer):
        half_blocks = ((f"h.{layer}.ln_1", f"h.{layer}.attn", attention), (f"h.{layer}.ln_2", f"h.{layer}.mlp", mlp))
        for norm_name, name, function in half_blocks:
            if config.post_norm:
                x = norm(x + function(x, params, name, config), params, norm_name, config)
            else:
                x = x + function(norm(x, params, norm_name, config), params, name, config)
    if not config.post_norm:
        x = norm(x, params, "ln_f", config)
    return x @ params["wte.weight" if config.tied else "lm_head.weight"].T  # (B, T, C) -> (B, T, V)


def attention(x: Array, params: Params, name: str, config: GPTConfig) -> Array:
    """Every token looks back at the tokens up to itself and takes a mixture of what they offer: (B, T, C) -> same."""
    xp = array_namespace(x)
    B, T, _ = x.shape
    H, K, D = config.n_head, config.kv_heads, config.head_width
    qkv = xp.reshape(linear(x, params, f"{name}.c_attn"), (B, T, H + 2 * K, D))  # (B, T, C) -> (B, T, H + 2K, D)
    qkv = xp.permute_dims(qkv, (0, 2, 1, 3))  # -> (B, H + 2K, T, D)
    q, k, v = qkv[:, :H, :, :], qkv[:, H : H + K, :, :], qkv[:, H + K :, :, :]
    if config.qk_norm:
        q, k = (rms_norm(part, params, f"{name}.{side}_norm", config) for part, side in ((q, "q"), (k, "k")))
    if config.position == "rope":
        q, k = turn(q, config), turn(k, config)
    q = xp.reshape(q, (B, K, H // K, T, D))  # the queries that share a key head, beside each other
    scores = q @ xp.matrix_transpose(k)[:, :, None, :, :] / math.sqrt(D)  # -> (B, K, H/K, T, T)
    back = xp.arange(T)[:, None] - xp.arange(T)[None, :]  # how far back a token looks
    if config.position == "alibi":
        slopes = xp.reshape(xp.asarray(alibi_slopes(H), dtype=x.dtype), (K, H // K, 1, 1))
        scores = scores - slopes * xp.astype(back, x.dtype)
    weights = softmax(xp.where(back >= 0, scores, xp.asarray(-math.inf, dtype=x.dtype)))  # never ahead
    mixed = xp.reshape(weights @ v[:, :, None, :, :], (B, H, T, D))
    mixed = xp.reshape(xp.permute_dims(mixed, (0, 2, 1, 3)), (B, T, H * D))
    return linear(mixed, params, f"{name}.c_proj")  # -> (B, T, C)


def mlp(x: Array, params: Params, name: str, config: GPTConfig) -> Array:
    """Each position on its own through a hidden layer, four times as wide in GPT-2: (B, T, C) -> same."""
    hidden = linear(x, params, f"{name}.c_fc")
    activate = {"gelu_tanh": gelu_tanh, "gelu": gelu, "relu2": relu2, "swiglu": swiglu}[config.mlp]
    return linear(activate(hidden), params, f"{name}.c_proj")


def linear(x: Array, params: Params, name: str) -> Array:
    y = x @ params[f"{name}.weight"]
    return y + params[f"{name}.bias"] if f"{name}.bias" in params else y


def norm(x: Array, params: Params, name: str, config: GPTConfig) -> Array:
    return (layer_norm if config.norm == "layernorm" else rms_norm)(x, params, name, config)


def layer_norm(x: Array, params: Params, name: str, config: GPTConfig) -> Array:
    xp = array_namespace(x)
    mean = xp.mean(x, axis=-1, keepdims=True)
    variance = xp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) / xp.sqrt(variance + config.norm_epsilon) * params[f"{name}.weight"] + params[f"{name}.bias"]


def softmax(x: Array) -> Array:
    xp = array_namespace(x)
    powers = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def gelu_tanh(x: Array) -> Array:
    """The approximation of `gelu` that GPT-2 was trained with."""
    xp = array_namespace(x)
    return 0.5 * x * (1.0 + xp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def add_positions(x: Array, params: Params, config: GPTConfig) -> Array:
    """Tell a token where it stands: GPT-2 adds a learned vector, the first transformer added sines: (B, T, C) -> same.

    Rotary positions and ALiBi tell it inside `attention` instead.
    """
    xp = array_namespace(x)
    if config.position == "learned":
        return x + params["wpe.weight"][: x.shape[1], :]
    if config.position == "sinusoidal":
        return x + xp.asarray(sinusoids(x.shape[1], config.n_embd), dtype=x.dtype)
    return x


def turn(x: Array, config: GPTConfig) -> Array:
    """Rotate each pair (i, i + D/2) by an angle that grows with the place (arXiv 2104.09864): (..., T, D) -> same."""
    xp = array_namespace(x)
    T, D = x.shape[-2:]
    angles = rope_angles(T, config)  # (T, D/2)
    cos, sin = xp.asarray(np.cos(angles), dtype=x.dtype), xp.asarray(np.sin(angles), dtype=x.dtype)
    a, b = x[..., : D // 2], x[..., D // 2 :]
    return xp.concat([a * cos - b * sin, b * cos + a * sin], axis=-1)


def rms_norm(x: Array, params: Params, name: str, config: GPTConfig) -> Array:
    """Divide by the root mean square (arXiv 1910.07467)."""
    xp = array_namespace(x)
    return x / xp.sqrt(xp.mean(x**2, axis=-1, keepdims=True) + config.norm_epsilon) * params[f"{name}.weight"]


def gelu(x: Array) -> Array:
    """x times the probability that a standard normal number is below x (arXiv 1606.08415)."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def relu2(x: Array) -> Array:
    """The square of what is positive (arXiv 2109.08668)."""
    xp = array_namespace(x)
    return xp.maximum(x, xp.zeros_like(x)) ** 2


def swiglu(gate_and_value: Array) -> Array:
    """The value, let through by the gate's x * sigmoid(x) (arXiv 2002.05202): (..., 2F) -> (..., F)."""
    xp = array_namespace(gate_and_value)
    F = gate_and_value.shape[-1] // 2
    gate, value = gate_and_value[..., :F], gate_and_value[..., F:]
    return gate * 0.5 * (1.0 + xp.tanh(0.5 * gate)) * value  # the sigmoid as a tanh: exp(-gate) would overflow


def erf(x: Array) -> Array:
    """The error function, which the array API standard leaves out: JAX's own for JAX, SciPy's for the rest."""
    xp = array_namespace(x)
    if xp.__name__.startswith("jax"):
        import jax.scipy.special

        return jax.scipy.special.erf(x)
    import scipy.special

    return xp.asarray(scipy.special.erf(np.asarray(x)))


def language_model_loss(params: Params, tokens: Array, config: GPTConfig) -> Array:
    """Mean surprise in nats of each token but the first, given those before it: int array (B, T), T >= 2, to a scalar.

    Parameters come first, so that `jax.grad(language_model_loss)` is the gradient with respect to them.
    """
    xp = array_namespace(params["wte.weight"])
    logits = gpt(tokens[:, :-1], params, config)  # (B, T-1, V)
    logits = logits - xp.max(logits, axis=-1, keepdims=True)
    log_probs = logits - xp.log(xp.sum(xp.exp(logits), axis=-1, keepdims=True))
    followed = xp.astype(tokens[:, 1:, None] == xp.arange(config.vocab_size), logits.dtype)  # one-hot (B, T-1, V)
    return -xp.mean(xp.sum(log_probs * followed, axis=-1))


class ArrayGPT(LanguageModel):
    """The plain functions as a `LanguageModel`. `params`: arrays of any library that follows the array API standard."""

    def __init__(self, config: GPTConfig, params: Params) -> None:
        self.config = config
        self.params = dict(params)
        self.vocab_size = config.vocab_size
        self.context_length = config.context_length

    def next_token_logits(self, contexts: Array) -> np.ndarray:
        return self._logits(as_contexts(contexts, self.vocab_size)[:, -self.context_length :])[:, -1, :]

    def sequence_logits(self, tokens: Array) -> np.ndarray:
        tokens = as_contexts(tokens, self.vocab_size)
        if tokens.shape[1] > self.context_length:
            return super().sequence_logits(tokens)
        return self._logits(tokens)

    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        xp = array_namespace(self.params["wte.weight"])
        return np.asarray(gpt(xp.asarray(tokens), self.params, self.config))
