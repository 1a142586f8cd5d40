"""`glassgpt train RECIPE --out RUN`: train, or go on with a run that was stopped."""

from __future__ import annotations

import argparse
import signal
import textwrap
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from glassgpt.cli.main import Stopped
from glassgpt.cli.output import add_json, console, print_json, print_table, progress_to_stderr
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.training.evaluate import Evaluation
    from glassgpt.training.recipe import Recipe
    from glassgpt.weights.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, such as recipes/baby.toml")
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to make, or to go on with")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, as in model.vocab_size=3"
    )
    parser.add_argument("--device", help="cpu or cuda (by default a GPU if there is one)")
    parser.add_argument(
        "--allow-changes",
        action="store_true",
        help="go on though torch, the processor or the number of processes is another: the last bits will differ",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.training.processes import is_first
    from glassgpt.training.recipe import read_recipe

    if not (args.recipe and args.out):
        raise UsageError("RECIPE and --out must not be empty")
    recipe = read_recipe(args.recipe, args.set)
    quiet = args.json or not is_first()
    trained = train_showing_progress(
        recipe, args.out, quiet=quiet, device=args.device, allow_changes=args.allow_changes
    )
    if not is_first():
        return 0
    if args.json:
        print_json(_report(trained, recipe))
    else:
        _print_summary(trained, recipe)
    return 0


def _report(trained: Run, recipe: Recipe) -> dict[str, Any]:
    return {
        "run": str(trained.path),
        "parameters": trained.config.n_parameters,
        "steps": recipe.train.steps,
        "losses": [row["loss"] for row in trained.metrics()],
        "evaluations": trained.evaluations(),
        "yardsticks": trained.yardsticks(),
        "kept_steps": trained.steps,
        "recipe": recipe.to_dict(),
    }


def _print_summary(trained: Run, recipe: Recipe) -> None:
    losses = [row["loss"] for row in trained.metrics()]
    fell = f", the loss fell from {losses[0]:.4f} to {losses[-1]:.4f} nats" if losses else ""
    console().print(f"{trained.path}: {trained.config.n_parameters:,} parameters, {recipe.train.steps} steps{fell}")
    measured = [row["bits_per_byte"] for row in trained.evaluations() if row["bits_per_byte"] is not None]
    if measured:
        levels = trained.yardsticks() | {"this model": measured[-1]}
        rows = sorted(levels.items(), key=lambda level: -level[1])
        print_table(["bits per byte of the validation part", ""], [[name, f"{bits:.3f}"] for name, bits in rows])


def train_showing_progress(
    recipe: Recipe, out: str, *, quiet: bool, device: str | None = None, allow_changes: bool = False
) -> Run:
    """Train with a progress bar on standard error; Ctrl-C and SIGTERM stop it after the step under way is saved."""
    from glassgpt.training.loop import Interrupted, Watch, train

    with stop_signals() as caught, _Display(recipe, quiet) as display:
        watch = Watch(
            on_step=display.step,
            on_evaluation=display.evaluation,
            on_note=display.note,
            on_progress=display.preparing,
            should_stop=lambda: bool(caught),
        )
        try:
            return train(recipe, out, watch=watch, device=device, allow_changes=allow_changes)
        except Interrupted as error:
            raise Stopped("" if error.is_told else str(error), 128 + (caught or [signal.SIGTERM])[0]) from None


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that holds the number of the first SIGINT or SIGTERM that came within the block.

    A second one while saving changes nothing: the save is short, and half of it would be worth less than none.
    """
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Display:
    """What a person sees while a recipe trains: a line that moves if standard error is a terminal, and one that stays
    for each evaluation."""

    def __init__(self, recipe: Recipe, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._recipe, self._quiet, self._console = recipe, quiet, console(error=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
        show = progress_to_stderr(quiet)
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console, disable=not show)
        self._task = self._progress.add_task("preparing", total=None, told="")
        self._stage = ""
        self._seconds: deque[float] = deque(maxlen=50)  # when the last steps ended

    def __enter__(self) -> _Display:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def preparing(self, stage: str, done: int, total: int | None) -> None:
        self._begin(stage, total)
        self._progress.update(self._task, completed=done, told=f"{done / 1e6:,.1f} MB")

    def step(self, step: int, loss: float) -> None:
        train = self._recipe.train
        self._begin("training", train.steps)
        self._seconds.append(time.perf_counter())
        told = f"{step + 1}/{train.steps}  loss {loss:.4f}"
        if train.batch_size and len(self._seconds) > 1:
            rate = (len(self._seconds) - 1) / (self._seconds[-1] - self._seconds[0])
            told += f"  {rate * train.batch_size * self._recipe.model.context_length:,.0f} tokens/s"
        self._progress.update(self._task, completed=step + 1, told=told)

    def evaluation(self, made: Evaluation) -> None:
        if self._quiet:
            return
        loss = "" if made.validation_loss is None else f": validation {made.validation_loss:.4f} nats a token"
        bits = "" if made.bits_per_byte is None else f", {made.bits_per_byte:.3f} bits per byte"
        self._progress.console.print(f"after {made.step} steps{loss}{bits}")
        if made.sample:
            self._progress.console.print(textwrap.indent(made.sample, "  | "))
        self._seconds.clear()

    def note(self, text: str) -> None:
        if not self._quiet:
            self._progress.console.print(text)

    def _begin(self, stage: str, total: int | None) -> None:
        if stage != self._stage:
            self._progress.reset(self._task, total=total, description=stage)
            self._stage = stage
