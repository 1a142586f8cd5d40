"""One door to every kind of model: `model, tokenizer = glassgpt.load(ref)`."""

from __future__ import annotations

from pathlib import Path

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.weights.run import Run


def load(ref: str | Path) -> tuple[LanguageModel, Tokenizer]:
    """The model and tokenizer that `ref` names: a run folder, or RUN@STEP for the model after so many updates.

    Raises DamagedFileError for a run that is missing files or was altered, UsageError for a step it does not keep.
    """
    run, step = open_run(ref)
    return run.model(step), run.tokenizer


def open_run(ref: str | Path) -> tuple[Run, int | None]:
    """The run folder that `ref` names, its small files checked, and the step if it names one."""
    if not str(ref):
        raise UsageError("the model's name is empty: give a run folder")
    path, at, step = str(ref).rpartition("@")
    if not at or Path(ref).exists():
        path, step = str(ref), ""
    elif not step.isdecimal():
        raise UsageError(f"{step!r} in {str(ref)!r} is no training step: write RUN@STEP, as in runs/baby@25")
    run = Run(path)
    run.check_settings()
    return run, int(step) if step else None
