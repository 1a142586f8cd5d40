"""What a page asks to see inside a GPT, by name, and the arrays that answer it; and what is lost without each part."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glassgpt.errors import UnsupportedError
from glassgpt.interface import LanguageModel
from glassgpt.models.ablation import Part, ablated_logits, effects_of, parts_of, without
from glassgpt.models.config import GPTConfig
from glassgpt.models.trace import Trace, Want, trace
from glassgpt.serving.asked import Asked
from glassgpt.serving.events import Event
from glassgpt.serving.models import Served
from glassgpt.serving.refusals import Refusal
from glassgpt.serving.tensors import as_float32

MAX_TRACE_TOKENS = 512
MAX_ABLATION_TOKENS = 128  # of a text that as many forward passes go over as there are heads and MLPs
MOST_WANTED = 64  # names in one request
MOST_OF_LENS = 100  # tokens at a layer and position
THUMB = 32  # positions along the side of a small attention picture
NUMBERS_AT_ONCE = 1 << 24  # of attention, while thumbs are made
KNOWN = (
    "embeddings, attention:LAYER, attention_thumbs, head:LAYER.HEAD, lens:K, residual_norms, mlp:LAYER, logits, "
    "off:LAYER.HEAD"
)


@dataclass
class Wanted:
    """What was asked for: layers, heads step by step, of the lens how many tokens (0 for none), and the part to be
    switched off, if any. A head's steps are named "head:1.2:queries" and so on (`models.trace.Trace.steps_of`)."""

    embeddings: bool = False
    residual_norms: bool = False
    thumbs: bool = False
    logits: bool = False
    lens: int = 0
    off: Part | None = None
    attention: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    heads: list[Part] = field(default_factory=list)

    @classmethod
    def named(cls, names: Sequence[str], config: GPTConfig | None) -> Wanted:
        """Raises Refusal for a name that means nothing, or a layer that the model hasn't."""
        if config is None:
            raise UnsupportedError("only a GPT can be looked into, and this model is none")
        wanted = cls()
        for name in names:
            word, _, number = name.partition(":")
            most = {"attention": config.n_layer - 1, "mlp": config.n_layer - 1}
            most["lens"] = min(MOST_OF_LENS, config.vocab_size)
            if word in most:
                value = _number(name, number, 1 if word == "lens" else 0, most[word])
                wanted._add(word, value)
            elif word == "head":
                wanted._add_head(Part.named(number, config))
            elif word == "off" and wanted.off is None:
                wanted.off = Part.named(number, config)
            elif name in ("embeddings", "residual_norms", "attention_thumbs", "logits"):
                setattr(wanted, name.removeprefix("attention_"), True)
            else:
                raise Refusal("usage", f"want holds {name[:60]!a}, which is none of {KNOWN}", f"ask for {KNOWN}")
        return wanted

    def _add(self, word: str, value: int) -> None:
        if word == "lens":
            self.lens = value
        else:
            layers = self.attention if word == "attention" else self.hidden
            if value not in layers:
                layers.append(value)

    def _add_head(self, part: Part) -> None:
        if part.head is None:
            raise Refusal("usage", f"want holds head:{part}, and an MLP is no head", "ask for head:LAYER.HEAD")
        if part not in self.heads:
            self.heads.append(part)

    def looked_up(self, model: LanguageModel, ids: Sequence[int]) -> dict[str, np.ndarray]:
        """The arrays, by the names that the page knows them by."""
        layers = list(dict.fromkeys(part.layer for part in self.heads))
        both = list(dict.fromkeys(self.attention + layers))
        traced = trace(model, ids, Want(self.embeddings, both, self.residual_norms, self.hidden, self.lens, layers))
        found = dict(_named(traced, self.attention))
        for part in self.heads:
            assert part.head is not None
            steps = traced.steps_of(part.layer, part.head)
            found |= {f"head:{part}:{name}": as_float32(value) for name, value in steps.items()}
        if self.thumbs:
            found["attention_thumbs"] = thumbs(model, ids)
        if self.logits:
            found["logits"] = as_float32(ablated_logits(model, ids))
        if self.off is not None:
            found[f"off:{self.off}"] = as_float32(ablated_logits(model, ids, self.off))
        return found


