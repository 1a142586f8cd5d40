"""Which stage a recipe is of."""

from __future__ import annotations

from pathlib import Path

from glassgpt.text.prepare import Progress
from glassgpt.training.classify import Classifying
from glassgpt.training.dpo import DirectPreference
from glassgpt.training.grpo import GroupRelative
from glassgpt.training.ppo import ProximalPolicy
from glassgpt.training.pretrain import Pretraining
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import Recipe
from glassgpt.training.reward import Rewarding
from glassgpt.training.sft import SupervisedFineTuning
from glassgpt.training.stage import Stage

LATER: dict[str, type] = {
    "sft": SupervisedFineTuning,
    "classify": Classifying,
    "reward": Rewarding,
    "dpo": DirectPreference,
    "ppo": ProximalPolicy,
    "grpo": GroupRelative,
}


def stage_of(recipe: Recipe, run: Path, among: Processes, on_progress: Progress, *, replace: bool, gone: bool) -> Stage:
    """The recipe's stage with its data at hand. `run`, `replace` and `gone` are as for `Pretraining.prepare`."""
    if recipe.stage == "pretrain":
        return Pretraining.prepare(recipe, run, among, on_progress, replace=replace, gone=gone)
    return LATER[recipe.stage](recipe)
