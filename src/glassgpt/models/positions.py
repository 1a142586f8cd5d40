"""Where a token stands, as numbers: the tables behind sinusoidal, rotary and ALiBi positions, in float64."""

from __future__ import annotations

import math

import numpy as np

from glassgpt.models.config import GPTConfig


def sinusoids(length: int, n_embd: int) -> np.ndarray:
    """Sines (even columns) and cosines (odd) of falling frequency (arXiv 1706.03762): float array (length, n_embd).

    >>> sinusoids(2, 4).round(2).tolist()
    [[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.01, 1.0]]
    """
    column = np.arange(n_embd)
    angles = np.arange(length)[:, None] * 10000.0 ** (-(column - column % 2) / n_embd)
    return np.where(column % 2 == 0, np.sin(angles), np.cos(angles))


def rope_angles(length: int, config: GPTConfig, start: int = 0) -> np.ndarray:
    """By how much each pair is turned at positions start, start + 1, ...: float array (length, head_size / 2)."""
    return np.arange(start, start + length)[:, None] * rope_frequencies(config)


def rope_frequencies(config: GPTConfig) -> np.ndarray:
    """Radians per position of each pair: float array (head_size / 2,), stretched as `RopeScaling` says."""
    D = config.head_width
    frequencies = config.rope_theta ** (-np.arange(0, D, 2) / D)
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_context_length * frequencies / (2 * math.pi)  # within the original context
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(kept, 0.0, 1.0)  # 1: fast, stays; 0: slow, stretched
    return frequencies * (kept + (1 - kept) / scaling.factor)


def alibi_slopes(n_head: int) -> np.ndarray:
    """How much each head's scores fall per token of distance (arXiv 2108.12409): float array (n_head,).

    2^(-8/n), 2^(-16/n), ... for n a power of two; for another n those of the next power of two, every second one first.

    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    n = 1 << (n_head - 1).bit_length()
    slopes = 2.0 ** (-8.0 * np.arange(1, n + 1) / n)
    return slopes if n == n_head else np.concatenate([slopes[1::2], slopes[::2]])[:n_head]
