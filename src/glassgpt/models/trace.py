"""What happens inside a GPT on the way from tokens to logits: everything that can be looked at, as NumPy arrays.

A trace is one forward pass of the torch GPT, whose modules are called as `GPT.hidden` calls them; what they don't hand
out by themselves (attention weights, the inside of an MLP) is computed once more from the same modules. Nothing is
kept that `Want` doesn't name: all weights of a large model's attention would be gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import psutil
import torch
from torch import Tensor

from glassgpt.display import Displayed
from glassgpt.errors import TooLargeError, UnsupportedError, UsageError
from glassgpt.interface import LanguageModel, as_contexts
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT, Block, CausalSelfAttention, Places, activate, as_numpy
from glassgpt.models.packed import PackedGPT
from glassgpt.models.positions import sinusoids
from glassgpt.models.threads import threads_for
from glassgpt.numerics import LN10, log_softmax, spelled

Layers = Sequence[int] | Literal["all"]
MOST_TOLD = 16  # tokens of the text that are named where a trace is told in words
NUMBERS_AT_ONCE = 1 << 21  # logits held at once, however long the text and large the vocabulary


@dataclass(frozen=True)
class Want:
    """What a trace is to hold. Layers count from 0; "all" means every one.

    `embeddings`: what is added before the first block. `attention`, `hidden`: of which layers the weights of attention
    and the inside of the MLP. `residual`: the stream that blocks read and add to. `lens`: how many of the likeliest
    tokens to keep at each layer and position, 0 for no lens.
    """

    embeddings: bool = False
    attention: Layers = ()
    residual: bool = False
    hidden: Layers = ()
    lens: int = 0


@dataclass(frozen=True)
class Trace(Displayed):
    """The inside of one forward pass over T tokens; None for what wasn't wanted. C = n_embd, H heads, L layers.

    `token_embeddings` (T, C): the rows of `wte`. `position_embeddings` (T, C): what is added to them, the first T rows
    of `wpe` (learned positions) or the table of sines (sinusoidal); None where nothing is added, as with rope, which
    turns queries and keys inside attention, and alibi, which lowers its scores. `embeddings` (T, C): their sum, the
    input of the first block.

    `attention` (layers, H, T, T): row t of a head says how much of its mixture at position t comes from each position
    up to t; it sums to 1 and is 0 ahead. `attention_layers` says which layer each one is.

    `residual` (L + 1, T, C): `residual[0]` is `embeddings`, `residual[l]` the stream after l blocks. The last is as it
    goes into the final norm. (transformers puts its `hidden_states[L]` behind that norm.) With `post_norm` each block
    ends in a norm, and there is no final one.

    `hidden` (layers, T, n_hidden): the MLP after its activation, which `mlp.c_proj` multiplies; with swiglu, gate times
    value. `hidden_layers` as above.

    `lens_tokens`, `lens_logprobs` (L + 1, T, k): the logit lens (nostalgebraist, "interpreting GPT: the logit lens",
    2020). Each `residual[l]` goes through the final norm and `lm_head`, as if the blocks from l on did nothing; the k
    likeliest tokens, the likeliest first and the lowest id first among equals, and their log-probabilities in nats
    among the whole vocabulary. Row L is the model's answer.
    """

    tokens: np.ndarray
    token_embeddings: np.ndarray | None = None
    position_embeddings: np.ndarray | None = None
    embeddings: np.ndarray | None = None
    attention_layers: tuple[int, ...] = ()
    attention: np.ndarray | None = None
    residual: np.ndarray | None = None
    hidden_layers: tuple[int, ...] = ()
    hidden: np.ndarray | None = None
    lens_tokens: np.ndarray | None = None
    lens_logprobs: np.ndarray | None = None

    def __repr__(self) -> str:
        return self.told()

    def told(self, name_of: Callable[[int], str] = str) -> str:
        """What it holds, in a few lines. `name_of` says how a token is written, else by its id."""
        tokens = [name_of(int(token)) for token in self.tokens]
        shown = tokens if len(tokens) <= MOST_TOLD else [*tokens[: MOST_TOLD - 1], "...", tokens[-1]]
        lines = [f"Trace of {len(tokens)} tokens: {' '.join(shown)}"]
        arrays = {name: value.shape for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        lines += [f"{name} {shape}" for name, shape in arrays.items() if name != "tokens"]
        if self.lens_tokens is not None and self.lens_logprobs is not None:
            last = zip(self.lens_tokens[-1, -1], self.lens_logprobs[-1, -1] / LN10, strict=True)
            lines.append("next: " + ", ".join(f"{name_of(int(token))} {spelled(float(log))}" for token, log in last))
        return "\n".join(lines)


def trace(model: LanguageModel, tokens: Sequence[int] | np.ndarray, want: Want) -> Trace:
    """What `want` names, of one forward pass over a text (ids, 1 to context_length of them).

    `model`: a torch GPT, plain or adapted, or a packed one as `glassgpt.load` gives (its torch copy, with the weights
    as they are rounded; steps of the compiled engine round activations besides). Half-precision numbers come as
    float32. Attention weights and the lens are computed in float32 at least.

    Raises UnsupportedError for another model, UsageError for tokens or layers that the model doesn't have,
    TooLargeError if what is wanted won't fit in the memory that is free.
    """
    gpt = torch_gpt_in(model)
    text = one_window(gpt, tokens)
    attention, hidden = (layers_of(layers, gpt.config) for layers in (want.attention, want.hidden))
    if not 0 <= want.lens <= gpt.vocab_size:
        raise UsageError(f"a lens keeps 0 to {gpt.vocab_size} tokens (the vocabulary), got {want.lens}")
    _refuse_if_too_large(gpt, text.shape[1], want)
    ids = torch.tensor(text, device=gpt.wte.weight.device)
    with torch.inference_mode(), threads_for(ids.numel() * gpt.config.hidden_width):
        return _traced(gpt, ids, want, attention, hidden)


def torch_gpt_in(model: LanguageModel) -> GPT:
    """The torch GPT that can be looked into. Raises UnsupportedError if there is none."""
    inner = model.torch if isinstance(model, PackedGPT) else model
    if isinstance(inner, GPT):
        return inner
    raise UnsupportedError(
        f"only a GPT in torch can be traced, and this is a {type(model).__name__}: trace the model inside it (`.model` "
        "of a shaped one), or put an ArrayGPT's parameters into torch with weights.tensors.torch_gpt(params, config)"
    )


def one_window(gpt: GPT, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
    """A text that the model sees as a whole, as one context: (1, T). Raises UsageError for a longer one."""
    text = as_contexts(np.asarray(tokens)[None], gpt.vocab_size)
    if text.shape[1] > gpt.context_length:
        raise UsageError(
            f"what is looked into is one window, at most {gpt.context_length} tokens, and the text has "
            f"{text.shape[1]}: give the last {gpt.context_length}, which are all that the model sees"
        )
    return text


def layers_of(layers: Layers, config: GPTConfig) -> tuple[int, ...]:
    """Layers as numbers. Raises UsageError for one that the model doesn't have."""
    chosen = range(config.n_layer) if layers == "all" else layers
    for layer in chosen:
        if isinstance(layer, str) or not 0 <= layer < config.n_layer:
            raise UsageError(f'layers are "all" or numbers from 0 to {config.n_layer - 1}, got {layer!r}')
    return tuple(int(layer) for layer in chosen)


