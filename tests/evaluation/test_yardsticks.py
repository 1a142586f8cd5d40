"""Yardsticks: the compressors by their definition, the byte grams against the model that counts tokens."""

import bz2
import gzip
import lzma

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation import yardsticks
from glassgpt.evaluation.yardsticks import ByteCounts, byte_grams, byte_yardsticks, compressed, token_yardsticks
from glassgpt.models.backoff import KneserNey
from glassgpt.numerics import LN2
from glassgpt.text.character import CharacterTokenizer

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "saw", "an", "owl", "in", "that", "old", "oak", "tree"]
RNG = np.random.default_rng(0)
TEXT = " ".join(RNG.choice(WORDS, 4000)).encode()
TRAINING, VALIDATION = TEXT[:12_000], TEXT[12_000:]


def test_a_compressor_is_charged_what_the_validation_part_adds():
    bits = compressed(TRAINING, VALIDATION)
    for name, compress in {
        "gzip": lambda data: gzip.compress(data, 9),
        "bz2": lambda data: bz2.compress(data, 9),
        "xz": lambda data: lzma.compress(data, preset=6),
    }.items():
        added = len(compress(TRAINING + VALIDATION)) - len(compress(TRAINING))
        assert bits[name] == pytest.approx(8 * added / len(VALIDATION), abs=1e-12), name


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("training", [TRAINING, b"ab", b"aaaa", bytes(range(256)) * 3], ids=len)
def test_the_byte_grams_are_kneser_ney_reading_on_from_the_training_part(n, training):
    before = training[len(training) - (n - 1) :]
    logprobs = KneserNey(list(training), 256, n).text_logprobs(list(before + VALIDATION))[len(before) :]
    expected = -logprobs.sum() / LN2 / len(VALIDATION)
    assert byte_grams(training, VALIDATION)[yardsticks.GRAMS[n - 1]] == pytest.approx(expected, rel=1e-12)


def test_bytes_pairs_and_triples_are_counted_one_by_one():
    counts = ByteCounts.of(b"abab", before=b"xy")
    expected = {1: [b"a", b"b", b"a", b"b"], 2: [b"ya", b"ab", b"ba", b"ab"], 3: [b"xya", b"yab", b"aba", b"bab"]}
    for k, table in enumerate(counts.tables, start=1):
        assert table.sum() == 4
        for gram in expected[k]:
            assert table[tuple(gram)] == expected[k].count(gram)
    assert (counts.first, counts.last) == (b"ab", b"ab")


@pytest.mark.parametrize("size", [1, 2, 3, 700])
def test_blocks_of_any_size_give_the_same_numbers(size, monkeypatch):
    pieces = [TRAINING[i : i + size] for i in range(0, 2100, size)]
    whole, cut = byte_grams(TRAINING[: len(b"".join(pieces))], VALIDATION[:500]), byte_grams(pieces, [VALIDATION[:500]])
    assert whole == cut
    monkeypatch.setattr(yardsticks, "BLOCK", 37)
    assert byte_grams(pieces, VALIDATION[:500]) == whole


def test_the_yardsticks_stand_in_the_order_of_what_they_know():
    bits = byte_yardsticks(TRAINING, VALIDATION)
    assert list(bits) == ["uniform over bytes", "byte unigram", "byte bigram", "byte trigram", "gzip", "bz2", "xz"]
    grams = [bits[name] for name in list(bits)[:4]]
    assert grams == sorted(grams, reverse=True) and grams[0] == 8


def test_a_validation_part_seen_in_training_costs_a_compressor_next_to_nothing():
    noise = RNG.integers(0, 256, 10_000).astype(np.uint8).tobytes()
    assert compressed(noise, noise)["xz"] < 0.2
    assert compressed(noise, noise[::-1])["xz"] > 7.9
    far = noise + bytes(40_000)
    assert compressed(far, noise)["gzip"] > 7.9, "32 KiB back gzip has forgotten"
    assert compressed(far, noise)["xz"] < 0.2


def test_tokens_are_counted_like_bytes_where_each_is_one():
    text = TEXT.decode()
    tokenizer = CharacterTokenizer("".join(sorted(set(text))))
    bits = token_yardsticks(tokenizer.encode(text[:12_000]), tokenizer.encode(text[12_000:]), tokenizer)
    assert list(bits) == ["uniform over tokens", "token unigram", "token bigram", "token trigram"]
    assert bits["uniform over tokens"] == pytest.approx(np.log2(tokenizer.vocab_size))
    assert bits["token trigram"] == pytest.approx(byte_grams(TRAINING, VALIDATION)["trigram"], rel=0.01)


def test_a_token_of_several_bytes_is_charged_to_them_all():
    tokenizer = CharacterTokenizer("aé")
    bits = token_yardsticks([0, 1, 0, 1], [1, 1, 0], tokenizer)
    assert bits["uniform over tokens"] == pytest.approx(3 * 1 / 5)


def test_parts_that_cannot_be_judged_are_refused():
    with pytest.raises(UsageError, match="empty"):
        byte_yardsticks(TRAINING, b"")
    with pytest.raises(UsageError, match="two bytes"):
        byte_yardsticks(b"a", VALIDATION)
    with pytest.raises(UsageError, match="not an iterator"):
        byte_yardsticks(iter([TRAINING]), VALIDATION)
