"""Walking the chain: draw a token, append it, look again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from glassgpt.decoding.processors import processors
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, as_contexts
from glassgpt.numerics import log_softmax


def generate(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int = 20,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    end_token: int | None = None,
    seed: int = 0,
) -> list[int]:
    """The new token ids that follow the prompt `tokens` (ids, at least one); the prompt is not repeated.

    Stops after `max_new_tokens`, or after `end_token`, which is included. `temperature` 0 takes the likeliest token,
    the lowest id among equals; see `processors` for the rest. The same seed gives the same tokens, as far as the
    model's logits are the same.
    """
    if seed < 0:
        raise UsageError(f"the seed must be 0 or more, got {seed}")
    shaped = Shaped(model, processors(temperature, top_k, top_p, min_p))
    return list(stream(shaped, tokens, max_new_tokens, end_token=end_token, rng=np.random.default_rng(seed)))


def stream(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    *,
    end_token: int | None = None,
    rng: np.random.Generator,
) -> Iterator[int]:
    """As `generate`, from the model as it is, each token as soon as it is drawn."""
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens must be 0 or more, got {max_new_tokens}")
    try:
        prompt = np.asarray(tokens)
    except ValueError:
        raise UsageError("expected a prompt of token ids, got lists of unequal length") from None
    if prompt.ndim != 1 or len(prompt) == 0:
        raise UsageError(f"expected a prompt of at least one token id, got shape {prompt.shape}")
    return _stream(model, as_contexts(prompt[None, :], model.vocab_size), max_new_tokens, end_token, rng)


def _stream(
    model: LanguageModel, prompt: np.ndarray, max_new_tokens: int, end_token: int | None, rng: np.random.Generator
) -> Iterator[int]:
    session = model.session()
    fed = prompt
    for _ in range(max_new_tokens):
        token = sample(session.feed(fed)[0], rng)
        yield token
        if token == end_token:
            return
        fed = np.array([[token]])


def sample(logits: np.ndarray, rng: np.random.Generator) -> int:
    """Draw one token from the softmax of `logits` (vocab_size,). A token at -inf is never drawn.

    Excluded tokens are taken out *before* the draw instead of being given probability 0 in it: samplers that keep them
    have drawn them (PyTorch issues 192812 and 192577). One uniform number of 53 bits is compared with the cumulative
    sum in float64, so a token rarer than about 1e-16 is never drawn, although the chain counts it.
    """
    allowed = np.flatnonzero(~np.isneginf(logits))
    probs = np.exp(log_softmax(np.asarray(logits)[allowed]))  # raises NumericalError for NaN, inf, or nothing allowed
    cumulative = np.cumsum(probs)
    drawn = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return int(allowed[min(int(drawn), len(allowed) - 1)])
