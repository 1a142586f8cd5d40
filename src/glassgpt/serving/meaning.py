"""Places in a model's own spaces, seen from the side from which most can be seen.

Words lie where the token embedding has them. A text lies where the model's last layer puts it, and moves from there as
the model goes on, the likeliest token at each step (`evaluation.meaning_space`); a fan is where it might have gone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glassgpt.decoding.processors import Temperature
from glassgpt.errors import UsageError
from glassgpt.evaluation.meaning_space import MeaningPath, meaning_path
from glassgpt.figures.projection import Projection, principal_projection
from glassgpt.interface import LanguageModel
from glassgpt.models.gpt_torch import GPT, as_numpy
from glassgpt.models.threads import threads_for
from glassgpt.models.trace import embedding_rows, torch_gpt_in
from glassgpt.numerics import log_softmax
from glassgpt.serving.asked import Asked
from glassgpt.serving.names import Names
from glassgpt.serving.refusals import Refusal
from glassgpt.serving.sampler import largest_ids

MOST_WORDS = 1000
MOST_STEPS = 64
WIDEST_FAN = 100
MOST_NEIGHBOURS = 200
DIMENSIONS = 3


def tokens_of(word: str, names: Names) -> list[int]:
    """A word's tokens: those with a space before it, as it is written inside a text, if that makes it one token."""
    tokens = names.encode(word)
    with suppress(UsageError, Refusal):  # a vocabulary may lack the space
        spaced = names.encode(f" {word}")
        tokens = spaced if len(spaced) == 1 else tokens
    if not word:
        raise Refusal("usage", "an empty word lies nowhere", "give a word of one character or more")
    return tokens


def place_of(tokens: list[int], rows: np.ndarray) -> np.ndarray:
    """Where a word lies: where its token does, or of several tokens in their midst. float64 (C,)"""
    place: np.ndarray = rows[tokens].mean(axis=0, dtype=np.float64)
    return place


