"""The GPT as plain functions over arrays: a whole GPT-2 forward pass on one screen.

Written against the array API standard, so that NumPy runs this text to explain and check, and JAX runs the same text to
differentiate and compile. Parameters are a flat dict under GPT-2's own checkpoint names; a Linear layer's matrix maps
rows, x @ w, as in those files. Shapes stand on the line where they change: B texts, T tokens, C = n_embd, H heads,
D = C / H, V = vocab_size.

Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), with the exact (erf) GELU of
Hendrycks & Gimpel (arXiv 1606.08415) where GPT-2 itself used its tanh approximation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from array_api_compat import array_namespace

from glassgpt.interface import Array, LanguageModel, as_contexts
from glassgpt.models.config import GPTConfig


def gpt(tokens: Array, params: Mapping[str, Array], config: GPTConfig) -> Array:
    """Logits after every prefix: int array (B, T), T <= context_length, to float array (B, T, V)."""
    xp = array_namespace(params["wte.weight"])
    positions = xp.arange(tokens.shape[1])
    x = xp.take(params["wte.weight"], xp.reshape(tokens, (-1,)), axis=0)  # (B, T) -> (B*T, C)
    x = xp.reshape(x, (*tokens.shape, config.n_embd)) + xp.take(params["wpe.weight"], positions, axis=0)  # (B, T, C)
    for layer in range(config.n_layer):
        x = x + attention(layer_norm(x, params, f"h.{layer}.ln_1"), params, f"h.{layer}.attn", config.n_head)
        x = x + mlp(layer_norm(x, params, f"h.{layer}.ln_2"), params, f"h.{layer}.mlp")
    return layer_norm(x, params, "ln_f") @ params["wte.weight"].T  # (B, T, C) -> (B, T, V)


def attention(x: Array, params: Mapping[str, Array], name: str, n_head: int) -> Array:
    """Every token looks back at the tokens up to itself and takes a mixture of what they offer: (B, T, C) -> same."""
    xp = array_namespace(x)
    B, T, C = x.shape
    qkv = linear(x, params, f"{name}.c_attn")  # (B, T, C) -> (B, T, 3C)
    heads = xp.permute_dims(xp.reshape(qkv, (B, T, 3, n_head, C // n_head)), (2, 0, 3, 1, 4))  # -> (3, B, H, T, D)
    q, k, v = heads[0, ...], heads[1, ...], heads[2, ...]
    scores = q @ xp.matrix_transpose(k) / math.sqrt(C // n_head)  # (B, H, T, D) -> (B, H, T, T)
    seen = xp.arange(T)[:, None] >= xp.arange(T)[None, :]  # a token sees itself and what came before
    weights = softmax(xp.where(seen, scores, xp.asarray(-math.inf, dtype=scores.dtype)))
    mixed = xp.reshape(xp.permute_dims(weights @ v, (0, 2, 1, 3)), (B, T, C))  # (B, H, T, D) -> (B, T, C)
    return linear(mixed, params, f"{name}.c_proj")


def mlp(x: Array, params: Mapping[str, Array], name: str) -> Array:
    """Each position on its own through a hidden layer four times as wide: (B, T, C) -> same."""
    return linear(gelu(linear(x, params, f"{name}.c_fc")), params, f"{name}.c_proj")  # C -> 4C -> C


def linear(x: Array, params: Mapping[str, Array], name: str) -> Array:
    y = x @ params[f"{name}.weight"]
    return y + params[f"{name}.bias"] if f"{name}.bias" in params else y


def layer_norm(x: Array, params: Mapping[str, Array], name: str, epsilon: float = 1e-5) -> Array:
    xp = array_namespace(x)
    mean = xp.mean(x, axis=-1, keepdims=True)
    variance = xp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) / xp.sqrt(variance + epsilon) * params[f"{name}.weight"] + params[f"{name}.bias"]


def softmax(x: Array) -> Array:
    xp = array_namespace(x)
    powers = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def gelu(x: Array) -> Array:
    """x times the probability that a standard normal number is below x."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def erf(x: Array) -> Array:
    """The error function, which the array API standard leaves out: JAX's own for JAX, SciPy's for the rest."""
    xp = array_namespace(x)
    if xp.__name__.startswith("jax"):
        import jax.scipy.special

        return jax.scipy.special.erf(x)
    import scipy.special

    return xp.asarray(scipy.special.erf(np.asarray(x)))


class ArrayGPT(LanguageModel):
    """The plain functions as a `LanguageModel`. `params`: arrays of any library that follows the array API standard."""

    def __init__(self, config: GPTConfig, params: Mapping[str, Array]) -> None:
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
