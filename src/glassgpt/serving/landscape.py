"""The loss around a training's path, or around one of its steps, measured while one looks on.

The numbers are those of `glassgpt see landscape` and `landscape-around`: `evaluation.landscape` says where to measure,
`training.landscape` on what.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.evaluation.landscape import (
    SIZE,
    Landscape,
    Parameters,
    Survey,
    parameters_of,
    random_survey,
    trajectory_survey,
)
from glassgpt.models.threads import threads_for
from glassgpt.models.trace import torch_gpt_in
from glassgpt.serving.asked import Asked
from glassgpt.serving.events import Event
from glassgpt.serving.generation import LARGEST_SEED
from glassgpt.serving.models import Served
from glassgpt.serving.refusals import Refusal
from glassgpt.training.landscape import Windows, steps_of_path, windows_of
from glassgpt.weights.run import Run

PLANES = ("path", "random")
TURN = 0.1  # seconds of measuring, after which others take their turn
MOST_NUMBERS = 1 << 24  # in the states of a path
MOST_WORK = 10**12  # losses x tokens read for each x parameters: minutes, on a small machine


@dataclass(frozen=True)
class LandscapeQuestion:
    """A plane through the parameters of a run: the one along which its training moved most, or one that is drawn from
    `seed` through the step asked of."""

    run: Run
    plane: str
    seed: int

    @classmethod
    def asked(cls, asked: Asked, served: Served) -> LandscapeQuestion:
        plane, seed = asked.text("plane", "path"), asked.whole("seed", 0, LARGEST_SEED, 0)
        if plane not in PLANES:
            raise Refusal("usage", f"plane must be one of {', '.join(PLANES)}, got {plane[:40]!a}")
        if (run := served.source.run) is None:
            raise Refusal(
                "usage",
                f"{served.id} is no run: a landscape is of a training, and needs the steps and the text that it kept",
                "train one with `glassgpt train recipes/baby.toml --out runs/baby`, and serve it",
            )
        if served.change is not None:
            raise Refusal("usage", "a landscape is of the weights that were trained", "leave the change out")
        return cls(run, plane, seed)

    def answered(self, served: Served, step: int | None) -> Generator[Event, None, dict[str, Any]]:
        """How far it is, again and again; then the landscape, infinity as null."""
        is_path = self.plane == "path"
        steps, windows = steps_of_path(self.run) if is_path else [self._step(served, step)], windows_of(self.run)
        n_losses = SIZE**2 + (2 * len(steps) if is_path else 1)
        refuse_too_much(self.run, len(steps), n_losses, windows)
        total = len(steps) + n_losses
        states: list[Mapping[str, np.ndarray]] = []
        for kept in steps if is_path else [step]:
            model = torch_gpt_in(served.model(kept))
            states.append(parameters_of(model))
            yield _progress(len(states), total)
        if is_path:
            survey = trajectory_survey(states, steps, SIZE)
        else:
            survey = random_survey(states[0], steps[0], SIZE, seed=self.seed)
        losses = yield from _measured(survey, windows.loss(model), total)
        return {"plane": self.plane, "n_tokens": windows.n_predicted, **told(survey.landscape(losses))}

    def _step(self, served: Served, step: int | None) -> int:
        """The number of the step that a question is about; without one, that of the model as it is served."""
        return next(at for at in (step, served.source.step, *self.run.steps[-1:], 0) if at is not None)


def _measured(survey: Survey, loss: Callable[[Parameters], float], total: int) -> Generator[Event, None, np.ndarray]:
    """The losses of a survey, float64 (n_points,), with an event whenever a turn is over."""
    losses, points = list[float](), survey.points()
    while len(losses) < survey.n_points:
        until = time.monotonic() + TURN
        with threads_for(survey.n_parameters):  # and not while others have their turn
            for point in points:
                losses.append(loss(point))
                if time.monotonic() > until:
                    break
        yield _progress(total - survey.n_points + len(losses), total)
    return np.array(losses)


def refuse_too_much(run: Run, n_states: int, n_losses: int, windows: Windows) -> None:
    """Raises Refusal for what would fill the memory, or take longer than anybody waits for a page."""
    size, read = run.config.n_parameters, windows.inputs.size
    line = "`glassgpt see landscape RUN --out landscape.png` has no such bound"
    if n_states * size > MOST_NUMBERS:
        what = f"{n_states:,} kept steps of {size:,} parameters are {n_states * size:,} numbers"
        raise Refusal("too_big", f"{what}; up to {MOST_NUMBERS:,} are held here", line)
    if n_losses * read * size > MOST_WORK:
        what = f"{n_losses:,} losses on {read:,} tokens with {size:,} parameters are too much to wait for here"
        raise Refusal("too_big", what, line)


def told(land: Landscape) -> dict[str, Any]:
    """A landscape as JSON has it."""
    return {
        "across": land.across.tolist(),
        "up": land.up.tolist(),
        "losses": [_finite(row) for row in land.losses],
        "steps": land.steps.tolist(),
        "path": land.path.tolist(),
        "path_losses": _finite(land.path_losses),
        "shadow_losses": _finite(land.shadow_losses),
        "off_plane": land.off_plane.tolist(),
        "n_parameters": land.n_parameters,
        "travelled": land.travelled,
        "explained": None if land.explained is None else land.explained.tolist(),
        "random_walk": land.random_walk,
    }


def _finite(losses: np.ndarray) -> list[float | None]:
    return [loss if np.isfinite(loss) else None for loss in losses.tolist()]


def _progress(done: int, total: int) -> Event:
    return Event("progress", {"done": done, "total": total})
