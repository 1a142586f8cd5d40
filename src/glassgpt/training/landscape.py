"""What the loss landscape of a run is of: the states that it kept, and the windows of text that it is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from glassgpt.errors import UsageError
from glassgpt.evaluation.landscape import Parameters, loss_of, next_token_loss
from glassgpt.text.token_files import MANIFEST, TokenFiles
from glassgpt.weights.run import Run

WINDOWS_MEASURED = 16  # of a text
LEAST_STEPS = 3


@dataclass(frozen=True)
class Windows:
    """inputs, targets: int (windows, T). `last_position_only`: whether the loss counts each window's last target alone,
    as the run's own did."""

    inputs: np.ndarray
    targets: np.ndarray
    last_position_only: bool

    @property
    def n_predicted(self) -> int:
        """How many predictions a loss is the mean of."""
        return len(self.targets) if self.last_position_only else int(self.targets.size)

    def loss(self, model: nn.Module) -> Callable[[Parameters], float]:
        """The mean surprise in nats as a function of parameters like the model's."""
        return loss_of(model, next_token_loss(self.inputs, self.targets, self.last_position_only))


def steps_of_path(run: Run) -> list[int]:
    """The kept steps of a run, if they make a path. Raises UsageError if they are too few."""
    if len(run.steps) < LEAST_STEPS:
        raise UsageError(
            f"{run.path} keeps {len(run.steps)} steps of training, and a path needs {LEAST_STEPS} or more: train it "
            "with a smaller train.save_every and a larger train.keep"
        )
    return run.steps


def windows_of(run: Run) -> Windows:
    """All windows of the sequence that the run was trained on; of a text the first ones kept back.

    Raises UsageError if the run keeps neither, as one that was trained on conversations.
    """
    T, data, last_only = run.config.context_length, run.recipe["data"], run.recipe["train"]["last_position_only"]
    if (sequence := data.get("sequence")) is not None:
        windows = np.lib.stride_tricks.sliding_window_view(run.tokenizer.encode(sequence), T + 1)
        return Windows(windows[:, :-1], windows[:, 1:], last_only)
    folder = Path(data.get("tokens") or run.path / "tokens")
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder} holds no prepared text to measure the loss on: a landscape is of a run that was trained on a "
            "sequence or a text, and keeps it"
        )
    files = TokenFiles.open(folder, verify=False)
    batch = next(iter((files.validation or files.train).windows(T, WINDOWS_MEASURED)))
    return Windows(batch.inputs, batch.targets, last_only)
