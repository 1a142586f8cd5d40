"""A text that is there already: what the model expected after each of its last tokens."""

from __future__ import annotations

import numpy as np

from glassgpt.interface import LanguageModel
from glassgpt.serving.asked import Asked
from glassgpt.serving.refusals import Refusal

MOST_LOGITS = 1 << 22  # in one answer, 16 MiB
MOST_SCORED = 1024  # tokens


def last_asked(asked: Asked, n_ids: int, vocab_size: int) -> int | None:
    """After how many of the last tokens the logits are wanted; None for the one answer after all of them."""
    if not asked.has("last"):
        return None
    last = asked.whole("last", 1, n_ids)
    if last * vocab_size > MOST_LOGITS:
        most = max(1, MOST_LOGITS // vocab_size)
        what = f"the logits of {vocab_size:,} tokens after each of {last:,}: an answer holds {MOST_LOGITS:,} numbers"
        raise Refusal("too_big", what, f"ask for those after the last {most:,} tokens, or fewer")
    return last


def logits_after_each(model: LanguageModel, ids: list[int], last: int) -> np.ndarray:
    """What may follow after each of the last tokens of a text: (last, V), the newest in the end."""
    text = np.array([ids[-(model.context_length + last - 1) :]])
    first, rest = text[:, : text.shape[1] - last + 1], text[:, text.shape[1] - last + 1 :]
    session = model.session()
    logits = [session.feed(first)[:, None]]
    if last > 1:
        logits.append(session.feed_each(rest))
    return np.concatenate(logits, axis=1)[0]
