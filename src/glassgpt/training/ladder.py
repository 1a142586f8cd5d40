"""The ladder of models: counting, a perceptron, an MLP, recurrent nets and a GPT, all asked to predict the same text.

Every rung sees the same training text and is measured by the same function on the same validation text; every net has
the same budget of tokens. So what differs is what a rung can make of the history that it looks at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import nn

from glassgpt.decoding.generate import generate
from glassgpt.evaluation.score import Score, bits_per_byte, score
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.models.backoff import KneserNey
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.mlp import MLP, Perceptron
from glassgpt.models.recurrent import Recurrent
from glassgpt.models.threads import fitting
from glassgpt.models.torch_model import TorchModel
from glassgpt.text.token_files import TokenPart
from glassgpt.training.objective import NextToken
from glassgpt.training.recipe import TrainSection
from glassgpt.training.trainer import Choices, Trainer

WINDOW, BATCH = 64, 16  # tokens of a window, and windows of a step
LONGEST_GRAM = 6
SHORT_HISTORY = 16  # tokens; a model that looks back no further is given all of it for every token that is scored


@dataclass(frozen=True)
class Contender:
    """How to make a model from the training tokens: one that has counted them, or a net to be trained on them.

    `learning_rate` and `optimizer`: a net's own, since what suits a GPT is timid for a perceptron.
    """

    make: Callable[[np.ndarray], LanguageModel]
    learning_rate: float = 1e-2
    optimizer: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True)
class Rung:
    """One model of the ladder.

    `parameters`: numbers trained, or different n-grams counted. `history`: tokens looked back at, at most.
    `bits_per_byte`: of the validation part. `sample`: text that it wrote. `seconds`: to count or train it.
    """

    name: str
    parameters: int
    history: int
    bits_per_byte: float
    sample: str
    seconds: float


def grams(vocab_size: int, unit: str = "letter") -> dict[str, Contender]:
    """n-grams of 1 to 6 tokens with back-off (Kneser-Ney), by name."""

    def of(n: int) -> Contender:
        return Contender(lambda tokens: KneserNey(tokens, vocab_size, n))

    return {f"{unit} {n}-gram": of(n) for n in range(1, LONGEST_GRAM + 1)}


def nets(vocab_size: int, window: int = WINDOW, seed: int = 0) -> dict[str, Contender]:
    """The nets, in the order of their invention, by name.

    The recurrent nets and the GPT look back `window` tokens, the perceptron and the MLP 8. The GPT is one as it is made
    today: Qwen3's block (arXiv 2505.09388) trained by Muon; the others keep to AdamW. Each has the best of a few
    learning rates tried on tiny Shakespeare.
    """
    shape = GPTConfig(
        vocab_size,
        window,
        n_layer=4,
        n_head=4,
        n_embd=128,
        bias=False,
        position="rope",
        norm="rmsnorm",
        mlp="swiglu",
        n_hidden=384,
        qk_norm=True,
    )
    return {
        "perceptron": Contender(lambda _: Perceptron(vocab_size, 8)),
        "MLP": Contender(lambda _: MLP(vocab_size, 8, n_embd=24, n_hidden=192, seed=seed)),
        "RNN": Contender(lambda _: Recurrent(vocab_size, window, "tanh", n_embd=64, n_hidden=192, seed=seed)),
        "GRU": Contender(lambda _: Recurrent(vocab_size, window, "gru", n_embd=64, n_hidden=192, seed=seed)),
        "GPT": Contender(lambda _: GPT(shape, seed=seed), 1e-2, "muon"),
    }


def climb(
    train: TokenPart,
    validation: TokenPart,
    tokenizer: Tokenizer,
    contenders: Mapping[str, Contender],
    *,
    steps: int = 1000,
    window: int = WINDOW,
    seed: int = 0,
    sample_tokens: int = 200,
    on_rung: Callable[[Rung], None] = lambda rung: None,
    on_step: Callable[[str, int], None] = lambda name, step: None,
) -> list[Rung]:
    """Count or train each of `contenders` on the one part and measure it on the other.

    A net takes `steps` of 16 windows. The validation part is scored from its second token on, which is given the first:
    n-grams exactly, a net that looks back 16 tokens or fewer given all of them, one that looks further at least half
    its window. Each rung writes `sample_tokens` after the first 8 validation tokens, drawn from `seed`, which decides
    the training windows too. `on_rung` hears of each rung when it is done, `on_step(name, step)` before each step of a
    net. Raises UsageError for a training part that isn't longer than a window, or a validation part without a second
    token, and NumericalError if a gradient is not finite.
    """
    train.windows_of_an_epoch(window)  # refuse a text that is too short before anything is counted
    validation.windows_of_an_epoch(1)
    tokens, held_out = train.tokens.astype(np.int64), validation.tokens.astype(np.int64)
    climbed = []
    for name, contender in contenders.items():
        began = time.perf_counter()
        model = contender.make(tokens)
        if isinstance(model, nn.Module):
            fit(model, train, contender, steps, window, seed, lambda step, name=name: on_step(name, step))  # type: ignore[misc]
        seconds = time.perf_counter() - began
        rung = Rung(
            name=name,
            parameters=n_numbers(model),
            history=model.n - 1 if isinstance(model, KneserNey) else model.context_length,
            bits_per_byte=measure(model, held_out, tokenizer),
            sample=tokenizer.decode(generate(model, held_out[:8], sample_tokens, seed=seed)),
            seconds=seconds,
        )
        climbed.append(rung)
        on_rung(rung)
    return climbed


def fit(
    model: nn.Module,
    train: TokenPart,
    contender: Contender,
    steps: int,
    window: int = WINDOW,
    seed: int = 0,
    on_step: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """Train a net by the one `Trainer`, and return the loss of each step before its update, in nats a token."""
    section = TrainSection(
        steps=steps,
        batch_size=BATCH,
        optimizer=contender.optimizer,
        learning_rate=contender.learning_rate,
        warmup_steps=steps // 20,
    )
    trainer = Trainer(model, section, NextToken(), Choices(threads=fitting(widest(model, BATCH, window))), seed=seed)
    losses = []
    for step in range(steps):
        on_step(step)
        batch = train.batch(step, BATCH, window, seed)
        losses.append(trainer.step(step, {"inputs": batch.inputs, "targets": batch.targets}).loss)
    return losses


def measure(model: LanguageModel, tokens: np.ndarray, tokenizer: Tokenizer) -> float:
    """Bits per byte of a text from its second token on, each given what `climb` says."""
    if isinstance(model, KneserNey):  # without a row of logits for each token, which would be long for words
        logprobs = [float(logprob) for logprob in model.text_logprobs(tokens)]
        return bits_per_byte(Score(tokens.tolist(), [None, *logprobs[1:]]), tokenizer)
    stride = 1 if model.context_length <= SHORT_HISTORY else None
    return bits_per_byte(score(model, tokens, stride=stride), tokenizer)


def n_numbers(model: LanguageModel) -> int:
    """The numbers that a net was trained in; of what counts, the different n-grams."""
    if isinstance(model, nn.Module):
        return sum(parameter.numel() for parameter in model.parameters())
    return model.n_counts if isinstance(model, KneserNey) else 0


def widest(model: nn.Module, batch: int, time: int) -> int:
    """How many numbers the widest activation of a net has; of a GPT, the inside of its MLP."""
    if isinstance(model, TorchModel):
        return model.widest(batch, time)
    return batch * time * (model.config.hidden_width if isinstance(model, GPT) else 1)
