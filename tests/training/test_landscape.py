"""What the loss landscape of a run is measured on."""

import shutil

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation.landscape import parameters_of
from glassgpt.text.token_files import TokenFiles
from glassgpt.training.landscape import WINDOWS_MEASURED, steps_of_path, windows_of
from glassgpt.training.loop import train
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.run import Run

SETTINGS = {
    "data.vocabulary": "bytes",
    "model.context_length": 8,
    "model.n_layer": 1,
    "model.n_head": 1,
    "model.n_embd": 8,
    "train.steps": 2,
    "train.batch_size": 2,
    "train.save_every": 1,
    "evaluate.sample_tokens": 0,
}


@pytest.fixture(scope="module")
def of_a_text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog saw it. " * 60)
    settings = SETTINGS | {"data.files": str(folder / "text.txt")}
    recipe = read_recipe("my-text", [f"{name}={value}" for name, value in settings.items()])
    return train(recipe, folder / "run")


def test_of_a_sequence_all_windows_count_and_the_loss_is_what_training_wrote_down(baby_run):
    windows = windows_of(baby_run)
    assert windows.inputs.shape == windows.targets.shape == (12, 3)
    np.testing.assert_array_equal(windows.inputs[:, 1:], windows.targets[:, :-1])
    assert windows.last_position_only and windows.n_predicted == 12
    loss = windows.loss(baby_run.model(0))
    written = [row["loss"] for row in baby_run.metrics()]
    for step in (0, 7, 49):
        assert loss(parameters_of(baby_run.model(step))) == pytest.approx(written[step], abs=1e-6)


def test_of_a_text_the_first_windows_kept_back_count(of_a_text):
    windows = windows_of(of_a_text)
    kept_back = TokenFiles.open(of_a_text.path / "tokens").validation.tokens
    assert windows.inputs.shape == (WINDOWS_MEASURED, 8) and windows.n_predicted == WINDOWS_MEASURED * 8
    np.testing.assert_array_equal(windows.inputs.ravel(), kept_back[: WINDOWS_MEASURED * 8])
    np.testing.assert_array_equal(windows.targets.ravel(), kept_back[1 : WINDOWS_MEASURED * 8 + 1])


def test_a_run_without_its_text_is_refused(of_a_text, tmp_path):
    shutil.copytree(of_a_text.path, tmp_path / "run", ignore=shutil.ignore_patterns("tokens"))
    with pytest.raises(UsageError, match="no prepared text to measure the loss on"):
        windows_of(Run(tmp_path / "run"))


def test_a_path_has_three_steps_or_more(baby_run, of_a_text):
    assert steps_of_path(baby_run) == list(range(51))
    with pytest.raises(UsageError, match=r"keeps [12] steps of training, and a path needs 3 or more"):
        steps_of_path(of_a_text)
