"""Learning from rewards: advantages of what a policy said, and the clipped losses of PPO and GRPO.

A policy's answers are rows of tokens; what it said is where `targets` are not IGNORED, the response. `targets[t]` was
drawn after `inputs[: t + 1]`, so all arrays (B, T) stand at the place before the token that they speak of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.training.objective import IGNORED, Rows, Tally, require, require_range, wide

Normalisation = Literal["sequence", "tokens", "constant"]


# ---- rewards and advantages ----


def token_rewards(score: np.ndarray, kl: np.ndarray, mask: np.ndarray, beta: float) -> np.ndarray:
    """The reward of each token of a response: -beta kl, and at the last one the score of all (arXiv 2203.02155).

    `score` (B,); `kl` (B, T), in nats: the token's log-probability under the policy less that under the reference;
    `mask` (B, T), true at the response. Gives float64 (B, T), 0 outside the response. Raises UsageError if a response
    is empty or in pieces.
    """
    mask = _checked(mask, kl=kl)
    if np.shape(score) != mask.shape[:1]:
        raise UsageError(f"score needs a number for each of {len(mask)} responses; got the shape {np.shape(score)}")
    if not mask.any(axis=1).all():
        raise UsageError("every response needs a token that its score can stand at; got an empty one: leave it out")
    rewards = np.where(mask, -beta * np.asarray(kl, dtype=np.float64), 0.0)
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    rewards[np.arange(len(mask)), last] += score
    return rewards


def gae(
    rewards: np.ndarray, values: np.ndarray, mask: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """Generalised advantage estimates (arXiv 1506.02438) and returns, float64 (B, T), 0 outside the response.

    With d[t] = rewards[t] + gamma values[t + 1] - values[t], the advantage at t is the sum over k of
    (gamma lam)^k d[t + k], to the end of the response, after which all values are 0; the return is advantage plus
    value. `rewards` and `values` (B, T): of the token drawn at t and before it is drawn. `mask` (B, T): true at the
    response, whose places must lie side by side. Raises UsageError if they don't, or if gamma or lam is not in [0, 1].

    >>> advantages, returns = gae([[0.0, 1.0]], [[0.5, 0.75]], [[True, True]], gamma=1.0, lam=0.5)
    >>> advantages.tolist(), returns.tolist()
    ([[0.375, 0.25]], [[0.875, 1.0]])
    """
    require_range("gamma", gamma, 0, 1)
    require_range("lam", lam, 0, 1)
    mask = _checked(mask, rewards=rewards, values=values)
    rewards, values = (np.where(mask, np.asarray(x, dtype=np.float64), 0.0) for x in (rewards, values))
    advantages = np.zeros_like(values)
    next_value = next_advantage = np.zeros(len(mask))
    for t in reversed(range(mask.shape[1])):
        surprise = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = np.where(mask[:, t], surprise + gamma * lam * next_advantage, 0.0)
        next_value, next_advantage = values[:, t], advantages[:, t]
    return advantages, advantages + values


def whitened(advantages: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Advantages less their mean, over their standard deviation, both over all that `mask` holds true; elsewhere 0.

    float64 (B, T). The variance is the mean square (TRL's is unbiased), with 1e-8 added.
    """
    mask = np.asarray(mask, dtype=bool)
    kept = np.asarray(advantages, dtype=np.float64)[mask]
    white = np.zeros(mask.shape)
    if kept.size:
        white[mask] = (kept - kept.mean()) / np.sqrt(kept.var() + 1e-8)
    return white


