"""A small GPT trained while one looks on: the project's own training loop in a thread, held where it is told to wait.

The loop asks before each step whether to stop, and there it can be held. Frames are the logits after every full
context: frame n is the model after n updates, and the loss of step n is that model's, before its update.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.interface import LanguageModel
from glassgpt.models.gpt_torch import GPT
from glassgpt.serving.events import Event, EventLog
from glassgpt.serving.models import Models, states_of
from glassgpt.serving.refusals import Refusal, refusal_of
from glassgpt.serving.sources import source_of_run
from glassgpt.serving.tensors import as_float32
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import Recipe
from glassgpt.training.stage import Stage
from glassgpt.training.trainer import Step, Trainer
from glassgpt.weights.run import Run

MOST_AT_ONCE = 2  # trainings under way
MOST_KEPT = 16  # trained here and served, before the oldest is forgotten
INLINE = 4096  # numbers in a frame that stands in its event
FRAMES = 1 << 25  # numbers in the frames of one training that don't
SECONDS_ALONE = 60.0  # that a training is held while nobody looks on; then it is stopped
SECONDS_TO_STOP = 5.0


@dataclass
class Hold:
    """Where a training waits before its next step. `steps` may still be made: infinitely many while it runs."""

    steps: float = float("inf")
    is_stopped: bool = False


class Training:
    """One training, its events, and the frames that were too large to stand in them."""

    def __init__(self, name: str, recipe: Recipe, folder: Path, on_done: Callable[[Training, Run], None]) -> None:
        self.id, self.recipe, self.folder = name, recipe, folder
        self.events = EventLog()
        self.frames: dict[int, np.ndarray] = {}
        self.n_made = 0  # steps
        self._hold, self._changed = Hold(), threading.Condition()
        self._on_done = on_done
        self._thread = threading.Thread(target=self._run, name=f"training {name}", daemon=True)
        self._wanted = frames_wanted(recipe)
        self._made_frame: Callable[[], None] = lambda: None

    def start(self) -> None:
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return self.events.is_closed

    # ---- what a page may ask for ---------------------------------------------------------------------------------

    def pause(self) -> None:
        self._set(steps=0)

    def resume(self) -> None:
        self._set(steps=float("inf"))

    def step(self) -> None:
        """One step, and then hold."""
        self._set(steps=1)

    def stop(self) -> None:
        """End after the step under way; the model stays as it is then."""
        self._set(is_stopped=True)

    def _set(self, **changes: Any) -> None:
        with self._changed:
            self._hold = replace(self._hold, **changes)
            self._changed.notify()

    def state(self) -> dict[str, Any]:
        with self._changed:
            state = "paused" if self._hold.steps == 0 else "running"
        return {"run": self.id, "state": "done" if self.is_done else state, "step": self.n_made}

    def wait_until_done(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    # ---- in its thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        watch = Watch(on_start=self._begin, on_step=self._made, should_stop=self._held)
        try:
            self._look(GPT(self.recipe.model, seed=self.recipe.run.seed), 0)  # before the loop may be held
            try:
                run, is_stopped = train(self.recipe, self.folder, watch=watch, device="cpu"), False
            except Interrupted:
                run, is_stopped = Run(self.folder), True
            self._on_done(self, run)
            self.events.add(Event("done", {"model": self.id, "step": self.n_made, "stopped": is_stopped}))
        except Exception as error:
            self.events.add(Event("error", refusal_of(error).told()))
        finally:
            self.events.close()

    def _begin(self, stage: Stage, step: int) -> None:
        """The loop tells that a step was made and not of which model: its trainer is met where the stage makes it."""
        made_by_stage = stage.step

        def step_in_sight(trainer: Trainer, number: int) -> Step:
            made = made_by_stage(trainer, number)
            self._made_frame = partial(self._look, trainer.model, number + 1)  # type: ignore[arg-type]
            return made

        stage.step = step_in_sight  # type: ignore[method-assign]

    def _made(self, step: int, made: Step) -> None:
        self.n_made = step + 1
        self.events.add(Event("step", {"step": step, "loss": made.loss}))
        self._made_frame()

    def _look(self, model: LanguageModel, step: int) -> None:
        """Keep the logits after every full context, if this is a step at which they are wanted."""
        if step not in self._wanted:
            return
        table = as_float32(model.context_table())
        told: Mapping[str, Any]
        if table.size <= INLINE:
            told = {"logits": base64.b64encode(table.astype("<f4").tobytes()).decode()}
        else:
            self.frames[step] = table
            told = {"url": f"/api/v1/train/{self.id}/frames/{step}"}
        shape = {"step": step, "n_states": len(table), "vocab_size": table.shape[1]}
        self.events.add(Event("frame", {**shape, **told}))

    def _held(self) -> bool:
        """Wait until a step may be made. Returns whether to stop instead."""
        with self._changed:
            alone = 0.0
            while self._hold.steps == 0 and not self._hold.is_stopped:
                self._changed.wait(1.0)
                alone = 0.0 if self.events.n_readers else alone + 1.0
                if alone >= SECONDS_ALONE:
                    return True
            self._hold = replace(self._hold, steps=self._hold.steps - 1)
            return self._hold.is_stopped


def frames_wanted(recipe: Recipe) -> frozenset[int]:
    """At which steps: all of them for a small table, else the first and the last and about eight for every doubling,
    fewer if they are large; none where there are too many states to list.

    >>> from glassgpt.training.recipe import read_recipe
    >>> len(frames_wanted(read_recipe("baby")))  # before the first of 50 steps and after each
    51
    """
    V, last = recipe.model.vocab_size, recipe.train.steps
    n_states = states_of(V, recipe.model.context_length)
    if n_states is None:
        return frozenset()
    if n_states * V <= INLINE:
        return frozenset(range(last + 1))
    spaced = {round(2 ** (k / 8)) for k in range(8 * last.bit_length() + 1)}
    steps = sorted({0, last} | {step for step in spaced if step < last})
    n = min(len(steps), max(2, FRAMES // (n_states * V)))
    return frozenset(steps[i * (len(steps) - 1) // (n - 1)] for i in range(n))


class Trainings:
    """Those under way and those done, whose models are served beside the others."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._all: dict[str, Training] = {}
        self._folder: Path | None = None
        self._n_begun = 0

    def begin(self, recipe: Recipe) -> Training:
        """Raises Refusal ("busy") where enough are under way."""
        if sum(not training.is_done for training in self._all.values()) >= MOST_AT_ONCE:
            what = f"{MOST_AT_ONCE} trainings are under way, and no more are begun"
            raise Refusal("busy", what, "stop one of them, or wait until it is done")
        self._forget_the_oldest()
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="glassgpt-"))
        self._n_begun += 1
        name = f"trained-{self._n_begun}"
        training = Training(name, recipe, self._folder / name, self._serve)
        self._all[name] = training
        training.start()
        return training

    def __getitem__(self, name: str) -> Training:
        if name not in self._all:
            raise Refusal("missing", f"there is no training {ascii(name)[:60]}", "begin one with /api/v1/train")
        return self._all[name]

    def _serve(self, training: Training, run: Run) -> None:
        sequence = training.recipe.data.sequence or ""
        shown = sequence if len(sequence) <= 24 else f"{sequence[:24]}..."
        self.models.add(source_of_run(run, f"trained on {shown}", training.id), training.id)

    def _forget_the_oldest(self) -> None:
        done = [training for training in self._all.values() if training.is_done]
        for training in done[: max(0, len(self._all) - MOST_KEPT + 1)]:
            del self._all[training.id]
            self.models.remove(training.id)
            shutil.rmtree(training.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop all of them. They are not waited for."""
        for training in self._all.values():
            training.stop()

    def wait_until_closed(self) -> None:
        """Afterwards no file is left behind."""
        for training in self._all.values():
            training.wait_until_done(SECONDS_TO_STOP)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
