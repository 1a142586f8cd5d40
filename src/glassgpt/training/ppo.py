"""Reinforcement learning from a reward by proximal policy optimisation (arXiv 1707.06347, 2203.02155).

The order of work is InstructGPT's: draw answers, score each at its end, take the log-ratio to the base off at every
token, estimate advantages with a critic that has a trunk of its own, and make a few clipped updates.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from glassgpt.models.heads import ActorCritic, HeadedGPT
from glassgpt.training.policy import PPOLoss, gae, token_rewards, whitened
from glassgpt.training.recipe import Recipe
from glassgpt.training.reinforced import Reinforced
from glassgpt.training.rollout import AT_ONCE, Rollouts, say
from glassgpt.training.scorers import RewardModel, headed
from glassgpt.training.trainer import Step, Trainer


class ProximalPolicy(Reinforced):
    def __init__(self, recipe: Recipe) -> None:
        assert recipe.ppo is not None
        self.section = self.ppo = section = recipe.ppo
        super().__init__(recipe)
        self.objective = PPOLoss(section.clip, section.clip, section.value_weight)

    def model(self) -> nn.Module:
        return ActorCritic(self.base.gpt(self.recipe.run.seed), self._critic())

    def _critic(self) -> HeadedGPT:
        """The reward model, which knows what is worth something, if it reads the same tokens; else the base with a head
        of its own."""
        if isinstance(self.reward, RewardModel):
            base = self.reward.base
            if base.config == self.config and base.tokenizer.to_tokenizer_json() == self.tokenizer.to_tokenizer_json():
                return headed(self.reward.run, base)
        return HeadedGPT(self.base.gpt(self.recipe.run.seed), 1, seed=self.recipe.run.seed)

    def step(self, trainer: Trainer, number: int) -> Step:
        model = trainer.model
        assert isinstance(model, ActorCritic)
        answers = self.roll(model.policy, number)
        said = say(model.policy, answers.inputs, answers.targets, self.reference)
        scores = self.scores(answers)
        values = values_of(model.critic, answers)
        assert said.reference is not None
        rewards = token_rewards(scores, said.logprobs - said.reference, answers.mask, self.section.beta)
        advantages, returns = gae(rewards, values, answers.mask, self.ppo.gamma, self.ppo.lam)
        rows = {
            "inputs": answers.inputs,
            "targets": answers.targets,
            "logprobs": said.logprobs,
            "values": values.astype(np.float32),
            "advantages": whitened(advantages, answers.mask).astype(np.float32),
            "returns": returns.astype(np.float32),
        }
        return self.updates(trainer, number, rows, self.told(answers, said, scores))


@torch.no_grad()
def values_of(critic: HeadedGPT, answers: Rollouts) -> np.ndarray:
    """The critic's estimate before each token, float32 (B, T)."""
    parts = []
    device = next(critic.parameters()).device
    for first in range(0, len(answers.inputs), AT_ONCE):
        inputs = torch.from_numpy(answers.inputs[first : first + AT_ONCE]).to(device)
        parts.append(critic(inputs)[..., 0].float().cpu().numpy())
    return np.concatenate(parts)
