"""The one training loop: data, an objective, and a run folder from which it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.threads import using
from glassgpt.text.prepare import Progress
from glassgpt.text.token_files import TokenPart
from glassgpt.training.choices import Choices, choose
from glassgpt.training.data import Corpus, TrainingData, beginning, prepared_data, refuse_what_cannot_be, training_data
from glassgpt.training.estimate import refuse_if_too_large, threads_taken
from glassgpt.training.evaluate import Evaluation, best_step, bits_per_byte, sample, validation_loss, yardsticks
from glassgpt.training.objective import NextToken
from glassgpt.training.optim import optimizer_tensors, restore_optimizers
from glassgpt.training.processes import Processes, gathered, processes
from glassgpt.training.recipe import Recipe
from glassgpt.training.trackers import Nowhere, Tracker, library_of, tracker_for
from glassgpt.training.trainer import Step, Trainer
from glassgpt.weights.run import Checkpoint, Metrics, Run, is_run
from glassgpt.weights.stored import Reading, StoredTensor
from glassgpt.weights.tensors import load_into, stored_tensors

TOKENS = "tokens"


class Interrupted(GlassGPTError):
    """Training was asked to stop, and did, after saving the step it had reached if there was one."""


@dataclasses.dataclass(frozen=True)
class Watch:
    """Who hears of a training as it goes on: `on_start(config, data, step)` when all is ready to go on from `step`,
    `on_step(step, loss)` after each step, `on_evaluation`, `on_note` of what a person should know, `on_progress` of
    text being prepared. `should_stop()` is asked before each step, and all the while text is prepared or evaluated."""

    on_start: Callable[[GPTConfig, TrainingData, int], None] = lambda config, data, step: None
    on_step: Callable[[int, float], None] = lambda step, loss: None
    on_evaluation: Callable[[Evaluation], None] = lambda evaluation: None
    on_note: Callable[[str], None] = lambda note: None
    on_progress: Progress = lambda stage, done, total: None
    should_stop: Callable[[], bool] = lambda: False


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    watch: Watch | None = None,
    device: str | None = None,
    allow_changes: bool = False,
) -> Run:
    """Train a recipe into the run folder `out`, or go on with the run that is there.

    The weights come out bit for bit as if it had never stopped; the checkpoint of the step at which it did stays.
    Under torchrun all processes train together. `device`: cpu, cuda; the fastest there is by default.

    Interrupted is raised once the step reached is saved. Raises NumericalError, and keeps the last sound checkpoint, if
    a gradient is not finite; UsageError if the recipe, the text, or (without `allow_changes`) what decides the last
    bits, such as the number of processes, is another than the run was begun with, or if another process is training
    into the folder; WriteError for what the disk refuses. What was saved before is whole, whatever is raised.
    """
    watch = watch or Watch()
    with processes(device) as among, ExitStack() as stack:
        watch = watch if among.first else Watch(should_stop=watch.should_stop)  # one speaks
        refuse_if_too_large(recipe, among.device, among.count, among.beside)
        if recipe.evaluate.track != "none":
            library_of(recipe.evaluate.track)  # what is not installed is told before anything is written
        begun = _begun(Path(out), recipe)
        if begun and begun.is_finished:
            return begun
        gone = _why_text_is_gone(recipe, begun)
        run = stack.enter_context(Run.held(out)) if among.first else None
        among.wait()
        training = _Training(run or Run(out), recipe, among, watch, allow_changes, gone)
        stack.callback(training.close)
        training.go_on()
        return training.run


def _begun(out: Path, recipe: Recipe) -> Run | None:
    """The run that is there, if it was begun. Raises UsageError if it was with another recipe."""
    run = Run(out) if is_run(out) else None
    if run is None or not run.has_begun:
        return None
    run.refuse_other_recipe(_resolved(recipe, run.recipe["data"]["sha256"]))
    return run


def _why_text_is_gone(recipe: Recipe, begun: Run | None) -> str | None:
    """Of a run that has begun, why its text can't be read again: it is prepared, so the run can go on without."""
    if begun and "-" in (recipe.data.files or ()):
        return "standard input is not read again"
    try:
        refuse_what_cannot_be(recipe)
    except UsageError as error:
        if begun is None:
            raise
        return str(error)
    return None


def _resolved(recipe: Recipe, sha256: str) -> dict[str, Any]:
    content = recipe.to_dict()
    content["data"]["sha256"] = sha256
    return content


