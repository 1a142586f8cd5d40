"""A GPT's trunk under another head: scores and labels of texts, and the critic beside a policy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from glassgpt.errors import UsageError
from glassgpt.models.gpt_torch import GPT


class HeadedGPT(nn.Module):
    """A GPT whose last hidden state goes into a linear layer of `n_out` numbers in place of the vocabulary's logits.

    One number makes a reward model or a critic, n numbers a classifier of n labels (`training/labels.py`). The head is
    drawn from `seed` alone, normal(0, 1 / sqrt(n_embd + 1)) as in arXiv 2403.17031, its bias 0, and has the trunk's
    type and device. The trunk is taken as it is, not copied; its `lm_head`, which nothing reads here, is not trained,
    unless it is the token embedding too. Raises UsageError if `n_out` is less than 1.
    """

    def __init__(self, gpt: GPT, n_out: int, seed: int = 0) -> None:
        super().__init__()
        if n_out < 1:
            raise UsageError(f"a head gives at least 1 number; got n_out {n_out}")
        self.gpt = gpt
        if not gpt.config.tied:
            gpt.lm_head.requires_grad_(False)
        n_embd, like = gpt.config.n_embd, gpt.wte.weight
        self.head = nn.utils.skip_init(nn.Linear, n_embd, n_out, device=like.device, dtype=like.dtype)
        drawn = torch.randn((n_out, n_embd), generator=torch.Generator().manual_seed(seed)) / math.sqrt(n_embd + 1)
        with torch.no_grad():
            self.head.weight.copy_(drawn)
            self.head.bias.zero_()

    def forward(self, tokens: Tensor, **options: Any) -> Tensor:
        """The numbers after every prefix: int64 (B, T) to float (B, T, n_out). Options: those of `GPT.forward`."""
        return self.head(self.gpt.hidden(tokens, **options))


class ActorCritic(nn.Module):
    """A policy, and a critic with a trunk of its own that estimates what reward is still to come (arXiv 2203.02155).

    Raises UsageError if the critic gives more than one number, shares the policy's trunk or reads other tokens.
    """

    def __init__(self, policy: GPT, critic: HeadedGPT) -> None:
        super().__init__()
        if critic.head.out_features != 1:
            raise UsageError(
                f"a critic gives 1 number; this one gives {critic.head.out_features}: make it with n_out=1"
            )
        if critic.gpt is policy:
            raise UsageError("policy and critic need a trunk each; got one for both: give the critic a copy")
        ours, theirs = ((m.vocab_size, m.context_length) for m in (policy, critic.gpt))
        if ours != theirs:
            raise UsageError(
                f"policy and critic must read the same tokens; the policy has a vocabulary of {ours[0]} and a context "
                f"of {ours[1]}, the critic of {theirs[0]} and {theirs[1]}"
            )
        self.policy, self.critic = policy, critic

    def forward(self, tokens: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """int64 (B, T) to the policy's logits (B, T, V) and the critic's values (B, T), both after every prefix: the
        value at t is of the text up to t, before the next token is drawn. Options: those of `GPT.forward`."""
        return self.policy(tokens, **options), self.critic(tokens, **options)[..., 0]
