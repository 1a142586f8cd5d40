"""`glassgpt train RECIPE --out RUN`: train, or go on with a run that was stopped."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from glassgpt.cli.main import Stopped
from glassgpt.cli.output import add_json, console, print_json, progress_to_stderr
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.training.recipe import Recipe
    from glassgpt.weights.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, such as recipes/baby.toml")
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to make, or to go on with")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, as in model.vocab_size=3"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.training.recipe import read_recipe

    if not (args.recipe and args.out):
        raise UsageError("RECIPE and --out must not be empty")
    recipe = read_recipe(args.recipe, args.set)
    trained = train_showing_progress(recipe, args.out, quiet=args.json)
    losses = [row["loss"] for row in trained.metrics()]
    if args.json:
        print_json(_report(trained, recipe, losses))
    else:
        fell = f", the loss fell from {losses[0]:.4f} to {losses[-1]:.4f} nats" if losses else ""
        console().print(f"{trained.path}: {recipe.model.n_parameters:,} parameters, {recipe.train.steps} steps{fell}")
    return 0


def _report(trained: Run, recipe: Recipe, losses: list[float]) -> dict[str, Any]:
    return {
        "run": str(trained.path),
        "parameters": recipe.model.n_parameters,
        "steps": recipe.train.steps,
        "losses": losses,
        "kept_steps": trained.steps,
        "recipe": recipe.to_dict(),
    }


def train_showing_progress(recipe: Recipe, out: str, *, quiet: bool) -> Run:
    """Train with a progress bar on standard error; Ctrl-C and SIGTERM stop it after the step under way is saved."""
    from glassgpt.training.loop import Interrupted, train

    with stop_signals() as caught, progress_bar(recipe.train.steps, quiet) as on_step:
        try:
            return train(recipe, out, on_step=on_step, should_stop=lambda: bool(caught))
        except Interrupted as error:
            raise Stopped(str(error), 128 + caught[0]) from None


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


@contextmanager
def progress_bar(steps: int, quiet: bool) -> Iterator[Any]:
    """A function (step, loss) that draws how far training is, if standard error is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"))
    show = progress_to_stderr(quiet)
    with Progress(*columns, TimeRemainingColumn(), console=console(error=True), disable=not show) as progress:
        task = progress.add_task("training", total=steps, loss=float("nan"))
        yield lambda step, loss: progress.update(task, completed=step + 1, loss=loss)