@dataclass(frozen=True)
class PartsQuestion:
    """What each head and each MLP of a GPT does to the token after a text."""

    ids: list[int]
    config: GPTConfig

    @classmethod
    def asked(cls, asked: Asked, served: Served) -> PartsQuestion:
        """Raises Refusal for a text that is too long, UnsupportedError for a model that is no GPT."""
        if served.source.config is None:
            raise UnsupportedError("only a GPT can be looked into, and this model is none")
        longest = min(MAX_ABLATION_TOKENS, served.source.context_length)
        return cls(asked.ids("ids", served.source.vocab_size, most=longest), served.source.config)

    def answered(self, served: Served, step: int | None) -> Generator[Event, None, dict[str, Any]]:
        """Some parts of a layer at a time, from the first layer on, and how far the distribution moves without each."""
        model, parts, n_done = served.model(step), parts_of(self.config), 0
        whole = ablated_logits(model, self.ids)
        for some, logits in without(model, self.ids, parts):
            js, kl = effects_of(whole, logits)
            n_done += len(some)
            effects = {"parts": [str(part) for part in some], "js_nats": js.tolist(), "kl_nats": kl.tolist()}
            yield Event("parts", effects | {"n": n_done, "of": len(parts)})
        return {"n": n_done, "of": len(parts)}


def _number(name: str, digits: str, low: int, high: int) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10 and low <= int(digits) <= high):
        expected = f"a number from {low} to {high} after the colon"
        raise Refusal("usage", f"want holds {name[:60]!a}, and there is {expected}", "ask for one of these")
    return int(digits)


def _named(found: Trace, attention: Sequence[int]) -> Iterator[tuple[str, np.ndarray]]:
    embeddings = {"token": found.token_embeddings, "position": found.position_embeddings, "sum": found.embeddings}
    for name, value in embeddings.items():
        if value is not None:
            yield name, as_float32(value)
    if found.attention is not None:
        for layer in attention:
            yield f"attention:{layer}", as_float32(found.attention[found.attention_layers.index(layer)])
    if found.hidden is not None:
        for layer, inside in zip(found.hidden_layers, found.hidden, strict=True):
            yield f"mlp:{layer}", as_float32(inside)
    if found.lens_tokens is not None and found.lens_logprobs is not None:
        yield "lens_ids", found.lens_tokens.astype(np.int32)
        yield "lens_logprobs", as_float32(found.lens_logprobs)
    if found.residual is not None:
        yield "residual_norms", as_float32(np.linalg.norm(found.residual, axis=-1))


def thumbs(model: LanguageModel, ids: Sequence[int]) -> np.ndarray:
    """Every head's attention as a picture of at most THUMB by THUMB means: float32 (L, H, t, t)."""
    config: GPTConfig = model.config  # type: ignore[attr-defined]
    at_once = max(1, NUMBERS_AT_ONCE // (config.n_head * len(ids) ** 2))
    small = []
    for first in range(0, config.n_layer, at_once):
        layers = range(first, min(first + at_once, config.n_layer))
        weights = trace(model, ids, Want(attention=layers)).attention
        assert weights is not None
        small.append(mean_pooled(weights, min(len(ids), THUMB)))
    return np.concatenate(small)


def mean_pooled(pictures: np.ndarray, side: int) -> np.ndarray:
    """Pictures (..., T, T) with each of `side` by `side` rectangles, as equal as can be, turned into its mean.

    >>> mean_pooled(np.array([[1.0, 3.0], [5.0, 7.0]]), 1)
    array([[4.]], dtype=float32)
    """
    length = pictures.shape[-1]
    starts = np.arange(side) * length // side
    sizes = np.diff(np.append(starts, length))
    sums = np.add.reduceat(np.add.reduceat(pictures, starts, axis=-1, dtype=np.float64), starts, axis=-2)
    return as_float32(sums / np.multiply.outer(sizes, sizes))
