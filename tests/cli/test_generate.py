"""`glassgpt generate`: drawn, searched for and guessed ahead, told to scripts and to people."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import glassgpt.loading
from glassgpt.decoding.generate import generate
from glassgpt.interface import Tokenizer
from glassgpt.models.ngram import NGram
from glassgpt.numerics import log_softmax


class Syllables(Tokenizer):
    """Tokens of some characters, of half a character, and one that ends the text."""

    vocab_size = 6
    special = {"<|end|>": 5}  # noqa: RUF012
    end_token = 5
    spelled = (b"ab", b"a", b"b", b"\xc3", b"\xa9", b"")

    def encode(self, text):
        return ["012".index(part) for part in text.replace("ab", "0").replace("a", "1").replace("b", "2")]

    def token_bytes(self, token):
        return self.spelled[token]


MODEL = NGram(np.random.default_rng(4).integers(0, 6, 400), 6, n=3)
SAYS = NGram([5, 1, 0, 3, 4, 2, 5] * 3, 6, n=3, smoothing=0.0)  # a, ab, é, b, the end


@pytest.fixture
def models(monkeypatch):
    """References to models in memory: "plain" without a tokenizer, "six", "says"."""
    found = {"plain": (MODEL, None), "six": (MODEL, Syllables()), "says": (SAYS, Syllables())}
    monkeypatch.setattr(glassgpt.loading, "load", lambda ref, *_, **__: found[ref])
    monkeypatch.setattr(glassgpt.loading, "open_model", lambda *_, **__: SimpleNamespace(end_tokens=()))


def test_the_object_holds_text_tokens_and_log_probabilities(models, ask_json):
    told = ask_json("generate", "six", "abb", "--max-new-tokens", 8, "--temperature", 0, "--ignore-end")
    assert told["prompt_tokens"] == [0, 2]
    assert told["tokens"] == generate(MODEL, [0, 2], 8, temperature=0)
    text = [0, 2]
    for token, logprob in zip(told["tokens"], told["logprobs"], strict=True):
        assert logprob == pytest.approx(log_softmax(MODEL.next_token_logits([text]))[0, token], abs=1e-12)
        text.append(token)
    assert told["text"] == Syllables().decode(told["tokens"])
    assert len(told["pieces"]) == 8 and told["finish_reason"] == "length"


def test_log_probabilities_are_the_models_own_under_any_sampler(models, ask_json):
    told = ask_json("generate", "six", "ab", "--top-k", 1)
    assert all(logprob < 0 for logprob in told["logprobs"]) and told["sampler"]["top_k"] == 1


def test_an_empty_prompt_starts_from_the_end_of_text_and_shows_nothing_of_it(models, ask, ask_json):
    told = ask_json("generate", "says", "", "--temperature", 0)
    assert told["prompt_tokens"] == [5] and told["tokens"] == [1, 0, 3, 4, 2, 5]
    assert told["text"] == "aabéb" and told["finish_reason"] == "stop"
    assert ask("generate", "says", "", "--temperature", 0)[1] == "aabéb\n"


def test_the_end_of_text_ends_unless_it_is_ignored_or_another_is_named(models, ask_json):
    assert len(ask_json("generate", "says", "", "--temperature", 0, "--ignore-end")["tokens"]) == 20
    assert ask_json("generate", "says", "", "--temperature", 0, "--end-tokens", "0,2")["tokens"] == [1, 0]


@pytest.mark.parametrize(("stop", "text"), [(["éb"], "aab"), (["ba", "bé"], "aa"), (["zz"], "aabéb"), (["aa"], "")])
def test_the_text_ends_before_a_stop_string(models, ask, ask_json, stop, text):
    options = [part for one in stop for part in ("--stop", one)]
    assert ask_json("generate", "says", "", "--temperature", 0, *options)["text"] == text
    assert ask("generate", "says", "", "--temperature", 0, *options)[1] == text + "\n"


def test_the_repetition_penalty_is_part_of_the_sampler(models, ask_json):
    told = ask_json("generate", "six", "ab", "--temperature", 0, "--repetition-penalty", 1.5, "--ignore-end")
    assert told["tokens"] == generate(MODEL, [0], 20, temperature=0, repetition_penalty=1.5)
    assert told["sampler"]["repetition_penalty"] == 1.5


def test_without_a_tokenizer_ids_go_in_and_ids_come_out(models, ask, ask_json):
    told = ask_json("generate", "plain", "--tokens", "0,2", "--max-new-tokens", 4)
    assert told["tokens"] == generate(MODEL, [0, 2], 4)
    assert told["text"] is told["pieces"] is None and "tokenizer" in told["text_note"]
    assert (
        ask("generate", "plain", "--tokens", "0,2", "--max-new-tokens", 4)[1]
        == ",".join(map(str, [0, 2, *told["tokens"]])) + "\n"
    )


def test_several_samples_are_those_of_their_seeds(models, ask, ask_json):
    told = ask_json("generate", "six", "ab", "--samples", 3, "--seed", 4)
    assert [sample["tokens"] for sample in told["samples"]] == [
        ask_json("generate", "six", "ab", "--seed", seed)["tokens"] for seed in (4, 5, 6)
    ]
    assert told["tokens"] == told["samples"][0]["tokens"]
    assert len(ask("generate", "six", "ab", "--samples", 3)[1].splitlines()) == 3


def test_beams_come_with_their_scores(models, ask, ask_json):
    told = ask_json("generate", "six", "ab", "--beams", 4, "--max-new-tokens", 5, "--length-penalty", 0.5)
    scores = [beam["score"] for beam in told["beams"]]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    best = told["beams"][0]
    assert told["tokens"] == best["tokens"] and told["text"] == best["text"]
    assert best["logprob"] == pytest.approx(sum(best["logprobs"]))
    assert best["score"] == pytest.approx(best["logprob"] / len(best["tokens"]) ** 0.5)
    assert len(ask("generate", "six", "ab", "--beams", 4)[1].splitlines()) == 4
    assert ask_json("generate", "says", "", "--beams", 1)["text"] == "aabéb"
    assert ask_json("generate", "plain", "--tokens", "0", "--beams", 2)["text"] is None
    assert ask_json("generate", "says", "", "--beams", 2, "--max-new-tokens", 0)["tokens"] == []


def test_guessing_ahead_changes_no_greedy_text(models, ask, ask_json):
    plain = ask_json("generate", "six", "ab", "--temperature", 0, "--max-new-tokens", 30)
    for options in (("--lookup", 2), ("--draft", "says"), ("--draft", "six", "--draft-tokens", 7)):
        told = ask_json("generate", "six", "ab", "--temperature", 0, "--max-new-tokens", 30, *options)
        assert told["tokens"] == plain["tokens"] and told["text"] == plain["text"]
        assert told["speculation"]["accepted"] <= told["speculation"]["drafted"]
        assert told["speculation"]["calls"] <= 30
    assert ask("generate", "says", "", "--lookup", 2, "--temperature", 0)[1] == "aabéb\n"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["six"], "PROMPT"),
        (["six", "ab", "--tokens", "0"], "PROMPT"),
        (["plain", "ab"], "--tokens"),
        (["plain", ""], "--tokens"),
        (["plain", "--tokens", "0", "--stop", "a"], "--stop"),
        (["six", "ab", "--stop", ""], "stop string"),
        (["six", "ab", "--samples", "0"], "--samples"),
        (["six", "ab", "--seed", "-1"], "--seed"),
        (["six", "ab", "--max-new-tokens", "-1"], "max_new_tokens"),
        (["six", "ab", "--repetition-penalty", "0"], "repetition penalty"),
        (["six", "ab", "--repetition-penalty", "nan"], "repetition penalty"),
        (["six", "ab", "--length-penalty", "1"], "--beams"),
        (["six", "ab", "--beams", "0"], "beams"),
        (["six", "ab", "--beams", "2", "--length-penalty", "nan"], "length penalty"),
        (["six", "ab", "--beams", "2", "--top-k", "3"], "--beams"),
        (["six", "ab", "--beams", "2", "--stop", "a"], "--beams"),
        (["six", "ab", "--beams", "2", "--lookup", "3"], "not allowed with"),
        (["six", "ab", "--draft-tokens", "3"], "--draft"),
        (["six", "ab", "--lookup", "0"], "looked up"),
        (["six", "ab", "--lookup", "2", "--draft-tokens", "0"], "drafted"),
        (["six", "ab", "--end-tokens", "9"], "end token"),
        (["six", "ab", "--end-tokens", "x"], "--end-tokens"),
        (["six", "--tokens", "9"], "9"),
        (["six", "--tokens", "9" * 40], "--tokens"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(models, ask, options, word):
    code, out, err = ask("generate", *options)
    assert code == 2 and word in err and "Traceback" not in err and "defect" not in err
    assert out == ""
