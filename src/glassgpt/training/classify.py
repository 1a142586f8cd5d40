"""Classification: a head with a score for each label, read at a text's last token (Radford et al. 2018).

Beside it stands what needs no GPT: TF-IDF and logistic regression on the same texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glassgpt.errors import UsageError
from glassgpt.models.heads import HeadedGPT
from glassgpt.text.rows import LabelledRow
from glassgpt.training.base import Base
from glassgpt.training.evaluate import Evaluation
from glassgpt.training.examples import drawn, labelled, sha256_of
from glassgpt.training.labels import LabelLoss
from glassgpt.training.objective import Rows
from glassgpt.training.recipe import Recipe
from glassgpt.training.stage import Moment, Stage, Words

BATCH = 16
AT_ONCE = 32


class Classifying(Stage):
    def __init__(self, recipe: Recipe) -> None:
        assert recipe.run.base is not None and recipe.classify is not None
        self.recipe = recipe
        self.base = Base.open(recipe.run.base, chats=False)
        self.config, self.tokenizer = self.base.config, self.base.tokenizer
        self.words = Words(self.base.template, self.base.end_tokens, self.base.roles)
        self.multi = recipe.classify.multi_label
        self.train, self.validation = labelled(recipe)
        for row in self.train + self.validation:
            if len(row.labels) != 1 and not self.multi:
                raise UsageError(
                    f"{row.place} has {len(row.labels)} labels: set classify.multi_label = true, or give each row one"
                )
        self.labels = sorted({label for row in self.train + self.validation for label in row.labels}, key=str)
        if len(self.labels) < 2 - self.multi:
            raise UsageError(f"the rows have {len(self.labels)} labels: there is nothing to tell apart")
        self.objective = self.label_loss = LabelLoss(self.multi)

    @property
    def sha256(self) -> str:
        rows = self.train + self.validation
        said = "".join(f"{row.text!r}{row.labels!r}" for row in rows)
        return hashlib.sha256((self.base.sha256 + sha256_of([]) + said).encode()).hexdigest()

    def model(self) -> nn.Module:
        return HeadedGPT(self.base.gpt(self.recipe.run.seed), len(self.labels), seed=self.recipe.run.seed)

    def about(self) -> dict[str, Any]:
        return {"kind": "multi-label" if self.multi else "classifier", "labels": self.labels}

    def rows(self, step: int) -> Rows:
        chosen = drawn(len(self.train), self.recipe.train.batch_size or BATCH, step, self.recipe.run.seed)
        return self._batch([self.train[i] for i in chosen])

    def _batch(self, rows: Sequence[LabelledRow]) -> dict[str, np.ndarray]:
        texts = [text_ids(row.text, self.base) for row in rows]
        inputs = np.zeros((len(rows), max(map(len, texts))), dtype=np.int64)
        for row, ids in zip(inputs, texts, strict=True):
            row[: len(ids)] = ids
        last = np.array([len(ids) - 1 for ids in texts])
        held = np.array([[label in row.labels for label in self.labels] for row in rows])
        return {
            "inputs": inputs,
            "last": last,
            "labels": held.astype(np.float32) if self.multi else held.argmax(axis=1),
        }

    def evaluate(self, now: Moment) -> Evaluation | None:
        if not self.validation:
            return None
        found: list[np.ndarray] = []
        loss = 0.0
        with torch.no_grad():
            for first in range(0, len(self.validation), AT_ONCE):
                now.poll()
                batch = self._batch(self.validation[first : first + AT_ONCE])
                part = {name: torch.from_numpy(value).to(now.among.device) for name, value in batch.items()}
                scores = now.trainer.model(part["inputs"])
                loss += float(self.objective.loss(partial(_known, scores), part))
                found.append(scores[torch.arange(len(scores)), part["last"]].float().cpu().numpy())
        self.label_loss.tally.drain()
        more: dict[str, float | None] = {"accuracy": self._accuracy(np.concatenate(found))}
        if now.is_last:
            more["tfidf_accuracy"] = tfidf_accuracy(self.train, self.validation, self.labels, self.multi)
        n = len(self.validation)
        return Evaluation(now.step, loss / n, None, n, None, more) if now.among.first else None

    def _accuracy(self, scores: np.ndarray) -> float:
        """The share of texts whose label is told right; of many labels, the share of all yes and no."""
        held = np.array([[label in row.labels for label in self.labels] for row in self.validation])
        if self.multi:
            return float(np.mean((scores > 0) == held))
        return float(np.mean(scores.argmax(axis=1) == held.argmax(axis=1)))

    def notes(self) -> list[str]:
        shown = ", ".join(map(str, self.labels[:8])) + (", ..." if len(self.labels) > 8 else "")
        return [
            f"texts to train: {len(self.train):,}, to validate: {len(self.validation):,}; labels: {shown}",
            *(
                []
                if find_spec("sklearn")
                else ["to compare with TF-IDF and logistic regression: pip install scikit-learn"]
            ),
        ]


def _known(scores: Tensor, tokens: Tensor) -> Tensor:
    return scores


def text_ids(text: str, base: Base) -> list[int]:
    """A text's tokens and an end, whose place the head reads; the end of a text too long for the context is kept, since
    what it says last is nearest."""
    ids = base.tokenizer.encode(text)[-(base.config.context_length - 1) :]
    return [*ids, base.end_tokens[0]]


def tfidf_accuracy(
    train: Sequence[LabelledRow], validation: Sequence[LabelledRow], labels: Sequence[str | int], multi: bool
) -> float | None:
    """The same share by TF-IDF of words and pairs of words, and logistic regression; None without scikit-learn."""
    if find_spec("sklearn") is None:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    x, x_held = words.fit_transform([row.text for row in train]), words.transform([row.text for row in validation])
    model = LogisticRegression(max_iter=1000)
    if multi:
        held = np.array([[label in row.labels for label in labels] for row in train], dtype=int)
        expected = np.array([[label in row.labels for label in labels] for row in validation], dtype=int)
        return float(np.mean(OneVsRestClassifier(model).fit(x, held).predict(x_held) == expected))
    predicted = model.fit(x, [str(row.labels[0]) for row in train]).predict(x_held)
    return float(np.mean(predicted == np.array([str(row.labels[0]) for row in validation])))
