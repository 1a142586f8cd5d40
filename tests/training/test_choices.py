"""What pays on this machine is tried, told, and left plain where a run is too short to earn it back."""

import numpy as np
import pytest
import torch

import glassgpt.training.choices as module
from glassgpt.models.config import GPTConfig
from glassgpt.training.choices import choose
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import recipe_from_dict
from glassgpt.training.trainer import Choices

MODEL = {"vocab_size": 2, "context_length": 3, "n_layer": 1, "n_head": 1, "n_embd": 4}
ROWS = {name: np.zeros((1, 3), dtype=np.int64) for name in ("inputs", "targets")}
PLAIN, BFLOAT16, COMPILED = Choices(), Choices("bfloat16"), Choices(compiled=True)
BOTH = Choices("bfloat16", compiled=True)


def chosen(monkeypatch, seconds, among=None, **train):
    """What is chosen where a step takes so long with each choice, what was said, and what was tried."""
    said, tried = [], []

    def measured(config, recipe, rows, choices, patience=float("inf")):
        tried.append(choices)
        return seconds[choices]

    monkeypatch.setattr(module, "_seconds_a_step", measured)
    recipe = recipe_from_dict({"data": {"sequence": "0101"}, "model": MODEL, "train": {"steps": 1000} | train})
    made = choose(GPTConfig(**MODEL), recipe, ROWS, 1, among or Processes(), said.append)
    return made, said, tried


def test_a_short_run_is_begun_as_it_is(monkeypatch):
    assert chosen(monkeypatch, {PLAIN: 0.05}) == (PLAIN, [], [PLAIN])


def test_a_recipe_that_says_both_is_not_measured(monkeypatch):
    assert chosen(monkeypatch, {}, precision="bfloat16", compile="no") == (BFLOAT16, [], [])


def test_what_is_faster_is_taken_and_what_was_seen_is_said(monkeypatch):
    made, said, tried = chosen(monkeypatch, {PLAIN: 2.0, BFLOAT16: 1.0, BOTH: 0.5})
    assert made == BOTH
    assert said == [
        "1 of 1 windows take 2 s in float32, 1 s in bfloat16",
        "1 of 1 windows take 1 s as they are, 0.5 s compiled",
    ]
    assert tried == [PLAIN, BFLOAT16, BOTH]


def test_a_gain_that_noise_could_be_changes_nothing(monkeypatch):
    assert chosen(monkeypatch, {PLAIN: 2.0, BFLOAT16: 1.9, COMPILED: 1.85})[0] == PLAIN


def test_compiling_is_not_tried_where_it_could_not_be_earned_back(monkeypatch):
    made, said, tried = chosen(monkeypatch, {PLAIN: 0.1, BFLOAT16: 0.2})
    assert (made, tried) == (PLAIN, [PLAIN, BFLOAT16])
    assert said == ["1 of 1 windows take 0.1 s in float32, 0.2 s in bfloat16"]


def test_what_the_recipe_says_is_kept_and_the_rest_tried(monkeypatch):
    assert chosen(monkeypatch, {PLAIN: 2.0, COMPILED: 1.0}, precision="float32")[0] == COMPILED
    assert chosen(monkeypatch, {PLAIN: 2.0, BFLOAT16: 1.0}, compile="no")[0] == BFLOAT16


def test_among_several_processes_nothing_is_measured(monkeypatch):
    assert chosen(monkeypatch, {}, Processes(0, 2)) == (PLAIN, [], [])


def test_steps_are_measured_on_the_very_model():
    recipe = recipe_from_dict({"data": {"sequence": "0101"}, "model": MODEL, "train": {"steps": 1000}})
    before = torch.get_num_threads()
    assert 0 < module._seconds_a_step(GPTConfig(**MODEL), recipe, ROWS, Choices(threads=2)) < 60
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("patience", "steps"), [(0.0, [0]), (1e9, [0, 1, 2])])
def test_a_hopeless_choice_is_tried_once(monkeypatch, patience, steps):
    taken = []
    monkeypatch.setattr(module.Trainer, "add_gradients", lambda self, number, rows: taken.append(number))
    recipe = recipe_from_dict({"data": {"sequence": "0101"}, "model": MODEL, "train": {"steps": 1000}})
    module._seconds_a_step(GPTConfig(**MODEL), recipe, ROWS, PLAIN, patience)
    assert taken == steps


def test_an_eighth_of_a_step_is_enough_to_tell(monkeypatch):
    seen = []

    def measured(config, recipe, rows, choices, patience=float("inf")):
        seen.append(len(rows["inputs"]))
        return 0.01

    monkeypatch.setattr(module, "_seconds_a_step", measured)
    recipe = recipe_from_dict({"data": {"sequence": "0101"}, "model": MODEL, "train": {"steps": 1000}})
    rows = {name: np.zeros((32, 3), dtype=np.int64) for name in ("inputs", "targets")}
    choose(GPTConfig(**MODEL), recipe, rows, 1, Processes())
    assert seen == [4, 4]  # 0.01 s an eighth is 80 s in all: bfloat16 is tried, and compiling can't be earned back
