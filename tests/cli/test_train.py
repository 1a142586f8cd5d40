"""`glassgpt train` for a person with a text: what is refused and how, what is told, and what is there afterwards."""

from __future__ import annotations

import json
import os
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from glassgpt.cli.train import account_lines, printable, what_now
from glassgpt.loading import load
from glassgpt.text.toy_world import ToyWorld, ToyWorldSource
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.run import Run

RECIPE = """
[data]
files = "nothing.txt"

[model]
vocab_size = 300
context_length = 16
n_layer = 2
n_head = 2
n_embd = 16
{shape}

[train]
steps = 12
batch_size = 4
learning_rate = 1e-2
save_every = 3
keep = 2

[evaluate]
every = 4
sample_tokens = 8
"""
QWEN3 = 'bias = false\nposition = "rope"\nnorm = "rmsnorm"\nmlp = "swiglu"\nqk_norm = true'
GPT2 = 'mlp = "gelu_tanh"'
TEXT = "".join(document.text + "\n" for document in islice(ToyWorldSource(ToyWorld()).documents(), 60))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a recipe and a text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GLASSGPT_GPT2_FILES", raising=False)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(shape=QWEN3))
    (tmp_path / "text.txt").write_text(TEXT[:9000])
    return tmp_path


def settings(*pairs):
    return [word for pair in pairs for word in ("--set", pair)]


def on(file, *more):
    return ["train", "recipe.toml", "--out", "run", *settings(f"data.files={file}", *more)]


def refused(told, code, *words):
    """One sentence of ours, last on standard error, and nothing on standard output."""
    got, out, err = told
    assert got == code, told
    assert out == "" and "Traceback" not in err and "defect" not in err, err
    assert len(err.strip().splitlines()) == 1 and len(err) < 500, err
    for word in words:
        assert word in err, err


# ---- texts that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("empty.txt", b"", 2, ["empty.txt is empty", "give a file"]),
        ("blank.txt", b" \n\n", 2, ["blank.txt holds no text"]),
        ("three.txt", b"abc", 2, ["train part has 2 tokens", "give more text, or a shorter context"]),
        ("image.bin", bytes(range(256)) * 9, 1, ["image.bin is not UTF-8 at byte 128"]),
        ("latin.txt", "déjà vu ".encode("latin-1") * 99, 1, ["not UTF-8 at byte 1", "iconv -f LATIN1"]),
        ("wide.txt", TEXT[:999].encode("utf-16"), 1, ["written in UTF-16", "iconv -f UTF-16"]),
        ("zero.txt", TEXT[:999].encode() + b"\0", 1, ["a byte 0 at position"]),
        ("rows.jsonl", b'{"text": "a"}\nno\n', 1, ["line 2", "not JSON"]),
        ("keys.jsonl", b'{"body": "a"}\n', 2, ["no 'text'", "'body'"]),
    ],
)
def test_what_is_no_text_is_refused_in_a_sentence_and_blocks_nothing(here, ask, name, content, code, words):
    (here / name).write_bytes(content)
    refused(ask(*on(name)), code, *words)
    assert ask(*on("text.txt", "train.steps=0"))[0] == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused_by_its_name(here, ask):
    (here / "text.txt").chmod(0)
    refused(ask(*on("text.txt")), 1, "text.txt cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ("nowhere.txt", ["there is no text file nowhere.txt"]),
        ("*.nothing", ["there is no text file *.nothing"]),
        ("bare", ["the folder bare holds no text file"]),
        ("", ["this has neither"]),
    ],
)
def test_what_is_not_there_is_refused_before_a_folder_is_made(here, ask, files, words):
    (here / "bare").mkdir()
    refused(ask(*on(files)), 2, *words)
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.vocab_size=100", ["model.vocab_size must be from 257", "got 100"]),
        ("data.vocabulary=bep", ["data.vocabulary is bytes, characters, words, bpe, or names a model"]),
        ("data.vocabulary=characters", ["leave model.vocab_size out, --set model.vocab_size="]),
        ("train.batch_size=", ["needs train.batch_size"]),
        ("data.file=a.txt", ["did you mean 'files'?"]),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_a_folder_is_made(here, ask, setting, words):
    refused(ask(*on("text.txt", setting)), 2, *words)
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.context_length=9999", ["and the context 9999", "a shorter context"]),
        ("data.split=document", ["none is left for the validation part", "split by position"]),
    ],
)
def test_what_only_the_text_can_refuse_leaves_nothing_that_blocks_the_next_try(here, ask, setting, words):
    (here / "text.txt").write_text(TEXT[:3001])
    refused(ask(*on("text.txt", setting)), 2, *words)
    (here / "other.txt").write_text(TEXT[:6000])
    assert ask(*on("other.txt", "train.steps=0"))[0] == 0


