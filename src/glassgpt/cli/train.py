"""`glassgpt train RECIPE --out RUN`: train, or go on with a run that was stopped; a story runs its steps in RUN."""

from __future__ import annotations

import argparse
import os
import signal
import stat
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
    from glassgpt.models.config import GPTConfig
    from glassgpt.training.evaluate import Evaluation
    from glassgpt.training.recipe import Recipe
    from glassgpt.training.stage import Stage
    from glassgpt.training.trainer import Step
    from glassgpt.weights.run import Run

BY_HEART = 20  # times that a text may be seen before a person is told; data repeated 4 times is nearly as good as new
SECONDS_BETWEEN_LINES = 30
SHOWN = ("reward", "gold", "kl", "entropy")  # of a step of reinforcement learning
NOTHING_VALIDATES = "nothing of the text is kept back to validate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?", help="a TOML file, such as recipes/baby.toml; left out, RUN's own"
    )
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
    from glassgpt.cli.story import run_story, story_of
    from glassgpt.training.processes import is_first

    if args.recipe and args.out and (story := story_of(args.recipe)) is not None:
        return run_story(story, args)
    recipe = recipe_of(args)
    trained = train_showing_progress(
        recipe, args.out, quiet=not is_first(), device=args.device, allow_changes=args.allow_changes
    )
    if not is_first():
        return 0
    if args.json:
        print_json(report(trained, recipe))
    else:
        print_summary(trained, recipe)
    return 0


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe that was named, or the one with which the run folder was begun."""
    from glassgpt.training.recipe import read_recipe, recipe_from_dict
    from glassgpt.weights.run import Run

    if args.recipe == "" or not args.out:
        raise UsageError("RECIPE and --out must not be empty")
    if args.recipe is not None:
        return read_recipe(args.recipe, args.set)
    begun = Run(args.out)
    if not begun.has_begun:
        raise UsageError(f"{args.out} has no recipe yet, it was stopped before: give RECIPE too")
    content = begun.recipe
    content["data"].pop("sha256")
    return recipe_from_dict(content, args.set)


def report(trained: Run, recipe: Recipe) -> dict[str, Any]:
    from glassgpt.training.account import account_of_run

    account = account_of_run(trained)
    notes = {} if account["best_step"] is not None else {"best_step_note": NOTHING_VALIDATES}
    return {
        "run": str(trained.path),
        "parameters": trained.config.n_parameters,
        "steps": recipe.train.steps,
        "losses": [row["loss"] for row in trained.metrics()],
        "evaluations": trained.evaluations(),
        "best_step": account["best_step"],
        **notes,
        "yardsticks": trained.yardsticks(),
        "kept_steps": trained.steps,
        "text": account["text"],
        "recipe": recipe.to_dict(),
    }


def print_summary(trained: Run, recipe: Recipe) -> None:
    from glassgpt.training.account import account_of_run

    losses = [row["loss"] for row in trained.metrics()]
    fell = f", the loss fell from {losses[0]:.4f} to {losses[-1]:.4f} nats" if losses else ""
    console().print(f"{trained.path}: {trained.config.n_parameters:,} parameters, {recipe.train.steps} steps{fell}")
    account = account_of_run(trained)
    if recipe.stage != "pretrain":
        print_stage(trained, recipe)
        return
    if account["bits_per_byte"] is not None:
        levels = trained.yardsticks() | {"this model": account["bits_per_byte"]}
        print_levels(levels)
    if recipe.data.files is not None:
        console().print(what_now(trained, account))


def print_stage(trained: Run, recipe: Recipe) -> None:
    """What a later stage came to, and what a person does with it."""
    measured = trained.evaluations()
    if measured:
        first, last = measured[0], measured[-1]
        told = [name for name, value in last.items() if isinstance(value, float)]
        rows = [[name, spelled(first.get(name)), spelled(last[name])] for name in told]
        print_table(["on what was held out", f"step {first['step']}", f"step {last['step']}"], rows)
    kind = trained.head.get("kind")
    if kind == "reward":
        console().print(f"Let it judge: glassgpt rank REF --judge {trained.path} --out preferences.jsonl")
    elif kind:
        console().print(f'Let it judge: glassgpt score {trained.path} "..."')
    else:
        console().print(f'Talk to it: glassgpt chat {trained.path} "..."')


def spelled(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def print_levels(levels: dict[str, float]) -> None:
    """Bits per byte, the worst first."""
    names = {"gzip": "gzip (looks back 32 kB only)", "xz": "xz (looks back 8 MB)"}
    rows = sorted(levels.items(), key=lambda level: -level[1])
    print_table(
        ["bits per byte of the validation part", ""], [[names.get(name, name), f"{bits:.3f}"] for name, bits in rows]
    )


def what_now(trained: Run, account: dict[str, Any]) -> str:
    """What a person does with the run: talk to the last model, or to an earlier one that was better."""
    best, last = account["best_step"], account["steps_done"]
    if best in (None, last) or best not in trained.steps:
        return f'Let it write: glassgpt generate {trained.path} "..." --max-new-tokens 200'
    return (
        f"The validation loss was lowest after step {best} and rose since: the model learns its text by heart. That "
        f'step is kept: glassgpt generate {trained.path}@{best} "..." --max-new-tokens 200'
    )


def account_lines(config: GPTConfig, account: dict[str, Any], recipe: Recipe) -> list[str]:
    """What a run is about to do, for a person."""
    train, clean = recipe.train, account["cleaning"]
    kept_back = f"{account['validation_tokens']:,}" if account["validation_tokens"] else "none"
    gpt2 = account["gpt2_bytes_per_token"]
    beside = f"GPT-2's words have {gpt2:.2f}" if gpt2 else "GPT-2's words are not at hand"
    seen = account["epochs"]
    times = f"all of the text {seen:.1f} times" if seen >= 1 else f"{100 * seen:.2g} % of the text once"
    lines = [
        f"text: {account['bytes']:,} bytes, documents: {account['documents']:,}, tokens to train: "
        f"{account['train_tokens']:,}, to validate: {kept_back}",
        f"vocabulary: {account['vocabulary']}, {account['vocab_size']:,} tokens of {account['bytes_per_token']:.2f} "
        f"bytes ({beside})",
        f"model: {config.n_parameters:,} parameters, {config.n_layer} layers, {config.n_embd:,} wide, "
        f"context {config.context_length:,}",
        f"plan: {train.steps:,} steps of {account['tokens_a_step']:,} tokens, which reads {times}",
    ]
    aim = recipe.model.vocab_size
    if account["vocabulary"] in ("words", "bpe") and account["vocab_size"] < aim:
        lines[1] += f"; the text is too short for the {aim:,} aimed at"
    if seen > BY_HEART:
        fewer = max(1, round(train.steps * BY_HEART / 2 / seen))
        lines.append(f"so often that the model will know it by heart: give more text, or --set train.steps={fewer}")
    if len(account["sources"]) > 1:
        lines += [source_line(source) for source in account["sources"]]
    return lines + (cleaning_lines(clean) if clean else [])


def source_line(source: dict[str, Any]) -> str:
    epochs = "less than once" if source["epochs"] is None else f"{source['epochs']:.2f} times"
    return f"  {source['name']}: {source['bytes']:,} bytes, documents: {source['documents']:,}, taken {epochs}"


def cleaning_lines(clean: dict[str, Any]) -> list[str]:
    from glassgpt.text.cleaning import Cleaned

    return Cleaned.from_dict(clean).lines()


def printable(text: str) -> str:
    """`text` without the control characters that a model may draw, which a terminal would obey.

    >>> printable("a\\x1b[2Jb\\n")
    'a\ufffd[2Jb\\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def train_showing_progress(
    recipe: Recipe, out: str, *, quiet: bool, device: str | None = None, allow_changes: bool = False
) -> Run:
    """Train with a progress bar on standard error; Ctrl-C and SIGTERM stop it after the step under way is saved."""
    from glassgpt.training.loop import Interrupted, Watch, train

    with stop_signals() as caught, _Display(recipe, quiet) as display:
        watch = Watch(
            on_start=display.start,
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
    """A list that holds the numbers of the stop signals that came within the block, the first one first.

    SIGINT, SIGTERM, and SIGHUP of a terminal that closes; but what the caller had told this process to ignore, as nohup
    does, stays ignored. A second signal changes nothing: the step and the save are short, and stopping them would lose
    what the first one wanted to keep.
    """
    caught: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        if number == getattr(signal, "SIGHUP", None):
            _leave_the_terminal()

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_the_terminal() -> None:
    """A terminal that was closed refuses what is written to it, and the save is still to come."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


class _Display:
    """What a person sees while a recipe trains: lines that stay, and a line that moves below them. Where standard error
    is no terminal, the moving line is written anew every half minute."""

    def __init__(self, recipe: Recipe, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._recipe, self._quiet = recipe, quiet
        self._moves = progress_to_stderr(quiet)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[told]}"))
        left = TimeRemainingColumn(compact=True)
        self._progress = Progress(*columns, left, console=console(error=True), disable=not self._moves)
        self._task = self._progress.add_task("preparing", total=None, told="")
        self._stage = ""
        self._times: deque[float] = deque(maxlen=50)  # when the last steps ended
        self._told_at = time.perf_counter()

    def __enter__(self) -> _Display:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.update(self._task, visible=False)  # what is done needs no bar
        self._progress.__exit__(*error)

    def preparing(self, stage: str, done: int, total: int | None) -> None:
        of = "" if total is None else f" of {total / 1e6:,.1f}"
        self._move(stage, done, total, f"{done / 1e6:,.1f}{of} MB")

    def start(self, stage: Stage, step: int) -> None:
        from glassgpt.training.account import account_of_text
        from glassgpt.training.data import Corpus
        from glassgpt.training.pretrain import Pretraining
        from glassgpt.training.sft import SupervisedFineTuning

        if isinstance(stage, Pretraining) and isinstance(stage.data, Corpus):
            for line in account_lines(stage.config, account_of_text(stage.data, self._recipe), self._recipe):
                self.note(line)
        for line in stage.notes():
            self.note(line)
        if isinstance(stage, SupervisedFineTuning):
            self.coloured(stage.first_row())
        self._move("starting", 0, None, "")
        if step:
            self.note(f"going on after step {step:,} of {self._recipe.train.steps:,}")

    def coloured(self, pieces: list[tuple[str, bool]]) -> None:
        """The first row: what is trained in green, what is not in grey, or in brackets where there are no colours."""
        from rich.text import Text

        if self._quiet:
            return
        shown = Text("the first row, [trained] in brackets: ")
        for text, is_trained in pieces:
            shown.append(f"[{text}]" if is_trained else text, style="green" if is_trained else "dim")
        self._progress.console.print(shown)

    def step(self, step: int, made: Step) -> None:
        train = self._recipe.train
        self._times.append(time.perf_counter())
        told = f"step {step + 1:,} of {train.steps:,}, loss {made.loss:.3f}"
        shown = [key for key in SHOWN if key in made.more]
        if shown:  # of a policy the loss says nothing, what it earns does
            told = f"step {step + 1:,} of {train.steps:,}" + "".join(f", {key} {made.more[key]:.3g}" for key in shown)
        if len(self._times) > 1:
            seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
            if train.batch_size and self._recipe.stage == "pretrain":
                told += f", {train.batch_size * self._recipe.model.context_length / seconds:,.0f} tokens/s"
            if not self._moves:
                told += f", {(train.steps - step - 1) * seconds / 60:,.1f} minutes left"
        self._move("training", step + 1, train.steps, told)

    def evaluation(self, made: Evaluation) -> None:
        loss = "" if made.validation_loss is None else f": validation loss {made.validation_loss:.4f} nats a token"
        bits = "" if made.bits_per_byte is None else f", {made.bits_per_byte:.3f} bits per byte"
        more = "".join(f", {name} {spelled(value)}" for name, value in made.more.items())
        self.note(f"after {made.step:,} steps{loss}{bits}{more}")
        if made.sample:
            self.note("\n".join(f"  | {line}" for line in printable(made.sample).strip("\n").split("\n")))
        self._times.clear()

    def note(self, text: str) -> None:
        if not self._quiet:
            self._progress.console.print(text)

    def _move(self, stage: str, done: int, total: int | None, told: str) -> None:
        if stage != self._stage:
            self._progress.reset(self._task, total=total, description=stage, told=told)
            self._stage = stage
        self._progress.update(self._task, completed=done, told=told)
        now = time.perf_counter()
        if not self._moves and now - self._told_at > SECONDS_BETWEEN_LINES:
            self.note(f"{stage}: {told}")
            self._told_at = now
