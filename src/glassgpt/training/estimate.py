"""What training a recipe will cost, before it starts: memory and disk by arithmetic, time by taking a few of its steps.

Numbers are of one process. Memory is that of tensors: Python and torch themselves come on top (about 0.4 GB).
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from glassgpt.errors import GlassGPTError, TooLargeError, UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.threads import fitting
from glassgpt.text.sources import Files, source_of
from glassgpt.text.token_files import MANIFEST, TokenFiles
from glassgpt.training.objective import NextToken
from glassgpt.training.optim import optimizers_for
from glassgpt.training.processes import Processes, best_device
from glassgpt.training.recipe import Recipe
from glassgpt.training.trainer import Choices, Trainer

LONGEST = 20.0  # seconds: a step that takes longer is measured on a part of it
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Memory:
    """Bytes of a process. `activations`: what the rows taken at once leave behind for the way back. `logits`: theirs,
    with the loss's gradient. `saving`: the copies that a checkpoint is written from."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    saving: int

    @property
    def peak(self) -> int:
        """A step and a save come one after the other; only weights and optimizer stay through both."""
        step = self.gradients + self.activations + self.logits
        return self.weights + self.optimizer + max(step, self.saving)


@dataclass(frozen=True)
class Disk:
    """Bytes. `tokens`: the prepared text, None where its length is not known yet. `checkpoints`: as many as are kept,
    and the one being written."""

    tokens: int | None
    checkpoints: int
    model: int


@dataclass(frozen=True)
class Estimate:
    """`epochs`: how often the text is seen, None where its length is not known yet. `seconds_a_step`: measured on
    `measured_rows` rows; None if that was not done. `rows_by_threads`: whether each thread takes rows of its own.
    `free_memory`: bytes."""

    config: GPTConfig
    steps: int
    tokens_a_step: int
    rows_at_once: int
    threads: int
    rows_by_threads: bool
    epochs: float | None
    memory: Memory
    disk: Disk
    free_memory: int
    seconds_a_step: float | None = None
    measured_rows: int = 0

    @property
    def seconds(self) -> float | None:
        return None if self.seconds_a_step is None else self.seconds_a_step * self.steps


def estimate(recipe: Recipe, device: str | None = None, *, measure: bool = True) -> Estimate:
    """What `recipe` costs here. `measure`: take a few steps of random tokens, if they fit into memory.

    Raises UsageError for a stage after pretraining, whose steps are as long as its rows, or as what the model writes.
    """
    if recipe.stage != "pretrain":
        raise UsageError(
            f"this is a recipe of [{recipe.stage}], and only pretraining is estimated: how long its steps take depends "
            "on rows and answers, so begin it, and `train` shows the time left after the first steps"
        )
    device = device or best_device()
    files = _prepared(recipe)
    config = recipe.model if files is None else _of_size(recipe.model, files.tokenizer.vocab_size)
    rows = _rows(recipe)
    threads = threads_taken(config, recipe)
    at_once = rows_at_once(recipe, rows, threads, device)
    n_tokens = len(files.train) if files is not None else _tokens_of_text(recipe)
    known = Estimate(
        config,
        recipe.train.steps,
        rows * config.context_length,
        at_once,
        threads,
        _by_threads(recipe, threads, device),
        n_tokens and recipe.train.steps * rows * config.context_length / n_tokens,
        memory_of(config, recipe, rows_at_once=at_once, threads=threads, device=device),
        _disk(config, recipe, n_tokens),
        free_memory(device),
    )
    if not measure or known.memory.peak > known.free_memory or recipe.train.steps == 0:
        return known
    seconds, measured = seconds_a_step(config, recipe, rows, threads, device)
    return dataclasses.replace(known, seconds_a_step=seconds, measured_rows=measured)


