"""The training loop: Karpathy's numbers, bit-exact going on, and a run folder that survives what goes wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import glassgpt.training.loop
import glassgpt.training.pretrain
from glassgpt.errors import DamagedFileError, NumericalError, TooLargeError, UsageError
from glassgpt.interface import LanguageModel
from glassgpt.numerics import log_softmax
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import read_recipe
from glassgpt.training.trainer import Trainer
from glassgpt.weights.run import Run

TESTS = Path(__file__).parents[1]
BABY = TESTS.parent / "recipes" / "baby.toml"
PRINTED = json.loads((TESTS / "data" / "baby_gpt_reference.json").read_text())
SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=4", "train.steps=9", "train.save_every=3"]
MINI_BATCHES = ["train.batch_size=5", "train.last_position_only=false", "model.bias=true"]


def small(*overrides):
    return read_recipe(BABY, [*SMALL, *overrides])


def contents(folder):
    """All but the timing, which no two runs share."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "timing.jsonl")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Stop:
    """Says stop once, before the step `at`."""

    def __init__(self, at):
        self.at, self.asked = at, 0

    def __call__(self):
        self.asked += 1
        return self.asked == self.at + 1


# ---- the numbers of the text -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baby(tmp_path_factory):
    heard = []
    run = train(
        read_recipe(BABY),
        tmp_path_factory.mktemp("baby") / "run",
        watch=Watch(on_step=lambda step, made: heard.append((step, made.loss))),
    )
    return run, heard


def test_all_fifty_losses_are_the_printed_ones(baby):
    run, heard = baby
    losses = [row["loss"] for row in run.metrics()]
    np.testing.assert_allclose(losses, PRINTED["losses"], rtol=0, atol=2e-5)
    assert heard == list(enumerate(losses))
    assert [row["step"] for row in run.metrics()] == list(range(50))


def test_after_training_the_percentages_are_the_printed_ones(baby):
    percent = 100 * np.exp(log_softmax(baby[0].model().context_table()))
    for arrow, expected in PRINTED["after_training_percent"].items():
        before, after = arrow.split("->")
        assert round(percent[int(before, 2), int(after[-1])]) == expected, arrow
    assert [round(percent[code, token]) for code, token in ((5, 1), (7, 1), (7, 0), (0, 1))] == [79, 45, 55, 73]


def test_step_zero_is_the_model_as_it_was_drawn(baby):
    probs = np.exp(log_softmax(baby[0].model(0).context_table()))
    for context, expected in PRINTED["initial_probabilities"].items():
        np.testing.assert_allclose(probs[int(context, 2)], expected, rtol=0, atol=1e-6)


def test_every_step_is_kept_and_the_last_is_the_model(baby):
    run, _ = baby
    assert run.steps == list(range(51))
    np.testing.assert_array_equal(run.model(50).context_table(), run.model().context_table())
    assert (run.model(49).context_table() != run.model().context_table()).all()


def test_a_finished_run_is_left_as_it_is(baby):
    run, _ = baby
    before = contents(run.path)
    times = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    again = train(read_recipe(BABY), run.path, watch=Watch(on_step=lambda *_: pytest.fail("trained again")))
    assert again.is_finished
    assert contents(run.path) == before
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == times


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrides", [[], MINI_BATCHES], ids=["all windows", "mini-batches"])
def test_a_run_stopped_anywhere_goes_on_bit_for_bit(tmp_path, overrides):
    recipe = small(*overrides, "train.steps=12")
    whole = contents(train(recipe, tmp_path / "whole").path)
    rng = np.random.default_rng(1)
    stops = [0, 1, 11, *rng.choice(np.arange(2, 11), 3, replace=False)]
    for at in map(int, stops):
        out = tmp_path / f"stopped-{at}"
        with pytest.raises(Interrupted, match=f"stopped after {at} of 12 steps"):
            train(recipe, out, watch=Watch(should_stop=Stop(at)))
        assert Run(out).steps[-1] == at
        assert not Run(out).is_finished
        assert len(Run(out).metrics()) == at
        train(recipe, out)
        found = contents(out)
        assert whole.items() - found.items() <= {("manifest.json", whole["manifest.json"])}, at
        assert found.keys() - whole.keys() <= {f"checkpoints/step-{at:06d}.safetensors"}


def test_a_run_stopped_at_every_step_is_the_uninterrupted_one(tmp_path):
    recipe = small(*MINI_BATCHES, "train.save_every=1")
    whole = contents(train(recipe, tmp_path / "whole").path)
    for _ in range(8):
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "often", watch=Watch(should_stop=Stop(1)))
    train(recipe, tmp_path / "often")
    assert contents(tmp_path / "often") == whole


