"""`glassgpt tokenize`: a text as tokens, for a person and for a script."""

from __future__ import annotations

import argparse
import json

import pytest

import glassgpt.loading
from glassgpt.cli import tokenize
from glassgpt.errors import UsageError
from glassgpt.text.bpe import BYTE_SYMBOLS, BPETokenizer
from glassgpt.text.character import CharacterTokenizer


def bpe() -> BPETokenizer:
    tokens = [*BYTE_SYMBOLS, "he", "ro", "hero", "Ġhero", "<|end|>"]
    merges = ["h e", "r o", "he ro", "Ġ hero"]
    return BPETokenizer.from_vocabulary(tokens, merges, "gpt-2", {"<|end|>": 260}, "tokenizer.json")


@pytest.fixture
def ask(capsys, monkeypatch):
    """Run the command on a tokenizer: its standard output."""

    def run(tokenizer, *arguments):
        monkeypatch.setattr(glassgpt.loading, "load_tokenizer", lambda ref: tokenizer, raising=False)
        parser = argparse.ArgumentParser()
        tokenize.add_arguments(parser)
        assert tokenize.run(parser.parse_args(["REF", *arguments])) == 0
        return capsys.readouterr().out

    return run


def test_a_script_gets_ids_pieces_and_sizes(ask):
    answer = json.loads(ask(bpe(), "hero hero\n字", "--json"))
    assert answer == {
        "text": "hero hero\n字",
        "tokens": [258, 259, 10, 0xE5, 0xAD, 0x97],
        "pieces": ["hero", " hero", "\n", r"\xe5", r"\xad", r"\x97"],
        "bytes": [4, 5, 1, 1, 1, 1],
    }


def test_a_person_sees_the_pieces_apart_and_what_is_between_letters(ask):
    lines = ask(bpe(), "hero hero\n\x1b字").splitlines()
    assert lines[0] == r"hero|·hero|↵|\x1b|\xe5|\xad|\x97"
    assert any(line.split() == ["259", "·hero", "5"] for line in lines)
    assert lines[-1] == "7 tokens, 14 bytes, 2.00 bytes per token"


def test_merges_are_shown_word_by_word(ask):
    out = ask(bpe(), "hero", "--merges")
    steps = [
        line.split()[1] for line in out.splitlines() if line[:1] == " " and line.split()[0].isdigit() and "|" in line
    ]
    assert steps == ["h|e|r|o", "he|r|o", "he|ro"]
    [word] = json.loads(ask(bpe(), "hero", "--merges", "--json"))["merges"]
    assert word == {
        "word": "hero",
        "steps": [["h", "e", "r", "o"], ["he", "r", "o"], ["he", "ro"], ["hero"]],
        "tokens": [258],
    }


def test_special_tokens_count_only_when_asked_for(ask):
    assert 260 not in json.loads(ask(bpe(), "hero<|end|>", "--json"))["tokens"]
    answer = json.loads(ask(bpe(), "hero<|end|>", "--json", "--special", "--merges"))
    assert [word["word"] for word in answer["merges"]] == ["hero"]
    assert answer["tokens"] == [258, 260]
    assert answer["pieces"] == ["hero", "<|end|>"]
    assert answer["bytes"] == [4, 0]


def test_characters_are_tokens_too(ask):
    characters = CharacterTokenizer("01 ")
    assert json.loads(ask(characters, "1 0", "--json"))["tokens"] == [1, 2, 0]
    assert ask(characters, "1 0").splitlines()[0] == "1|·|0"
    with pytest.raises(UsageError, match="--merges needs"):
        ask(characters, "1", "--merges")
    with pytest.raises(UsageError, match="not in the vocabulary"):
        ask(characters, "2")


def test_an_empty_text_has_no_tokens(ask):
    assert json.loads(ask(bpe(), "", "--json"))["tokens"] == []
    assert ask(bpe(), "").splitlines()[-1] == "0 tokens, 0 bytes"


def test_a_terminal_gets_colours(ask, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    first = ask(bpe(), "hero hero").splitlines()[0]
    assert "\x1b[" in first
    assert "|" not in first
