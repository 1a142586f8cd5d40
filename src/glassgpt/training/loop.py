"""The one training loop: data, a loss, and a run folder that never loses a finished checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.nn import functional as F

from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, TooLargeError
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.threads import threads_for
from glassgpt.training.data import Windows, tokenizer_for, windows_of
from glassgpt.training.recipe import Recipe
from glassgpt.weights.run import Run
from glassgpt.weights.tensors import load_into, tensors_of

BYTES_A_PARAMETER = 16  # a float32 each for the weight, its gradient, and AdamW's two moments


class Interrupted(GlassGPTError):
    """Training was asked to stop, and did, after saving the step it had reached."""


def train(
    recipe: Recipe,
    out: Path | str,
    *,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Train a recipe into the run folder `out`, or go on with the run that is there.

    The weights come out bit for bit as if it had never stopped; the checkpoint of the step at which it did stays.

    `on_step(step, loss)` hears of each step, `should_stop()` is asked before each; Interrupted is raised once the step
    reached is saved. Raises NumericalError, and keeps the last sound checkpoint, if a gradient is not finite.
    """
    _refuse_if_too_large(recipe)
    tokenizer = tokenizer_for(recipe)
    windows = windows_of(recipe, tokenizer)
    resolved = recipe.to_dict()
    resolved["data"]["sha256"] = hashlib.sha256(recipe.data.sequence.encode()).hexdigest()
    run = Run.create(out, recipe.model, tokenizer, resolved)
    if run.is_finished:
        return run
    model = GPT(recipe.model, seed=recipe.run.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.train.learning_rate, weight_decay=recipe.train.weight_decay
    )
    step, losses = _resume(run, model, optimizer)
    with threads_for(windows.tokens_in_a_batch(recipe.train.batch_size) * 4 * recipe.model.n_embd):
        while step < recipe.train.steps:
            if should_stop():
                _save(run, step, model, optimizer, losses)
                raise Interrupted(
                    f"stopped after {step} of {recipe.train.steps} steps, and saved: the same command goes on"
                )
            losses.append(_step(model, optimizer, windows, recipe, step))
            on_step(step, losses[-1])
            step += 1
            if step % recipe.train.save_every == 0 or step == recipe.train.steps:
                _save(run, step, model, optimizer, losses)
    run.save_model(model)
    return run


def _refuse_if_too_large(recipe: Recipe) -> None:
    """Raise TooLargeError, before anything is written, if weights, gradients and optimizer won't fit in memory."""
    needed, available = recipe.model.n_parameters * BYTES_A_PARAMETER, psutil.virtual_memory().available
    if needed > available:
        raise TooLargeError(
            f"{recipe.model.n_parameters:,} parameters need {needed / 1e9:,.0f} GB to train, and "
            f"{available / 1e9:.1f} GB are free: lower model.n_embd, n_layer, vocab_size or context_length"
        )


def _step(model: GPT, optimizer: torch.optim.Optimizer, windows: Windows, recipe: Recipe, step: int) -> float:
    inputs, targets = map(torch.from_numpy, windows.batch(step, recipe.train.batch_size, recipe.run.seed))
    logits = model(inputs)
    if recipe.train.last_position_only:
        logits, targets = logits[:, -1:], targets[:, -1:]
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not torch.isfinite(parameter.grad).all():
            raise NumericalError(
                f"the gradient of {name} is not finite at step {step} (loss {loss.item()}): the last checkpoint stays; "
                "lower train.learning_rate and train into a new folder"
            )
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _save(run: Run, step: int, model: GPT, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    if step in run.steps:
        return
    weights = tensors_of(model)
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise NumericalError(f"the weights are not finite after step {step}: the last checkpoint is kept")
    run.save_metrics([{"step": i, "loss": loss} for i, loss in enumerate(losses)])
    run.save_checkpoint(step, weights, _optimizer_state(model, optimizer))


def _optimizer_state(model: GPT, optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    return {
        f"optimizer.{name}.{key}": np.array(value.numpy())
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _resume(run: Run, model: GPT, optimizer: torch.optim.Optimizer) -> tuple[int, list[float]]:
    """Put the newest checkpoint into model and optimizer; a run without one keeps step 0, the model as it was drawn."""
    if not run.steps:
        _save(run, 0, model, optimizer, [])
    step = run.steps[-1]
    weights, state = run.checkpoint(step, model.config)
    load_into(model, weights)
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        kept = {
            key.removeprefix(prefix): torch.from_numpy(value) for key, value in state.items() if key.startswith(prefix)
        }
        if kept:
            optimizer.state[parameter] = kept
    losses = [row["loss"] for row in run.metrics()[:step]]
    if len(losses) < step:
        raise DamagedFileError(
            f"{run.path / 'metrics.jsonl'} tells of {len(losses)} steps, and {step} were made: restore it from a copy"
        )
    return step, losses
