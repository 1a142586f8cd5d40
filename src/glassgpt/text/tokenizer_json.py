"""A character tokenizer as `tokenizer.json`, the format that the tokenizers library and transformers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glassgpt.errors import DamagedFileError
from glassgpt.text.character import CharacterTokenizer


def tokenizer_to_json(tokenizer: CharacterTokenizer) -> dict[str, Any]:
    """Words of one character, split between any two: the decoder joins them again."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?m:.)"}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {symbol: i for i, symbol in enumerate(tokenizer.symbols)},
            "unk_token": "",
        },
    }


def tokenizer_from_json(content: Any, source: Path) -> CharacterTokenizer:
    """The tokenizer of a `tokenizer.json`. Raises DamagedFileError unless it is one that `tokenizer_to_json` writes."""
    try:
        vocab = content["model"]["vocab"]
        symbols = "".join(sorted(vocab, key=vocab.__getitem__))
        tokenizer = CharacterTokenizer(symbols)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedFileError(f"{source} holds no vocabulary of characters") from None
    if content != tokenizer_to_json(tokenizer):
        raise DamagedFileError(f"{source} is not a character tokenizer, the only kind that this version reads")
    return tokenizer
