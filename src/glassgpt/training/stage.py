"""What one stage of training is made of: its data, its model, what it asks of it, and how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.training.evaluate import Evaluation
from glassgpt.training.objective import Objective, Rows
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import Recipe
from glassgpt.training.trainer import Step, Trainer
from glassgpt.weights.run import Run


@dataclass(frozen=True)
class Moment:
    """Where a training stands when it is evaluated: after `step` updates. `poll` is called between parts of the work,
    and may raise to stop."""

    step: int
    trainer: Trainer
    run: Run
    among: Processes
    poll: Callable[[], None]

    @property
    def is_last(self) -> bool:
        return self.step == self.trainer.train.steps


@dataclass(frozen=True)
class Words:
    """What a run folder keeps beside the tokenizer: how the model converses, and after which ids its texts end."""

    chat_template: str | None = None
    end_tokens: tuple[int, ...] = ()
    roles: Mapping[str, int | str] = field(default_factory=dict)


class Stage(ABC):
    """A stage, with its data at hand. All that it does is a function of its recipe, its data and the step."""

    recipe: Recipe
    config: GPTConfig
    tokenizer: Any
    objective: Objective
    words = Words()

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Of all that the stage is made of beside the recipe: data, and the models that it begins from."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The model before the first step: a GPT, or a module that holds one (`gpt_of`)."""

    @abstractmethod
    def rows(self, step: int) -> Rows:
        """The rows of a step, which depend on the step alone."""

    def step(self, trainer: Trainer, number: int) -> Step:
        """One step of the loop."""
        return trainer.step(number, self.rows(number))

    def evaluate(self, now: Moment) -> Evaluation | None:
        """How the model does; only the first process is listened to, and all must ask."""
        return None

    def finish(self, model: nn.Module) -> None:  # noqa: B027 (most stages leave it at that)
        """A last touch before the model is written."""

    def notes(self) -> list[str]:
        """What a person is told before the first step, line by line."""
        return []

    def about(self) -> dict[str, Any]:
        """What a run folder says of the model's head, if it has one."""
        return {}


def gpt_of(model: nn.Module) -> tuple[str, GPT]:
    """The GPT that a stage's module is or holds, and what its parameters' names begin with there."""
    if isinstance(model, GPT):
        return "", model
    for name in ("gpt", "policy"):
        inner = getattr(model, name, None)
        if isinstance(inner, GPT):
            return f"{name}.", inner
    raise TypeError(f"a {type(model).__name__} holds no GPT")
