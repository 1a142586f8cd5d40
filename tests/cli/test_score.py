"""`glassgpt score`: the surprise of a text, told to scripts and to people."""

from __future__ import annotations

import math

import numpy as np
import pytest

import glassgpt.loading
from glassgpt.models.ngram import NGram
from glassgpt.numerics import log_softmax
from glassgpt.text.character import CharacterTokenizer


class WithEnd(CharacterTokenizer):
    """The last symbol ends a text."""

    @property
    def end_token(self):
        return self.vocab_size - 1


MODEL = NGram(np.random.default_rng(4).integers(0, 3, 200), 3, n=3)
SURE = NGram([0, 1, 0, 1], 3, n=2, smoothing=0.0)


@pytest.fixture
def models(monkeypatch):
    found = {"three": (MODEL, WithEnd("aé!")), "plain": (MODEL, None), "endless": (MODEL, CharacterTokenizer("aé!")),
             "sure": (SURE, CharacterTokenizer("aé!"))}  # fmt: skip
    monkeypatch.setattr(glassgpt.loading, "load", lambda ref, *_, **__: found[ref])


def by_definition(text):
    return [float(log_softmax(MODEL.next_token_logits([text[:t]]))[0, text[t]]) for t in range(1, len(text))]


def test_the_object_holds_every_token_and_the_totals(models, ask_json):
    told = ask_json("score", "three", "aéé!a")
    tokens, logprobs = [0, 1, 1, 2, 0], by_definition([0, 1, 1, 2, 0])
    assert told["tokens"] == tokens and told["pieces"] == list("aéé!a")
    assert told["logprobs"][0] is None and "--from-start" in told["logprobs_note"]
    assert told["logprobs"][1:] == pytest.approx(logprobs, abs=1e-12)
    assert told["bits"] == pytest.approx(-sum(logprobs) / math.log(2))
    assert told["bits_per_byte"] == pytest.approx(told["bits"] / 6)  # é is two bytes, and the first token isn't scored
    assert told["perplexity"] == pytest.approx(math.exp(-sum(logprobs) / 4))
    assert told["scored_tokens"] == 4


def test_from_the_start_the_first_token_is_scored_too(models, ask_json):
    told = ask_json("score", "three", "aé", "--from-start")
    assert told["tokens"] == [0, 1] and told["logprobs"] == pytest.approx(by_definition([2, 0, 1]), abs=1e-12)
    assert "logprobs_note" not in told


def test_ids_and_files_go_in_place_of_a_text(models, ask_json, tmp_path):
    (tmp_path / "text").write_bytes("aéé!".encode())
    expected = ask_json("score", "three", "aéé!")
    assert ask_json("score", "three", "--tokens", "0,1,1,2") == expected
    assert ask_json("score", "three", "--file", tmp_path / "text") == expected


def test_without_a_tokenizer_ids_have_scores_and_no_bytes(models, ask, ask_json):
    told = ask_json("score", "plain", "--tokens", "0,1,2")
    assert told["pieces"] is told["bits_per_byte"] is None and "tokenizer" in told["bits_per_byte_note"]
    assert told["perplexity"] > 1
    assert ask("score", "plain", "--tokens", "0,1,2")[0] == 0


def test_an_impossible_token_has_no_finite_number(models, ask, ask_json):
    told = ask_json("score", "sure", "aé!")
    assert told["logprobs"] == [None, 0.0, None] and "no probability" in told["logprobs_note"]
    assert told["bits"] is told["bits_per_byte"] is told["perplexity"] is None and "no probability" in told["bits_note"]
    code, out, _ = ask("score", "sure", "aé!")
    assert code == 0 and "inf" in out


def test_a_single_token_is_not_scored(models, ask, ask_json):
    told = ask_json("score", "three", "a")
    assert told["logprobs"] == [None] and told["bits"] is told["perplexity"] is None and told["scored_tokens"] == 0
    assert ask("score", "three", "a")[0] == 0


def test_a_person_reads_a_line_for_each_token(models, ask):
    code, out, _ = ask("score", "three", "aé!")
    lines = out.splitlines()
    assert code == 0 and [line.split()[-1] for line in lines[:3]] == ["'a'", "'é'", "'!'"]
    assert lines[-1].endswith("perplexity") and "\x1b" not in out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["three"], "TEXT"),
        (["three", "a", "--tokens", "1"], "TEXT"),
        (["three", ""], "empty"),
        (["three", "x"], "'x'"),
        (["three", "--tokens", "1,x"], "--tokens"),
        (["three", "--tokens", "3"], "3"),
        (["plain", "a"], "--tokens"),
        (["plain", "--tokens", "1", "--from-start"], "--from-start"),
        (["endless", "a", "--from-start"], "--from-start"),
        (["three", "aé", "--stride", "0"], "stride"),
        (["three", "aé", "--stride", "3"], "stride"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(models, ask, options, word):
    code, out, err = ask("score", *options)
    assert code == 2 and word in err and len(err.splitlines()) == 1 and out == ""


def test_files_that_are_no_text_are_refused(models, ask, tmp_path):
    (tmp_path / "bytes").write_bytes(b"a\xff")
    (tmp_path / "empty").write_bytes(b"")
    for name, word in (("bytes", "UTF-8"), ("empty", "empty"), ("none", "No such file")):
        code, out, err = ask("score", "three", "--file", tmp_path / name)
        assert code in (1, 2) and word in err and out == ""


def test_a_single_token_is_told_once_what_it_lacks(models, ask):
    code, out, _ = ask("score", "three", "a")
    assert code == 0
    assert out.count("no token was scored") == 1
    assert "--from-start" in out
