"""What several rooms' tests share: one trained baby GPT."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.small_stages import base, judge, rows, tuned  # noqa: F401 (fixtures)

from glassgpt.training.loop import train
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.run import Run

# The programs that tests start may keep what Python compiled, as they do for users: else each compiles everything.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
collect_ignore = ["data/make_tf_gpt2.py"]  # needs TensorFlow, which made what lies beside it
RECIPE = Path(__file__).parents[1] / "recipes" / "baby.toml"


@pytest.fixture(scope="session")
def baby_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run folder of recipes/baby.toml. Read it, never write to it: copy it first."""
    return train(read_recipe(RECIPE), tmp_path_factory.mktemp("runs") / "baby")
