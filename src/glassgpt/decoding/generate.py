"""Walking the chain: draw a token, append it, look again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from glassgpt.decoding.draw import Drawn, Ends, Sampler, as_count, as_ends, as_prompt, as_rng
from glassgpt.decoding.processors import processors
from glassgpt.interface import LanguageModel, LogitsProcessor


def generate(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int = 20,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    end_token: Ends = None,
    seed: int = 0,
) -> list[int]:
    """The new token ids that follow the prompt `tokens` (ids, at least one); the prompt is not repeated.

    Stops after `max_new_tokens`, or after `end_token` (one id or several), which is included. `temperature` 0 takes
    the likeliest token, the lowest id among equals; see `processors` for the rest. The same seed gives the same
    tokens, as far as the model's logits are the same.
    """
    chosen = processors(temperature, top_k, top_p, min_p, repetition_penalty)
    rng = as_rng(seed)
    drawn = stream(model, tokens, max_new_tokens, processors=chosen, end_token=end_token, rng=rng)
    return [token for token, _ in drawn]


def stream(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    *,
    processors: Sequence[LogitsProcessor] = (),
    end_token: Ends = None,
    rng: np.random.Generator,
) -> Iterator[Drawn]:
    """As `generate`, each token as soon as it is drawn, with its log-probability under `model` before `processors`."""
    prompt = as_prompt(tokens, model.vocab_size)
    n = as_count(max_new_tokens, "max_new_tokens")
    ends = as_ends(end_token, model.vocab_size)
    return _stream(model, prompt, n, Sampler(processors, model.context_length), ends, rng)


def _stream(
    model: LanguageModel,
    prompt: np.ndarray,
    max_new_tokens: int,
    sampler: Sampler,
    ends: frozenset[int],
    rng: np.random.Generator,
) -> Iterator[Drawn]:
    session = model.session()
    window = fed = prompt
    for _ in range(max_new_tokens):
        (drawn,) = sampler(window, session.feed(fed), [rng])
        yield drawn
        if drawn.token in ends:
            return
        fed = np.array([[drawn.token]])
        window = np.append(window, fed, axis=1)[:, -model.context_length :]
