"""The run folder: any damage is noticed, named, and never answered with someone else's error."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glassgpt.errors import DamagedFileError, GlassGPTError, UsageError
from glassgpt.loading import load
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.run import SETTINGS, Run, is_run

BABY = Path(__file__).parents[2] / "recipes" / "baby.toml"
RECIPE = read_recipe(
    BABY, ["model.n_layer=1", "model.n_head=1", "model.n_embd=2", "train.steps=4", "train.save_every=2"]
)
CHECKPOINT = "checkpoints/step-000002.safetensors"
SMALL_FILES = (*SETTINGS, "manifest.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(RECIPE, tmp_path_factory.mktemp("finished") / "run").path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def refuses(ref, name):
    """Loading must fail with an error of ours that names the file."""
    with pytest.raises(GlassGPTError) as caught:
        load(ref)
    assert Path(name).name in str(caught.value), f"{name} is not named in: {caught.value}"
    assert len(str(caught.value)) < 600


def test_the_folder_holds_what_it_says(finished):
    assert {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()} == {
        *SMALL_FILES,
        "metrics.jsonl",
        "timing.jsonl",
        ".lock",
        "model.safetensors",
        *(f"checkpoints/step-{step:06d}.safetensors" for step in (0, 2, 4)),
    }
    manifest = json.loads((finished / "manifest.json").read_text())
    assert len(manifest["files"]) == 9
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((finished / name).read_bytes()).hexdigest() == digest


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL_FILES)
def test_every_flipped_byte_of_a_small_file_is_refused(run, name):
    path = run / name
    sound = path.read_bytes()
    before = snapshot(run).keys()
    expected = load(run)[0].context_table()
    for at in range(len(sound)):
        flipped = bytearray(sound)
        flipped[at] ^= (0x01, 0x80, 0xFF, 0x20)[at % 4]
        path.write_bytes(flipped)
        if name == "manifest.json" and harmless(flipped, sound):
            np.testing.assert_array_equal(load(run)[0].context_table(), expected)
        else:
            refuses(run, name)
    assert snapshot(run).keys() == before
    path.write_bytes(sound)
    load(run)


def harmless(flipped, sound):
    """Whether it is another spelling of the same JSON; the manifest alone has nobody to vouch for its very bytes."""
    try:
        return json.loads(bytes(flipped)) == json.loads(sound)
    except ValueError:
        return False


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_the_manifest_is_refused_or_harmless(run, bit):
    path = run / "manifest.json"
    sound = path.read_bytes()
    for at in range(len(sound)):
        flipped = bytearray(sound)
        flipped[at] ^= 1 << bit
        path.write_bytes(flipped)
        if harmless(flipped, sound):
            assert Run(run).steps == [0, 2, 4]
        else:
            with pytest.raises(GlassGPTError, match=r"manifest\.json"):
                Run(run)


@pytest.mark.parametrize(("name", "ref"), [("model.safetensors", "{}"), (CHECKPOINT, "{}@2")])
def test_two_hundred_flips_of_the_weights_are_refused(run, name, ref):
    path = run / name
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(sound), 200):
        flipped = bytearray(sound)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        refuses(ref.format(run), name)


@pytest.mark.parametrize(
    ("name", "ref"), [("model.safetensors", "{}"), (CHECKPOINT, "{}@2"), *((name, "{}") for name in SMALL_FILES)]
)
def test_a_file_cut_short_or_grown_is_refused(run, name, ref):
    path = run / name
    sound = path.read_bytes()
    n = len(sound)
    changes = [sound[:at] for at in {0, 1, 7, 8, 9, n // 3, n // 2, n - 3, n - 2}]
    changes += [sound[1:], sound + b"x", sound + sound, b"\x00" * n, sound[:-2] + b"\x00" * 2]
    for content in changes:
        path.write_bytes(content)
        refuses(ref.format(run), name)


@pytest.mark.parametrize(
    ("name", "ref"), [("model.safetensors", "{}"), (CHECKPOINT, "{}@2"), *((name, "{}") for name in SMALL_FILES)]
)
def test_a_missing_file_is_refused_by_its_name(run, name, ref):
    (run / name).unlink()
    refuses(ref.format(run), name)


@pytest.mark.parametrize(
    ("name", "ref"), [("model.safetensors", "{}"), (CHECKPOINT, "{}@2"), *((name, "{}") for name in SETTINGS)]
)
def test_a_folder_in_a_files_place_is_refused_by_its_name(run, name, ref):
    (run / name).unlink()
    (run / name).mkdir()
    refuses(ref.format(run), name)


def test_files_changed_for_one_another_are_refused(run):
    four, two = (run / "checkpoints" / f"step-00000{step}.safetensors" for step in (4, 2))
    shutil.copy(four, two)
    refuses(f"{run}@2", two.name)
    shutil.copy(four, run / "model.safetensors")
    refuses(run, "model.safetensors")


def test_a_file_of_another_run_is_refused(run, tmp_path):
    other = train(read_recipe(BABY, ["model.n_layer=1", "train.steps=0"]), tmp_path / "other").path
    for name in ("config.json", "run.toml", "model.safetensors"):
        sound = (run / name).read_bytes()
        shutil.copy(other / name, run / name)
        refuses(run, name)
        (run / name).write_bytes(sound)
    shutil.copy(other / "manifest.json", run / "manifest.json")
    refuses(run, "config.json")


def test_a_failed_load_writes_nothing(run):
    for name in ("config.json", "model.safetensors", "manifest.json"):
        (run / name).write_bytes(b"{}")
        before = snapshot(run.parent)
        refuses(run, "manifest.json" if name == "manifest.json" else "config.json")
        assert snapshot(run.parent) == before


def test_loading_writes_nothing(run):
    before = snapshot(run.parent)
    load(run)
    load(f"{run}@2")
    assert snapshot(run.parent) == before


def test_a_damaged_run_is_not_trained_on(run):
    for name in SETTINGS:
        sound = (run / name).read_bytes()
        (run / name).write_bytes(sound + b" ")
        with pytest.raises(DamagedFileError, match=name.replace(".", r"\.")):
            train(RECIPE, run)
        (run / name).write_bytes(sound)
    (run / "manifest.json").write_bytes(b"[]")
    with pytest.raises(DamagedFileError, match=r"manifest\.json"):
        train(RECIPE, run)


def test_a_damaged_checkpoint_is_not_gone_on_from_but_the_one_before_it(tmp_path, finished):
    asked = []
    with pytest.raises(Interrupted):
        train(RECIPE, tmp_path / "run", watch=Watch(should_stop=lambda: asked.append(1) or len(asked) > 3))
    path = tmp_path / "run" / "checkpoints" / "step-000003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    notes = []
    again = train(RECIPE, tmp_path / "run", watch=Watch(on_note=notes.append))
    assert ["step-000003" in note and "before it" in note for note in notes] == [True]
    np.testing.assert_array_equal(again.model().context_table(), Run(finished).model().context_table())


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xfe", b'{"step": 0}\n', b"3\n", b"null\n", b'{"loss": 1}\n', b'{"step": 1, "loss": 1.0}\n', b"[]\n"],
)
def test_damaged_metrics_are_refused_by_their_name(run, content):
    (run / "metrics.jsonl").write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl"):
        Run(run).metrics()


# ---- what is in the files --------------------------------------------------------------------------------------------


def test_the_config_speaks_hugging_faces_gpt2(finished):
    content = json.loads((finished / "config.json").read_text())
    assert content["model_type"] == "gpt2"
    assert content["architectures"] == ["GPT2LMHeadModel"]
    assert (content["n_positions"], content["vocab_size"], content["n_embd"]) == (3, 2, 2)
    assert content["activation_function"] == "gelu"  # the exact one; gelu_new is the approximation


def test_the_resolved_recipe_is_kept_with_a_hash_of_the_text(finished):
    kept = Run(finished).recipe
    assert kept["data"].pop("sha256") == hashlib.sha256(b"111101111011110").hexdigest()
    assert kept == RECIPE.to_dict()


def test_a_run_without_a_checkpoint_holds_no_model_yet(tmp_path):
    from glassgpt.training.data import tokenizer_for

    run = Run.at(tmp_path / "run")
    run.begin(RECIPE.model, tokenizer_for(RECIPE), RECIPE.to_dict())
    assert is_run(run.path)
    assert run.steps == []
    with pytest.raises(DamagedFileError, match="holds no model yet"):
        run.model()


def test_a_step_that_is_not_kept_is_refused_with_those_that_are(finished):
    with pytest.raises(UsageError, match=r"keeps no step 3; it keeps 0, 2, 4"):
        Run(finished).model(3)


def test_a_file_that_the_manifest_does_not_list_is_not_there(run):
    shutil.copy(run / CHECKPOINT, run / "checkpoints" / "step-000003.safetensors")
    assert Run(run).steps == [0, 2, 4]
    with pytest.raises(UsageError, match="keeps no step 3"):
        Run(run).model(3)
    with pytest.raises(DamagedFileError, match=r"step-000003\.safetensors is not listed in manifest\.json"):
        Run(run).checkpoint(3, Run(run).config)


def test_the_metrics_of_a_finished_run_are_checked_like_any_file(run):
    path = run / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"0.", b"1.", 1))
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl"):
        Run(run).metrics()
    path.unlink()
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl"):
        Run(run).metrics()


def test_a_run_that_another_process_begins_just_now_is_a_run(finished, monkeypatch):
    """Its manifest may appear between the look for one and the look at what else is there."""
    looks = iter([False])
    monkeypatch.setattr("glassgpt.weights.run.is_run", lambda path: next(looks, True))
    with Run.held(finished) as run:
        assert run.is_finished