def embedding_rows(model: LanguageModel) -> np.ndarray:
    """The token embedding, a row for each id of the vocabulary: float array (V, C)."""
    return as_numpy(torch_gpt_in(model).wte.weight.detach())


def trace_bytes(config: GPTConfig, length: int, want: Want, bytes_each: int = 4) -> int:
    """How much memory a trace of `length` tokens takes."""
    T, C, k = length, config.n_embd, want.lens
    numbers = T * C * (3 * want.embeddings + (config.n_layer + 1) * want.residual)
    numbers += len(layers_of(want.attention, config)) * config.n_head * T * T
    numbers += len(layers_of(want.hidden, config)) * T * config.hidden_width
    return numbers * bytes_each + (config.n_layer + 1) * T * k * 16


def _refuse_if_too_large(gpt: GPT, length: int, want: Want) -> None:
    each = max(4, gpt.wte.weight.itemsize)
    needed = 2 * trace_bytes(gpt.config, length, want, each)  # the layers one by one, and put together
    available = psutil.virtual_memory().available
    if needed > available:
        one = 2 * trace_bytes(gpt.config, length, Want(attention=[0]), each)
        raise TooLargeError(
            f"this trace of {length:,} tokens needs {needed / 1e9:,.1f} GB, and {available / 1e9:.1f} GB are free: "
            f"ask for fewer layers (attention takes {one / 1e9:,.2f} GB a layer) or give a shorter text"
        )


