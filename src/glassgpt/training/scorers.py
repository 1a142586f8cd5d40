"""What says how good an answer is: a reward model that was trained here, or the toy world's gold scorer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from glassgpt.errors import UsageError
from glassgpt.models.heads import HeadedGPT
from glassgpt.text.toy_tasks import gold, rating
from glassgpt.text.toy_world import VERSION, ToyWorld
from glassgpt.training.base import Base
from glassgpt.training.examples import Prompt, completed, encode_prompt
from glassgpt.weights.run import Run, is_run
from glassgpt.weights.stored import Reading
from glassgpt.weights.tensors import load_named

AT_ONCE = 32


class Scorer(Protocol):
    @property
    def sha256(self) -> str: ...

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str], ended: np.ndarray) -> np.ndarray:
        """A score for each answer, float64; `ended`: whether it came to its end by itself."""
        ...


def reward_of(ref: str) -> Scorer:
    """What `ref` names: toy-world for the gold scorer, toy-rater for one who can't look facts up, or the run folder of
    a reward model."""
    if ref == "toy-rater":
        return Rater()
    return GoldScorer() if ref == "toy-world" else RewardModel(ref)


class GoldScorer:
    """The toy world's own grade of a telling, which looks every sentence up."""

    def __init__(self, world: ToyWorld | None = None) -> None:
        self.world = world or ToyWorld()
        self.sha256 = hashlib.sha256(f"toy-world {VERSION} {self.world.seed}".encode()).hexdigest()

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str], ended: np.ndarray) -> np.ndarray:
        graded = zip(prompts, answers, ended, strict=True)
        return np.array([gold(self.world, prompt.text, answer, bool(end)).score for prompt, answer, end in graded])


class Rater:
    """What a reader in a hurry gives a telling, who knows nothing of the toy world."""

    def __init__(self, world: ToyWorld | None = None) -> None:
        self.world = world or ToyWorld()
        self.sha256 = hashlib.sha256(f"toy-rater {VERSION} {self.world.seed}".encode()).hexdigest()

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str], ended: np.ndarray) -> np.ndarray:
        rated = zip(prompts, answers, ended, strict=True)
        return np.array([rating(self.world, prompt.text, answer, bool(end)) for prompt, answer, end in rated])


class RewardModel:
    """A score at an answer's last token, by the model of a run that [reward] trained. It reads prompts by its own words
    and its own template, whatever those of the policy are."""

    def __init__(self, ref: str | Path) -> None:
        if not is_run(ref):
            raise UsageError(
                f"{ref} is no run folder: a reward is toy-world, toy-rater, or a run of a recipe with [reward]"
            )
        run = Run(ref)
        if run.head.get("kind") != "reward" or not run.is_finished:
            raise UsageError(f"{ref} is no finished reward model: train one with a recipe that has [reward]")
        self.run, self.ref = run, str(ref)
        self.base = Base.open(self.ref, chats=False)

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(self.base.sha256.encode())
        for name, value in sorted(Reading(self.run.added()).items()):
            digest.update(name.encode() + value.tobytes())
        return digest.hexdigest()

    @cached_property
    def model(self) -> HeadedGPT:
        model = headed(self.run, self.base)
        return model.eval().requires_grad_(False)

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str], ended: np.ndarray) -> np.ndarray:
        rows = []
        for prompt, answer, end in zip(prompts, answers, ended, strict=True):
            rows.append((encode_prompt(prompt.asked, self.base), completed(answer, self.base, end=bool(end))))
        return self.score(rows)

    @torch.no_grad()
    def score(self, rows: Sequence[tuple[list[int], list[int]]]) -> np.ndarray:
        """The scores of (prompt, answer) as ids. What is longer than the context is read to the context's end."""
        found = []
        T = self.base.config.context_length
        for first in range(0, len(rows), AT_ONCE):
            part = [(prompt + answer)[:T] for prompt, answer in rows[first : first + AT_ONCE]]
            inputs = np.zeros((len(part), max(map(len, part))), dtype=np.int64)
            for row, ids in zip(inputs, part, strict=True):
                row[: len(ids)] = ids
            last = torch.tensor([len(ids) - 1 for ids in part])
            scores = self.model(torch.from_numpy(inputs))[torch.arange(len(part)), last, 0]
            found.append(scores.double().numpy())
        return np.concatenate(found) if found else np.empty(0)


def judged(ref: str, text: str, prompt: str | None = None) -> dict[str, Any]:
    """What a model with a head makes of a text. Of a reward model: `scores` {"reward": ...} of an answer to `prompt`;
    of a classifier the probability of each label. Raises UsageError for a reward model without a prompt."""
    from glassgpt.training.classify import text_ids

    run = Run(ref)
    kind, labels = run.head["kind"], [str(label) for label in run.head["labels"]]
    if kind == "reward":
        if prompt is None:
            raise UsageError(f"{ref} scores answers: give --prompt, what the text answers")
        scorer = RewardModel(ref)
        asked = ({"role": "user", "content": prompt},) if scorer.base.template is not None else prompt
        pair = (encode_prompt(asked, scorer.base), completed(text, scorer.base))
        return {"kind": kind, "scores": {"reward": float(scorer.score([pair])[0])}}
    base = Base.open(ref, chats=False)
    with torch.no_grad():
        scores = headed(run, base).eval()(torch.tensor([text_ids(text, base)]))[0, -1].double()
    shares = scores.softmax(0) if kind == "classifier" else scores.sigmoid()
    return {"kind": kind, "scores": dict(zip(labels, shares.tolist(), strict=True))}


def headed(run: Run, base: Base) -> HeadedGPT:
    """The model of a finished run that has a head."""
    added = Reading(run.added())
    model = HeadedGPT(base.gpt(), len(added["head.bias"]), seed=0)
    load_named({name: p for name, p in model.named_parameters() if name in added}, added)
    return model
