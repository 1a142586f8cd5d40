"""One step of training: however it is divided into parts and over processes, the same gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.threads import using
from glassgpt.training.objective import Objective, Rows, without_padding
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
    """`loss`: nats a term, before the update. `grad_norm`: before it was clipped. `more`: what else the objective or
    the stage tells of the step, by name."""

    loss: float
    grad_norm: float
    learning_rate: float
    more: Mapping[str, float] = field(default_factory=dict)


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
        self.by_threads = self.choices.threads > 1 and not self.choices.compiled
        self.by_threads &= self.among.count == 1 and self.among.device == "cpu"
        self.pool = ThreadPoolExecutor(self.choices.threads, "rows", torch.set_num_threads, (1,))
        self.optimizers = optimizers_for(self.model, train, self.pool.map if self.by_threads else map)

    def step(self, number: int, rows: Rows) -> Step:
        """One update from a batch. Raises NumericalError, and changes nothing, if the gradient is not finite."""
        with using(1 if self.by_threads else self.choices.threads):
            return self._step(number, rows)

    def _step(self, number: int, rows: Rows) -> Step:
        loss = self.add_gradients(number, rows)
        rate = learning_rate_at(self.train, number)
        norm = float(whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.train.grad_clip or torch.inf)))
        if not (torch.isfinite(torch.tensor([norm, loss])).all()):
            self._refuse(number, loss)
        set_learning_rate(self.optimizers, rate)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        tally = getattr(self.objective, "tally", None)
        return Step(loss, norm, rate, tally.drain() if tally is not None else {})

    def add_gradients(self, number: int, rows: Rows) -> float:
        """Put the gradient of the batch's mean loss into the parameters, and return that loss."""
        terms = self.objective.terms(rows)
        if terms == 0:
            raise UsageError(f"step {number} has no target that counts: every row is masked")
        n_rows = len(next(iter(rows.values())))
        if self.by_threads:
            return self._add_by_threads(number, rows, n_rows, terms)
        parts = self.among.parts(n_rows, self.train.micro_batch_size)
        loss = torch.zeros((), device=self.among.device)
        for i, span in enumerate(parts):
            taken = span or range(max(0, span.start - 1), max(1, span.start))  # any row, to count for nothing
            with self.among.gathering(self.spread, now=i == len(parts) - 1):
                part_loss = self._loss_of(number, rows, taken) / terms
                part_loss = part_loss if span else part_loss * 0
                (part_loss * self.among.count).backward()  # DDP and FSDP take the mean over processes
            loss += part_loss.detach()
        return self.among.total(float(loss))

    def _add_by_threads(self, number: int, rows: Rows, n_rows: int, terms: int) -> float:
        """Each thread takes rows of its own from beginning to end, and the gradients are added in the threads' order:
        no thread waits for another at every operation, and what torch does in one thread is done in all."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        n, at_once = min(self.choices.threads, n_rows), self.train.micro_batch_size

        def work(share: range) -> tuple[float, list[Tensor]]:
            loss, grads = 0.0, [torch.zeros_like(p) for p in parameters]
            for first in range(share.start, share.stop, at_once or len(share)):
                span = range(first, min(first + (at_once or len(share)), share.stop))
                part_loss = self._loss_of(number, rows, span) / terms
                torch._foreach_add_(grads, torch.autograd.grad(part_loss, parameters, materialize_grads=True))
                loss += float(part_loss.detach())
            return loss, grads

        with using(1):
            done = list(self.pool.map(work, [range(i * n_rows // n, (i + 1) * n_rows // n) for i in range(n)]))
        for _, grads in done:
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad if parameter.grad is None else parameter.grad.add_(grad)
        return sum(loss for loss, _ in done)

    def _loss_of(self, number: int, rows: Rows, span: range) -> Tensor:
        """The sum of these rows' terms."""
        device = self.among.device
        taken = without_padding({name: value[span.start : span.stop] for name, value in rows.items()})
        part = {name: torch.from_numpy(value).to(device) for name, value in taken.items()}
        with torch.autocast(device.split(":")[0], torch.bfloat16, self.choices.precision == "bfloat16"):
            return self.objective.loss(self._logits_of(number, span.start, part), part)

    def _logits_of(self, number: int, first: int, part: Mapping[str, Tensor]) -> Callable[[Tensor], Tensor]:
        options: dict[str, Any] = {}
        if self.train.dropout:
            from glassgpt.models.dropout import Dropout  # brings torch's compiler along: a second and more

            options["dropout"] = Dropout(self.train.dropout, self.seed, number, first)
        if "documents" in part:
            options["documents"] = part["documents"]
        return lambda tokens: self.forward(tokens, **options)

    def _refuse(self, number: int, loss: float) -> None:
        bad = [
            name
            for name, p in self.model.named_parameters()
            if p.requires_grad and (p.grad is None or not torch.isfinite(whole(p.grad)).all())
        ]
        self.model.zero_grad()
        what = f"the gradient of {bad[0]}" if bad else "the loss"
        raise NumericalError(
            f"{what} is not finite at step {number} (loss {loss}): the last checkpoint stays; lower "
            "train.learning_rate and train into a new folder"
        )