def refuse_if_too_large(recipe: Recipe, device: str = "cpu", processes: int = 1, beside: int = 1) -> None:
    """Raise TooLargeError if training needs more memory than is free. `processes` share the rows; `beside` of them are
    on this machine."""
    rows = -(-_rows(recipe) // processes)
    threads = threads_taken(recipe.model, recipe) if processes == 1 else 1
    at_once = rows_at_once(recipe, rows, threads, device)
    spread = processes if recipe.train.shard else 1
    needed = memory_of(recipe.model, recipe, at_once, threads, device, spread)
    free = free_memory(device) // (1 if device.startswith("cuda") else beside)
    if needed.peak > free:
        copies = threads if _by_threads(recipe, threads, device) else 1
        raise TooLargeError(too_large(recipe.model, needed, free, at_once, copies))


def too_large(config: GPTConfig, memory: Memory, free: int, rows_at_once: int, threads: int) -> str:
    """Why it doesn't fit, and what helps. Each of `threads` takes rows of its own."""
    left = free - memory.weights - memory.optimizer - memory.gradients
    fitting_rows = left * rows_at_once // max(1, memory.activations + memory.logits) // threads
    cure = "lower model.n_embd, n_layer, vocab_size or context_length"
    if fitting_rows >= 1 and memory.saving < free - memory.weights - memory.optimizer:
        cure = f"set train.micro_batch_size={fitting_rows}, or {cure}"
    return (
        f"{config.n_parameters:,} parameters need {memory.peak / 1e9:,.1f} GB to train, {rows_at_once} windows at "
        f"once, and {free / 1e9:.1f} GB are free: {cure}"
    )


# ---- memory ----------------------------------------------------------------------------------------------------------


def memory_of(
    config: GPTConfig, recipe: Recipe, rows_at_once: int, threads: int = 1, device: str = "cpu", spread: int = 1
) -> Memory:
    """The memory of a process that takes so many rows at once, its weights `spread` over so many."""
    n, train = config.n_parameters * FLOAT // spread, recipe.train
    moments = optimizer_numbers(config, recipe) * FLOAT // spread
    copies = threads if _by_threads(recipe, threads, device) else 1  # each thread has a gradient of its own
    tokens = rows_at_once * config.context_length
    halved = train.precision == "bfloat16" or (train.precision == "auto" and device.startswith("cuda"))
    width = 2 if halved else FLOAT
    return Memory(
        weights=n,
        gradients=n * copies + config.tied * config.vocab_size * config.n_embd * FLOAT,  # the embedding's, added then
        optimizer=moments,
        activations=tokens * activations_a_token(config, recipe.data.mask_documents) * width,
        logits=tokens * config.vocab_size * (3 * FLOAT if width == FLOAT else 3 * FLOAT + width),
        saving=(n + moments) * spread,
    )


def activations_a_token(config: GPTConfig, masked: bool = False) -> int:
    """How many numbers the way back needs of one token: what each operation keeps of its input or output.

    In a block: the input and output of both norms (4 C; rmsnorm keeps what it has divided too), queries, keys and
    values, twice if they are turned, again if they are normalised, attention's output, and inside the MLP its widest
    numbers before and after the activation. A mask (of alibi, of documents) makes attention keep a row of weights a
    head. Counted against what autograd keeps in tests/training/test_estimate.py.
    """
    C, F = config.n_embd, config.hidden_width
    norms = (6 if config.norm == "rmsnorm" else 4) * C
    looking = (config.n_head + config.kv_heads) * config.head_width  # queries and keys
    attention = config.qkv_width * (1 + (config.position == "rope")) + config.n_head * config.head_width
    attention += 2 * looking * config.qk_norm
    if masked or config.position == "alibi":
        attention += config.n_head * config.context_length
    mlp = 4 * F if config.mlp == "swiglu" else 2 * F
    return config.n_layer * (norms + attention + mlp) + 2 * C


def optimizer_numbers(config: GPTConfig, recipe: Recipe) -> int:
    """How many numbers the optimizers remember: two a parameter for AdamW, one for Muon."""
    with torch.device("meta"):
        optimizers = optimizers_for(GPT(config), recipe.train)
    kinds = [
        (2 if isinstance(o, torch.optim.AdamW) else 1, group["params"]) for o in optimizers for group in o.param_groups
    ]
    return sum(each * parameter.numel() for each, parameters in kinds for parameter in parameters)


def free_memory(device: str) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else psutil.virtual_memory().available


# ---- time ------------------------------------------------------------------------------------------------------------


def threads_taken(config: GPTConfig, recipe: Recipe) -> int:
    """How many threads `train` takes."""
    at_once = min(_rows(recipe), recipe.train.micro_batch_size or _rows(recipe))
    return fitting(at_once * config.context_length * config.hidden_width)


def rows_at_once(recipe: Recipe, rows: int, threads: int, device: str) -> int:
    """How many rows of `rows` are under way at once."""
    at_once = recipe.train.micro_batch_size or rows
    return min(rows, at_once * (threads if _by_threads(recipe, threads, device) else 1))


def _by_threads(recipe: Recipe, threads: int, device: str) -> bool:
    return threads > 1 and device == "cpu" and recipe.train.compile != "yes"


def seconds_a_step(
    config: GPTConfig, recipe: Recipe, rows: int, threads: int, device: str = "cpu"
) -> tuple[float, int]:
    """Seconds of a step after one that warms up, and of how many of its rows that was measured. Where a whole step
    takes over LONGEST the gradient of fewer rows is scaled up; the optimizer's share is not."""
    train = recipe.train
    choices = Choices("bfloat16" if train.precision == "bfloat16" else "float32", train.compile == "yes", threads)
    among = Processes(device=device)
    trainer = Trainer(GPT(config), train, NextToken(train.last_position_only), choices, among=among)
    measured = min(rows, max(threads, train.micro_batch_size or 1))
    _seconds_of(trainer, config, measured)
    gradient, step = _seconds_of(trainer, config, measured)
    if step * rows / measured <= LONGEST and measured < rows:
        measured = rows
        gradient, step = min(_seconds_of(trainer, config, rows) for _ in range(2))
    return gradient * rows / measured + step - gradient, measured


def _seconds_of(trainer: Trainer, config: GPTConfig, rows: int) -> tuple[float, float]:
    """Of the gradient of so many rows of random tokens, and of the step with it."""
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=(rows, config.context_length + 1))
    batch = {"inputs": tokens[:, :-1].copy(), "targets": tokens[:, 1:].copy()}
    began = time.perf_counter()
    trainer.add_gradients(0, batch)
    gradient = time.perf_counter() - began
    trainer.model.zero_grad()
    began = time.perf_counter()
    trainer.step(0, batch)
    return gradient, max(gradient, time.perf_counter() - began)


