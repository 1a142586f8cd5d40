"""tokenizer.json, the format that the tokenizers library and transformers read: of characters, or of byte-level BPE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glassgpt.errors import DamagedFileError, UnsupportedError
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.character import CharacterTokenizer


def tokenizer_to_json(tokenizer: CharacterTokenizer | BPETokenizer) -> dict[str, Any]:
    """A tokenizer as the content of a tokenizer.json."""
    return tokenizer.to_tokenizer_json() if isinstance(tokenizer, BPETokenizer) else _characters_to_json(tokenizer)


def _characters_to_json(tokenizer: CharacterTokenizer) -> dict[str, Any]:
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


def tokenizer_from_json(content: Any, source: Path) -> CharacterTokenizer | BPETokenizer:
    """The tokenizer of a parsed `tokenizer.json`: characters as `tokenizer_to_json` writes them, or byte-level BPE.

    Raises UnsupportedError for another kind, DamagedFileError for what is none.
    """
    model = content.get("model") if isinstance(content, dict) else None
    kind = model.get("type", "BPE" if "merges" in model else "WordLevel") if isinstance(model, dict) else "WordLevel"
    if kind == "BPE":
        return BPETokenizer.from_parsed_json(content, source)
    if kind in ("Unigram", "WordPiece"):
        raise UnsupportedError(
            f"{source} holds a tokenizer of type {kind}, and what is read here is byte-level BPE and characters"
        )
    return _characters_from_json(content, source)


def _characters_from_json(content: Any, source: Path) -> CharacterTokenizer:
    try:
        vocab = content["model"]["vocab"]
        symbols = "".join(sorted(vocab, key=vocab.__getitem__))
        tokenizer = CharacterTokenizer(symbols)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DamagedFileError(f"{source} holds no vocabulary of characters") from None
    if content != _characters_to_json(tokenizer):
        raise DamagedFileError(f"{source} is neither a character tokenizer of GlassGPT nor byte-level BPE")
    return tokenizer
