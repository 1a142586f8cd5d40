"""Several texts at once, of unequal length, in one session and without padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassgpt.decoding.draw import Drawn, Ends, Sampler, as_count, as_ends, as_prompt, as_rng
from glassgpt.decoding.processors import processors
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel


def generate_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int] | np.ndarray],
    max_new_tokens: int = 20,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    end_token: Ends = None,
    seed: int = 0,
) -> list[list[int]]:
    """What `generate` gives for each of `prompts`, in their order: prompt i is answered with seed `seed + i`.

    All texts of a session are equally long, and prompts are not; so every text has tokens that wait to be fed, the
    rest of its prompt or the token just drawn, and each step feeds as many as all of them have. A text still inside
    its prompt ignores the logits. No text holds a token that isn't its own, so nothing is masked and every row's
    distribution is the one it has alone, inside the context window and past it. (A model computed in floating point
    may round a batch otherwise than a single row, by about 1e-6 in float32.) A finished text leaves the session.

    The cost is that of the longest prompt for every text that is still going on when it is being fed: prompts of
    about the same length belong together.
    """
    chosen = processors(temperature, top_k, top_p, min_p, repetition_penalty)
    texts = [as_prompt(prompt, model.vocab_size)[0] for prompt in _rows(prompts)]
    rngs = [as_rng(as_count(seed, "the seed") + i) for i in range(len(texts))]
    n = as_count(max_new_tokens, "max_new_tokens")
    batch = _Batch(model, texts, rngs, Sampler(chosen, model.context_length), as_ends(end_token, model.vocab_size), n)
    while batch.active:
        batch.step()
    return [[token for token, _ in drawn] for drawn in batch.drawn]


def _rows(prompts: Sequence[Sequence[int] | np.ndarray]) -> list[Sequence[int] | np.ndarray]:
    if isinstance(prompts, str) or not hasattr(prompts, "__iter__"):
        raise UsageError(f"expected a list of prompts, each a row of token ids, got {prompts!r}")
    return list(prompts)


class _Batch:
    def __init__(
        self,
        model: LanguageModel,
        texts: list[np.ndarray],
        rngs: list[np.random.Generator],
        sampler: Sampler,
        ends: frozenset[int],
        max_new_tokens: int,
    ) -> None:
        self.texts, self.rngs, self.sampler = texts, rngs, sampler
        self.ends, self.max_new_tokens = ends, max_new_tokens
        self.drawn: list[list[Drawn]] = [[] for _ in texts]
        self.active = list(range(len(texts))) if max_new_tokens else []  # row of the session -> text
        self.session = model.session(len(texts)) if self.active else None

    def step(self) -> None:
        """Feed what every active text has waiting, draw for those that are fed to their end, let the finished go."""
        assert self.session is not None
        start = self.session.length
        stop = min(len(self.texts[i]) for i in self.active)
        logits = self.session.feed(np.stack([self.texts[i][start:stop] for i in self.active]))
        rows = [row for row, i in enumerate(self.active) if len(self.texts[i]) == stop]
        texts = [self.active[row] for row in rows]
        contexts = np.stack([self.texts[i][-self.sampler.window :] for i in texts])
        for i, drawn in zip(texts, self.sampler(contexts, logits[rows], [self.rngs[i] for i in texts]), strict=True):
            self.drawn[i].append(drawn)
            self.texts[i] = np.append(self.texts[i], drawn.token)
        self.let_go()

    def let_go(self) -> None:
        staying = [row for row, i in enumerate(self.active) if not self.is_finished(i)]
        if self.session is not None and 0 < len(staying) < len(self.active):
            self.session.reorder(staying)
        self.active = [self.active[row] for row in staying]

    def is_finished(self, i: int) -> bool:
        drawn = self.drawn[i]
        return len(drawn) == self.max_new_tokens or (bool(drawn) and drawn[-1].token in self.ends)