def test_a_crash_between_two_checkpoints_goes_on_from_the_last(tmp_path):
    recipe = small(*MINI_BATCHES)
    whole = contents(train(recipe, tmp_path / "whole").path)

    def crash(step, loss):
        if step == 7:
            raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError, match="went away"):
        train(recipe, tmp_path / "crashed", watch=Watch(on_step=crash))
    assert Run(tmp_path / "crashed").steps == [0, 3, 6]
    steps = []
    train(recipe, tmp_path / "crashed", watch=Watch(on_step=lambda step, loss: steps.append(step)))
    assert steps == [6, 7, 8]
    assert contents(tmp_path / "crashed") == whole


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("run.seed=1", r"run\.seed = 1337, and now has 1"),
        ("train.steps=10", r"train\.steps = 9, and now has 10"),
        ("train.learning_rate=0.1", r"train\.learning_rate"),
        ("data.sequence=1111011110111100", r"data\.s"),
        ("model.n_embd=8", r"model\.n_embd = 4, and now has 8"),
        ("train.batch_size=4", r"train\.batch_size = None, and now has 4"),
        ("data.symbols=10", r"data\.symbols"),
    ],
)
def test_a_run_begun_with_another_recipe_is_refused_by_its_key(tmp_path, override, key):
    train(small(), tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(UsageError, match=key):
        train(small(override), tmp_path / "run")
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("kind", ["a folder with a file", "a folder with a folder", "a file"])
def test_what_is_no_run_is_refused_and_untouched(tmp_path, kind):
    out = tmp_path / "mine"
    if kind == "a file":
        out.write_bytes(b"dear diary")
    else:
        out.mkdir()
        inner = out / "inner"
        inner.write_bytes(b"dear diary") if "file" in kind else inner.mkdir()
    before, listing = contents(tmp_path), sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="exists and is not a run folder"):
        train(small(), out)
    assert contents(tmp_path) == before
    assert sorted(tmp_path.rglob("*")) == listing


def test_an_empty_folder_and_a_deep_new_one_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert train(small(), tmp_path / "empty").is_finished
    assert train(small(), tmp_path / "a" / "b" / "c").is_finished


@pytest.mark.parametrize("kept", [0, 2])
def test_a_run_whose_metrics_are_lost_is_not_gone_on_with_under_wrong_numbers(tmp_path, kept):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        train(small(), out, watch=Watch(should_stop=Stop(6)))
    path = out / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    with pytest.raises(DamagedFileError, match=rf"metrics\.jsonl has only {kept} lines"):
        train(small(), out)
    path.unlink()
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl"):
        train(small(), out)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["1e20", "1e30"])
def test_a_learning_rate_that_blows_up_is_an_error_and_the_last_checkpoint_is_kept(tmp_path, rate):
    out = tmp_path / "run"
    with pytest.raises(NumericalError, match="not finite"):
        train(small("train.save_every=1", f"train.learning_rate={rate}"), out)
    run = Run(out)
    assert not run.is_finished
    for step in run.steps:
        assert np.isfinite(run.model(step).context_table()).all() or step > 0
        assert all(np.isfinite(value.read()).all() for value in run.checkpoint(step, run.config).weights.values())
    assert 0 in run.steps


def test_nan_in_the_weights_stops_the_run_and_the_last_sound_checkpoint_stays(tmp_path, monkeypatch):
    out, steps = tmp_path / "run", []

    class Poisoned(glassgpt.training.pretrain.GPT):
        def forward(self, tokens, **options):
            if len(steps) == 5:
                self.ln_f.bias.data[0] = torch.nan
            return super().forward(tokens, **options)

    monkeypatch.setattr(glassgpt.training.pretrain, "GPT", Poisoned)
    with pytest.raises(NumericalError, match=r"gradient of .* is not finite at step 5 \(loss nan\)"):
        train(small(), out, watch=Watch(on_step=lambda step, loss: steps.append(step)))
    monkeypatch.undo()
    assert Run(out).steps == [0, 3]
    assert np.isfinite(Run(out).model().context_table()).all()
    assert contents(train(small(), out).path) == contents(train(small(), tmp_path / "whole").path)


def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    class Poisoning(Trainer):
        def step(self, number, rows):
            made = super().step(number, rows)
            if number == 5:
                with torch.no_grad():
                    self.model.wpe.weight[0, 0] = torch.inf
            return made

    monkeypatch.setattr(glassgpt.training.loop, "Trainer", Poisoning)
    with pytest.raises(NumericalError, match="not finite after step 6"):
        train(small(), tmp_path / "run")
    assert Run(tmp_path / "run").steps == [0, 3]
    assert len(Run(tmp_path / "run").metrics()) >= 3