def test_a_prompt_outside_the_vocabulary_is_refused_before_the_first_step(here, ask):
    characters = ["data.vocabulary=characters", "model.vocab_size="]
    refused(ask(*on("text.txt", *characters, "evaluate.prompt=字")), 2, "'字' is not in the vocabulary")
    assert not Run("run").has_begun
    assert ask(*on("text.txt", *characters, "train.steps=0"))[0] == 0


@pytest.mark.parametrize(
    "content", [TEXT[:5000].replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + TEXT[:5000].encode()], ids=["CRLF", "BOM"]
)
def test_how_windows_ends_lines_and_begins_files_makes_no_difference(here, ask_json, content):
    (here / "plain.txt").write_text(TEXT[:5000])
    (here / "windows.txt").write_bytes(content)
    plain = ask_json("train", "recipe.toml", "--out", "a", *settings("data.files=plain.txt", "train.steps=2"))
    same = ask_json("train", "recipe.toml", "--out", "b", *settings("data.files=windows.txt", "train.steps=2"))
    assert plain["losses"] == same["losses"]
    assert plain["text"]["bytes"] == same["text"]["bytes"] == len(TEXT[:5000].encode())


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_a_person_is_told_what_the_text_is_how_it_goes_and_what_to_do_next(here, ask):
    code, out, err = ask(*on("text.txt"))
    assert code == 0, err
    assert f"text: {len(TEXT[:9000].encode()):,} bytes, documents: 1, tokens to train: " in err
    assert "vocabulary: bpe, 300 tokens of " in err and "GPT-2's words are not at hand" in err
    assert "plan: 12 steps of 64 tokens, which reads " in err
    for step in (0, 4, 8, 12):
        assert f"after {step} steps: validation loss " in err
    assert "  | " in err
    assert "gzip (looks back 32 kB only)" in out and "this model" in out
    assert "glassgpt generate run" in out
    assert ask("generate", "run", "The ")[0] == 0


def test_a_script_gets_one_object_and_its_person_still_sees_the_progress(here, ask):
    code, out, err = ask(*on("text.txt"), "--json")
    told = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert code == 0 and out.count("\n") == 1
    assert len(told["losses"]) == 12 and [row["step"] for row in told["evaluations"]] == [0, 4, 8, 12]
    losses = {row["step"]: row["validation_loss"] for row in told["evaluations"]}
    assert told["best_step"] == min(losses, key=losses.__getitem__)
    assert told["text"]["bytes"] == len(TEXT[:9000].encode()) and told["yardsticks"]["uniform over bytes"] == 8
    assert "after 12 steps" in err


def test_without_a_validation_part_there_is_no_best_step_and_that_is_said(here, ask_json, ask):
    told = ask_json(*on("text.txt", "data.validation=0", "train.steps=2"))
    assert told["best_step"] is None and "kept back" in told["best_step_note"]
    assert told["yardsticks"] == {}
    assert ask_json("info", "run")["training"]["best_step"] is None
    code, out, _ = ask("info", "run")
    assert code == 0 and "finished after 2 of 2 steps" in out


def test_a_mixture_is_told_source_by_source(here, ask):
    (here / "a.txt").write_text(TEXT[:6000])
    (here / "b.txt").write_text(TEXT[6000:8000])
    mixture = ["data.documents=lines", "data.weights=[3, 1]", "data.total_bytes=9000"]
    code, _, err = ask(*on('["a.txt", "b.txt"]', *mixture, "train.steps=0"))
    assert code == 0, err
    (line,) = (line for line in err.splitlines() if line.startswith("  a.txt: "))
    assert "taken 1." in line
    assert any(line.startswith("  b.txt: ") for line in err.splitlines())


