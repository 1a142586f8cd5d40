"""`glassgpt ladder SOURCE`: n-grams, a perceptron, an MLP, recurrent nets and a GPT on one text, side by side."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, console, print_json, print_table, progress_to_stderr
from glassgpt.cli.train import printable
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassgpt.training.ladder import Rung

ATTENTION = "seq2seq"
STEPS, STEPS_OF_ATTENTION = 1000, 600
WORDS = 8192  # the vocabulary that word n-grams count; rarer words are spelled in bytes
LETTERS_WRITTEN, WORDS_WRITTEN = 200, 50
LENGTHS = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 25, 30)
EXCERPT = 48


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a text file, a folder, or toy-world and such; or seq2seq: texts reversed with attention and without",
    )
    parser.add_argument("--steps", type=int, metavar="N", help=f"of each net (default: {STEPS}; {STEPS_OF_ATTENTION})")
    parser.add_argument("--seed", type=int, default=0, help="of weights, windows and samples (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="where to write ladder.png and what the models wrote")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.steps is not None and args.steps < 1:
        raise UsageError(f"--steps must be 1 or more, got {args.steps}")
    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {args.seed}")
    return attention(args) if args.source == ATTENTION else ladder(args)


def ladder(args: argparse.Namespace) -> int:
    """Letter and word n-grams, then the nets on letters."""
    from glassgpt.training.evaluate import yardsticks
    from glassgpt.training.ladder import climb, grams, nets

    steps = args.steps or STEPS
    with tempfile.TemporaryDirectory() as folder, _progress(args.json, steps) as on_step:
        letters = _prepared(args.source, "characters", 0, Path(folder) / "letters")
        words = _prepared(args.source, "words", WORDS, Path(folder) / "words")
        if not args.json:
            console().print(_line("", "numbers", "history", "bits per byte", "seconds", "what it wrote"))

        def tell(rung: Rung) -> None:
            if not args.json:
                console().print(_row(rung))

        rungs = []
        for files, contenders, n in (
            (letters, grams(letters.tokenizer.vocab_size), LETTERS_WRITTEN),
            (words, grams(words.tokenizer.vocab_size, "word"), WORDS_WRITTEN),
            (letters, nets(letters.tokenizer.vocab_size, seed=args.seed), LETTERS_WRITTEN),
        ):
            rungs += climb(
                files.train,
                files.validation,
                files.tokenizer,
                contenders,
                steps=steps,
                seed=args.seed,
                sample_tokens=n,
                on_rung=tell,
                on_step=on_step,
            )
        levels = yardsticks(letters.train, letters.validation, letters.tokenizer)
    written = _write_ladder(rungs, levels, args) if args.out else {}
    if args.json:
        told = [dataclasses.asdict(rung) for rung in rungs]
        print_json({"source": args.source, "steps": steps, "rungs": told, "yardsticks": levels, **written})
    else:
        named = {name: f"{level:.3f}" for name, level in levels.items() if name in ("gzip", "xz")}
        console().print("beside them: " + ", ".join(f"{name} {level}" for name, level in named.items()))
        _tell_files(written)
    return 0


def attention(args: argparse.Namespace) -> int:
    """The share of symbols that a net gets right when it reverses a text, against the text's length."""
    from glassgpt.models.seq2seq import accuracy_by_length, train_seq2seq

    steps = args.steps or STEPS_OF_ATTENTION
    shares = {}
    with _progress(args.json, steps) as on_step:
        for name in ("with attention", "without"):
            model = train_seq2seq(
                name == "with attention",
                steps=steps,
                seed=args.seed,
                on_step=lambda step, loss, name=name: on_step(name, step),  # type: ignore[misc]
            )
            shares[name] = accuracy_by_length(model, LENGTHS).tolist()
    written = _write_attention(shares, args) if args.out else {}
    if args.json:
        print_json({"source": ATTENTION, "steps": steps, "lengths": list(LENGTHS), "shares_right": shares, **written})
    else:
        columns = zip(LENGTHS, *shares.values(), strict=True)
        rows = [[str(length), *(f"{share:.1%}" for share in of)] for length, *of in columns]
        print_table(["symbols to reverse", *(f"right {name}" for name in shares)], rows)
        _tell_files(written)
    return 0


def _prepared(source: str, kind: str, size: int, folder: Path) -> Any:
    from glassgpt.text.prepare import prepare
    from glassgpt.text.sources import source_of
    from glassgpt.text.vocabulary import Vocabulary

    vocabulary = Vocabulary(kind, size) if size else Vocabulary(kind)
    return prepare(source_of(source), vocabulary, folder)


def _line(name: str, numbers: str, history: str, bits: str, seconds: str, text: str) -> str:
    return f"{name:<14} {numbers:>10} {history:>8} {bits:>14} {seconds:>8}   {text}".rstrip()


def _row(rung: Rung) -> str:
    excerpt = printable(" ".join(rung.sample.split()))[:EXCERPT]
    seconds = f"{rung.seconds:.1f}"
    return _line(rung.name, f"{rung.parameters:,}", str(rung.history), f"{rung.bits_per_byte:.3f}", seconds, excerpt)


def _write_ladder(rungs: list[Rung], levels: dict[str, float], args: argparse.Namespace) -> dict[str, Any]:
    from glassgpt.figures.files import save, save_text
    from glassgpt.figures.ladder import LadderRow, draw_ladder

    rows = [LadderRow(r.name, r.history, r.bits_per_byte, r.parameters, r.seconds) for r in rungs]
    beside = {
        name: levels[name] for name in ("gzip", "xz") if levels[name] > 0
    }  # a text that only repeats leaves xz nothing
    texts = "\n\n".join(f"=== {r.name}: {r.bits_per_byte:.3f} bits per byte ===\n{r.sample}" for r in rungs)
    return {
        "figure": str(save(draw_ladder(rows, beside), Path(args.out) / "ladder.png")),
        "texts": str(save_text(texts + "\n", Path(args.out) / "texts.txt")),
    }


def _write_attention(shares: dict[str, list[float]], args: argparse.Namespace) -> dict[str, Any]:
    from glassgpt.figures.files import save
    from glassgpt.figures.ladder import draw_attention
    from glassgpt.models.seq2seq import LONGEST, N_SYMBOLS

    figure = draw_attention(LENGTHS, shares, guessing=1 / N_SYMBOLS, trained_to=LONGEST)
    return {"figure": str(save(figure, Path(args.out) / "attention.png"))}


def _tell_files(written: dict[str, Any]) -> None:
    for file in written.values():
        console().print(file)


@contextmanager
def _progress(quiet: bool, steps: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error for the net that is being trained, on a terminal."""
    from rich.progress import Progress

    with Progress(console=console(error=True), transient=True, disable=not progress_to_stderr(quiet)) as progress:
        task = progress.add_task("counting", total=steps)
        yield lambda name, step: progress.update(task, description=name, completed=step)
