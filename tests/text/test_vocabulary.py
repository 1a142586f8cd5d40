"""Vocabularies learnt here: lossless, in a format that others read, and encoded fast with the same ids."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.check import check_tokenizer
from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer
from glassgpt.text import vocabulary
from glassgpt.text.bpe import SPLITTINGS, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.encoding import encoder, is_bytes
from glassgpt.text.tokenizer_json import tokenizer_from_json, tokenizer_to_json
from glassgpt.text.toy_world import ToyWorld
from glassgpt.text.vocabulary import KINDS, Vocabulary, byte_tokenizer, bytes_per_token, learn_bpe, learn_words

SOURCE = Path("tokenizer.json")
CORPUS = [ToyWorld().document(i) for i in range(400)]
LEARNT = {kind: Vocabulary(kind, 700).learn(CORPUS) for kind in KINDS}


def read_back(tokenizer):
    return tokenizer_from_json(json.loads(json.dumps(tokenizer_to_json(tokenizer))), SOURCE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_lossless_and_survives_its_file(kind):
    tokenizer = LEARNT[kind]
    texts = CORPUS[:20] if kind == "characters" else None
    for one in (tokenizer, read_back(tokenizer)):
        check_tokenizer(one, texts)
        assert one.encode(CORPUS[0]) == tokenizer.encode(CORPUS[0])
    check_tokenizer(tokenizer, CORPUS[:20])


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizers_library_reads_the_file_with_equal_ids(kind):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_to_json(LEARNT[kind])))
    for text in CORPUS[:50]:
        assert theirs.encode(text, add_special_tokens=False).ids == LEARNT[kind].encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fast_way_gives_the_ids_of_encode(kind):
    for tokenizer in (LEARNT[kind], read_back(LEARNT[kind])):
        encode = encoder(tokenizer)
        for text in ["", *CORPUS[:50], "\n\n".join(CORPUS[:50])]:
            ids = encode(text)
            assert ids.dtype == np.int64
            assert ids.tolist() == tokenizer.encode(text)


@settings(deadline=None)
@given(st.text())
def test_the_fast_way_is_right_on_any_text(text):
    for kind in ("bytes", "words", "bpe"):
        assert encoder(LEARNT[kind])(text).tolist() == LEARNT[kind].encode(text)


def test_any_other_tokenizer_is_asked_as_it_is():
    class Reversed(Tokenizer):
        vocab_size, special = 256, {}

        def encode(self, text):
            return list(text.encode()[::-1])

        def token_bytes(self, token):
            return bytes([token])

    assert encoder(Reversed())("abc").tolist() == [99, 98, 97]


def test_bytes_are_themselves():
    tokenizer = byte_tokenizer()
    assert tokenizer.vocab_size == 257
    assert tokenizer.special == {"<|endoftext|>": 256}
    assert tokenizer.encode("é字\0") == list("é字\0".encode())
    assert is_bytes(tokenizer) and not is_bytes(LEARNT["bpe"]) and not is_bytes(LEARNT["characters"])


def test_characters_are_those_that_occur_in_order():
    tokenizer = Vocabulary("characters").learn(["ba", "", "c字a"])
    assert isinstance(tokenizer, CharacterTokenizer)
    assert tokenizer.symbols == "abc字"
    with pytest.raises(UsageError, match="'d' is not in the vocabulary of 4 characters"):
        encoder(tokenizer)("abcd")
    with pytest.raises(UsageError, match="U0010ffff' is not in"):
        encoder(tokenizer)("\U0010ffff")
    with pytest.raises(UsageError, match="no character"):
        Vocabulary("characters").learn([""])


def test_words_are_the_most_frequent_and_others_are_written_in_bytes():
    tokenizer = learn_words(["the cat the dog the cat the owl"] * 2, size=260)
    assert [tokenizer.token_bytes(i) for i in range(256, 260)] == [b" the", b" cat", b"the", b""]
    assert tokenizer.encode("the cat the cow") == [258, 257, 256, *b" cow"]
    assert learn_words(["a b"], size=300).vocab_size == 257  # nothing occurs twice


def test_bpe_joins_the_most_frequent_pair_first():
    tokenizer = learn_bpe(["aaab aaab aab"], size=260)
    assert isinstance(tokenizer, BPETokenizer)
    assert tokenizer.token_bytes(256) == b"aa"
    assert tokenizer.special == {"<|endoftext|>": tokenizer.vocab_size - 1}
    assert [tokenizer.token_bytes(byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_learning_twice_gives_the_same_and_digits_stand_apart():
    again = Vocabulary("bpe", 700).learn(iter(CORPUS))
    assert tokenizer_to_json(again) == tokenizer_to_json(LEARNT["bpe"])
    assert LEARNT["bpe"].vocab_size == 700
    assert not any(len(LEARNT["bpe"].token_bytes(i)) > 1 and b"1" in LEARNT["bpe"].token_bytes(i) for i in range(699))


@pytest.mark.parametrize("splitting", SPLITTINGS)
def test_every_rule_of_cutting_can_be_learnt_with(splitting):
    for kind in ("words", "bpe"):
        tokenizer = Vocabulary(kind, 400, splitting).learn(CORPUS[:50])
        check_tokenizer(read_back(tokenizer), CORPUS[:5])


def test_a_long_text_is_learnt_from_in_small_pieces(monkeypatch):
    text = "\n".join(CORPUS)
    whole = tokenizer_to_json(learn_bpe([text], 400))
    monkeypatch.setattr(vocabulary, "AT_ONCE", 200)
    assert tokenizer_to_json(learn_bpe([text], 400)) == whole


def test_larger_vocabularies_have_longer_tokens():
    lengths = [bytes_per_token(learn_bpe(CORPUS, size), CORPUS) for size in (257, 300, 500, 1500)]
    assert lengths[0] == 1.0
    assert lengths == sorted(lengths)
    assert lengths[-1] > 3
    assert np.isnan(bytes_per_token(LEARNT["bytes"], []))


@pytest.mark.skipif("GLASSGPT_GPT2_FILES" not in os.environ, reason="GPT-2's files are not part of this project")
def test_own_words_fit_a_corpus_better_than_gpt2s():
    folder = Path(os.environ["GLASSGPT_GPT2_FILES"])
    gpt2 = BPETokenizer.from_gpt2_files(folder / "encoder.json", folder / "vocab.bpe")
    assert bytes_per_token(learn_bpe(CORPUS, 2000, "gpt-2"), CORPUS) > bytes_per_token(gpt2, CORPUS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "syllables"}, "one of bytes, characters, words, bpe"),
        ({"kind": "bpe", "size": 256}, "between 257"),
        ({"kind": "words", "size": 2_000_000}, "between 257"),
        ({"kind": "bpe", "splitting": "gpt-5"}, "cut by one of"),
    ],
)
def test_impossible_vocabularies_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Vocabulary(**options)
