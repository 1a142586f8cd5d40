"""What pays on this machine: bfloat16 or float32, compiled or not. Measured on the very model, never guessed.

bfloat16 halves the work where a processor has instructions for it and doubles it where it has not; compiling takes up
to a minute, which a short run never earns back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.threads import using
from glassgpt.training.objective import NextToken, Rows
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import Recipe
from glassgpt.training.trainer import Choices, Trainer

WORTH_MEASURING = 60.0  # seconds that a run would take: a shorter one is begun as it is
COMPILING = 60.0  # seconds that torch.compile may take
HOPELESS = 3.0  # a choice whose first step takes so many times as long is not tried further
GAIN = 0.9  # a choice must take at most this share of the time, or the plain one is taken


def choose(
    config: GPTConfig,
    recipe: Recipe,
    rows: Rows,
    threads: int,
    among: Processes,
    on_note: Callable[[str], None] = lambda note: None,
) -> Choices:
    """The fastest way to take this recipe's steps, by trying them, as far as the recipe leaves it open.

    Under torchrun nothing is measured, since all processes must agree: bfloat16 on a GPU that has it, not compiled.
    """
    train = recipe.train
    plain = Choices("float32" if train.precision == "auto" else train.precision, train.compile == "yes", threads)
    if among.count > 1 or among.device.startswith("cuda"):
        pays = among.device.startswith("cuda") and torch.cuda.is_bf16_supported()
        return replace(plain, precision="bfloat16") if pays and train.precision == "auto" else plain
    if train.precision != "auto" and train.compile != "auto":
        return plain
    n = len(rows["inputs"])
    some = min(n, max(threads, n // 8))  # enough to tell which is faster
    steps = train.steps * n / some  # so many of these would take as long
    rows = {name: value[:some] for name, value in rows.items()}
    with using(threads):
        seconds = _seconds_a_step(config, recipe, rows, plain)
        if seconds * steps < WORTH_MEASURING:
            return plain
        best = plain
        if train.precision == "auto":
            candidate = replace(best, precision="bfloat16")
            taken = _seconds_a_step(config, recipe, rows, candidate, patience=HOPELESS * seconds)
            on_note(f"{some} of {n} windows take {seconds:.3g} s in float32, {taken:.3g} s in bfloat16")
            if taken < GAIN * seconds:
                best, seconds = candidate, taken
        if train.compile == "auto" and (1 - GAIN) * seconds * steps > COMPILING:
            candidate = replace(best, compiled=True)
            taken = _seconds_a_step(config, recipe, rows, candidate)
            on_note(f"{some} of {n} windows take {seconds:.3g} s as they are, {taken:.3g} s compiled")
            if taken < GAIN * seconds:
                best = candidate
    return best


def _seconds_a_step(
    config: GPTConfig, recipe: Recipe, rows: Rows, choices: Choices, patience: float = math.inf
) -> float:
    """How long a gradient takes: the shortest of two tries after one that warms up, or that one if it took longer than
    `patience`. (The optimizer's share of a step is the same whatever is chosen.)"""
    trainer = Trainer(GPT(config), recipe.train, NextToken(recipe.train.last_position_only), choices)
    taken: list[float] = []
    while len(taken) < 3 and max(taken, default=0.0) <= patience:
        began = time.perf_counter()
        trainer.add_gradients(len(taken), rows)
        taken.append(time.perf_counter() - began)
    return min(taken[1:] or taken)