# ---- text and disk ---------------------------------------------------------------------------------------------------


def _rows(recipe: Recipe) -> int:
    """The windows of a step."""
    sequence = recipe.data.sequence
    windows = len(sequence) - recipe.model.context_length if sequence is not None else None
    return max(1, min(part for part in (recipe.train.batch_size, windows) if part is not None))


def _prepared(recipe: Recipe) -> TokenFiles | None:
    folder = Path(recipe.data.tokens) if recipe.data.tokens is not None else None
    if recipe.data.files is None or folder is None or not (folder / MANIFEST).exists():
        return None
    return TokenFiles.open(folder, verify=False)


def _of_size(config: GPTConfig, vocab_size: int) -> GPTConfig:
    return dataclasses.replace(config, vocab_size=vocab_size)


def _tokens_of_text(recipe: Recipe) -> int | None:
    """The tokens to train on, where that can be known without reading: of a sequence, or of files byte by byte."""
    if recipe.data.sequence is not None:
        return max(1, len(recipe.data.sequence) - recipe.model.context_length)
    if recipe.data.vocabulary != "bytes" or recipe.data.weights or recipe.data.clean:
        return None
    try:
        sources = [source_of(name, field=recipe.data.field) for name in recipe.data.files or ()]
    except GlassGPTError:
        return None
    if not all(isinstance(source, Files) for source in sources):
        return None
    n_bytes = sum(path.stat().st_size for source in sources for path in source.paths)  # type: ignore[attr-defined]
    return max(1, round(n_bytes * (1 - recipe.data.validation)))


def _disk(config: GPTConfig, recipe: Recipe, n_tokens: int | None) -> Disk:
    train, every = recipe.train, recipe.evaluate.every
    steps = {0, train.steps, *range(0, train.steps, train.save_every)}
    steps |= set(range(0, train.steps, every)) if every and recipe.data.files else set()
    kept = len(steps) if train.keep is None else min(len(steps), train.keep + 2)  # the best, and the one being written
    weights = config.n_parameters * FLOAT
    checkpoint = weights + optimizer_numbers(config, recipe) * FLOAT
    width = 2 if config.vocab_size <= 1 << 16 else FLOAT
    tokens = None if n_tokens is None or recipe.data.files is None else n_tokens * width
    return Disk(tokens, kept * checkpoint, weights)