@pytest.mark.parametrize("sequence", ["1", "101"])
def test_a_sequence_that_is_too_short_begins_no_run(tmp_path, sequence):
    with pytest.raises(UsageError, match="at least one token longer"):
        train(small(f"data.sequence={sequence}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_symbols_outside_the_vocabulary_begin_no_run(tmp_path):
    with pytest.raises(UsageError, match="'2' is not in the vocabulary"):
        train(small("data.sequence=0120120"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- other recipes ---------------------------------------------------------------------------------------------------


def test_the_exercise_of_the_text_trains(tmp_path):
    recipe = read_recipe(
        BABY, ["data.sequence=0120120", "model.vocab_size=3", "model.context_length=2", "train.save_every=50"]
    )
    run = train(recipe, tmp_path / "run")
    model = run.model()
    table = np.exp(log_softmax(model.context_table()))
    assert table.shape == (9, 3)
    for before, after in ((0 * 3 + 1, 2), (1 * 3 + 2, 0), (2 * 3 + 0, 1)):  # 01 -> 2, 12 -> 0, 20 -> 1
        assert np.argmax(table[before]) == after
    losses = [row["loss"] for row in run.metrics()]
    assert losses[-1] < 0.5 * losses[0]
    assert run.steps == [0, 50]
    assert run.tokenizer.symbols == "012"


def test_symbols_may_be_any_characters(tmp_path):
    symbols = 'é"\\\n\r\t👩'
    recipe = small(f"data.symbols={symbols}", f"model.vocab_size={len(symbols)}", f"data.sequence={symbols * 2}")
    run = train(recipe, tmp_path / "run")
    assert Run(run.path).tokenizer.symbols == symbols
    assert Run(run.path).recipe["data"]["sequence"] == symbols * 2
    assert train(recipe, run.path).is_finished


def test_a_recipe_of_no_steps_keeps_the_model_as_it_was_drawn(tmp_path):
    run = train(small("train.steps=0"), tmp_path / "run")
    assert run.is_finished
    assert run.steps == [0]
    assert run.metrics() == []
    np.testing.assert_array_equal(run.model().context_table(), run.model(0).context_table())


def test_the_first_and_the_last_step_are_kept_whatever_save_every_says(tmp_path):
    assert train(small("train.save_every=100"), tmp_path / "a").steps == [0, 9]
    assert train(small("train.save_every=4"), tmp_path / "b").steps == [0, 4, 8, 9]


def test_the_loss_of_every_position_is_another_loss(tmp_path):
    one = train(small(), tmp_path / "a").metrics()
    every = train(small("train.last_position_only=false"), tmp_path / "b").metrics()
    assert one[0]["loss"] != every[0]["loss"]
    model = Run(tmp_path / "b").model(0)
    windows = np.lib.stride_tricks.sliding_window_view([int(c) for c in PRINTED["sequence"]], 4)
    logprobs = log_softmax(LanguageModel.sequence_logits(model, windows[:, :-1]))
    expected = -np.take_along_axis(logprobs, windows[:, 1:, None], axis=-1)
    np.testing.assert_allclose(every[0]["loss"], expected.mean(), atol=1e-6)
    np.testing.assert_allclose(one[0]["loss"], expected[:, -1].mean(), atol=1e-6)


def test_mini_batches_train_on_some_windows_at_a_time(tmp_path):
    run = train(small(*MINI_BATCHES, "train.steps=40"), tmp_path / "run")
    losses = [row["loss"] for row in run.metrics()]
    assert len(set(losses)) == 40
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_training_leaves_torchs_generator_and_threads_as_they_were(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(5)
        state = torch.get_rng_state()
        seen = set()
        train(small(), tmp_path / "a", watch=Watch(on_step=lambda *_: seen.add(torch.get_num_threads())))
        assert seen == {1}  # too small to share
        assert torch.get_num_threads() == 2
        with pytest.raises(NumericalError):
            train(small("train.learning_rate=1e30"), tmp_path / "b")
        with pytest.raises(Interrupted):
            train(small(), tmp_path / "c", watch=Watch(should_stop=Stop(2)))
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_num_threads(before)


def test_two_runs_of_one_recipe_are_the_same_bytes(tmp_path):
    first, second = (contents(train(small(), tmp_path / name).path) for name in "ab")
    assert first == second


def test_a_model_too_large_to_train_is_refused_before_its_folder_is_made(tmp_path):
    with pytest.raises(TooLargeError, match=r"GB to train.*model\.n_embd"):
        train(small("model.n_embd=1000000", "model.n_head=1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        train(small(), tmp_path / "file" / "run")
