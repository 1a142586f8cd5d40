"""The recipe of a small training that a page asks for: the baby's, with other sizes and another text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glassgpt.models.config import GPTConfig
from glassgpt.serving.asked import Asked
from glassgpt.serving.generation import LARGEST_SEED
from glassgpt.serving.refusals import Refusal
from glassgpt.training.data import refuse_what_cannot_be
from glassgpt.training.recipe import Recipe, read_recipe

MOST_STEPS = 2000
MOST_PARAMETERS = 10_000_000
LONGEST_SEQUENCE = 100_000  # tokens
MOST_WINDOWS = 256  # of the sequence in a step; of a longer one each step draws as many
STEPS_KEPT = 100  # as files, which the trained model keeps
LARGEST_RATE = 10.0


def recipe_asked(asked: Asked) -> Recipe:
    """The baby's recipe with the sizes, text, steps, rate and seed of a request. Raises Refusal or UsageError."""
    config = asked.part("config")
    sizes: dict[str, Any] = {
        "vocab_size": config.whole("vocab_size", 2, 65_536),
        "context_length": config.whole("context_length", 1, 1024),
        "n_layer": config.whole("n_layer", 1, 64),
        "n_head": config.whole("n_head", 1, 64),
        "n_embd": config.whole("n_embd", 1, 1024),
    }
    config.nothing_else()
    baby = read_recipe("baby")
    model = GPTConfig(**sizes, bias=baby.model.bias)
    if model.n_parameters > MOST_PARAMETERS:
        raise Refusal(
            "too_big",
            f"this model has {model.n_parameters:,} parameters; up to {MOST_PARAMETERS:,} are trained here",
            "make it smaller, or train it with `glassgpt train`",
        )
    sequence = asked.text("sequence")
    if len(sequence) > LONGEST_SEQUENCE:
        what = f"the sequence has {len(sequence):,} tokens; up to {LONGEST_SEQUENCE:,} are taken here"
        raise Refusal("too_big", what, "give a shorter one, or train with `glassgpt train`")
    is_short = len(sequence) - model.context_length <= MOST_WINDOWS
    steps = asked.whole("steps", 1, MOST_STEPS, baby.train.steps)
    recipe = replace(
        baby,
        data=replace(baby.data, sequence=sequence, symbols=symbols_asked(asked)),
        model=model,
        train=replace(
            baby.train,
            steps=steps,
            learning_rate=asked.number("learning_rate", 0, LARGEST_RATE, baby.train.learning_rate),
            batch_size=None if is_short else MOST_WINDOWS,
            precision="float32",
            compile="no",
            save_every=-(-steps // STEPS_KEPT),
        ),
        run=replace(baby.run, seed=asked.whole("seed", 0, LARGEST_SEED, baby.run.seed)),
    )
    asked.nothing_else()
    refuse_what_cannot_be(recipe)
    return recipe


def symbols_asked(asked: Asked) -> str | None:
    """The vocabulary in order, given as one text or as a list; None for digits, then letters."""
    given = asked.take("symbols", None)
    if given is None:
        return None
    letters = list(given) if isinstance(given, str) else Asked({"symbols": given}).texts("symbols", 65_536)
    if any(len(letter) != 1 for letter in letters):
        raise Refusal("usage", "each symbol must be one character", "give a list of single characters, or null")
    return "".join(letters)
