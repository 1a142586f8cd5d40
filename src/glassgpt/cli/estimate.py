"""`glassgpt estimate RECIPE`: what training will cost, before it starts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, console, number, print_json, print_table

if TYPE_CHECKING:
    from glassgpt.training.estimate import Estimate
    from glassgpt.training.recipe import Recipe

UNKNOWN_TEXT = "known once the text is prepared"
NOT_MEASURED = "not measured: it doesn't fit into memory, or has no steps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, such as recipes/baby.toml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, as in model.vocab_size=3"
    )
    parser.add_argument("--device", help="cpu or cuda (by default a GPU if there is one)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.training.estimate import estimate
    from glassgpt.training.recipe import read_recipe

    recipe = read_recipe(args.recipe, args.set)
    found = estimate(recipe, args.device)
    if args.json:
        print_json(_report(found, recipe))
    else:
        _print(found, recipe)
    return 0


def _report(found: Estimate, recipe: Recipe) -> dict[str, Any]:
    memory, disk = found.memory, found.disk
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "saving", "peak")
    return {
        "parameters": found.config.n_parameters,
        "vocab_size": found.config.vocab_size,
        "steps": found.steps,
        "tokens_a_step": found.tokens_a_step,
        "tokens": found.tokens_a_step * found.steps,
        **number("epochs", found.epochs, UNKNOWN_TEXT),
        "memory_bytes": {part: getattr(memory, part) for part in parts},
        "free_memory_bytes": found.free_memory,
        "fits": memory.peak <= found.free_memory,
        "disk_bytes": {
            "checkpoints": disk.checkpoints,
            "model": disk.model,
            **number("tokens", disk.tokens, UNKNOWN_TEXT if recipe.data.files else "a sequence is not prepared"),
        },
        **number("seconds_a_step", found.seconds_a_step, NOT_MEASURED),
        **number("seconds", found.seconds, NOT_MEASURED),
        "measured_rows": found.measured_rows,
        "threads": found.threads,
    }


def _print(found: Estimate, recipe: Recipe) -> None:
    from glassgpt.training.estimate import too_large

    memory, disk, tokens = found.memory, found.disk, found.tokens_a_step * found.steps
    print_table(["estimate", ""], [[name, value] for name, value in _rows(found, tokens)])
    kept = f"checkpoints {_size(disk.checkpoints)}, model {_size(disk.model)}"
    text = "the text's tokens: " + (UNKNOWN_TEXT if disk.tokens is None else _size(disk.tokens))
    console().print(f"disk: {kept}; {text if recipe.data.files else 'no text'}")
    if memory.peak > found.free_memory:
        threads = found.threads if found.rows_by_threads else 1
        why = too_large(found.config, memory, found.free_memory, found.rows_at_once, threads)
        console().print(f"it won't fit: {why}")


def _rows(found: Estimate, tokens: int) -> list[tuple[str, str]]:
    memory = found.memory
    rows = [
        ("parameters", f"{found.config.n_parameters:,}"),
        ("tokens", f"{found.tokens_a_step:,} a step, {tokens:,} in {found.steps:,} steps"),
        ("times the text is seen", UNKNOWN_TEXT if found.epochs is None else f"{found.epochs:.3g}"),
        ("memory", f"{_size(memory.peak)} of {_size(found.free_memory)} that are free"),
        ("  weights", _size(memory.weights)),
        ("  gradients", _size(memory.gradients)),
        ("  optimizer", _size(memory.optimizer)),
        ("  activations", f"{_size(memory.activations + memory.logits)} for {found.rows_at_once} windows at once"),
        ("  while saving", _size(memory.saving)),
    ]
    if found.seconds is None or found.seconds_a_step is None:
        return [*rows, ("time", NOT_MEASURED)]
    whole = found.measured_rows * found.config.context_length == found.tokens_a_step
    how = "measured" if whole else f"measured on {found.measured_rows} windows and scaled up"
    a_step = (
        f"{found.seconds_a_step:.3g} s a step ({how}, {found.threads} {'thread' if found.threads == 1 else 'threads'})"
    )
    return [*rows, ("time", f"{_duration(found.seconds)}: {a_step}")]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    """A span of time for a person: 8 s, 12 min, 3.4 h, 2.1 days."""
    for unit, length in (("years", 365.25 * 86400), ("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.2g} s"
