"""The path of a text through meaning space while a GPT writes it, and the fan of where it could have gone at each step.

Here a text stands where the model's last layer puts it: the state behind its last token, after the final norm, a vector
of C numbers. That is the one place from which the next token is read (logits = `lm_head` times the state), so texts
that stand in the same place go on in the same way, whatever their words were. A token's embedding would not do: it is
the same in every text, and in a model whose output layer isn't tied it lies in another space.

Each point of the fan is where the text *would* stand: the model is run with that token in place of the one it wrote.
Wolfram ("What is ChatGPT doing ... and why does it work?", 2023, Meaning Space and Semantic Laws of Motion) draws such
paths and fans of GPT-2 in two and three dimensions, and finds no law of motion in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from glassgpt.decoding.draw import Ends, Sampler, as_count, as_ends, as_prompt, as_rng
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, LogitsProcessor, Tokenizer
from glassgpt.models.gpt_torch import GPT, as_numpy
from glassgpt.models.kv_cache import KVCache
from glassgpt.models.threads import threads_for
from glassgpt.models.trace import torch_gpt_in
from glassgpt.numerics import log_softmax


@dataclass(frozen=True)
class MeaningPath:
    """N tokens that a model wrote, the states that it went through, and at each step the m likeliest others.

    tokens: int64 (N,). states: float (N + 1, C); states[0] is that of the prompt, states[i] that after i tokens.
    fan_tokens: int64 (N, m), what was likeliest at states[i], the likeliest first, and fan_probs, float64 (N, m), how
    likely under the model itself, before any processor. fan_states: float (N, m, C), where the text would have stood.
    Where a token of the fan is the one that was written, its state is states[i + 1].
    """

    prompt: np.ndarray
    tokens: np.ndarray
    states: np.ndarray
    fan_tokens: np.ndarray
    fan_probs: np.ndarray
    fan_states: np.ndarray


def meaning_path(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int = 20,
    fan: int = 5,
    *,
    processors: Sequence[LogitsProcessor] = (),
    end_token: Ends = None,
    seed: int = 0,
) -> MeaningPath:
    """Let the model write after the prompt `tokens` (ids, at least one) as `generate` does, and keep where it went.

    `fan`: how many of the likeliest tokens to try at each step. Costs two steps of generation for each token, one of
    them with `fan` texts at once. Raises UsageError for a prompt and tokens that are longer than the model's window
    together (past it, a state is of another text: the beginning has been forgotten), and UnsupportedError for a model
    without states to look at.
    """
    gpt = torch_gpt_in(model)
    prompt, n = as_prompt(tokens, gpt.vocab_size), as_count(max_new_tokens, "max_new_tokens", least=1)
    if prompt.shape[1] + n > gpt.context_length:
        raise UsageError(
            f"a path stays within one window of {gpt.context_length} tokens; the prompt has {prompt.shape[1]} and {n} "
            "are to be written: shorten one of them"
        )
    if not 1 <= fan <= gpt.vocab_size:
        raise UsageError(f"a fan has 1 to {gpt.vocab_size} tokens (the vocabulary), got {fan}")
    ends = as_ends(end_token, gpt.vocab_size)
    with torch.inference_mode(), threads_for(prompt.size * gpt.config.hidden_width):
        return _walked(gpt, prompt, n, fan, Sampler(processors, gpt.context_length), ends, as_rng(seed))


def word_tokens(tokenizer: Tokenizer, words: Sequence[str]) -> list[int]:
    """The one token of each word: as it is written inside a text, after a space, or else at the beginning of one.

    Raises UsageError that names every word which takes several tokens or can't be written: it has no embedding of its
    own.
    """
    found = [_one_token(tokenizer, f" {word}", word) for word in words]
    if whole := [word for word, token in zip(words, found, strict=True) if token is None]:
        raise UsageError(
            f"words with an embedding of their own are one token each, and of these {len(whole)} take several or none: "
            f"{', '.join(map(repr, whole[:8]))}"
        )
    return [token for token in found if token is not None]


def _one_token(tokenizer: Tokenizer, *spellings: str) -> int | None:
    """The first spelling that is one token; a vocabulary may lack the signs of any."""
    for text in spellings:
        with suppress(UsageError):
            if len(tokens := tokenizer.encode(text)) == 1:
                return tokens[0]
    return None


def _walked(
    gpt: GPT, prompt: np.ndarray, n: int, fan: int, sampler: Sampler, ends: frozenset[int], rng: np.random.Generator
) -> MeaningPath:
    cache = KVCache.empty(gpt, 1)
    written, window = prompt, prompt
    states = [_state(gpt, prompt, cache)]
    fans: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(n):
        logits = as_numpy(gpt.lm_head(states[-1]))  # (1, V)
        (drawn,) = sampler(window, logits, [rng])
        logprobs = log_softmax(logits[0])
        likely = np.argsort(-logprobs, kind="stable")[:fan]
        there = as_numpy(_state(gpt, likely[:, None], cache.of_rows([0] * fan)))
        fans.append((likely, np.exp(logprobs[likely]), there))
        states.append(_state(gpt, np.array([[drawn.token]]), cache))
        written = window = np.append(written, [[drawn.token]], axis=1)
        if drawn.token in ends:
            break
    fan_tokens, fan_probs, fan_states = (np.stack(part) for part in zip(*fans, strict=True))
    return MeaningPath(
        prompt[0], written[0, prompt.shape[1] :], as_numpy(torch.cat(states)), fan_tokens, fan_probs, fan_states
    )


def _state(gpt: GPT, tokens: np.ndarray, cache: KVCache) -> torch.Tensor:
    """Where each of the texts in the cache stands once these tokens (B, T) have been added to it: (B, C)."""
    return gpt.hidden(torch.as_tensor(tokens, device=gpt.wte.weight.device), cache)[:, -1]
