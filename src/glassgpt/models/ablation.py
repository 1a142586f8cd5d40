"""Which part of a GPT a prediction hangs on: switch a head of attention or a layer's MLP off, and see what is left.

*Off* means that the part adds nothing to the residual stream, at every position of the text: zero ablation. A head's
share of the stream is its mixture of values times its own columns of `c_proj`; the bias of `c_proj` belongs to no head
and stays. An MLP's share is all that it adds, its biases too. The other parts run as they are, on what is then left.

The other usual choice is the mean: put in place of what a part writes what it writes on average over many texts (Wang
et al. 2022, "Interpretability in the wild", arXiv 2211.00593), so that only what is particular to this text is lost. It
is fairer to a part that writes much the same everywhere, which without it throws later layers off; but it is a mean
over some texts, and the answer hangs on which. Zero needs nothing besides the model and the text, so that it is the
same number for everyone, and that is what is computed here.

An effect is not the same as importance: another part may step in for one that is off (McGrath et al. 2023, "The Hydra
effect", arXiv 2307.15771), and of two parts that do the same each alone seems to do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT, Block, Places, as_numpy, attend
from glassgpt.models.threads import threads_for
from glassgpt.models.trace import NUMBERS_AT_ONCE, one_window, torch_gpt_in
from glassgpt.numerics import jensen_shannon, kl_divergence, log_softmax

MLP = "mlp"


@dataclass(frozen=True)
class Part:
    """A head of a layer, both counted from 0; without a head, the layer's MLP."""

    layer: int
    head: int | None = None

    def __str__(self) -> str:
        return f"{self.layer}.{MLP if self.head is None else self.head}"

    @classmethod
    def named(cls, name: str, config: GPTConfig) -> Part:
        """The part that "3.2" (layer 3, head 2) or "3.mlp" names. Raises UsageError where the model has none such.

        >>> Part.named("1.mlp", GPTConfig(2, 3, 4, 4, 16))
        Part(layer=1, head=None)
        """
        for part in parts_of(config):
            if str(part) == name:
                return part
        L, H = config.n_layer, config.n_head
        raise UsageError(
            f"a part is LAYER.HEAD or LAYER.{MLP}, layers from 0 to {L - 1} and heads from 0 to {H - 1}, as in "
            f"0.{H - 1}; got {name[:40]!a}"
        )


@dataclass(frozen=True)
class Ablations:
    """What the next token loses with each part of a GPT: how far its distribution moves, in nats.

    logits: float array (V,), of the whole model. heads, mlps: float64 (L, H) and (L,), the Jensen-Shannon divergence
    between the distribution of the whole model and that without the part, from 0 (the part makes no difference) to
    ln 2. heads_kl, mlps_kl: the same as KL(whole || without), which has no upper bound: how many nats one loses who
    expects what is left of the model to say what all of it says.
    """

    logits: np.ndarray
    heads: np.ndarray
    mlps: np.ndarray
    heads_kl: np.ndarray
    mlps_kl: np.ndarray

    def strongest_head(self) -> Part:
        """The head whose absence moves the distribution most, the first among equals.

        MLPs are left out: without the first of them few models say anything of sense, whatever the text.
        """
        return Part(*divmod(int(self.heads.argmax()), self.heads.shape[1]))


def parts_of(config: GPTConfig) -> list[Part]:
    """Every part that can be switched off: the heads of a layer and then its MLP, from the first layer to the last."""
    heads = [*range(config.n_head), None]
    return [Part(layer, head) for layer in range(config.n_layer) for head in heads]


def ablations(model: LanguageModel, tokens: Sequence[int] | np.ndarray) -> Ablations:
    """What each part of a GPT does to the token that follows a text (ids, 1 to context_length of them).

    As many forward passes as there are parts, each from its own layer on. Raises as `without`.
    """
    config = torch_gpt_in(model).config
    whole = ablated_logits(model, tokens)
    effects = np.empty((2, config.n_layer, config.n_head + 1))
    for parts, logits in without(model, tokens, parts_of(config)):
        for part, *effect in zip(parts, *effects_of(whole, logits), strict=True):
            effects[:, part.layer, config.n_head if part.head is None else part.head] = effect
    (js, js_mlps), (kl, kl_mlps) = ((one[:, :-1], one[:, -1]) for one in effects)
    return Ablations(whole, js, js_mlps, kl, kl_mlps)