def _traced(gpt: GPT, ids: Tensor, want: Want, attention: tuple[int, ...], hidden: tuple[int, ...]) -> Trace:
    places = Places.of(gpt.config, 0, ids.shape[1], gpt.wte.weight)
    weights, inside = {}, {}
    x = gpt.embed(ids)
    stream, lens = [x], [_lens(gpt, x, want.lens)]
    for layer, block in enumerate(gpt.h):
        looked: list[Tensor] = []  # what attention read, and what it found

        def look_back(y: Tensor, block: Block = block, looked: list[Tensor] = looked) -> Tensor:
            looked[:] = y, block.attn(y, places)
            return looked[1]

        before, x = x, block(x, look_back)
        if layer in attention:
            weights[layer] = as_numpy(attention_weights(block.attn, looked[0], places)[0])
        if layer in hidden:
            inside[layer] = as_numpy(_hidden(block, before, looked[1])[0])
        if want.residual:
            stream.append(x)
        lens.append(_lens(gpt, x, want.lens))
    positions = position_embeddings(gpt, ids.shape[1]) if want.embeddings else None
    return Trace(
        tokens=ids[0].cpu().numpy(),
        token_embeddings=as_numpy(gpt.wte(ids)[0]) if want.embeddings else None,
        position_embeddings=None if positions is None else as_numpy(positions),
        embeddings=as_numpy(gpt.embed(ids)[0]) if want.embeddings else None,
        attention_layers=attention,
        attention=np.stack([weights[layer] for layer in attention]) if attention else None,
        residual=as_numpy(torch.cat(stream)) if want.residual else None,
        hidden_layers=hidden,
        hidden=np.stack([inside[layer] for layer in hidden]) if hidden else None,
        lens_tokens=np.stack([tokens for tokens, _ in lens]) if want.lens else None,
        lens_logprobs=np.stack([logprobs for _, logprobs in lens]) if want.lens else None,
    )


def position_embeddings(gpt: GPT, length: int) -> Tensor | None:
    """What `GPT.embed` adds to the token embeddings of the first `length` positions, (T, C); None if nothing."""
    if gpt.config.position == "learned":
        return gpt.wpe.weight[:length]
    if gpt.config.position == "sinusoidal":
        return gpt.wte.weight.new_tensor(sinusoids(length, gpt.config.n_embd))
    return None


def attention_weights(attention: CausalSelfAttention, x: Tensor, places: Places) -> Tensor:
    """Where each head looks, from what goes into attention, (B, T, C): (B, H, T, T), float32 at least.

    `F.scaled_dot_product_attention` mixes values by these weights without handing them out.
    """
    q, k, _ = attention.split_heads(x, places)
    wide = torch.promote_types(q.dtype, torch.float32)
    k = k.repeat_interleave(attention.n_head // attention.kv_heads, dim=1)  # (B, K, T, D) -> (B, H, T, D)
    scores = q.to(wide) @ k.to(wide).transpose(2, 3) / attention.head_width**0.5  # -> (B, H, T, T)
    if places.mask is not None:
        return (scores + places.mask.to(wide)).softmax(dim=-1)
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)


def _hidden(block: Block, x: Tensor, found: Tensor) -> Tensor:
    """The MLP after its activation, from what the block read and what its attention found there."""
    middle = block.ln_1(x + found) if block.post_norm else block.ln_2(x + found)
    return activate(block.mlp.c_fc(middle), block.mlp.activation)


def _lens(gpt: GPT, x: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k likeliest tokens of a stream (1, T, C) and their log-probabilities, some positions at a time."""
    if not k:
        return np.empty((0, 0)), np.empty((0, 0))
    tokens, logprobs = [], []
    for rows in gpt.ln_f(x)[0].split(max(1, NUMBERS_AT_ONCE // gpt.vocab_size)):
        logits = gpt.lm_head(rows)  # (rows, V)
        top = logits.topk(k, dim=-1).indices.sort(dim=-1).values.cpu().numpy()
        found = np.take_along_axis(log_softmax(as_numpy(logits)), top, axis=-1)
        order = np.argsort(-found, axis=-1, kind="stable")  # equals stay in the order of their ids
        tokens.append(np.take_along_axis(top, order, axis=-1))
        logprobs.append(np.take_along_axis(found, order, axis=-1))
    return np.concatenate(tokens), np.concatenate(logprobs)
