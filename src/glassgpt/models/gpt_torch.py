"""The GPT in torch: the same function as `gpt_array`, as modules that can be trained.

Modules carry GPT-2's names (wte, wpe, h, ln_1, attn, c_attn, c_proj, ln_2, mlp, c_fc, ln_f), so a weight's name is its
address in every file. Linear layers hold their matrix as torch does, (out, in): the transpose of GPT-2's files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.interface import Array, LanguageModel, as_contexts
from glassgpt.models.config import GPTConfig
from glassgpt.models.prefix_tree import prefix_tree_logits
from glassgpt.models.threads import threads_for


class CausalSelfAttention(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def split_heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head: (B, T, C) -> three of (B, H, T, D)."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(*self.split_heads(x), is_causal=True)  # (B, H, T, D)
        return self.c_proj(mixed.transpose(1, 2).flatten(2))  # -> (B, T, C)


class MLP(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


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
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.wte = nn.Embedding(config.vocab_size, config.n_embd)
            self.wpe = nn.Embedding(config.context_length, config.n_embd)
            self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])  # type: ignore[assignment]
            self.ln_f = nn.LayerNorm(config.n_embd)
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            self.wte.weight = self.lm_head.weight
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

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after every prefix: int64 (B, T), T <= context_length, to float (B, T, V)."""
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]  # (B, T, C)
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

    def next_token_logits(self, contexts: Array) -> Array:
        return self._answer(contexts, lambda tokens: self(tokens[:, -self.context_length :])[:, -1])

    def sequence_logits(self, tokens: Array) -> Array:
        if not isinstance(tokens, Tensor):
            tokens = as_contexts(tokens, self.vocab_size)
        if tokens.shape[1] <= self.context_length:
            return self._answer(tokens, self)
        if not isinstance(tokens, Tensor):
            return super().sequence_logits(tokens)
        prefixes = (tokens[:, :t] for t in range(1, tokens.shape[1] + 1))
        return torch.stack([self.next_token_logits(prefix) for prefix in prefixes], dim=1)

    def _answer(self, tokens: Array, function: Callable[[Tensor], Tensor]) -> Array:
        if isinstance(tokens, Tensor):
            return function(tokens)
        ids = torch.tensor(as_contexts(tokens, self.vocab_size), device=self.wte.weight.device)
        with torch.inference_mode(), threads_for(ids.numel() * 4 * self.config.n_embd):
            return function(ids).cpu().numpy()

    def context_table(self, length: int | None = None) -> np.ndarray:
        """As the default, with the work of shared prefixes done once (see `prefix_tree`)."""
        length = self.context_length if length is None else length
        if not 1 <= length <= self.context_length:  # the tree has no positions for it
            return super().context_table(length)
        return prefix_tree_logits(self, length)