def group_advantages(rewards: np.ndarray, scale: bool) -> np.ndarray:
    """How much better each answer is than its group: its reward less the group's mean (arXiv 2402.03300).

    `rewards` (groups, G), the G answers to a prompt in a row; gives float64 of the same shape. With `scale` divided by
    the group's standard deviation + 1e-4, the unbiased one (G - 1), as TRL's; without, as in Dr. GRPO (arXiv
    2503.20783), so that questions nearly all right or all wrong weigh no more than others. Raises UsageError if G < 2.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise UsageError(
            f"rewards must be (groups, G) with groups of at least 2 answers; got the shape {rewards.shape}"
        )
    better = rewards - rewards.mean(axis=1, keepdims=True)
    return better / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4) if scale else better


def _checked(mask: np.ndarray, **arrays: np.ndarray) -> np.ndarray:
    """The mask as bool (B, T), if the arrays have its shape and no row of it is in pieces."""
    mask = np.asarray(mask, dtype=bool)
    for name, array in arrays.items():
        if mask.ndim != 2 or np.shape(array) != mask.shape:
            raise UsageError(f"{name} and mask must be (B, T) both; got the shapes {np.shape(array)} and {mask.shape}")
    begins = np.count_nonzero(mask[:, 1:] & ~mask[:, :-1], axis=1) + mask[:, :1].any(axis=1)
    if (begins > 1).any():
        raise UsageError(f"a response must be in one piece; row {int(np.argmax(begins > 1))} of the mask has gaps")
    return mask


# ---- objectives ----


@dataclass(frozen=True)
class PPOLoss:
    """Proximal policy optimisation (arXiv 1707.06347): of each response token

        max(-r A, -clip(r, 1 - `clip`, 1 + `clip`) A) + `value_weight` v - `entropy_weight` H

    where r = pi(token) / old(token), A is its advantage, H the entropy of the distribution it was drawn from, and v
    half the squared error of the value against the return: the larger of that of the value and that of the value kept
    within `value_clip` of the old one. Clipping values is not the paper's, but its authors' code's (arXiv 2005.12729);
    None leaves it out. Defaults are those of arXiv 1909.08593.

    Rows: `inputs` and `targets` int64 (B, T); `logprobs`, `values`, `advantages`, `returns` float32 (B, T), of which
    the first two are the policy's and the critic's before the step. `logits_of` gives logits (B, T, V) and values
    (B, T), as `ActorCritic` does. A term is a response token. `tally`, over response tokens: clip_fraction (where the
    clip stops the gradient), approximate_kl (of old from pi: the mean of r - 1 - log r), entropy (nats), value_error
    (squared). Raises UsageError for settings out of range.
    """

    clip: float = 0.2
    value_clip: float | None = 0.2
    value_weight: float = 0.1
    entropy_weight: float = 0.0
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_range("clip", self.clip, 0, 1)
        if self.value_clip is not None:
            require_range("value_clip", self.value_clip, 0)
        require_range("value_weight", self.value_weight, 0)
        require_range("entropy_weight", self.entropy_weight, 0)

    def terms(self, rows: Rows) -> int:
        require("PPOLoss", rows, "inputs", "targets", "logprobs", "values", "advantages", "returns")
        return int(np.count_nonzero(rows["targets"] != IGNORED))

    def loss(self, logits_of: Callable[[Tensor], Any], rows: Mapping[str, Tensor]) -> Tensor:
        said = rows["targets"] != IGNORED
        logits, values = logits_of(rows["inputs"])
        logprobs, entropy = _of_response(logits[said], rows["targets"][said])
        change, advantages = logprobs - rows["logprobs"][said], rows["advantages"][said]
        _note(self.tally, change, advantages, entropy, self.clip, self.clip)
        each = _clipped(change, advantages, self.clip, self.clip)
        each = each + self.value_weight * self._value_loss(values[said], rows["values"][said], rows["returns"][said])
        if self.entropy_weight:
            each = each - self.entropy_weight * entropy
        return each.sum()

    def _value_loss(self, values: Tensor, old: Tensor, returns: Tensor) -> Tensor:
        values = wide(values)
        error = (values - returns).square()
        self.tally.add("value_error", error)
        if self.value_clip is not None:
            near = old + (values - old).clamp(-self.value_clip, self.value_clip)
            error = error.maximum((near - returns).square())
        return error / 2


@dataclass(frozen=True)
class GRPOLoss:
    """Group relative policy optimisation (arXiv 2402.03300): PPO's policy loss with an advantage per answer, made from
    a group's rewards (`group_advantages`) without a critic, and a divergence from the reference. Of each response token

        max(-r A, -clip(r, 1 - `clip_low`, 1 + `clip_high`) A) + `beta` (s - 1 - log s)

    where r = pi(token) / old(token) and s = ref(token) / pi(token): the last bracket estimates KL(pi, ref) and is never
    negative. A `clip_high` above `clip_low` is DAPO's (arXiv 2503.14476). `normalise` says what the tokens' losses are
    divided by:

    - "sequence": the paper's: an answer counts by the mean over its tokens, and the step by the mean over answers;
    - "tokens": DAPO's: the number of response tokens of the whole step, so that long answers weigh more;
    - "constant": Dr. GRPO's (arXiv 2503.20783): the number of answers times `constant`, such as the longest answer
      allowed, so that a token weighs the same in any answer.

    Rows: `inputs` and `targets` int64 (B, T); `logprobs` float32 (B, T), the policy's before the step; `advantages`
    float32 (B,); `reference` float32 (B, T), the reference's log-probabilities, needed only if beta > 0. A term is a
    response token for "tokens", else an answer, an empty one too. `tally`, over response tokens: clip_fraction,
    approximate_kl and entropy as in `PPOLoss`, and if beta > 0 reference_kl. Raises UsageError for settings out of
    range.
    """

    normalise: Normalisation = "sequence"
    clip_low: float = 0.2
    clip_high: float = 0.2
    beta: float = 0.04
    constant: int | None = None
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.normalise not in get_args(Normalisation):
            raise UsageError(f"normalise must be one of {', '.join(get_args(Normalisation))}; got {self.normalise!r}")
        require_range("clip_low", self.clip_low, 0, 1)
        require_range("clip_high", self.clip_high, 0)
        require_range("beta", self.beta, 0)
        if (self.normalise == "constant") != (self.constant is not None):
            raise UsageError(
                f'a constant goes with normalise="constant" and with no other; got {self.normalise!r} and '
                f"{self.constant}"
            )
        if self.constant is not None:
            require_range("constant", self.constant, 1)

    def terms(self, rows: Rows) -> int:
        needed = ("inputs", "targets", "logprobs", "advantages", *(("reference",) if self.beta else ()))
        require("GRPOLoss", rows, *needed)
        if self.normalise == "tokens":
            return int(np.count_nonzero(rows["targets"] != IGNORED))
        return len(rows["inputs"])

    def loss(self, logits_of: Callable[[Tensor], Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        said = rows["targets"] != IGNORED
        logprobs, entropy = _of_response(logits_of(rows["inputs"])[said], rows["targets"][said])
        change, advantages = logprobs - rows["logprobs"][said], rows["advantages"][:, None].expand_as(said)[said]
        _note(self.tally, change, advantages, entropy, self.clip_low, self.clip_high)
        each = _clipped(change, advantages, self.clip_low, self.clip_high)
        if self.beta:
            divergence = _k3(rows["reference"][said] - logprobs)
            self.tally.add("reference_kl", divergence)
            each = each + self.beta * divergence
        if self.normalise == "sequence":
            each = each / said.sum(dim=1, keepdim=True).expand_as(said)[said]
        return each.sum() / (self.constant or 1)


def _of_response(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of N response tokens and entropies of where they were drawn, in nats: (N, V), (N,) to (N,)."""
    logprobs = F.log_softmax(wide(logits), dim=-1)
    return logprobs.gather(-1, targets[:, None])[:, 0], -(logprobs.exp() * logprobs).sum(dim=-1)


def _clipped(change: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """PPO's clipped loss of each token; `change`: its log-probability less the old one."""
    ratio = change.exp()
    return -(ratio * advantages).minimum(ratio.clamp(1 - low, 1 + high) * advantages)


def _k3(change: Tensor) -> Tensor:
    """exp(c) - 1 - c: its mean over draws from q is KL(q, p), if c = log p - log q (Schulman 2020)."""
    return change.expm1() - change


def _note(tally: Tally, change: Tensor, advantages: Tensor, entropy: Tensor, low: float, high: float) -> None:
    change = change.detach()
    ratio = change.exp()
    tally.add("clip_fraction", ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0)))
    tally.add("approximate_kl", _k3(change))
    tally.add("entropy", entropy)
