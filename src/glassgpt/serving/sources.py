"""Where models come from: a reference, a run, or the baby GPT that needs no file. Nothing large is read here, and torch
is imported only with the first weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.loading import open_model, open_run
from glassgpt.models.config import GPTConfig
from glassgpt.training.data import tokenizer_for
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.run import Run
from glassgpt.weights.stored import StoredTensor

Progress = Callable[[int, int], None]  # so many of so many parameters are read


@dataclass(frozen=True)
class Source:
    """A model before its weights are read. `read(step, progress)` reads them, of a kept training step or (None) as the
    model is in the end; `read_tokenizer` its words, None if it has none. `ends`: the ids after which its texts end.

    `config`: None for a model that is no GPT. `steps`: which are kept; `step`: the one that was meant by RUN@STEP.
    `sequence`: what it was trained on, if that is one short text. `run`: the run that it is of.
    """

    ref: str
    title: str
    vocab_size: int
    context_length: int
    read: Callable[[int | None, Progress], LanguageModel]
    read_tokenizer: Callable[[], Tokenizer | None]
    kind: str = "model"
    config: GPTConfig | None = None
    steps: Sequence[int] = ()
    step: int | None = None
    sequence: str | None = None
    ends: frozenset[int] = frozenset()
    run: Run | None = None


def source_of(ref: str) -> Source:
    """What `ref` names. Raises as `glassgpt.load`, and UsageError for a model that writes no text."""
    bundle = open_model(ref)
    if bundle.head is not None:
        raise UsageError(f"{bundle.place} is a {bundle.head}: it gives scores, and there is no text to look at")
    if bundle.kind == "run folder":
        run, step = open_run(ref)
        return dataclasses.replace(source_of_run(run, ref=ref), step=step)
    return Source(
        ref=ref,
        title=Path(ref).name if Path(ref).exists() else ref,
        vocab_size=bundle.config.vocab_size,
        context_length=bundle.config.context_length,
        read=lambda step, progress: _load(bundle, progress),
        read_tokenizer=bundle.tokenizer,
        config=bundle.config,
        ends=frozenset(bundle.end_tokens),
    )


def source_of_run(run: Run, title: str | None = None, ref: str | None = None) -> Source:
    bundle = run.bundle()
    return Source(
        ref=ref or str(run.path),
        title=title or run.path.resolve().name,
        vocab_size=bundle.config.vocab_size,
        context_length=bundle.config.context_length,
        read=lambda step, progress: _load(run.bundle(step), progress),
        read_tokenizer=bundle.tokenizer,
        kind="run",
        config=bundle.config,
        steps=run.steps,
        sequence=run.recipe["data"].get("sequence"),
        ends=frozenset(bundle.end_tokens),
        run=run,
    )


def untrained_baby() -> Source:
    """The tour's baby GPT before its first step: made at once, with no file at all."""
    recipe = read_recipe("baby")

    def drawn(step: int | None, progress: Progress) -> LanguageModel:
        from glassgpt.models.gpt_torch import GPT

        return GPT(recipe.model, seed=recipe.run.seed)

    return Source(
        ref="baby",
        title="baby GPT, untrained",
        vocab_size=recipe.model.vocab_size,
        context_length=recipe.model.context_length,
        read=drawn,
        read_tokenizer=lambda: tokenizer_for(recipe),
        config=recipe.model,
        sequence=recipe.data.sequence,
    )


def _load(bundle: Bundle, progress: Progress) -> LanguageModel:
    from glassgpt.weights.quantised import load_bundle

    total = bundle.config.n_parameters
    n_read = 0

    def noting(tensor: StoredTensor) -> StoredTensor:
        def read() -> np.ndarray:
            nonlocal n_read
            value = tensor.read()
            n_read += value.size
            progress(min(n_read, total), total)
            return value

        return dataclasses.replace(tensor, read=read)

    noted = {name: noting(tensor) for name, tensor in bundle.parameters.items()}
    return load_bundle(dataclasses.replace(bundle, parameters=noted))
