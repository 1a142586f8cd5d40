"""The one training loop: data, an objective, and a run folder from which it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, UsageError
from glassgpt.models.adaptation import adapt, merge
from glassgpt.models.threads import using
from glassgpt.text.prepare import Progress
from glassgpt.training.choices import Choices, choose
from glassgpt.training.data import refuse_what_cannot_be
from glassgpt.training.estimate import refuse_if_too_large, threads_taken
from glassgpt.training.evaluate import Evaluation, best_step
from glassgpt.training.optim import optimizer_tensors, restore_optimizers
from glassgpt.training.processes import Processes, gathered, processes
from glassgpt.training.recipe import Recipe
from glassgpt.training.stage import Moment, Stage, gpt_of
from glassgpt.training.stages import stage_of
from glassgpt.training.trackers import Nowhere, Tracker, library_of, tracker_for
from glassgpt.training.trainer import Step, Trainer
from glassgpt.weights.peft_folder import write_peft
from glassgpt.weights.run import ADAPTER, Checkpoint, Metrics, Run, is_run
from glassgpt.weights.stored import Reading, StoredTensor
from glassgpt.weights.tensors import gpt_state, load_into, load_named, stored_tensors


class Interrupted(GlassGPTError):
    """Training was asked to stop, and did, after saving the step it had reached if there was one."""


@dataclasses.dataclass(frozen=True)
class Watch:
    """Who hears of a training as it goes on: `on_start(stage, step)` when all is ready to go on from `step`,
    `on_step(step, made)` after each step, `on_evaluation`, `on_note` of what a person should know, `on_progress` of
    text being prepared. `should_stop()` is asked before each step, and all the while text is prepared or evaluated."""

    on_start: Callable[[Stage, int], None] = lambda stage, step: None
    on_step: Callable[[int, Step], None] = lambda step, made: None
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
        if recipe.stage == "pretrain":
            refuse_if_too_large(recipe, among.device, among.count, among.beside)
        if recipe.evaluate.track != "none":
            library_of(recipe.evaluate.track)  # what is not installed is told before anything is written
        begun = _begun(Path(out), recipe)
        if begun and begun.is_finished:
            return begun
        gone = _why_text_is_gone(recipe, begun) if recipe.stage == "pretrain" else None
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
        if gone is not None:
            watch.on_note(f"{gone}: going on with the tokens that were prepared from it")
        self.stage = stage_of(
            recipe, run.path, among, self._preparing, replace=not run.has_begun, gone=gone is not None
        )
        self.config = self.stage.config
        self.model = self.stage.model()
        self.prefix, self.gpt = gpt_of(self.model)
        adapt(self.model, recipe.trainable, recipe.run.seed)
        self._begin()
        step, kept = self._newest_sound()
        if among.first:
            watch.on_start(self.stage, step)
        choices = Choices(**kept.state["choices"]) if kept else self._choose()
        if kept:
            self._refuse_changes(kept.state["machine"], allow_changes)
            load_into(self.gpt, Reading(kept.weights))
            load_named(self._added(), Reading(kept.added))
        self.trainer = Trainer(
            self.model, recipe.train, self.stage.objective, choices, seed=recipe.run.seed, among=among
        )
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
                made = self.stage.step(self.trainer, self.step)
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
                **made.more,
            }
            self.metrics.add(row)
            self.tracker.log(self.step, {name: value for name, value in row.items() if name != "step"})
            self.metrics.add_timing({"step": self.step, "seconds": round(seconds, 6)})
            self.watch.on_step(self.step, made)

    def _choose(self) -> Choices:
        threads = threads_taken(self.config, self.recipe)
        if self.recipe.stage != "pretrain":
            return Choices("bfloat16" if self.recipe.train.precision == "bfloat16" else "float32", threads=threads)
        return choose(self.config, self.recipe, self.stage.rows(0), threads, self.among, self.watch.on_note)

    def _evaluate(self) -> None:
        made = self.stage.evaluate(Moment(self.step, self.trainer, self.run, self.among, self._stop_if_asked))
        if made is None or self.metrics is None:
            return
        self.metrics.add(made.row())
        self.tracker.log(self.step, made.numbers(), made.sample)
        self.evaluations.append(made.row())
        self.watch.on_evaluation(made)

    # ---- beginning and saving ------------------------------------------------------------------------------------

    def _preparing(self, stage: str, done: int, total: int | None) -> None:
        self.watch.on_progress(stage, done, total)
        if self.watch.should_stop():
            raise Interrupted(f"stopped while {stage} the text, before the first step: the same command begins again")

    def _begin(self) -> None:
        if self.among.first:
            recipe = _resolved(self.recipe, self.stage.sha256)
            if self.run.has_begun:
                self.run.refuse_other_recipe(recipe)
            else:
                words = dataclasses.asdict(self.stage.words)
                frozen, head = self._frozen(), self.stage.about()
                self.run.begin(self.config, self.stage.tokenizer, recipe, **words, frozen=frozen, head=head)
        self.among.wait()
        if not self.among.first:
            self.run = Run(self.run.path)

    def _frozen(self) -> dict[str, StoredTensor]:
        """The GPT's weights that stay as they are: written once, and in no checkpoint."""
        stored = self._stored()
        trained = {name for name, p in self.gpt.named_parameters() if p.requires_grad}
        return {name: tensor for name, tensor in stored.items() if name not in trained}

    def _stored(self, keep: bool = True) -> dict[str, StoredTensor]:
        """The GPT's weights as files hold them."""
        return stored_tensors(gathered(gpt_state(self.gpt).items(), keep), self.config)

    def _added(self) -> dict[str, torch.Tensor]:
        """What the model has beside its GPT's weights."""
        own = {f"{self.prefix}{name}" for name in gpt_state(self.gpt)}
        return {name: value for name, value in self.model.named_parameters() if name not in own}

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
        weights = self._stored(first)  # in this and those beside it all take part, for FSDP to gather
        added = gathered(self._added().items(), first)
        if self.among.first:
            assert self.metrics is not None
            state = {
                "metrics_bytes": self.metrics.force_to_disk(),
                "choices": dataclasses.asdict(self.choices),
                "machine": _machine(self.among),
            }
            kept = {name: StoredTensor.of(value.numpy()) for name, value in added.items()}
            try:
                self.run.save_checkpoint(self.step, Checkpoint(weights, optimizer, state, kept))
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
        self.stage.finish(self.model)
        trainable = self.recipe.trainable
        if trainable.what == "lora" and self.among.first:
            added = {name: value.detach() for name, value in self._added().items() if name.startswith(self.prefix)}
            of_gpt = {name.removeprefix(self.prefix): value for name, value in added.items()}
            write_peft(self.run.path / ADAPTER, self.config, trainable, of_gpt, self.recipe.run.base or "")
        if trainable.what == "lora":
            merge(self.model)
        weights, added = self._stored(self.among.first), gathered(self._added().items(), self.among.first)
        if self.among.first:
            self.run.save_model(weights, {name: StoredTensor.of(value.numpy()) for name, value in added.items()})
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
