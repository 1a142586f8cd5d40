"""Every context of a GPT at the cost of about one token each: contexts that share a prefix share its keys and values.

All V**T contexts are the leaves of a tree. Evaluated one by one they cost T * V**T tokens; level by level, each node
attending to its own ancestors, V**T * V / (V - 1). The tree is cut where a subtree's activations fit the processor's
cache: the top is evaluated once, then the subtrees below it, as many at a time as there are threads.

Within a tree nodes are numbered with the oldest token *fastest*. A level's keys then repeat with a period of their own
number, so that they meet the queries of every deeper level by broadcasting, and are never copied out to its width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from glassgpt.models.config import GPTConfig

if TYPE_CHECKING:
    from glassgpt.models.gpt_torch import GPT, CausalSelfAttention

LEAVES = 1 << 14  # of one subtree
PERIOD = 16  # keys are tiled to at least this many, or broadcasting would run over rows too short to be worth it

Level = tuple[Tensor, Tensor]  # keys and values (H, D, nodes) of one tree level in one layer
Path = tuple[Tensor, Tensor]  # keys and values (H, ancestors, D) that a whole subtree shares in one layer


def fits_prefix_tree(config: GPTConfig) -> bool:
    """Whether this file knows the shape: positions added at the start, and a key head for every query head."""
    return config.position in ("learned", "sinusoidal") and config.kv_heads == config.n_head and not config.qk_norm


def prefix_tree_logits(model: GPT, length: int, leaves: int = LEAVES) -> np.ndarray:
    """Logits after every context of `length` tokens, in code order: float array (V**length, V)."""
    V = model.vocab_size
    below = 1
    while below < length and V ** (below + 1) <= leaves:
        below += 1
    above = length - below
    weight = model.wte.weight
    table = torch.empty((V**above, V**below, V), dtype=weight.dtype)
    order = torch.from_numpy(oldest_first(V, below))
    with torch.inference_mode():
        top = evaluate_tree(model, [], above)[1] if above else []

    def evaluate_subtree(root: int) -> None:
        with torch.inference_mode():
            x, _ = evaluate_tree(model, [path_to(root, levels, V) for levels in top], below)
            table[root] = model.lm_head(model.ln_f(x))[order].cpu()

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(evaluate_subtree, range(V**above)):
            pass
    return table.view(V**length, V).numpy()


def evaluate_tree(model: GPT, paths: Sequence[Path], depth: int) -> tuple[Tensor, list[list[Level]]]:
    """The residual stream at the V**depth leaves below one shared prefix, (nodes, C), and each layer's levels."""
    start = paths[0][0].shape[1] if paths else 0
    layers: list[list[Level]] = [[] for _ in model.h]
    for level in range(depth):
        every_token = torch.arange(model.vocab_size, device=model.wte.weight.device)
        x = model.embed(every_token[:, None], start + level)[:, 0]  # (V, C)
        x = x.repeat_interleave(model.vocab_size**level, 0)  # (nodes, C): the newest token slowest
        for i, block in enumerate(model.h):
            path = paths[i] if paths else None
            x = block(x, lambda y, i=i, path=path: attend_to_ancestors(model.h[i].attn, y, path, layers[i]))
    return x, layers


def attend_to_ancestors(attn: CausalSelfAttention, x: Tensor, path: Path | None, levels: list[Level]) -> Tensor:
    """Attention of each node to its path, its ancestors in the tree and itself: (N, C) -> (N, C). Extends `levels`."""
    N = len(x)
    H, D = attn.n_head, attn.head_width
    q, k, v = attn.c_attn(x).T.contiguous().view(3, H, D, N)
    q = q / math.sqrt(D)
    levels[:] = [tile(level, N) for level in levels]
    levels.append((k, v))
    shared = path[0].shape[1] if path else 0
    scores = x.new_empty(H, shared + len(levels), N)
    if path:
        torch.bmm(path[0], q, out=scores[:, :shared])
    for j, (keys, _) in enumerate(levels, start=shared):
        n = keys.shape[-1]
        torch.sum(q.view(H, D, -1, n) * keys[:, :, None], dim=1, out=scores[:, j].view(H, -1, n))
    scores -= scores.amax(dim=1, keepdim=True)
    weights = scores.exp_()  # normalised below, on the sum
    mixed = torch.bmm(path[1].mT, weights[:, :shared]) if path else x.new_zeros(H, D, N)
    for j, (_, values) in enumerate(levels, start=shared):
        n = values.shape[-1]
        mixed.view(H, D, -1, n).addcmul_(weights[:, j].view(H, 1, -1, n), values[:, :, None])
    mixed /= weights.sum(dim=1, keepdim=True)
    return attn.c_proj(mixed.view(H * D, N).T)


def tile(level: Level, nodes: int) -> Level:
    """A level's keys and values, repeated so far as their period falls short of PERIOD and of the nodes that look."""
    n = level[0].shape[-1]
    times = 1 if n >= PERIOD else min(nodes, math.ceil(PERIOD / n) * n) // n
    while nodes % (n * times):
        times -= 1
    return (level[0].repeat(1, 1, times), level[1].repeat(1, 1, times)) if times > 1 else level


def path_to(root: int, levels: Sequence[Level], vocab_size: int) -> Path:
    """One layer's keys and values (H, ancestors, D) on the way to a node of the top tree, given its code."""
    digits = [root // vocab_size**i % vocab_size for i in range(len(levels) - 1, -1, -1)]  # the oldest token first
    nodes = [sum(digit * vocab_size**i for i, digit in enumerate(digits[: j + 1])) for j in range(len(levels))]
    keys = torch.stack([level[0][..., n] for level, n in zip(levels, nodes, strict=True)], dim=1)
    values = torch.stack([level[1][..., n] for level, n in zip(levels, nodes, strict=True)], dim=1)
    return keys, values


def oldest_first(vocab_size: int, length: int) -> np.ndarray:
    """For each context in code order (oldest token slowest), its number where the oldest token is fastest.

    >>> oldest_first(2, 2)
    array([0, 2, 1, 3])
    """
    numbers = np.arange(vocab_size**length).reshape((vocab_size,) * length)
    return numbers.transpose().reshape(-1)
