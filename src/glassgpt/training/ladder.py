"""The ladder of models: counting, a perceptron, an MLP, recurrent nets and a GPT, all asked to predict the same text.

Every rung sees the same training tokens and is measured by the same function on the same validation tokens; every net
has the same budget. So what differs is what a rung can make of the history that it looks at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.decoding.generate import generate
from glassgpt.errors import NumericalError, UsageError
from glassgpt.evaluation.score import bits_per_byte, score
from glassgpt.interface import LanguageModel, Tokenizer, as_contexts
from glassgpt.models.backoff import KneserNey
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.mlp import MLP, Perceptron
from glassgpt.models.recurrent import Recurrent
from glassgpt.models.threads import threads_for
from glassgpt.models.torch_model import TorchModel

SHORT_HISTORY = 16  # tokens; a model that looks back no further is given all of it for every token that is scored

Draw = Callable[[int], np.ndarray]
"""A step's number to its training windows, int64 (B, T + 1): T tokens are read, the last T predicted."""


@dataclass(frozen=True)
class Budget:
    """What each net may spend: `steps` of `batch_size` windows of `window` tokens, by AdamW.

    The learning rate rises linearly over a twentieth of the steps to `learning_rate` and falls to a tenth of it along a
    cosine. Weight decay is 0.1 on matrices, gradients are clipped to norm 1.
    """

    steps: int = 500
    batch_size: int = 16
    window: int = 64
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "window"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more, got {getattr(self, name)}")

    def rate(self, step: int) -> float:
        rise = max(1, self.steps // 20)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        share = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * (0.1 + 0.45 * (1 + float(np.cos(np.pi * share))))


@dataclass(frozen=True)
class Contender:
    """How to make a model from the training tokens: one that has counted them, or a net to be trained on them.

    `learning_rate`: the peak for a net, instead of the budget's, since what suits a GPT is timid for a perceptron.
    """

    make: Callable[[np.ndarray], LanguageModel]
    learning_rate: float | None = None


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


def default_rungs(vocab_size: int, window: int = Budget.window, seed: int = 0) -> dict[str, Contender]:
    """The rungs, lowest first, by name; each net with the best of the learning rates 1e-2, 3e-3 and 1e-3.

    The recurrent nets and the GPT look back `window` tokens, the perceptron and the MLP 8.
    """
    names = ("unigram", "bigram", "trigram", "4-gram", "5-gram", "6-gram")
    rungs = {name: Contender(partial(KneserNey, vocab_size=vocab_size, n=n)) for n, name in enumerate(names, start=1)}
    shape = GPTConfig(vocab_size, window, n_layer=3, n_head=4, n_embd=96, bias=False)
    nets: list[tuple[str, Callable[[np.ndarray], LanguageModel], float]] = [
        ("perceptron", lambda _: Perceptron(vocab_size, 8), 1e-2),
        ("MLP", lambda _: MLP(vocab_size, 8, n_embd=24, n_hidden=192, seed=seed), 1e-2),
        ("RNN", lambda _: Recurrent(vocab_size, window, "tanh", n_embd=64, n_hidden=192, seed=seed), 1e-2),
        ("GRU", lambda _: Recurrent(vocab_size, window, "gru", n_embd=64, n_hidden=192, seed=seed), 1e-2),
        ("GPT", lambda _: GPT(shape, seed=seed), 3e-3),
    ]
    return rungs | {name: Contender(make, rate) for name, make, rate in nets}


def climb(
    train_tokens: Sequence[int] | np.ndarray,
    validation_tokens: Sequence[int] | np.ndarray,
    tokenizer: Tokenizer,
    rungs: Mapping[str, Contender] | None = None,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    prompt: Sequence[int] | np.ndarray | None = None,
    sample_tokens: int = 200,
    on_rung: Callable[[Rung], None] = lambda rung: None,
) -> list[Rung]:
    """Count or train each of `rungs` (default: `default_rungs`) on the one text and measure it on the other.

    The validation text is scored from its second token on, which is given the first (a model that looks back 16 tokens
    or fewer is given all of them for each token, one that looks further at least half its window). Each rung writes
    `sample_tokens` tokens after `prompt` (default: the first 8 validation tokens), drawn from `seed`, which decides the
    training windows too. `on_rung` hears of each rung when it is done. Raises UsageError for a training text that isn't
    longer than a window, or a validation text of one token, and NumericalError if a loss is not finite.
    """
    budget = budget or Budget()
    rungs = default_rungs(tokenizer.vocab_size, budget.window, seed) if rungs is None else rungs
    tokens = as_contexts(np.asarray(train_tokens)[None], tokenizer.vocab_size)[0]
    held_out = as_contexts(np.asarray(validation_tokens)[None], tokenizer.vocab_size)[0]
    first = held_out[:8] if prompt is None else prompt
    climbed = []
    for name, contender in rungs.items():
        began = time.perf_counter()
        model = contender.make(tokens)
        if isinstance(model, nn.Module):
            own = replace(budget, learning_rate=contender.learning_rate or budget.learning_rate)
            fit(model, random_windows(tokens, own, seed), own)
        seconds = time.perf_counter() - began
        rung = Rung(
            name=name,
            parameters=n_numbers(model),
            history=model.n - 1 if isinstance(model, KneserNey) else model.context_length,
            bits_per_byte=measure(model, held_out, tokenizer),
            sample=tokenizer.decode(generate(model, first, sample_tokens, seed=seed)),
            seconds=seconds,
        )
        climbed.append(rung)
        on_rung(rung)
    return climbed


def fit(
    model: nn.Module, draw: Draw, budget: Budget, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> list[float]:
    """Train `model`, whose forward gives the logits after every prefix, on the windows that `draw` gives.

    Returns the loss of each step before its update, in nats a token; `on_step(step, loss)` hears it after the update.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], betas=(0.9, 0.99))
    losses = []
    with threads_for(widest(model, budget.batch_size, budget.window)):
        for step in range(budget.steps):
            for group in optimizer.param_groups:
                group["lr"] = budget.rate(step)
            windows = torch.from_numpy(draw(step))
            loss = loss_of(model, windows)
            if not torch.isfinite(loss):
                raise NumericalError(f"the loss is {loss.item()} at step {step}: lower the learning rate")
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
            on_step(step, losses[-1])
    return losses


def loss_of(model: nn.Module, windows: Tensor) -> Tensor:
    """The mean surprise in nats of all but the first token of int64 windows (B, T + 1)."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def random_windows(tokens: np.ndarray, budget: Budget, seed: int) -> Draw:
    """Windows anywhere in a text, all places equally likely; a step's depend on `seed` and the step alone."""
    n = len(tokens) - budget.window
    if n < 1:
        raise UsageError(
            f"the training text has {len(tokens)} tokens and a window {budget.window}: it must be at least one token "
            "longer, so that there is something to predict"
        )
    return lambda step: tokens[
        np.random.default_rng([seed, step]).integers(0, n, budget.batch_size)[:, None] + np.arange(budget.window + 1)
    ]


def measure(model: LanguageModel, tokens: np.ndarray, tokenizer: Tokenizer) -> float:
    """Bits per byte of a text from its second token on, each given what `climb` says."""
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
