"""A folder of OpenAI's, as `load` sees it: tests/weights/test_tf_checkpoint.py proves the reading of the numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from glassgpt.errors import DamagedFileError, GlassGPTError
from glassgpt.loading import load, open_model
from glassgpt.text.bpe import BYTE_SYMBOLS
from glassgpt.weights.tf_folder import is_tf_checkpoint

FIXTURE = Path(__file__).parents[1] / "data" / "tf_gpt2"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(FIXTURE, tmp_path / "model")


def test_load_gives_the_logits_that_tensorflow_gave():
    expected = json.loads((FIXTURE / "logits.json").read_text())
    model, tokenizer = load(FIXTURE)
    logits = model.sequence_logits(np.array(expected["tokens"]))
    there = np.array(expected["logits"])
    assert np.max(np.abs(logits - there) / np.maximum(1, np.abs(there))) < 1e-5
    assert tokenizer is None
    assert open_model(FIXTURE).kind == "OpenAI's TensorFlow checkpoint"


def test_its_words_are_read_if_both_files_are_there(folder):
    vocabulary = {symbol: i for i, symbol in enumerate(BYTE_SYMBOLS)} | {"th": 256, "<|endoftext|>": 257}
    (folder / "encoder.json").write_text(json.dumps(vocabulary))
    assert load(folder)[1] is None
    (folder / "vocab.bpe").write_text("#version: 0.2\nt h\n")
    tokenizer = load(folder)[1]
    assert tokenizer.encode("the") == [256, ord("e")] and tokenizer.end_token == 257
    (folder / "vocab.bpe").write_text("#version: 0.2\nt q\n")
    with pytest.raises(DamagedFileError, match=r"vocab\.bpe"):
        load(folder)


def test_a_folder_is_a_checkpoint_only_with_its_sizes_and_its_index(folder):
    assert is_tf_checkpoint(folder)
    (folder / "hparams.json").unlink()
    assert not is_tf_checkpoint(folder)
    with pytest.raises(DamagedFileError, match=r"holds no model: .* no hparams\.json with an \.index file"):
        load(folder)


@pytest.mark.parametrize("name", ["hparams.json", "model.ckpt.index", "model.ckpt.data-00000-of-00001"])
def test_a_file_that_is_damaged_is_named(folder, name):
    content = (folder / name).read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:9] + b"\xff" * (len(content) - 9)):
        (folder / name).write_bytes(damaged)
        with pytest.raises(GlassGPTError) as caught:
            load(folder)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"n_layer": 10**9}, {"n_vocab": 2**31 - 1}, {"n_head": 3}, {"n_ctx": 9}, {"n_embd": 16}]
)
def test_sizes_that_lie_are_refused_at_once(folder, change):
    content = json.loads((folder / "hparams.json").read_text())
    (folder / "hparams.json").write_text(json.dumps(content | change))
    with pytest.raises(DamagedFileError, match=r"hparams\.json"):
        open_model(folder)
