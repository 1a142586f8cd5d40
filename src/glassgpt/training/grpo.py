"""Reinforcement learning without a critic: an answer is judged beside others to the same prompt (arXiv 2402.03300)."""

from __future__ import annotations

import numpy as np
from torch import nn

from glassgpt.errors import UsageError
from glassgpt.training.policy import GRPOLoss, group_advantages
from glassgpt.training.recipe import Recipe
from glassgpt.training.reinforced import Reinforced
from glassgpt.training.rollout import say
from glassgpt.training.stage import gpt_of
from glassgpt.training.trainer import Step, Trainer


class GroupRelative(Reinforced):
    def __init__(self, recipe: Recipe) -> None:
        assert recipe.grpo is not None
        self.section = self.grpo = section = recipe.grpo
        self.group = section.group
        batch = recipe.train.batch_size or 32
        if batch % section.group:
            raise UsageError(
                f"train.batch_size counts answers, in groups of grpo.group = {section.group}: give a multiple of it, "
                f"got {batch}"
            )
        super().__init__(recipe)
        constant = section.max_new_tokens if section.normalise == "constant" else None
        self.objective = GRPOLoss(section.normalise, section.clip_low, section.clip_high, section.beta, constant)

    def model(self) -> nn.Module:
        return self.base.gpt(self.recipe.run.seed)

    def step(self, trainer: Trainer, number: int) -> Step:
        _, policy = gpt_of(trainer.model)
        answers = self.roll(policy, number)
        said = say(policy, answers.inputs, answers.targets, self.reference)
        scores = self.scores(answers)
        groups = scores.reshape(-1, self.group)
        rows = {
            "inputs": answers.inputs,
            "targets": answers.targets,
            "logprobs": said.logprobs,
            "advantages": group_advantages(groups, self.grpo.scale).ravel().astype(np.float32),
        }
        if self.section.beta:
            assert said.reference is not None
            rows["reference"] = said.reference
        told = self.told(answers, said, scores)
        told["groups_alike"] = float(np.mean(groups.std(axis=1) == 0))  # groups whose answers teach nothing
        return self.updates(trainer, number, rows, told)
