"""What PPO and GRPO share: prompts, a policy and the model it came from, a reward, and how the policy is judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from glassgpt.models.gpt_torch import GPT
from glassgpt.training.base import Base
from glassgpt.training.evaluate import Evaluation
from glassgpt.training.examples import Prompt, drawn, prompts_of
from glassgpt.training.objective import Rows
from glassgpt.training.recipe import GrpoSection, PpoSection, Recipe
from glassgpt.training.rollout import Rollouts, Said, roll_out, say
from glassgpt.training.scorers import RewardModel, reward_of
from glassgpt.training.stage import Moment, Stage, Words, gpt_of
from glassgpt.training.trainer import Step, Trainer

JUDGED = 64  # held-out prompts on which a policy is evaluated
OF_A_STEP, OF_AN_EVALUATION = 1, 2  # streams of random numbers


class Reinforced(Stage):
    """A policy that is trained on its own answers. A step of the loop draws them, scores them, and makes several
    updates; nothing of it outlives the step, so that a checkpoint needs no more than weights and optimizer."""

    section: PpoSection | GrpoSection
    group = 1

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.run.base is not None
        self.recipe = recipe
        self.base = Base.open(recipe.run.base, chats=False)
        self.config, self.tokenizer = self.base.config, self.base.tokenizer
        self.words = Words(self.base.template, self.base.end_tokens, self.base.roles)
        self.prompts, self.held_out = prompts_of(recipe, self.base)
        self.reward = reward_of(self.section.reward)
        self.gold = reward_of("toy-world") if recipe.data.files == ("toy-world",) else None

    @property
    def sha256(self) -> str:
        parts = [self.base.sha256, self.reward.sha256, *(str(prompt.tokens) for prompt in self.prompts)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def reference(self) -> GPT:
        """The model that the policy came from, and is not to leave too far."""
        return self.base.gpt(self.recipe.run.seed).requires_grad_(False)

    def rows(self, step: int) -> Rows:
        raise NotImplementedError("the rows of a step are what the policy writes")

    # ---- one step ------------------------------------------------------------------------------------------------

    def roll(self, policy: GPT, step: int) -> Rollouts:
        """The answers of a step: `group` to each prompt."""
        batch = self.recipe.train.batch_size or 32
        chosen = drawn(len(self.prompts), -(-batch // self.group), step, self.recipe.run.seed)
        prompts = [self.prompts[i] for i in chosen for _ in range(self.group)]
        return self._answers(policy, prompts, [self.recipe.run.seed, OF_A_STEP, step])

    def _answers(self, policy: GPT, prompts: Sequence[Prompt], key: list[int]) -> Rollouts:
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        was_training = policy.training
        policy.eval()
        answers = roll_out(
            policy, prompts, self.tokenizer.decode, self.base.end_tokens, self.section.max_new_tokens, seed
        )
        policy.train(was_training)
        return answers

    def scores(self, answers: Rollouts) -> np.ndarray:
        """What each answer is worth: the reward, less the penalty where it has no end."""
        learned = self.reward(answers.prompts, answers.texts, answers.ended)
        return learned - self.section.missing_end * ~answers.ended

    def told(self, answers: Rollouts, said: Said, scores: np.ndarray) -> dict[str, float]:
        """What a person wants to know of some answers. `kl`: nats an answer, from the base."""
        told = {
            "reward": float(scores.mean()),
            "kl": float(said.kl.sum(axis=1).mean()) if said.kl is not None else 0.0,
            "entropy": float(said.entropy.sum() / max(1, answers.mask.sum())),
            "length": float(answers.lengths.mean()),
            "stop_rate": float(answers.ended.mean()),
        }
        if self.gold is not None:
            told["gold"] = float(self.gold(answers.prompts, answers.texts, answers.ended).mean())
        return told

    def updates(self, trainer: Trainer, number: int, rows: Mapping[str, np.ndarray], told: dict[str, float]) -> Step:
        """The passes over a step's answers. The loss told is the mean over updates: of a policy that has not moved it
        is about zero whatever the reward, so it is no measure of progress."""
        made: list[Step] = []
        n = len(next(iter(rows.values())))
        for epoch in range(self.section.epochs):
            order = np.random.default_rng([self.recipe.run.seed, number, epoch]).permutation(n)
            for part in np.array_split(order, self.section.minibatches):
                made.append(trainer.step(number, {name: value[part] for name, value in rows.items()}))
        mean = {key: float(np.mean([step.more[key] for step in made])) for key in made[0].more}
        loss, norm = (float(np.mean([getattr(step, key) for step in made])) for key in ("loss", "grad_norm"))
        return replace(made[-1], loss=loss, grad_norm=norm, more={**told, **mean})

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(self, now: Moment) -> Evaluation | None:
        if not self.held_out:
            return None
        _, policy = gpt_of(now.trainer.model)
        prompts = [self.held_out[i % len(self.held_out)] for i in range(JUDGED)]
        answers = self._answers(policy, prompts, [self.recipe.run.seed, OF_AN_EVALUATION])
        said = say(policy, answers.inputs, answers.targets, self.reference)
        more: dict[str, Any] = self.told(answers, said, self.scores(answers))
        shown = f"{answers.prompts[0].text}\n> {answers.texts[0]}"
        return Evaluation(now.step, None, None, int(answers.mask.sum()), shown, more) if now.among.first else None

    def notes(self) -> list[str]:
        named = self.section.reward
        kind = "a reward model" if isinstance(self.reward, RewardModel) else "the gold scorer"
        return [
            f"policy: from {self.recipe.run.base}, {self.config.n_parameters:,} parameters; reward: {named} ({kind})",
            f"prompts: {len(self.prompts):,} to train, {len(self.held_out):,} held out",
        ]
