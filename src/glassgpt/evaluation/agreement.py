"""How far a model is from the one it stands in for: rounded to few bits, merged, distilled, or run another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, as_contexts
from glassgpt.numerics import log_softmax

BLOCK = 16  # tokens fed at once: few enough that each model answers as it does when it generates


@dataclass(frozen=True)
class Agreement:
    """Over `n` positions of a text: nats of KL(reference || model), how often both have the same likeliest token, and
    by how many nats a token the model is more surprised by the text than the reference (negative: less)."""

    n: int
    mean_kl: float
    max_kl: float
    top1: float
    extra_loss: float


def agreement(model: LanguageModel, reference: LanguageModel, tokens: Sequence[int] | np.ndarray) -> Agreement:
    """Compare two models, as they answer while generating, after every prefix of a text (ids, at least two).

    Texts longer than the shorter of the two windows are cut there. Raises UsageError for models of different
    vocabularies.
    """
    if model.vocab_size != reference.vocab_size:
        raise UsageError(
            f"two models can be compared over one vocabulary, and these have {model.vocab_size} and "
            f"{reference.vocab_size} tokens"
        )
    text = as_contexts(np.asarray(tokens)[None], model.vocab_size)
    text = text[:, : min(model.context_length, reference.context_length)]
    if text.shape[1] < 2:
        raise UsageError("two models are compared on a text of at least two tokens")
    sessions = model.session(), reference.session()
    kl, same, extra = [], [], []
    for start in range(0, text.shape[1] - 1, BLOCK):
        block = text[:, start : min(start + BLOCK, text.shape[1] - 1)]
        ours, theirs = (log_softmax(session.feed_each(block)[0]) for session in sessions)
        probs = np.exp(theirs)
        with np.errstate(invalid="ignore"):  # 0 times infinity, where the reference excludes a token
            kl.append(np.sum(np.where(probs > 0, probs * (theirs - ours), 0.0), axis=-1))
        same.append(ours.argmax(-1) == theirs.argmax(-1))
        followed = text[0, start + 1 : start + 1 + block.shape[1]]
        extra.append(np.take_along_axis(theirs - ours, followed[:, None], axis=-1)[:, 0])
    all_kl = np.concatenate(kl)
    return Agreement(
        n=len(all_kl),
        mean_kl=float(np.mean(all_kl)),
        max_kl=float(np.max(all_kl)),
        top1=float(np.mean(np.concatenate(same))),
        extra_loss=float(np.mean(np.concatenate(extra))),
    )