class _Training:
    """One stretch of a run, from its newest checkpoint to its end or a stop."""

    def __init__(
        self, run: Run, recipe: Recipe, among: Processes, watch: Watch, allow_changes: bool, gone: str | None
    ) -> None:
        self.run, self.recipe, self.among, self.watch = run, recipe, among, watch
        self.data = self._prepared(gone)
        self.config = dataclasses.replace(recipe.model, vocab_size=self.data.tokenizer.vocab_size)
        self._begin()
        step, kept = self._newest_sound()
        if among.first:
            watch.on_start(self.config, self.data, step)
        choices = Choices(**kept.state["choices"]) if kept else self._choose()
        if kept:
            self._refuse_changes(kept.state["machine"], allow_changes)
        self.model = GPT(self.config, seed=recipe.run.seed)
        if kept:
            load_into(self.model, Reading(kept.weights))
        objective = NextToken(recipe.train.last_position_only)
        self.trainer = Trainer(self.model, recipe.train, objective, choices, seed=recipe.run.seed, among=among)
        if kept:
            restore_optimizers(self.model, self.trainer.optimizers, Reading(kept.optimizer))
        self.choices, self.step, self.kept = choices, step, kept
        self.saved = step if kept else None  # the step of the last checkpoint, which every process knows
        self.metrics: Metrics | None = None
        self.tracker: Tracker = Nowhere()

    def close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()
        self.tracker.close()

    # ---- going on ------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        if self.among.first:
            self.metrics = self.run.open_metrics(self.kept.state["metrics_bytes"] if self.kept else 0)
            self.run.remove_leftovers()
            self.tracker = tracker_for(self.recipe.evaluate.track, self.run.path, self.recipe.to_dict(), self.step)
        self.among.wait()  # until what is measured again is cut from the metrics
        self.evaluations = self.run.evaluations()
        if self.among.first:
            self.run.drop_checkpoints(self._too_many())  # it may have been stopped between a save and this
        evaluated = {row["step"] for row in self.evaluations}
        self._save()
        self.kept = None  # what it held is in the model now
        train, began = self.recipe.train, time.perf_counter()
        with using(self.choices.threads):
            while True:
                if self._is_time_to_evaluate() and self.step not in evaluated:
                    self._evaluate()
                if self.step == train.steps:
                    break
                self._stop_if_asked()
                made = self.trainer.step(self.step, self.data.rows(self.step))
                self._tell(made, time.perf_counter() - began)
                began = time.perf_counter()
                self.step += 1
                if self.step % train.save_every == 0 or self._is_time_to_evaluate():
                    self._save()
        if self.among.first:
            assert self.metrics is not None
            self.metrics.force_to_disk()
        self._finish()

    def _stop_if_asked(self) -> None:
        if self.among.total(self.watch.should_stop()):
            self._save()
            raise Interrupted(
                f"stopped after {self.step} of {self.recipe.train.steps} steps, and saved: the same command goes on"
            )

    def _is_time_to_evaluate(self) -> bool:
        every = self.recipe.evaluate.every
        return self.step == self.recipe.train.steps or (every is not None and self.step % every == 0)

    def _tell(self, made: Step, seconds: float) -> None:
        if self.metrics is not None:
            row = {
                "step": self.step,
                "loss": made.loss,
                "learning_rate": made.learning_rate,
                "grad_norm": made.grad_norm,
            }
            self.metrics.add(row)
            self.tracker.log(self.step, {name: value for name, value in row.items() if name != "step"})
            self.metrics.add_timing({"step": self.step, "seconds": round(seconds, 6)})
            self.watch.on_step(self.step, made.loss)

    def _choose(self) -> Choices:
        threads = threads_taken(self.config, self.recipe)
        return choose(self.config, self.recipe, self.data.rows(0), threads, self.among, self.watch.on_note)

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def _evaluate(self) -> None:
        if not isinstance(self.data, Corpus):
            return  # nothing of a sequence is kept back
        loss = bits = None
        part = self._part_to_measure()
        if part is not None:
            loss = validation_loss(
                self.trainer.spread,
                part,
                self.config.context_length,
                self.among,
                mask_documents=self.recipe.data.mask_documents,
                poll=self._stop_if_asked,
            )
            if not math.isfinite(loss):
                raise NumericalError(f"the validation loss is {loss} after step {self.step}: the last checkpoint stays")
            bits = bits_per_byte(loss, part)
        if not self.among.first or self.metrics is None:
            return
        self._compare_with_yardsticks()
        evaluation = Evaluation(self.step, loss, bits, len(part) - 1 if part else 0, self._sample())
        self.metrics.add(evaluation.row())
        self.tracker.log(self.step, {"validation_loss": loss, "bits_per_byte": bits}, evaluation.sample)
        self.evaluations.append(evaluation.row())
        self.watch.on_evaluation(evaluation)

    def _part_to_measure(self) -> TokenPart | None:
        """All that validates at the end, and before that the first `evaluate.tokens` targets."""
        part, most = self.data.validation, self.recipe.evaluate.tokens
        if part is None or most is None or self.step == self.recipe.train.steps:
            return part
        return beginning(part, most + 1, self.data.tokenizer)

    def _sample(self) -> str | None:
        if not self.recipe.evaluate.sample_tokens:
            return None
        return sample(self.run.model(self.step), self.data.tokenizer, self.data.prompt, self.recipe)

    def _compare_with_yardsticks(self) -> None:
        """Once a run, and not while the first step is waited for."""
        if isinstance(self.data, Corpus) and self.data.validation is not None and not self.run.yardsticks():
            files = self.data.files
            poll = self._stop_if_asked if self.among.count == 1 else lambda: None  # the others don't take part
            self.run.save_yardsticks(yardsticks(files.train, self.data.validation, files.tokenizer, poll))

    # ---- beginning and saving ------------------------------------------------------------------------------------

    def _prepared(self, gone: str | None) -> TrainingData:
        folder = Path(self.recipe.data.tokens or self.run.path / TOKENS)
        if gone is not None:
            self.watch.on_note(f"{gone}: going on with the tokens that were prepared from it")
            return prepared_data(self.recipe, folder)
        data = None
        if self.among.first:
            replace = self.recipe.data.tokens is None and not self.run.has_begun
            data = training_data(self.recipe, folder, self._preparing, replace=replace)
        self.among.wait()
        return data or training_data(self.recipe, folder)

    def _preparing(self, stage: str, done: int, total: int | None) -> None:
        self.watch.on_progress(stage, done, total)
        if self.watch.should_stop():
            raise Interrupted(f"stopped while {stage} the text, before the first step: the same command begins again")

    def _begin(self) -> None:
        if self.among.first:
            recipe = _resolved(self.recipe, self.data.sha256)
            if self.run.has_begun:
                self.run.refuse_other_recipe(recipe)
            else:
                self.run.begin(self.config, self.data.tokenizer, recipe)
        self.among.wait()
        if not self.among.first:
            self.run = Run(self.run.path)

    def _newest_sound(self) -> tuple[int, Checkpoint | None]:
        """The newest checkpoint that is as it was written; those after it are damaged, and made again."""
        for step in reversed(self.run.steps):
            try:
                kept = self.run.checkpoint(step, self.config)
            except DamagedFileError as error:
                if step == self.run.steps[0]:
                    raise
                self.watch.on_note(f"{error}; going on from the checkpoint before it")
                continue
            if self.among.first:
                self.run.drop_checkpoints([later for later in self.run.steps if later > step])
            return step, kept
        return 0, None

    def _refuse_changes(self, before: dict[str, Any], allowed: bool) -> None:
        now = _machine(self.among)
        for key in now:
            if before.get(key) != now[key]:
                what = f"{self.run.path} was begun with {key} = {before.get(key)}, and now it is {now[key]}"
                if not allowed:
                    raise UsageError(
                        f"{what}: the numbers would differ in their last bits; allow that (--allow-changes), or go on "
                        "where it was begun"
                    )
                self.watch.on_note(f"{what}: the numbers differ in their last bits")

    def _save(self) -> None:
        """Write a checkpoint of this step, if there is none."""
        if self.step == self.saved:
            return
        first = self.among.first
        remembered = optimizer_tensors(self.model, self.trainer.optimizers, keep=first)
        optimizer = {name: StoredTensor.of(value) for name, value in remembered.items()}
        state_dict = gathered(self.model.state_dict().items(), first)  # in these two all take part, for FSDP to gather
        weights = stored_tensors(state_dict, self.config)
        if self.among.first:
            assert self.metrics is not None
            state = {
                "metrics_bytes": self.metrics.force_to_disk(),
                "choices": dataclasses.asdict(self.choices),
                "machine": _machine(self.among),
            }
            try:
                self.run.save_checkpoint(self.step, Checkpoint(weights, optimizer, state))
            except NumericalError as error:
                raise NumericalError(f"not finite after step {self.step}: {error}; the last checkpoint stays") from None
            self.run.drop_checkpoints(self._too_many())
        self.saved = self.step
        self.among.wait()

    def _too_many(self) -> list[int]:
        keep = self.recipe.train.keep
        if keep is None:
            return []
        best = best_step(self.evaluations)
        return [step for step in self.run.steps[:-keep] if step != best]

    def _finish(self) -> None:
        if self.among.first:
            self.run.save_model(self.run.checkpoint(self.step, self.config).weights)
        self.among.wait()
        self.run = self.run if self.among.first else Run(self.run.path)


def _machine(among: Processes) -> dict[str, Any]:
    """What decides the last bits of a sum."""
    return {
        "torch": torch.__version__,
        "device": among.device.split(":")[0],
        "processes": among.count,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
