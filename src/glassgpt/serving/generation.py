"""A text written token by token: `decoding.generate`'s own stream, overheard for what the model thought of each."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from glassgpt.decoding.generate import stream
from glassgpt.decoding.text import TextCutter
from glassgpt.interface import Array, LanguageModel, Session
from glassgpt.serving.asked import Asked
from glassgpt.serving.events import Event
from glassgpt.serving.models import Served
from glassgpt.serving.sampler import MOST_TOP, Sampling, finite, likeliest

MAX_NEW_TOKENS = 2048
LARGEST_SEED = (1 << 53) - 1  # what JavaScript counts exactly


@dataclass(frozen=True)
class Writing:
    """What is to be written: the text of `seed` that follows `ids`."""

    ids: list[int]
    max_new_tokens: int
    seed: int
    n_top: int
    sampling: Sampling

    @classmethod
    def asked(cls, asked: Asked, vocab_size: int) -> Writing:
        return cls(
            asked.ids("ids", vocab_size),
            asked.whole("max_new_tokens", 0, MAX_NEW_TOKENS, 20),
            asked.whole("seed", 0, LARGEST_SEED, 0),
            asked.whole("top", 0, MOST_TOP, 20),
            Sampling.asked(asked, vocab_size),
        )

    def written(self, served: Served, step: int | None) -> Generator[Event, None, dict[str, Any]]:
        """An event for each token, with the model's own log-probability, entropy and likeliest tokens, before the
        sampler shaped them; then all new ids, their text and why it ended.

        The events' texts join to that text: bytes of a character that is not whole yet wait for the next token.
        """
        names, ends = served.names, ends_of(served)
        model = Overheard(served.model(step))
        rng = np.random.default_rng(self.seed)
        processors = self.sampling.processors()
        ids: list[int] = []
        cutter = TextCutter()
        text = ""
        for drawn in stream(model, self.ids, self.max_new_tokens, processors=processors, end_token=ends, rng=rng):
            piece = cutter.push(names.bytes_of(drawn.token))
            about = {"i": len(ids), "id": drawn.token, "text": piece, "logprob": finite(drawn.logprob)}
            ids.append(drawn.token)
            text += piece
            yield Event("token", about | likeliest(model.heard, self.n_top, names))
        reason = "stop" if ids and ids[-1] in ends else "length"
        return {"ids": ids, "text": text + cutter.finish(), "reason": reason}


def ends_of(served: Served) -> frozenset[int]:
    """The tokens after which a text of this model ends."""
    own = {*served.source.ends, getattr(served.names.tokenizer, "end_token", None)}
    return frozenset(end for end in own if end is not None and end < served.source.vocab_size)


class Overheard(LanguageModel):
    """A model as it is, whose session leaves in `heard` the logits (V,) that it answered last."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.vocab_size, self.context_length = model, model.vocab_size, model.context_length
        self.heard = np.empty(0)

    def next_token_logits(self, contexts: Array) -> Array:
        return self.model.next_token_logits(contexts)

    def session(self, batch_size: int = 1) -> Session:
        return _OverheardSession(self, self.model.session(batch_size))


class _OverheardSession(Session):
    def __init__(self, heard_by: Overheard, inner: Session) -> None:
        self.heard_by, self.inner = heard_by, inner

    @property
    def length(self) -> int:
        return self.inner.length

    def feed(self, tokens: Array) -> np.ndarray:
        logits = self.inner.feed(tokens)
        self.heard_by.heard = logits[0]
        return logits

    def fork(self) -> Self:
        return type(self)(self.heard_by, self.inner.fork())

    def rewind(self, n: int) -> None:
        self.inner.rewind(n)

    def reorder(self, rows: Sequence[int] | np.ndarray) -> None:
        self.inner.reorder(rows)
