"""What the model being trained writes, and what that is worth: the rows of reinforcement learning.

Answers are drawn by the same `generate_batch` as everywhere, at temperature 1 and without any processor, so that what
is drawn is what the policy says. A step's answers follow from the weights, the run's seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from glassgpt.decoding.batch import generate_batch
from glassgpt.models.gpt_torch import GPT
from glassgpt.training.examples import Prompt, batch_of
from glassgpt.training.objective import IGNORED

AT_ONCE = 32  # rows of a forward pass without gradient
Reward = Callable[[Sequence[Prompt], Sequence[str], np.ndarray], np.ndarray]
"""(prompts, answers, whether each has ended) to a score each, float64."""


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Answers to prompts, right-padded. `inputs`, `targets`: int64 (B, T), targets IGNORED outside the answers.
    `ended`: whether an end token was drawn. `texts`: the answers without it."""

    prompts: Sequence[Prompt]
    tokens: list[list[int]]
    texts: list[str]
    ended: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return self.targets != IGNORED

    @property
    def lengths(self) -> np.ndarray:
        return self.mask.sum(axis=1)


def roll_out(
    policy: GPT,
    prompts: Sequence[Prompt],
    decode: Callable[[Sequence[int]], str],
    ends: Sequence[int],
    max_new_tokens: int,
    seed: int,
    *,
    temperature: float = 1.0,
) -> Rollouts:
    """An answer of the policy to each prompt, of at most so many tokens and no more than its context holds."""
    ids = [prompt.tokens for prompt in prompts]
    room = policy.context_length - max(map(len, ids))
    answers = generate_batch(
        policy, ids, max(1, min(max_new_tokens, room)), temperature=temperature, end_token=list(ends), seed=seed
    )
    ended = np.array([bool(answer) and answer[-1] in ends for answer in answers])
    inputs, targets = batch_of([(prompt, answer) for prompt, answer in zip(ids, answers, strict=True)])
    texts = [decode(answer[:-1] if end else answer) for answer, end in zip(answers, ended, strict=True)]
    return Rollouts(list(prompts), answers, texts, ended, inputs, targets)


@dataclass(frozen=True)
class Said:
    """Of each target: `logprobs`, float32 (B, T), nats, 0 where it is IGNORED. `entropy`: of the distribution that it
    was drawn from. `kl`: that distribution's exact divergence from a reference's, if one was given."""

    logprobs: np.ndarray
    entropy: np.ndarray
    kl: np.ndarray | None = None
    reference: np.ndarray | None = None


@torch.no_grad()
def say(policy: nn.Module, inputs: np.ndarray, targets: np.ndarray, reference: nn.Module | None = None) -> Said:
    """What a model, and the model it came from, thought of tokens that were drawn."""
    found: dict[str, list[np.ndarray]] = {"logprobs": [], "entropy": [], "kl": [], "reference": []}
    device = next(policy.parameters()).device
    for first in range(0, len(inputs), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        x, y = (torch.from_numpy(part[rows]).to(device) for part in (inputs, targets))
        kept = (y != IGNORED).float()
        picked = y.clamp(min=0)[..., None]
        log_p = F.log_softmax(policy(x).float(), dim=-1)
        found["logprobs"].append((log_p.gather(-1, picked)[..., 0] * kept).cpu().numpy())
        found["entropy"].append((-(log_p.exp() * log_p).sum(-1) * kept).cpu().numpy())
        if reference is not None:
            log_q = F.log_softmax(reference(x).float(), dim=-1)
            found["reference"].append((log_q.gather(-1, picked)[..., 0] * kept).cpu().numpy())
            found["kl"].append(((log_p.exp() * (log_p - log_q)).sum(-1) * kept).cpu().numpy())
    joined = {name: np.concatenate(parts) if parts else None for name, parts in found.items()}
    return Said(joined["logprobs"], joined["entropy"], joined["kl"], joined["reference"])  # type: ignore[arg-type]