def neighbours(model: LanguageModel, names: Names, text: str, n: int) -> dict[str, Any]:
    """The `n` tokens whose embeddings point most nearly where the word does, itself left out."""
    tokens, rows = tokens_of(text, names), embedding_rows(model)  # (V, C)
    place = place_of(tokens, rows)
    lengths = np.sqrt(np.einsum("vc,vc->v", rows, rows, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = (rows @ place.astype(rows.dtype)) / (lengths * np.linalg.norm(place))
    cosines[~np.isfinite(cosines)] = -np.inf  # a row of zeros points nowhere
    cosines[tokens] = -np.inf
    near = [{"id": i, "text": names[i], "cosine": float(cosines[i])} for i in largest_ids(cosines, n)]
    return {"id": _only(tokens), "text": text, "neighbours": near}


def _only(tokens: list[int]) -> int | None:
    return tokens[0] if len(tokens) == 1 else None


def slid_path(gpt: GPT, prompt: list[int], n: int, fan: int) -> MeaningPath:
    """As `meaning_path`, greedily, for a text that grows longer than the window: a state is that of the last
    `context_length` tokens, as the model sees them, and has forgotten what came before."""
    text, states = list(prompt), [_states(gpt, [prompt])[0]]
    fans: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(n):
        logprobs = log_softmax(gpt.next_token_logits([text])[0])
        likely = np.array(largest_ids(logprobs, fan))
        fans.append((likely, np.exp(logprobs[likely]), _states(gpt, [[*text, token] for token in likely.tolist()])))
        text.append(int(np.argmax(logprobs)))
        states.append(_states(gpt, [text])[0])
    return MeaningPath(
        np.array(prompt),
        np.array(text[len(prompt) :]),
        np.stack(states),
        *(np.stack(part) for part in zip(*fans, strict=True)),
    )


def _states(gpt: GPT, texts: list[list[int]]) -> np.ndarray:
    """Where each of the texts, equally long, stands: float (texts, C)."""
    ids = torch.tensor(texts, device=gpt.wte.weight.device)[:, -gpt.context_length :]
    with torch.inference_mode(), threads_for(ids.numel() * gpt.config.hidden_width):
        return as_numpy(gpt.hidden(ids)[:, -1])


@dataclass(frozen=True)
class View:
    """What is to be seen: words, or a text of `ids` that goes on for `n_steps`, with the `n_top` likeliest tokens at
    each. `axes`: two words that the first axis leads between; None for the view that keeps most."""

    ids: list[int]
    words: list[str]
    n_top: int
    n_steps: int
    axes: list[str] | None

    @classmethod
    def asked(cls, asked: Asked, vocab_size: int, context_length: int) -> View:
        ids = asked.ids("ids", vocab_size)[-context_length:] if asked.has("ids") else []
        words = asked.texts("words", MOST_WORDS) if asked.has("words") else []
        if bool(words) == bool(ids):
            raise Refusal("usage", "there must be either ids or words to look at", "give one of the two")
        axes = asked.texts("axes", 2) if asked.has("axes") else None
        if axes is not None and len(axes) != 2:
            raise Refusal("usage", f"axes are two words, got {len(axes)}", "give two words, or null")
        n_top = asked.whole("top", 1, WIDEST_FAN, min(10, vocab_size))
        return cls(ids, words, min(n_top, vocab_size), asked.whole("steps", 1, MOST_STEPS, 10), axes)

    def seen(self, model: LanguageModel, names: Names) -> dict[str, Any]:
        """Points of the words; or the path of the text, first where it stands as it was given and then after each new
        token, with the fan at each step, likeliest first. `explained`: the share of variance of what the view was made
        for, words or path, that each axis keeps.
        """
        return self._words(model, names) if self.words else self._path(model, names)

    def _words(self, model: LanguageModel, names: Names) -> dict[str, Any]:
        rows = embedding_rows(model)
        words = [tokens_of(word, names) for word in self.words]
        places = np.stack([place_of(tokens, rows) for tokens in words])
        view, explained = self._view(places, rows, names)
        points = [
            _point(_only(tokens), word, view(place))
            for tokens, word, place in zip(words, self.words, places, strict=True)
        ]
        return {"points": points, "path": [], "fans": [], "explained": explained}

    def _path(self, model: LanguageModel, names: Names) -> dict[str, Any]:
        gpt = torch_gpt_in(model)
        if len(self.ids) + self.n_steps <= gpt.context_length:
            went = meaning_path(gpt, self.ids, self.n_steps, self.n_top, processors=[Temperature(0)])
        else:
            went = slid_path(gpt, self.ids, self.n_steps, self.n_top)
        view, explained = self._view(went.states.astype(np.float64), as_numpy(gpt.lm_head.weight.detach()), names)
        tokens = [self.ids[-1], *went.tokens.tolist()]
        path = [_point(token, names[token], view(at)) for token, at in zip(tokens, went.states, strict=True)]
        fans = []
        for fan in zip(went.fan_tokens.tolist(), went.fan_probs.tolist(), went.fan_states, strict=True):
            ends = zip(*fan, strict=True)
            fans.append([_point(token, names[token], view(at)) | {"prob": prob} for token, prob, at in ends])
        return {"points": [], "path": path, "fans": fans, "explained": explained}

    def _view(self, places: np.ndarray, rows: np.ndarray, names: Names) -> tuple[Projection, list[float]]:
        """The view of places (n, C), and what it keeps of them."""
        first = np.empty((0, places.shape[1]))
        if self.axes is not None:
            start, end = (place_of(tokens_of(word, names), rows) for word in self.axes)
            if not (length := np.linalg.norm(end - start)):
                raise Refusal("usage", "the two words of axes lie in one place", "give two different words")
            first = ((end - start) / length)[None]
        view = widest_view(places, first)
        return view, view.kept(places).tolist() if np.ptp(places, axis=0).any() else [0.0] * DIMENSIONS


def _point(token: int | None, text: str, xyz: np.ndarray) -> dict[str, Any]:
    return {"id": token, "text": text, "xyz": xyz.tolist()}


def widest_view(places: np.ndarray, first: np.ndarray) -> Projection:
    """The axes of `first` (k, C), and after them those along which the places (n, C) vary most in what is left; axes of
    nothing where they vary in fewer than DIMENSIONS."""
    rest = places - (places @ first.T) @ first
    axes = first
    for d in range(DIMENSIONS - len(first), 0, -1):
        try:
            axes = np.concatenate([first, principal_projection(rest, d).axes])
            break
        except UsageError:  # they lie in fewer dimensions
            continue
    nothing = np.zeros((DIMENSIONS - len(axes), places.shape[1]))
    return Projection(places.mean(axis=0), np.concatenate([axes, nothing]))
