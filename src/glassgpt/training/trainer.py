"""One step of training: however it is divided into parts and over processes, the same gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.dropout import Dropout
from glassgpt.training.objective import Objective, Rows
from glassgpt.training.optim import learning_rate_at, optimizers_for, set_learning_rate
from glassgpt.training.processes import Processes, whole
from glassgpt.training.recipe import TrainSection


@dataclass(frozen=True)
class Choices:
    """How steps are computed where the recipe leaves it open; a run stays with what it began with."""

    precision: str = "float32"
    compiled: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Step:
    """`loss`: nats a term, before the update. `grad_norm`: before it was clipped."""

    loss: float
    grad_norm: float
    learning_rate: float


class Trainer:
    """A model and its optimizers. Nothing here is random but dropout, which follows from seed, step and row alone, so
    that weights and optimizer state are all that a run must keep to go on bit for bit."""

    def __init__(
        self,
        model: nn.Module,
        train: TrainSection,
        objective: Objective,
        choices: Choices | None = None,
        *,
        seed: int = 0,
        among: Processes | None = None,
    ) -> None:
        self.train, self.objective, self.seed, self.choices = train, objective, seed, choices or Choices()
        self.among = among or Processes()
        self.model = model.to(self.among.device)
        self.spread = self.among.spread(self.model, train.shard)
        self.forward = torch.compile(self.spread) if self.choices.compiled else self.spread
        self.optimizers = optimizers_for(self.model, train)

    def step(self, number: int, rows: Rows) -> Step:
        """One update from a batch. Raises NumericalError, and changes nothing, if the gradient is not finite."""
        loss = self.add_gradients(number, rows)
        rate = learning_rate_at(self.train, number)
        norm = float(whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.train.grad_clip or torch.inf)))
        if not (torch.isfinite(torch.tensor([norm, loss])).all()):
            self._refuse(number, loss)
        set_learning_rate(self.optimizers, rate)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return Step(loss, norm, rate)

    def add_gradients(self, number: int, rows: Rows) -> float:
        """Put the gradient of the batch's mean loss into the parameters, and return that loss."""
        terms = self.objective.terms(rows)
        if terms == 0:
            raise UsageError(f"step {number} has no target that counts: every row is masked")
        parts = self.among.parts(len(next(iter(rows.values()))), self.train.micro_batch_size)
        loss = torch.zeros((), device=self.among.device)
        for i, span in enumerate(parts):
            taken = span or range(max(0, span.start - 1), max(1, span.start))  # any row, to count for nothing
            part = {name: self._here(value[taken.start : taken.stop]) for name, value in rows.items()}
            with self.among.gathering(self.spread, now=i == len(parts) - 1):
                with self._autocast():
                    part_loss = self.objective.loss(self._logits_of(number, taken.start, part), part) / terms
                part_loss = part_loss if span else part_loss * 0
                (part_loss * self.among.count).backward()  # DDP and FSDP take the mean over processes
            loss += part_loss.detach()
        return self.among.total(float(loss))

    def _here(self, value: np.ndarray) -> Tensor:
        return torch.from_numpy(value).to(self.among.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.among.device.split(":")[0], torch.bfloat16, self.choices.precision == "bfloat16")

    def _logits_of(self, number: int, first: int, part: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
        options: dict[str, Any] = {}
        if self.train.dropout:
            options["dropout"] = Dropout(self.train.dropout, self.seed, number, first)
        if "documents" in part:
            options["documents"] = part["documents"]
        return lambda tokens: self.forward(tokens, **options)

    def _refuse(self, number: int, loss: float) -> None:
        bad = [
            name
            for name, p in self.model.named_parameters()
            if p.grad is None or not torch.isfinite(whole(p.grad)).all()
        ]
        self.model.zero_grad()
        what = f"the gradient of {bad[0]}" if bad else "the loss"
        raise NumericalError(
            f"{what} is not finite at step {number} (loss {loss}): the last checkpoint stays; lower "
            "train.learning_rate and train into a new folder"
        )
