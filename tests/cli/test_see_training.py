"""`glassgpt see`: pictures of a run that was trained on files."""

import pytest

RECIPE = """
[data]
files = "parentheses"
total_bytes = 20000
vocabulary = "characters"
between = "\\n"
[model]
context_length = 16
n_layer = 1
n_head = 1
n_embd = 8
[train]
steps = 4
batch_size = 2
save_every = 1
compile = "no"
precision = "float32"
[evaluate]
every = 2
sample_tokens = 4
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from glassgpt.cli.main import main

    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.toml").write_text(RECIPE)
    assert main(["train", str(folder / "recipe.toml"), "--out", str(folder / "run"), "--json"]) == 0
    return folder / "run"


@pytest.mark.parametrize("figure", ["curves", "parentheses", "loss", "samples", "batch"])
def test_a_run_on_files_has_its_pictures(ask, trained, tmp_path, figure):
    code, _, err = ask("see", figure, trained, "--out", tmp_path / "it.png")
    assert code == 0, err
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")


def test_curves_of_a_run_that_kept_nothing_back_are_its_loss(ask, tmp_path):
    assert ask("train", "recipes/baby.toml", "--out", tmp_path / "baby", "--set", "train.steps=2")[0] == 0
    for figure in ("curves", "loss"):
        assert ask("see", figure, tmp_path / "baby", "--out", tmp_path / f"{figure}.svg")[0] == 0
    assert (tmp_path / "curves.svg").read_bytes() == (tmp_path / "loss.svg").read_bytes()
    code, _, err = ask("see", "parentheses", tmp_path / "baby", "--out", tmp_path / "it.png")
    assert code == 2 and "parentheses" in err


def test_a_run_on_a_sequence_shows_its_batch_and_has_no_samples(ask, baby_run, tmp_path):
    assert ask("see", "batch", baby_run.path, "--out", tmp_path / "it.png")[0] == 0
    code, _, err = ask("see", "samples", baby_run.path, "--out", tmp_path / "it.png")
    assert code == 2 and "kept no samples" in err


def test_a_run_on_answers_has_no_batch_of_text(ask, tuned, tmp_path):
    code, _, err = ask("see", "batch", tuned, "--out", tmp_path / "it.png")
    assert code == 2 and "rows of answers" in err


def test_a_picture_of_a_sequence_is_refused_for_a_run_on_files(ask, trained, tmp_path):
    code, _, err = ask("see", "red-over-training", trained, "--red", "(", "--out", tmp_path / "it.png")
    assert code == 2 and "trained on files" in err