def effects_of(whole: np.ndarray, ablated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far logits (.., V) are from those of the whole model (V,): Jensen-Shannon and KL(whole || ablated), in nats.

    >>> js, kl = effects_of(np.zeros(2), np.array([[0.0, 0.0], [50.0, 0.0]]))
    >>> js.round(3).tolist(), kl.round(3).tolist()
    ([0.0, 0.216], [0.0, 24.307])
    """
    p, q = log_softmax(whole), log_softmax(ablated)
    js, kl = jensen_shannon(np.exp(p), np.exp(q)), kl_divergence(p, q)
    return np.maximum(js, 0.0), np.maximum(kl, 0.0)  # rounding may leave less than nothing


def ablated_logits(model: LanguageModel, tokens: Sequence[int] | np.ndarray, part: Part | None = None) -> np.ndarray:
    """The logits after a text with a part off, or of the whole model: float array (V,). Raises as `without`."""
    if part is not None:
        ((_, logits),) = without(model, tokens, [part])
        return logits[0]
    gpt = torch_gpt_in(model)
    return np.asarray(gpt.next_token_logits(one_window(gpt, tokens)))[0]


def without(
    model: LanguageModel, tokens: Sequence[int] | np.ndarray, parts: Sequence[Part]
) -> Iterator[tuple[list[Part], np.ndarray]]:
    """The logits after a text with one part off at a time, some parts at once: the parts, and float array (parts, V).

    The layers below a part run once for all, and the parts of a layer go through those above it together, as many as
    fit. Parts are taken layer by layer. `model` is one that can be traced (`glassgpt.models.trace`). Raises
    UnsupportedError for another model, UsageError for tokens or parts that the model doesn't have.
    """
    gpt = torch_gpt_in(model)
    ids = torch.tensor(one_window(gpt, tokens), device=gpt.wte.weight.device)
    known = set(parts_of(gpt.config))
    for part in parts:
        if part not in known:
            raise UsageError(f"this model has no part {part}: {gpt.config.n_layer} layers of {gpt.config.n_head} heads")
    return _without(gpt, ids, sorted(parts, key=lambda part: part.layer))


def _without(gpt: GPT, ids: Tensor, parts: Sequence[Part]) -> Iterator[tuple[list[Part], np.ndarray]]:
    T, config = ids.shape[1], gpt.config
    widest = T * max(2 * config.hidden_width, config.qkv_width, T * config.n_head)
    at_once = max(1, NUMBERS_AT_ONCE // max(widest, config.vocab_size))
    places = Places.of(config, 0, T, gpt.wte.weight)
    with torch.inference_mode():
        x, reached = gpt.embed(ids), 0
    for layer, group in groupby(parts, key=lambda part: part.layer):
        here = list(group)
        for first in range(0, len(here), at_once):
            some = here[first : first + at_once]
            # Nothing of torch's own state is held while the reader of this iterator does something else.
            with torch.inference_mode(), threads_for(len(some) * ids.numel() * config.hidden_width):
                x, reached = _upwards(gpt.h[reached:layer], x, places), layer
                ablated = torch.cat(list(_branches(gpt.h[layer], x, places, some)))  # (parts, T, C)
                ablated = _upwards(gpt.h[layer + 1 :], ablated, places)
                logits = as_numpy(gpt.lm_head(gpt.ln_f(ablated[:, -1])))
            yield some, logits


def _upwards(blocks: Sequence[Block], x: Tensor, places: Places) -> Tensor:
    for block in blocks:
        x = block(x, lambda y, block=block: block.attn(y, places))
    return x


def _branches(block: Block, x: Tensor, places: Places, parts: Sequence[Part]) -> Iterator[Tensor]:
    """What a block makes of a stream (1, T, C) without each of its parts: (1, T, C) for each."""
    y = x if block.post_norm else block.ln_1(x)
    q, k, v = block.attn.split_heads(y, places)
    mixed = attend(q, k, v, places.mask)  # (1, H, T, D)
    for part in parts:
        if part.head is None:
            x_with = x + _written(block, mixed)
            yield block.ln_2(block.ln_1(x_with)) if block.post_norm else x_with
        else:
            rest = mixed.clone()
            rest[:, part.head] = 0
            yield block(x, lambda _, rest=rest: _written(block, rest))


def _written(block: Block, mixed: Tensor) -> Tensor:
    """What attention adds to the stream, from each head's mixture (B, H, T, D)."""
    return block.attn.c_proj(mixed.transpose(1, 2).flatten(2))  # -> (B, T, C)