def test_what_cleaning_throws_away_is_shown(here, ask):
    lines = ["#### $$$$ ???? ++++ ====", "tiny", *TEXT[:6000].splitlines()]
    (here / "rows.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    code, _, err = ask(*on("rows.jsonl", "data.clean=true", "train.steps=0"))
    assert code == 0, err
    assert "thrown away" in err and "    tiny" in err and "    #### $$$$" in err


def test_a_text_too_short_for_its_vocabulary_and_its_steps_is_told_so():
    account = {
        "bytes": 20_000, "documents": 1, "train_tokens": 8_000, "validation_tokens": 0, "sources": [], "cleaning": None,
        "vocabulary": "bpe", "vocab_size": 900, "bytes_per_token": 2.5, "gpt2_bytes_per_token": 3.0,
        "tokens_a_step": 64, "epochs": 40.0,
    }  # fmt: skip
    recipe = read_recipe("my-text", ["train.steps=1000"])
    lines = account_lines(recipe.model, account, recipe)
    assert "validate: none" in lines[0]
    assert "GPT-2's words have 3.00" in lines[1] and "too short for the 2,048 aimed at" in lines[1]
    assert "all of the text 40.0 times" in lines[3]
    assert "by heart" in lines[4] and "--set train.steps=250" in lines[4]
    assert "0.5 % of the text once" in account_lines(recipe.model, account | {"epochs": 0.005}, recipe)[3]


@pytest.mark.parametrize(
    ("best", "kept", "expected"),
    [(90, [90], "generate runs/a "), (60, [60, 90], "generate runs/a@60 "), (60, [90], "generate runs/a ")],
)
def test_the_step_to_use_is_the_best_one_that_is_kept(best, kept, expected):
    told = what_now(SimpleNamespace(path="runs/a", steps=kept), {"best_step": best, "steps_done": 90})
    assert expected in told
    assert ("by heart" in told) == ("@60" in expected)


def test_a_sample_cannot_command_the_terminal():
    assert printable("a\x1b[2J\r\x07b\n\té字") == "a\ufffd[2J\ufffd\ufffdb\n\té字"


# ---- stopped, and gone on with ---------------------------------------------------------------------------------------


def stopped(recipe, out, after):
    """Train until so many steps are made, and stop."""
    made = []
    with pytest.raises(Interrupted):
        train(recipe, out, watch=Watch(on_step=lambda *step: made.append(step), should_stop=lambda: len(made) >= after))


def test_info_tells_how_far_a_run_is_and_the_command_that_it_tells_finishes_it(here, ask, ask_json):
    recipe = read_recipe("recipe.toml", ["data.files=text.txt"])
    stopped(recipe, "run", 5)
    told = ask_json("info", "run")["training"]
    assert not told["finished"] and (told["steps_done"], told["steps"]) == (5, 12)
    code, out, _ = ask("info", "run")
    assert code == 0 and "it goes on by: glassgpt train --out run" in out and "trained on text.txt" in out
    assert ask(*told["go_on"].split()[1:])[0] == 0
    train(recipe, "whole")
    assert (here / "run" / "model.safetensors").read_bytes() == (here / "whole" / "model.safetensors").read_bytes()
    told = ask_json("info", "run")["training"]
    assert told["finished"] and told["steps_done"] == 12 and "go_on" not in told
    assert told["text"]["bytes"] == len(TEXT[:9000].encode())


def test_without_a_recipe_there_must_be_a_run_that_has_one(here, ask):
    refused(ask("train", "--out", "run"), 1, "there is no run folder run")
    assert not (here / "run").exists()


@pytest.mark.parametrize("shape", [GPT2, QWEN3], ids=["GPT-2", "Qwen3"])
def test_the_folder_of_an_interrupted_resumed_run_loads_in_transformers(here, shape):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    (here / "recipe.toml").write_text(RECIPE.format(shape=shape))
    recipe = read_recipe("recipe.toml", ["data.files=text.txt"])
    stopped(recipe, "run", 5)
    train(recipe, "run")
    theirs = transformers.AutoModelForCausalLM.from_pretrained("run").eval()
    ours, tokenizer = load("run", device="cpu")
    words = transformers.PreTrainedTokenizerFast(tokenizer_file="run/tokenizer.json")
    for text in (TEXT[:200], "Zürich 42\n\n  naïve 字!"):
        assert words.encode(text) == tokenizer.encode(text)
    tokens = np.random.default_rng(0).integers(0, tokenizer.vocab_size, (3, 16))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(ours.sequence_logits(tokens), expected, rtol=0, atol=1e-5)
