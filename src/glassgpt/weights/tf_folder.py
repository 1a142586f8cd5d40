"""OpenAI's GPT-2 as it was published: a folder with a TensorFlow checkpoint, hparams.json and two files of words."""

from __future__ import annotations

from pathlib import Path

from glassgpt.interface import Tokenizer
from glassgpt.text.bpe import BPETokenizer
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.tf_checkpoint import gpt2_parameters


def is_tf_checkpoint(folder: Path) -> bool:
    return (folder / "hparams.json").exists() and any(folder.glob("*.index"))


def read_tf_folder(folder: Path) -> Bundle:
    """What such a folder holds. Raises DamagedFileError naming the file at fault."""
    config, parameters = gpt2_parameters(folder)

    def read_tokenizer() -> Tokenizer | None:
        pair = folder / "encoder.json", folder / "vocab.bpe"
        return BPETokenizer.from_gpt2_files(*pair) if all(path.exists() for path in pair) else None

    return Bundle("OpenAI's TensorFlow checkpoint", str(folder), config, parameters, read_tokenizer)
