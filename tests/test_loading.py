"""`load`: a run folder, or RUN@STEP."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from glassgpt.check import check_model, check_tokenizer
from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.loading import load, open_run
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import read_recipe

BABY = Path(__file__).parents[1] / "recipes" / "baby.toml"
RECIPE = read_recipe(BABY, ["model.n_layer=1", "model.n_embd=4", "train.steps=6", "train.save_every=2"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(RECIPE, tmp_path_factory.mktemp("load") / "run")


def test_a_run_loads_as_its_model_and_tokenizer(run):
    for ref in (run.path, str(run.path), f"{run.path}/"):
        model, tokenizer = load(ref)
        assert (model.vocab_size, model.context_length, tokenizer.vocab_size) == (2, 3, 2)
        check_model(model)
        check_tokenizer(tokenizer, ["", "1011"])
        np.testing.assert_array_equal(model.context_table(), run.model().context_table())


@pytest.mark.parametrize("step", [0, 2, 4, 6])
def test_at_a_step_it_is_the_model_after_so_many_updates(run, step):
    model, _ = load(f"{run.path}@{step}")
    np.testing.assert_array_equal(model.context_table(), run.model(step).context_table())
    assert open_run(f"{run.path}@{step}")[1] == step


def test_the_models_of_two_steps_differ(run):
    tables = [load(f"{run.path}@{step}")[0].context_table() for step in (0, 2, 4, 6)]
    assert all((a != b).any() for a, b in pairwise(tables))


@pytest.mark.parametrize("step", ["3", "7", "1000000"])
def test_a_step_that_is_not_kept_is_refused(run, step):
    with pytest.raises(UsageError, match=rf"keeps no step {step}; it keeps 0, 2, 4, 6"):
        load(f"{run.path}@{step}")


@pytest.mark.parametrize("step", ["", "last", "-1", "2.0", "²", " 2"])
def test_what_is_no_step_is_refused(run, step):
    with pytest.raises(UsageError, match="is no training step: write RUN@STEP"):
        load(f"{run.path}@{step}")


def test_a_folder_whose_name_holds_an_at_sign_is_a_folder(tmp_path):
    made = train(RECIPE, tmp_path / "me@home").path
    np.testing.assert_array_equal(load(made)[0].context_table(), load(f"{made}@6")[0].context_table())
    assert open_run(f"{made}@2")[1] == 2


@pytest.mark.parametrize("ref", ["nowhere", "nowhere@3"])
def test_what_is_not_there_is_refused(ref, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DamagedFileError, match="run folder"):
        load(ref)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DamagedFileError, match=r"holds no model: no manifest\.json"):
        load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_loads_as_its_newest_checkpoint(tmp_path):
    asked = []
    with pytest.raises(Interrupted):
        train(RECIPE, tmp_path / "run", watch=Watch(should_stop=lambda: asked.append(1) or len(asked) > 3))
    model, _ = load(tmp_path / "run")
    np.testing.assert_array_equal(model.context_table(), load(f"{tmp_path / 'run'}@3")[0].context_table())


def test_an_empty_name_is_refused():
    with pytest.raises(UsageError, match="empty"):
        load("")


@pytest.mark.parametrize("ref", [None, 5, ["runs/baby"]])
def test_what_is_no_name_at_all_is_refused(ref):
    with pytest.raises(UsageError, match=f"and this is {type(ref).__name__}: give a run folder"):
        load(ref)


def test_a_name_too_long_for_any_file_is_refused():
    with pytest.raises(DamagedFileError, match=r"'a{80}' cannot be read \(.*\): give a run folder"):
        load("a" * 5000)
