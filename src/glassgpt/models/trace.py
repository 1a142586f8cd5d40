"""What happens inside a GPT on the way from tokens to logits: everything that can be looked at, as NumPy arrays.

A trace is one forward pass of the torch GPT, whose modules are called as `GPT.hidden` calls them; what they don't hand
out by themselves (the inside of a head, of an MLP) is computed once more from the same modules. Nothing is kept that
`Want` doesn't name: all weights of a large model's attention would be gigabytes.
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
from glassgpt.models.positions import alibi_slopes, sinusoids
from glassgpt.models.threads import threads_for
from glassgpt.numerics import LN10, log_softmax, spelled

Layers = Sequence[int] | Literal["all"]
MOST_TOLD = 16  # tokens of the text that are named where a trace is told in words
STEPS = ("queries", "keys", "values", "scores", "mixes", "written")  # of a head, apart from its attention
NUMBERS_AT_ONCE = 1 << 21  # logits held at once, however long the text and large the vocabulary


@dataclass(frozen=True)
class Want:
    """What a trace is to hold. Layers count from 0; "all" means every one.

    `embeddings`: what is added before the first block. `attention`, `hidden`: of which layers the weights of attention
    and the inside of the MLP. `residual`: the stream that blocks read and add to. `lens`: how many of the likeliest
    tokens to keep at each layer and position, 0 for no lens. `heads`: of which layers all that every head does before
    and after its weights, which are `attention`.
    """

    embeddings: bool = False
    attention: Layers = ()
    residual: bool = False
    hidden: Layers = ()
    lens: int = 0
    heads: Layers = ()


@dataclass(frozen=True)
class Trace(Displayed):
    """The inside of one forward pass over T tokens; None for what wasn't wanted. C = n_embd, L layers, H heads, each D
    wide, K sets of keys and values.

    `token_embeddings` (T, C): the rows of `wte`. `position_embeddings` (T, C): what is added to them, the first T rows
    of `wpe` (learned positions) or the table of sines (sinusoidal); None where nothing is added, as with rope, which
    turns queries and keys inside attention, and alibi, which lowers its scores. `embeddings` (T, C): their sum, the
    input of the first block.

    `attention` (layers, H, T, T): row t of a head says how much of its mixture at position t comes from each position
    up to t; it sums to 1 and is 0 ahead. `attention_layers` says which layer each one is.

    `queries` (layers, H, T, D), `keys`, `values` (layers, K, T, D), as they are multiplied: after their norm and rope's
    turn where the model has these. Head h reads keys and values h // (H / K). `scores` (layers, H, T, T): query times
    key / sqrt(D), before anything lies on them. `slopes` (H,): how much alibi takes from them per token of distance,
    None without alibi. The softmax of what is left, up to each row's own token, is `attention`. `mixes`
    (layers, H, T, D): attention times values. `written` (layers, H, T, C): what a head adds to the stream, its mix
    times its own columns of `c_proj`, whose bias belongs to no head. (Adapters behind `c_proj` are no linear map: with
    them it is what the head would add if it were alone.) `head_layers` as above.

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
    head_layers: tuple[int, ...] = ()
    queries: np.ndarray | None = None
    keys: np.ndarray | None = None
    values: np.ndarray | None = None
    scores: np.ndarray | None = None
    slopes: np.ndarray | None = None
    mixes: np.ndarray | None = None
    written: np.ndarray | None = None

    def __repr__(self) -> str:
        return self.told()

    def steps_of(self, layer: int, head: int) -> dict[str, np.ndarray]:
        """All that one head does: queries, keys, values (T, D); scores (T, T), and with alibi its slope (1,); weights
        (T, T), which are its `attention`; mix (T, D); written (T, C).

        Raises UsageError for a head that isn't there, or of a layer whose heads and attention weren't both wanted.
        """
        if layer not in self.head_layers or layer not in self.attention_layers:
            raise UsageError(f"this trace doesn't hold the heads of layer {layer}: want its attention and its heads")
        at, weights = self.head_layers.index(layer), self.attention_layers.index(layer)
        arrays: list[np.ndarray] = [getattr(self, name)[at] for name in STEPS]
        q, k, v, scores, mixes, written = arrays
        if not 0 <= head < len(q):
            raise UsageError(f"heads are numbers from 0 to {len(q) - 1}, got {head}")
        assert self.attention is not None
        shared = head // (len(q) // len(k))
        steps = {"queries": q[head], "keys": k[shared], "values": v[shared], "scores": scores[head]}
        steps |= {"weights": self.attention[weights, head], "mix": mixes[head], "written": written[head]}
        return steps if self.slopes is None else steps | {"slope": self.slopes[[head]]}

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
    float32. Scores, attention weights, mixes and the lens are computed in float32 at least.

    Raises UnsupportedError for another model, UsageError for tokens or layers that the model doesn't have,
    TooLargeError if what is wanted won't fit in the memory that is free.
    """
    gpt = torch_gpt_in(model)
    text = one_window(gpt, tokens)
    attention, hidden, heads = (layers_of(one, gpt.config) for one in (want.attention, want.hidden, want.heads))
    if not 0 <= want.lens <= gpt.vocab_size:
        raise UsageError(f"a lens keeps 0 to {gpt.vocab_size} tokens (the vocabulary), got {want.lens}")
    _refuse_if_too_large(gpt, text.shape[1], want)
    ids = torch.tensor(text, device=gpt.wte.weight.device)
    with torch.inference_mode(), threads_for(ids.numel() * gpt.config.hidden_width):
        return _traced(gpt, ids, want, attention, hidden, heads)


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
    T, C, H, k = length, config.n_embd, config.n_head, want.lens
    numbers = T * C * (3 * want.embeddings + (config.n_layer + 1) * want.residual)
    numbers += len(layers_of(want.attention, config)) * H * T * T
    numbers += len(layers_of(want.hidden, config)) * T * config.hidden_width
    numbers += len(layers_of(want.heads, config)) * T * (config.qkv_width + H * (T + config.head_width + C))
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


def _traced(
    gpt: GPT, ids: Tensor, want: Want, attention: tuple[int, ...], hidden: tuple[int, ...], heads: tuple[int, ...]
) -> Trace:
    places = Places.of(gpt.config, 0, ids.shape[1], gpt.wte.weight)
    weights, inside, steps = {}, {}, {}
    x = gpt.embed(ids)
    stream, lens = [x], [_lens(gpt, x, want.lens)]
    for layer, block in enumerate(gpt.h):
        looked: list[Tensor] = []  # what attention read, and what it found

        def look_back(y: Tensor, block: Block = block, looked: list[Tensor] = looked) -> Tensor:
            looked[:] = y, block.attn(y, places)
            return looked[1]

        before, x = x, block(x, look_back)
        if layer in attention or layer in heads:
            found = _steps(block.attn, looked[0], places, whole=layer in heads)
            weights[layer], steps[layer] = found.pop("attention"), found
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
        head_layers=heads,
        slopes=alibi_slopes(gpt.config.n_head) if heads and gpt.config.position == "alibi" else None,
        **{name: np.stack([steps[layer][name] for layer in heads]) for name in STEPS if heads},
    )


def position_embeddings(gpt: GPT, length: int) -> Tensor | None:
    """What `GPT.embed` adds to the token embeddings of the first `length` positions, (T, C); None if nothing."""
    if gpt.config.position == "learned":
        return gpt.wpe.weight[:length]
    if gpt.config.position == "sinusoidal":
        return gpt.wte.weight.new_tensor(sinusoids(length, gpt.config.n_embd))
    return None


def _steps(attention: CausalSelfAttention, x: Tensor, places: Places, whole: bool) -> dict[str, np.ndarray]:
    """What the heads make of what goes into attention, (1, T, C): their `attention`, if `whole` each of STEPS too."""
    q, k, v = attention.split_heads(x, places)
    scores = attention_scores(q, k)
    weights = attention_weights(scores, places)
    found = {"attention": weights}
    if whole:
        mixes = weights @ _for_each_head(v, attention.n_head).to(weights.dtype)  # (1, H, T, D)
        parts = (q, k, v, scores, mixes, _written_by_each(attention, mixes.to(v.dtype)))
        found |= dict(zip(STEPS, parts, strict=True))
    return {name: as_numpy(value[0]) for name, value in found.items()}


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """Queries (B, H, T, D) times keys (B, K, T, D) over sqrt(D), before any mask: (B, H, T, T), float32 at least."""
    wide = torch.promote_types(q.dtype, torch.float32)
    keys = _for_each_head(k, q.shape[1]).to(wide)
    return q.to(wide) @ keys.transpose(2, 3) / q.shape[-1] ** 0.5


def attention_weights(scores: Tensor, places: Places) -> Tensor:
    """Where each head looks, from its scores (B, H, T, T): the same shape.

    `F.scaled_dot_product_attention` mixes values by these weights without handing them out.
    """
    if places.mask is not None:
        return (scores + places.mask.to(scores.dtype)).softmax(dim=-1)
    ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)


def _for_each_head(x: Tensor, n_head: int) -> Tensor:
    """Keys or values (B, K, T, D), once for each head that reads them: (B, H, T, D)."""
    return x.repeat_interleave(n_head // x.shape[1], dim=1)


def _written_by_each(attention: CausalSelfAttention, mixes: Tensor) -> Tensor:
    """What each head alone adds to the stream, from (1, H, T, D): (1, H, T, C)."""
    H, D = attention.n_head, attention.head_width
    alone = mixes.new_zeros(mixes.shape[2], H * D)
    nothing = attention.c_proj(alone)  # the bias, which is nobody's
    written = []
    for head, mix in enumerate(mixes[0]):
        alone.zero_()[:, head * D : (head + 1) * D] = mix
        written.append(attention.c_proj(alone) - nothing)
    return torch.stack(written)[None]


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
