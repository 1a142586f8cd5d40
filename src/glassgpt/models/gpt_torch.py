"""The GPT in torch: the same function as `gpt_array`, as modules that can be trained.

Modules carry GPT-2's names (wte, wpe, h, ln_1, attn, c_attn, c_proj, ln_2, mlp, c_fc, ln_f), so a weight's name is its
address in every file. Linear layers hold their matrix as torch does, (out, in): the transpose of GPT-2's files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.interface import Array, LanguageModel, Session, as_contexts
from glassgpt.models.config import GPTConfig
from glassgpt.models.kv_cache import CachedSession, KVCache, LayerCache
from glassgpt.models.positions import alibi_slopes, rope_angles, sinusoids
from glassgpt.models.prefix_tree import fits_prefix_tree, prefix_tree_logits
from glassgpt.models.seeds import drawn_from
from glassgpt.models.threads import threads_for

if TYPE_CHECKING:
    from glassgpt.models.dropout import Dropout


@dataclass(frozen=True)
class Places:
    """Where the tokens of one call stand, as every layer's attention wants to know it.

    They stand at `start`, `start` + 1, ... `cos` and `sin` (T, D/2) turn queries and keys (rope). `mask` (.., T, S) is
    added to the scores of T tokens against the S = start + T that they may see; None where being causal says it all.
    `dropout`: in training, what falls out.
    """

    start: int
    cos: Tensor | None
    sin: Tensor | None
    mask: Tensor | None
    dropout: Dropout | None = None

    @classmethod
    def of(
        cls,
        config: GPTConfig,
        start: int,
        length: int,
        like: Tensor,
        documents: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Places:
        """`documents` (B, T): which document each token belongs to; a token sees only its own."""
        cos = sin = mask = None
        if config.position == "rope":
            angles = rope_angles(length, config, start)
            cos, sin = like.new_tensor(np.cos(angles)), like.new_tensor(np.sin(angles))
        if config.position == "alibi" or (start > 0 and length > 1):
            place = torch.arange(start + length, device=like.device)
            back = place[start:, None] - place  # how far back a token looks: (T, S)
            mask = like.new_zeros(back.shape).masked_fill(back < 0, -math.inf)
            if config.position == "alibi":
                mask = mask - like.new_tensor(alibi_slopes(config.n_head))[:, None, None] * back  # (H, T, S)
        if documents is not None:
            other = documents[:, None, :, None] != documents[:, None, None, :]  # (B, 1, T, T)
            causal = like.new_full((length, length), -math.inf).triu(1) if mask is None else mask
            mask = causal.masked_fill(other, -math.inf)
        return cls(start, cos, sin, mask, dropout)


class RMSNorm(nn.Module):
    """Divide by the root mean square. Computed in float32 at least, as Llama's is."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(self.weight.dtype)  # under autocast x is narrower
        return F.rms_norm(wide, x.shape[-1:], self.weight, self.epsilon).to(x.dtype)


def norm_of(config: GPTConfig) -> nn.Module:
    if config.norm == "layernorm":
        return nn.LayerNorm(config.n_embd, config.norm_epsilon)
    return RMSNorm(config.n_embd, config.norm_epsilon)


class CausalSelfAttention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.kv_heads, self.head_width = config.n_head, config.kv_heads, config.head_width
        self.c_attn = nn.Linear(config.n_embd, config.qkv_width, bias=config.bias)
        self.c_proj = nn.Linear(config.n_head * config.head_width, config.n_embd, bias=config.bias)
        self.q_norm = RMSNorm(config.head_width, config.norm_epsilon) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_width, config.norm_epsilon) if config.qk_norm else nn.Identity()

    def split_heads(self, x: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D) and keys and values (B, K, T, D) of every head, from (B, T, C)."""
        heads = self.c_attn(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # (B, H + 2K, T, D)
        q, k, v = heads.split((self.n_head, self.kv_heads, self.kv_heads), dim=1)
        return turn(self.q_norm(q), places), turn(self.k_norm(k), places), v

    def forward(self, x: Tensor, places: Places, cache: LayerCache | None = None) -> Tensor:
        q, k, v = self.split_heads(x, places)
        if cache is not None:
            k, v = cache.append(k, v)  # with all that came before: (B, K, S, D)
        look = places.dropout.attend if places.dropout else attend
        mixed = look(q, k, v, places.mask)  # (B, H, T, D)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))  # -> (B, T, C)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Each query's mixture of the values that it may see. One query sees all: then those that share a key go as one."""
    B, H, T, D = q.shape
    K = k.shape[1]
    if T == 1 and mask is None:
        return F.scaled_dot_product_attention(q.view(B, K, H // K, D), k, v).view(B, H, 1, D)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=K != H)


def turn(x: Tensor, places: Places) -> Tensor:
    """Rotate each pair (i, i + D/2) of queries or keys (B, H, T, D) by its position's angle; without rope, as is."""
    if places.cos is None or places.sin is None:
        return x
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * places.cos - b * places.sin, b * places.cos + a * places.sin], dim=-1)


class MLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = config.mlp
        width = config.hidden_width
        self.c_fc = nn.Linear(config.n_embd, 2 * width if config.mlp == "swiglu" else width, bias=bool(config.mlp_bias))
        self.c_proj = nn.Linear(width, config.n_embd, bias=bool(config.mlp_bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(activate(self.c_fc(x), self.activation))


def activate(x: Tensor, activation: str) -> Tensor:
    if activation == "gelu":
        return F.gelu(x)
    if activation == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if activation == "relu2":
        return F.relu(x).square()
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


class Block(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.ln_1 = norm_of(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = norm_of(config)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, look_back: Callable[[Tensor], Tensor], drop: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Tensor:
        """(..., C) to the same. `look_back` is this block's attention, given what the tokens may look at; `drop` is
        what happens to each half's output before it is added."""
        if self.post_norm:
            x = self.ln_1(x + drop(look_back(x)))
            return self.ln_2(x + drop(self.mlp(x)))
        x = x + drop(look_back(self.ln_1(x)))
        return x + drop(self.mlp(self.ln_2(x)))


class GPT(nn.Module, LanguageModel):
    """A trainable GPT; as a `LanguageModel` it takes NumPy arrays or torch tensors and answers in kind.

    Weights are drawn from `seed` alone and leave torch's global generator untouched: normal(0, 0.02), the projections
    back into the residual stream (`c_proj`) normal(0, 0.02 / sqrt(2 n_layer)) as in GPT-2, biases 0. The order of the
    draws is that of Karpathy's notebook, so that seed 1337 gives the very weights that it printed the results of.
    """

    def __init__(self, config: GPTConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.context_length = config.context_length
        self.h: Sequence[Block]
        with drawn_from(seed):
            self.wte = nn.Embedding(config.vocab_size, config.n_embd)
            if config.position == "learned":
                self.wpe = nn.Embedding(config.context_length, config.n_embd)
            self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])  # type: ignore[assignment]
            self.ln_f = nn.Identity() if config.post_norm else norm_of(config)
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            if config.tied:
                self.wte.weight = self.lm_head.weight
            if self.lm_head.weight.device.type != "meta":
                self._draw_weights()

    @torch.no_grad()
    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0.0, 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                parameter.normal_(0.0, 0.02 / math.sqrt(2 * self.config.n_layer))

    def forward(self, tokens: Tensor, *, documents: Tensor | None = None, dropout: Dropout | None = None) -> Tensor:
        """Logits after every prefix: int64 (B, T), T <= context_length, to float (B, T, V).

        `documents`, int64 (B, T): which document each token belongs to; attention stays within it. `dropout`: what
        falls out in training.
        """
        return self.lm_head(self.hidden(tokens, documents=documents, dropout=dropout))

    def hidden(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        *,
        documents: Tensor | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """The last layer's normalised output, from which `lm_head` makes logits: int64 (B, T) to (B, T, C).

        With a cache the tokens follow those in it, and are added to it.
        """
        start = cache.length if cache else 0
        places = Places.of(self.config, start, tokens.shape[1], self.wte.weight, documents, dropout)
        drop = dropout or (lambda x: x)
        x = drop(self.embed(tokens, start))
        for layer, block in enumerate(self.h):
            kept = cache.layers[layer] if cache else None
            x = block(x, lambda y, block=block, kept=kept: block.attn(y, places, kept), drop)
        return self.ln_f(x)

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Token embeddings, with the positions start, start + 1, ... added where the shape adds any: (B, T, C)."""
        x = self.wte(tokens)
        if self.config.position == "learned":
            return x + self.wpe.weight[start : start + tokens.shape[1]]
        if self.config.position == "sinusoidal":
            return x + x.new_tensor(sinusoids(start + tokens.shape[1], self.config.n_embd)[start:])
        return x

    def next_token_logits(self, contexts: Array) -> Array:
        return self._answer(
            contexts, lambda tokens: self.lm_head(self.hidden(tokens[:, -self.context_length :])[:, -1])
        )

    def sequence_logits(self, tokens: Array) -> Array:
        if not isinstance(tokens, Tensor):
            tokens = as_contexts(tokens, self.vocab_size)
        if tokens.shape[1] <= self.context_length:
            return self._answer(tokens, self)
        if not isinstance(tokens, Tensor):
            return super().sequence_logits(tokens)
        prefixes = (tokens[:, :t] for t in range(1, tokens.shape[1] + 1))
        return torch.stack([self.next_token_logits(prefix) for prefix in prefixes], dim=1)

    def session(self, batch_size: int = 1) -> Session:
        return CachedSession(self, KVCache.empty(self, batch_size), np.empty((batch_size, 0), dtype=np.int64))

    def _answer(self, tokens: Array, function: Callable[[Tensor], Tensor]) -> Array:
        if isinstance(tokens, Tensor):
            return function(tokens)
        ids = torch.tensor(as_contexts(tokens, self.vocab_size), device=self.wte.weight.device)
        with torch.inference_mode(), threads_for(ids.numel() * self.config.hidden_width):
            return as_numpy(function(ids))

    def context_table(self, length: int | None = None) -> np.ndarray:
        """As the default, with the work of shared prefixes done once (see `prefix_tree`)."""
        length = self.context_length if length is None else length
        if not 1 <= length <= self.context_length or not fits_prefix_tree(self.config):
            return super().context_table(length)
        return prefix_tree_logits(self, length)


def as_numpy(logits: Tensor) -> np.ndarray:
    """Half-precision logits become float32, which NumPy knows."""
    return (logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits).cpu().numpy()
