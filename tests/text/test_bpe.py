"""Byte-level BPE: equal to the libraries that others trust, lossless, and not to be fooled by a file.

GPT-2's own two files are not part of this project: tests that need them read the folder that GLASSGPT_GPT2_FILES names.
"""

from __future__ import annotations

import functools
import json
import os
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.check import TEXTS, check_tokenizer
from glassgpt.errors import DamagedFileError, GlassGPTError, UnsupportedError, UsageError
from glassgpt.text.bpe import (
    BYTE_SYMBOLS,
    LLAMA3_WORDS,
    MAX_FILE_BYTES,
    QWEN2_WORDS,
    SPLITTINGS,
    BPETokenizer,
)

SOURCE = Path("model") / "tokenizer.json"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "The heroes of the story wear capes, and the others wear hats; it's their 1234 stories.\n\n",
    "    indented text\tand tabs,   spaces  \n  and the end of the line  \r\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. naïve café élève été",
    "字 文字 漢字 中文字符 👩‍👩‍👧 👩 🙂 🙂🙂 2024年12月31日",
    "def words(text):\n    return [word for word in text.split(' ') if word]\n",
] * 4
AWKWARD = [
    *TEXTS,
    "it's I'LL we'd 'tis  'S",
    "12345678901 ½ ² ٣٤ 一二",
    "a\r\n\r\n  b \n\t\n c   ",
    "\u00a0\u2003\u3000 x\u0085y",
    "e\u0301 \u1112\u1161\u11ab \u212b",
    "\u0130\u017f\ufb01 ǅ",
    "\ufeff\u200b\u2028\u2029",
    "<|endoftext|><|im_start|> <|im_end|",
]


@functools.cache
def trained() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tokens and merges of a small byte-level BPE, trained by the tokenizers library."""
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    model = json.loads(library.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tuple(tokens), tuple(" ".join(pair) for pair in model["merges"])


@functools.cache
def small(rule: str = "gpt-2") -> BPETokenizer:
    tokens, merges = trained()
    special = {name: tokens.index(name) for name in SPECIAL}
    return BPETokenizer.from_vocabulary(tokens, merges, rule, special, SOURCE, end_token="<|im_end|>")


@functools.cache
def library(rule: str = "gpt-2"):
    """The same tokenizer put together from the tokenizers library's own parts, with the rule as others write it."""
    tokenizers = pytest.importorskip("tokenizers")
    tokens, merges = trained()
    pre = tokenizers.pre_tokenizers
    whole = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=[tuple(merge.split(" ")) for merge in merges],
            ignore_merges=rule == "llama-bpe",
        )
    )
    plain = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    whole.pre_tokenizer = {
        "gpt-2": lambda: pre.ByteLevel(add_prefix_space=False),
        "smollm": lambda: pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
        "llama-bpe": lambda: pre.Sequence([pre.Split(tokenizers.Regex(LLAMA3_WORDS), "isolated"), plain]),
        "qwen2": lambda: pre.Sequence([pre.Split(tokenizers.Regex(QWEN2_WORDS), "isolated"), plain]),
    }[rule]()
    if rule == "qwen2":
        whole.normalizer = tokenizers.normalizers.NFC()
    whole.decoder = tokenizers.decoders.ByteLevel()
    return whole


def expected_back(rule: str, text: str) -> str:
    return unicodedata.normalize("NFC", text) if rule == "qwen2" else text


# --- What it gives ----------------------------------------------------------------------------------------------------


def test_the_signs_for_bytes_are_those_of_the_tokenizers_library():
    tokenizers = pytest.importorskip("tokenizers")
    assert sorted(BYTE_SYMBOLS) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert BYTE_SYMBOLS[ord("a")] == "a"
    assert BYTE_SYMBOLS[ord(" ")] == "Ġ"
    assert BYTE_SYMBOLS[0] == "Ā"


def test_the_rules_of_cutting_are_those_that_transformers_knows():
    pytest.importorskip("transformers")
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    assert PRETOKENIZE_REGEX == QWEN2_WORDS
    assert TikTokenConverter(vocab_file="no file").pattern == LLAMA3_WORDS


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("gpt-2", ["I", "'ll", " pay", " 1234", " €.", "\n\n", " ok"]),
        ("smollm", ["I", "'ll", " pay", " ", "1", "2", "3", "4", " €.", "\n\n", " ok"]),
        ("llama-bpe", ["I", "'ll", " pay", " ", "123", "4", " €.\n\n", " ok"]),
        ("qwen2", ["I", "'ll", " pay", " ", "1", "2", "3", "4", " €.\n\n", " ok"]),
    ],
)
def test_each_rule_cuts_words_in_its_own_way(rule, words):
    assert [merging.word for merging in small(rule).merges_of("I'll pay 1234 €.\n\n ok")] == words


@pytest.mark.parametrize("rule", SPLITTINGS)
@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_give_the_library_s_ids_and_come_back(rule, text):
    ids = small(rule).encode(text)
    assert ids == library(rule).encode(text).ids
    assert small(rule).decode(ids) == expected_back(rule, text)


@pytest.mark.parametrize("rule", SPLITTINGS)
@settings(deadline=None, derandomize=True)
@given(text=st.text())
def test_any_text_gives_the_library_s_ids_and_comes_back(rule, text):
    ids = small(rule).encode(text)
    assert ids == library(rule).encode(text).ids
    check_tokenizer(small(rule), [expected_back(rule, text)])


@pytest.mark.parametrize(
    ("rule", "step"),
    [pytest.param("gpt-2", 1, marks=pytest.mark.slow), ("gpt-2", 7), ("smollm", 11), ("llama-bpe", 13)],
)
def test_every_character_of_unicode_comes_back(rule, step):
    characters = "".join(chr(code) for code in range(0, 0x110000, step) if not 0xD800 <= code < 0xE000)
    assert small(rule).decode(small(rule).encode(characters)) == characters
    for character in characters[::997]:
        check_tokenizer(small(rule), [character, f"x{character} y"])


def test_half_a_surrogate_pair_is_refused_by_its_place():
    for read in (small().encode, small().encode_with_special, small().merges_of):
        with pytest.raises(UsageError, match=r"half a surrogate pair, '\\ud83d', at character 2"):
            read("ab\ud83d<|im_end|>")


@pytest.mark.parametrize("unit", ["a", " ", "\n", "1", "!", "é", "字", "\x00", "\u0301", "a ", " \n"])
@pytest.mark.parametrize("rule", SPLITTINGS)
def test_a_long_run_of_one_thing_ends_and_comes_back(rule, unit):
    text = unit * (100_000 // len(unit))
    assert small(rule).decode(small(rule).encode(text)) == text


# --- Special tokens ---------------------------------------------------------------------------------------------------


def test_text_that_spells_a_special_token_stays_text():
    tokenizer = small()
    ids = tokenizer.encode("a<|im_end|>")
    assert not set(ids) & set(tokenizer.special.values())
    assert tokenizer.decode(ids) == "a<|im_end|>"
    check_tokenizer(tokenizer)


def test_special_tokens_are_read_when_asked_for():
    tokenizer = small()
    end = tokenizer.special["<|im_end|>"]
    assert tokenizer.end_token == end
    assert tokenizer.encode_with_special("<|im_end|>a<|im_end|><|im_end|") == [
        end,
        *tokenizer.encode("a"),
        end,
        *tokenizer.encode("<|im_end|"),
    ]
    assert tokenizer.split_at_special("") == []
    assert tokenizer.split_at_special("a<|im_end|>") == ["a", end]


@settings(deadline=None, derandomize=True)
@given(parts=st.lists(st.sampled_from([*SPECIAL, "<|im_", "end|>", " a", "字"])))
def test_special_tokens_are_found_where_the_library_finds_them(parts):
    text = "".join(parts)
    assert small().encode_with_special(text) == written_and_read().encode(text).ids


@functools.cache
def written_and_read(rule: str = "gpt-2"):
    """What the tokenizers library makes of our tokenizer.json."""
    return pytest.importorskip("tokenizers").Tokenizer.from_str(json.dumps(small(rule).to_tokenizer_json()))


def test_the_longest_of_two_names_at_one_place_is_taken():
    tokens, merges = trained()
    names = {"<a>": len(tokens), "<a><b>": len(tokens) + 1}
    tokenizer = BPETokenizer.from_vocabulary([*tokens, *names], merges, "gpt-2", names, SOURCE)
    assert tokenizer.encode_with_special("<a><a><b>") == [names["<a>"], names["<a><b>"]]


def test_user_defined_tokens_decode_to_their_names_and_come_only_when_asked_for():
    tokens, merges = trained()
    think = len(tokens)
    tokenizer = BPETokenizer.from_vocabulary(
        [*tokens, "<think>"], merges, "qwen2", {}, SOURCE, user_defined={"<think>": think}
    )
    assert tokenizer.decode([think]) == tokenizer.text_of(think) == "<think>"
    assert tokenizer.encode_with_special("<think>") == [think]
    assert think not in tokenizer.encode("<think>")
    assert "<think>" not in tokenizer.special
    check_tokenizer(tokenizer, [*TEXTS, "<think>"])


def test_tokens_are_shown_as_a_person_wants_to_see_them():
    tokenizer = small()
    assert tokenizer.text_of(tokenizer.special["<|im_end|>"]) == "<|im_end|>"
    assert tokenizer.token_bytes(tokenizer.special["<|im_end|>"]) == b""
    [token] = tokenizer.encode(" the")
    assert tokenizer.text_of(token) == " the"
    assert tokenizer.text_of(tokenizer.encode("\U000e0001")[0]) in (r"\xf3", r"\xf3\xa0")


@pytest.mark.parametrize("token", [-1, 10**9])
def test_an_id_outside_the_vocabulary_is_refused(token):
    with pytest.raises(UsageError, match=r"outside the tokenizer's vocabulary of \d+"):
        small().decode([token])
    with pytest.raises(UsageError, match="outside the tokenizer's vocabulary"):
        BPETokenizer.from_vocabulary(*trained(), "gpt-2", {}, SOURCE, end_token=token)


@pytest.mark.parametrize("rule", SPLITTINGS)
def test_more_special_tokens_leave_all_else_as_it_was(rule):
    old = small(rule)
    new = old.with_special(["<|tool|>", "<|im_end|>", "<|tool|>", "<é>"])
    n = old.vocab_size
    assert new.special == {**old.special, "<|tool|>": n, "<é>": n + 1}
    assert (new.vocab_size, new.end_token, new.user_defined) == (n + 2, old.end_token, old.user_defined)
    assert [new.token_bytes(token) for token in range(n)] == [old.token_bytes(token) for token in range(n)]
    for text in AWKWARD:
        assert new.encode(text) == old.encode(text)
    assert new.encode("<|tool|>") == old.encode("<|tool|>")
    assert new.encode_with_special("a<|tool|><|im_end|>") == [*old.encode("a"), n, old.special["<|im_end|>"]]
    assert "<|tool|>" not in old.special
    again = BPETokenizer.from_parsed_json(new.to_tokenizer_json(), SOURCE, "<|im_end|>")
    assert again.to_tokenizer_json() == new.to_tokenizer_json()
    assert old.with_special(SPECIAL).to_tokenizer_json() == old.to_tokenizer_json()


def test_user_defined_tokens_stay_what_they_are_among_more_special_ones():
    tokens, merges = trained()
    names = {"<think>": len(tokens)}
    old = BPETokenizer.from_vocabulary([*tokens, *names], merges, "gpt-2", {}, SOURCE, user_defined=names)
    new = old.with_special(["<think>", "<|x|>"])
    assert (new.special, new.user_defined) == ({"<|x|>": len(tokens) + 1}, names)


@pytest.mark.parametrize("name", ["", "a", "\ud83d", 3])
def test_a_special_token_needs_a_name_of_its_own(name):
    with pytest.raises(UsageError, match="a special token needs a name that is text and no word"):
        small().with_special(["<|x|>", name])


def test_an_end_token_must_be_a_special_one():
    with pytest.raises(UsageError, match="'</s>' is no special token"):
        BPETokenizer.from_vocabulary(*trained(), "gpt-2", {}, SOURCE, end_token="</s>")


# --- Merges -----------------------------------------------------------------------------------------------------------


def test_the_merges_of_a_word_lead_from_bytes_to_tokens():
    symbols = list(BYTE_SYMBOLS)
    tokenizer = BPETokenizer.from_vocabulary(
        [*symbols, "he", "ro", "hero"], ["h e", "r o", "he ro"], "gpt-2", {}, SOURCE
    )
    [merging] = tokenizer.merges_of("hero")
    assert merging.word == "hero"
    assert merging.steps == [["h", "e", "r", "o"], ["he", "r", "o"], ["he", "ro"], ["hero"]]
    assert merging.tokens == [258] == tokenizer.encode("hero")


def test_the_earliest_listed_pair_is_merged_first_and_the_leftmost_of_equals():
    symbols = list(BYTE_SYMBOLS)
    tokenizer = BPETokenizer.from_vocabulary([*symbols, "bc", "ab", "aa"], ["b c", "a b", "a a"], "gpt-2", {}, SOURCE)
    assert tokenizer.merges_of("abc")[0].steps == [["a", "b", "c"], ["a", "bc"]]
    assert tokenizer.merges_of("aaaa")[0].steps == [["a", "a", "a", "a"], ["aa", "a", "a"], ["aa", "aa"]]


@pytest.mark.parametrize("rule", SPLITTINGS)
@settings(deadline=None, derandomize=True)
@given(
    text=st.text(
        alphabet=st.one_of(st.sampled_from("the stories wear 12,.\n'é字👩"), st.characters(codec="utf-8")), max_size=60
    )
)
def test_merging_by_hand_gives_the_library_s_tokens(rule, text):
    merged = [token for merging in small(rule).merges_of(text) for token in merging.tokens]
    assert merged == small(rule).encode(text)


@settings(deadline=None, derandomize=True)
@given(pairs=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=9), data=st.data())
def test_merges_in_any_order_are_followed_as_the_library_follows_them(pairs, data):
    vocabulary, merges = list(BYTE_SYMBOLS), []
    for _ in range(8):
        pieces = [token for token in vocabulary if set(token) <= set("abc")]
        pair = data.draw(st.tuples(st.sampled_from(pieces), st.sampled_from(pieces)))
        if pair not in merges:
            merges.append(pair)
            if "".join(pair) not in vocabulary:
                vocabulary.append("".join(pair))
    merges = data.draw(st.permutations(merges))
    tokenizer = BPETokenizer.from_vocabulary(vocabulary, [" ".join(pair) for pair in merges], "gpt-2", {}, SOURCE)
    text = data.draw(st.text("abc", max_size=12))
    assert [token for merging in tokenizer.merges_of(text) for token in merging.tokens] == tokenizer.encode(text)


def test_a_very_long_word_is_not_shown_merge_by_merge():
    with pytest.raises(UsageError, match="a word of 600 bytes: merges are shown for words of up to 512"):
        small().merges_of("a" * 600)


# --- tokenizer.json ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", SPLITTINGS)
def test_what_is_written_is_read_back_by_us_the_library_and_transformers(rule, tmp_path):
    tokenizer = small(rule)
    content = json.dumps(tokenizer.to_tokenizer_json()).encode()
    again = BPETokenizer.from_tokenizer_json(content, SOURCE)
    assert again.to_tokenizer_json() == tokenizer.to_tokenizer_json()
    theirs = written_and_read(rule)
    (tmp_path / "tokenizer.json").write_bytes(content)
    transformers = pytest.importorskip("transformers")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == len(fast) == tokenizer.vocab_size
    for text in [*AWKWARD, "<|im_start|>user\nHello<|im_end|>\n"]:
        ids = tokenizer.encode_with_special(text)
        assert theirs.encode(text).ids == fast.encode(text) == again.encode_with_special(text) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
        plain = tokenizer.encode(text)
        assert theirs.decode(plain, skip_special_tokens=False) == expected_back(rule, text)


def changed(*path, value, rule="gpt-2", delete=False):
    content = json.loads(json.dumps(small(rule).to_tokenizer_json()))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if delete:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


def read(content):
    return BPETokenizer.from_tokenizer_json(json.dumps(content).encode(), SOURCE)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (lambda: changed("model", "type", value="Unigram"), "a model of type 'Unigram'"),
        (lambda: changed("model", "byte_fallback", value=True), "byte_fallback True"),
        (lambda: changed("model", "dropout", value=0.1), "dropout 0.1"),
        (lambda: changed("model", "continuing_subword_prefix", value="##"), "continuing_subword_prefix"),
        (lambda: changed("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix"),
        (lambda: changed("normalizer", value={"type": "Lowercase"}), "the normalizer"),
        (lambda: changed("decoder", value={"type": "Metaspace"}), "the decoder"),
        (lambda: changed("decoder", value="ByteLevel"), "the decoder"),
        (lambda: changed("pre_tokenizer", value=None), "the pre_tokenizer None"),
        (lambda: changed("pre_tokenizer", value={"type": "Whitespace"}), "the pre_tokenizer"),
        (lambda: changed("pre_tokenizer", "add_prefix_space", value=True), "the pre_tokenizer"),
        (lambda: changed("pre_tokenizer", "use_regex", value=False), "the pre_tokenizer"),
        (
            lambda: changed("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": "(a+)+$"}, rule="qwen2"),
            "the pre_tokenizer",
        ),
        (
            lambda: changed("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed", rule="qwen2"),
            "the pre_tok",
        ),
        (lambda: changed("added_tokens", 0, "lstrip", value=True), "takes in the space around it"),
        (lambda: changed("added_tokens", value=[{"id": 468, "content": "a word"}]), "the added word"),
        (
            lambda: {"model": {"type": "BPE", "vocab": {"▁the": 0}, "merges": []}, "pre_tokenizer": None},
            "pre_tokenizer",
        ),
        (lambda: {**changed("model", "vocab", value={"▁the": 0}), "added_tokens": []}, "SentencePiece's sign"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_by_what_it_is(content, found):
    with pytest.raises(UnsupportedError, match=r"model.tokenizer\.json holds .*byte-level BPE") as refusal:
        read(content())
    assert found in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lambda: None, "under 'model', got None"),
        (lambda: [1], "under 'model'"),
        (lambda: {"model": 3}, "under 'model', got 3"),
        (lambda: changed("model", "vocab", value=[]), "under 'vocab'"),
        (lambda: changed("model", "vocab", value={}), "no token for the byte|has id 0|vocabulary is empty"),
        (lambda: changed("model", "merges", value=None), "under 'merges'"),
        (lambda: changed("model", "merges", 0, value="a"), "merge 1 must name two pieces, got 'a'"),
        (lambda: changed("model", "merges", 0, value=["a", 1]), "merge 1 must name two pieces"),
        (lambda: changed("model", "merges", 0, value="a b c"), "merge 1 must name two pieces"),
        (lambda: changed("model", "merges", 0, value="q zz"), "merge 1, 'q zz', needs the token 'zz'"),
        (lambda: changed("model", "merges", 1, value=trained()[1][0]), "merge 2, .* is listed twice"),
        (lambda: changed("model", "vocab", "a", value=1.0), "the id of 'a' must be a whole number"),
        (lambda: changed("model", "vocab", "a", value=True), "the id of 'a' must be a whole number"),
        (lambda: changed("model", "vocab", "a", value=-1), "-1 is no id"),
        (lambda: changed("model", "vocab", "a", value=5), "5 is the id of two tokens"),
        (lambda: changed("model", "vocab", "a", value=10**30), "no token has id"),
        (lambda: changed("model", "vocab", "a", value=0, delete=True), "no token has id"),
        (lambda: changed("model", "vocab", "new word", value=468), "not spelled in"),
        (lambda: changed("added_tokens", value=[1]), "added_tokens must be a list of objects"),
        (lambda: changed("added_tokens", 0, "content", value="a"), "the added token 'a' has two ids"),
        (lambda: changed("added_tokens", 0, "content", value="\ud800"), "must have a name"),
        (lambda: changed("added_tokens", 0, "content", value=""), "must have a name"),
        (lambda: changed("added_tokens", 0, "id", value="0"), "must have a name and an id"),
        (lambda: changed("added_tokens", 0, "id", value=2), "has two ids"),
    ],
)
def test_a_damaged_tokenizer_json_is_refused_by_its_name(content, what):
    content = content()
    with pytest.raises(DamagedFileError, match=r"model.tokenizer\.json is no whole tokenizer: .*fetch the file again"):
        read(content)
    with pytest.raises(DamagedFileError, match=what):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
        b'{"model": {}, "model": {}}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_is_refused(content):
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json is no whole tokenizer"):
        BPETokenizer.from_tokenizer_json(content, SOURCE)


def test_an_enormous_file_is_refused_unread():
    class Enormous(bytes):
        def __len__(self):
            return MAX_FILE_BYTES + 1

    with pytest.raises(DamagedFileError, match="no tokenizer has more than"):
        BPETokenizer.from_tokenizer_json(Enormous(), SOURCE)


def test_tokens_put_around_a_text_are_not():
    around = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    content = changed("post_processor", value=around)
    content["truncation"] = {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    assert read(content).encode("the heroes") == small().encode("the heroes")


# --- A GGUF file's vocabulary -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["default", "", "tekken", None])
def test_an_unknown_rule_of_cutting_is_refused_by_name(rule):
    with pytest.raises(UnsupportedError, match=r"words cut by the rule .*gpt-2, smollm, llama-bpe"):
        BPETokenizer.from_vocabulary(*trained(), rule, {}, SOURCE)


def test_bytes_that_no_text_needs_may_be_absent_and_text_that_has_them_is_refused():
    tokens, merges = trained()
    without = [token for token in tokens if token not in (BYTE_SYMBOLS[4], BYTE_SYMBOLS[0xFF], BYTE_SYMBOLS[0xF1])]
    tokenizer = BPETokenizer.from_vocabulary(without, merges, "smollm", {}, SOURCE)
    check_tokenizer(tokenizer)
    with pytest.raises(UsageError, match=r"no token for '\\x04', character 2 of the text \(byte 0x04\): leave it out"):
        tokenizer.encode("字a\x04b")
    with pytest.raises(UsageError, match="byte 0xf1"):
        tokenizer.encode("\U00050000")


def test_a_byte_that_text_needs_must_not_be_absent():
    without = [token for token in trained()[0] if token != BYTE_SYMBOLS[0xE2]]
    with pytest.raises(DamagedFileError, match="no token for the byte 0xe2"):
        BPETokenizer.from_vocabulary(without, [], "gpt-2", {}, SOURCE)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tokens, merges: (tokens.append(tokens[5]), merges), "must be a text that no other token has"),
        (lambda tokens, merges: (tokens.append(7), merges), "must be a text"),
        (lambda tokens, merges: (tokens.append("with space"), merges), "not spelled in"),
        (lambda tokens, merges: merges.append("Ġthe"), "must name two pieces"),
        (lambda tokens, merges: merges.append(3), "must name two pieces"),
        (lambda tokens, merges: merges.append("Ġ Ġthequickbrown"), "needs the token"),
    ],
)
def test_a_damaged_vocabulary_is_refused(change, what):
    tokens, merges = map(list, trained())
    change(tokens, merges)
    with pytest.raises(DamagedFileError, match=what):
        BPETokenizer.from_vocabulary(tokens, merges, "gpt-2", {}, SOURCE)


@pytest.mark.parametrize("special", [{"<no such>": 3}, {"<|im_end|>": 99}, {"": 0}, {"a": 10**9}, {"<|im_end|>": "2"}])
def test_special_tokens_must_be_tokens(special):
    with pytest.raises(DamagedFileError, match="special token"):
        BPETokenizer.from_vocabulary(*trained(), "gpt-2", special, SOURCE)


def test_a_special_token_that_merges_make_is_refused():
    tokens, merges = trained()
    word = merges[10].replace(" ", "")
    with pytest.raises(DamagedFileError, match="needs the token"):
        BPETokenizer.from_vocabulary(tokens, merges, "gpt-2", {word: tokens.index(word)}, SOURCE)


def test_a_million_merges_are_read():
    symbols = list(BYTE_SYMBOLS)
    pairs = [left + right for left in symbols for right in symbols]
    more = [pair + symbol for pair in pairs[:400] for symbol in symbols]
    merges = [f"{token[:-1]} {token[-1]}" for token in [*pairs, *more]]
    tokenizer = BPETokenizer.from_vocabulary([*symbols, *pairs, *more], merges, "gpt-2", {}, SOURCE)
    check_tokenizer(tokenizer)
    with pytest.raises(DamagedFileError, match="none has more than"):
        BPETokenizer.from_vocabulary(symbols, ["a b"] * (1 << 22), "gpt-2", {}, SOURCE)


# --- OpenAI's pair of files -------------------------------------------------------------------------------------------


def write_pair(folder: Path, vocabulary=None, merges: str | bytes | None = None) -> tuple[Path, Path]:
    tokens, lines = trained()
    encoder, bpe = folder / "encoder.json", folder / "vocab.bpe"
    vocabulary = {token: i for i, token in enumerate(tokens)} if vocabulary is None else vocabulary
    encoder.write_bytes(vocabulary if isinstance(vocabulary, bytes) else json.dumps(vocabulary).encode())
    merges = "#version: 0.2\n" + "\n".join(lines) + "\n" if merges is None else merges
    bpe.write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    return encoder, bpe


def test_a_pair_of_files_is_the_same_tokenizer(tmp_path):
    pair = write_pair(tmp_path)
    tokenizer = BPETokenizer.from_gpt2_files(*pair)
    assert tokenizer.to_tokenizer_json() == small().to_tokenizer_json()
    assert tokenizer.end_token == tokenizer.special["<|endoftext|>"]
    assert set(tokenizer.special) == set(SPECIAL)
    pair = write_pair(tmp_path, merges="\n".join(trained()[1]))  # without the first line and the last line's end
    assert BPETokenizer.from_gpt2_files(*pair).to_tokenizer_json() == small().to_tokenizer_json()


@pytest.mark.parametrize(
    ("merges", "what"),
    [
        (b"\xef\xbb\xbf#version: 0.2\nt h\n", "a byte order mark"),
        (b"#version: 0.2\r\nt h\r\n", "Windows line ends"),
        (b"#version: 0.2\n\xff\xfe\n", "not UTF-8 at byte 14"),
        (b"#version: 0.2\nt h\n\nh e\n", "merge 2 must name two pieces, got ''"),
        (b"#version: 0.2\nt  h\n", "merge 1 must name two pieces"),
        (b"", "merge 1 must name two pieces"),
        (b"#version: 0.2\nt h\n", "neither a byte nor made by a merge of vocab.bpe"),
    ],
)
def test_a_damaged_list_of_merges_is_refused(merges, what, tmp_path):
    with pytest.raises(DamagedFileError, match=what):
        BPETokenizer.from_gpt2_files(*write_pair(tmp_path, merges=merges))


def test_the_two_files_must_belong_together(tmp_path):
    tokens, merges = trained()
    with pytest.raises(DamagedFileError, match=r"vocab\.bpe .*a merge makes 'qq', which encoder\.json does not list"):
        BPETokenizer.from_gpt2_files(*write_pair(tmp_path, merges="\n".join([*merges, "q q"])))
    without = {token: i for i, token in enumerate(token for token in tokens if token != BYTE_SYMBOLS[4])}
    with pytest.raises(DamagedFileError, match=r"encoder\.json .*no token for the byte 0x04"):
        BPETokenizer.from_gpt2_files(*write_pair(tmp_path, without))
    with pytest.raises(DamagedFileError, match=r"encoder\.json .*expected an object of tokens"):
        BPETokenizer.from_gpt2_files(*write_pair(tmp_path, [1, 2]))


def test_a_missing_file_is_named(tmp_path):
    encoder, bpe = write_pair(tmp_path)
    bpe.unlink()
    with pytest.raises(DamagedFileError, match=r"vocab\.bpe is missing"):
        BPETokenizer.from_gpt2_files(encoder, bpe)
    with pytest.raises(DamagedFileError, match="is missing, or is no file"):
        BPETokenizer.from_gpt2_files(tmp_path, bpe)
    if Path("/dev/zero").exists():
        with pytest.raises(DamagedFileError, match="no file"):
            BPETokenizer.from_gpt2_files(Path("/dev/zero"), bpe)


# --- Mutations --------------------------------------------------------------------------------------------------------


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one thing wrong, as disks, networks and editors make them."""
    at, end = rng.randrange(len(content)), rng.randrange(len(content))
    kind = rng.randrange(6)
    if kind == 0:
        flipped = content[at] ^ (1 << rng.randrange(8))
        return content[:at] + bytes([flipped]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[: min(at, end)] + content[min(max(at, end), min(at, end) + 40) :]
    if kind == 3:
        return content[:at] + content[at : at + rng.randrange(1, 60)] + content[at:]
    if kind == 4:
        return content[:at] + rng.randbytes(rng.randrange(1, 5)) + content[at:]
    token = rng.choice([b'"', b"{", b"]", b"null", b"-1", b"1e9", b"\\u0000", b",", b"\r\n", b"\xef\xbb\xbf", b"NaN"])
    return content[:at] + token + content[at + rng.randrange(2) * len(token) :]


def rearranged(content: object, rng: random.Random) -> None:
    """One value somewhere in parsed JSON replaced, removed, or swapped with a neighbour."""
    inner = content
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(inner[key], dict | list) and rng.random() < 0.8:
            inner = inner[key]
            continue
        kind = rng.randrange(3)
        if kind == 0:
            del inner[key]
        elif kind == 1:
            other = rng.choice(keys)
            inner[key], inner[other] = inner[other], inner[key]
        else:
            inner[key] = rng.choice([None, True, -1, 0, 2**63, 1.5, "", "a", "\ud800", " ", "Ġ", [], {}, ["a", "b"]])
        return


def survives(load) -> bool:
    """Whether a file was taken: then it keeps the contract; else the refusal is our own."""
    try:
        tokenizer = load()
    except GlassGPTError:
        return False
    texts = [*TEXTS, *tokenizer.special, *tokenizer.user_defined, CORPUS[0]]
    check_tokenizer(tokenizer, [expected_back("qwen2", text) for text in texts if "\ud800" not in text])
    return True


def mutate_json_files(count: int, seed: int) -> int:
    rng = random.Random(seed)
    taken = 0
    for _ in range(count):
        content = small(rng.choice(list(SPLITTINGS))).to_tokenizer_json()
        if rng.random() < 0.5:
            rearranged(content, rng)
            data = json.dumps(content).encode()
        else:
            data = mutated(json.dumps(content, ensure_ascii=rng.random() < 0.5).encode(), rng)
        taken += survives(lambda data=data: BPETokenizer.from_tokenizer_json(data, SOURCE))
    return taken


def mutate_pairs(count: int, seed: int, folder: Path) -> int:
    rng = random.Random(seed)
    encoder, bpe = write_pair(folder)
    whole = {path: path.read_bytes() for path in (encoder, bpe)}
    taken = 0
    for _ in range(count):
        path = rng.choice([encoder, bpe])
        path.write_bytes(mutated(whole[path], rng))
        taken += survives(lambda: BPETokenizer.from_gpt2_files(encoder, bpe))
        path.write_bytes(whole[path])
    return taken


def mutate_vocabularies(count: int, seed: int) -> int:
    rng = random.Random(seed)
    taken = 0
    for _ in range(count):
        tokens, merges = map(list, trained())
        parts = {"tokens": tokens, "merges": merges, "special": {name: tokens.index(name) for name in SPECIAL}}
        rearranged(parts["special"] if rng.random() < 0.1 else parts[rng.choice(["tokens", "merges"])], rng)
        rule = rng.choice(list(SPLITTINGS))
        taken += survives(
            lambda parts=parts, rule=rule: BPETokenizer.from_vocabulary(
                parts["tokens"], parts["merges"], rule, parts["special"], SOURCE
            )
        )
    return taken


def test_mutated_files_are_refused_by_our_own_errors_or_keep_the_contract(tmp_path):
    taken = [mutate_json_files(300, 1), mutate_pairs(300, 2, tmp_path), mutate_vocabularies(300, 3)]
    assert all(0 < some < 300 for some in taken), taken


@pytest.mark.slow
def test_thousands_of_mutated_files_are_refused_by_our_own_errors_or_keep_the_contract(tmp_path):
    mutate_json_files(3000, 4)
    mutate_pairs(3000, 5, tmp_path)
    mutate_vocabularies(3000, 6)


# --- GPT-2's own files ------------------------------------------------------------------------------------------------


@functools.cache
def gpt2_folder() -> Path:
    folder = os.environ.get("GLASSGPT_GPT2_FILES")
    if not folder:
        pytest.skip("GLASSGPT_GPT2_FILES names no folder with GPT-2's encoder.json and vocab.bpe")
    return Path(folder)


@functools.cache
def gpt2() -> BPETokenizer:
    return BPETokenizer.from_gpt2_files(gpt2_folder() / "encoder.json", gpt2_folder() / "vocab.bpe")


@functools.cache
def gpt2_by_tiktoken():
    tiktoken = pytest.importorskip("tiktoken")
    vocabulary = json.loads((gpt2_folder() / "encoder.json").read_text(encoding="utf-8"))
    byte_of = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}
    end = vocabulary.pop("<|endoftext|>")
    ranks = {bytes(byte_of[sign] for sign in token): i for token, i in vocabulary.items()}
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    return tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end})


@functools.cache
def gpt2_by_transformers():
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2Tokenizer(
        vocab=str(gpt2_folder() / "encoder.json"), merges=str(gpt2_folder() / "vocab.bpe")
    )


def test_gpt2_writes_what_openai_s_gpt2_writes():
    tokenizer = gpt2()
    assert tokenizer.encode("Not all heroes wear capes.") == [3673, 477, 10281, 5806, 1451, 274, 13]
    assert [tokenizer.text_of(token) for token in tokenizer.encode("zjqfl")] == ["z", "j", "q", "fl"]
    assert (tokenizer.vocab_size, tokenizer.special) == (50257, {"<|endoftext|>": 50256})
    assert tokenizer.end_token == 50256
    assert tokenizer.encode_with_special("a<|endoftext|>") == [64, 50256]
    check_tokenizer(tokenizer)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(text=st.text())
def test_gpt2_agrees_with_tiktoken_and_transformers_on_any_text(text):
    ids = gpt2().encode(text)
    assert ids == gpt2_by_tiktoken().encode_ordinary(text)
    assert ids == gpt2_by_transformers().backend_tokenizer.encode(text, add_special_tokens=False).ids or "<|" in text
    assert gpt2().decode(ids) == text


@pytest.mark.slow
def test_gpt2_agrees_with_tiktoken_on_characters_and_long_texts():
    oracle = gpt2_by_tiktoken()
    for code in [*range(0x3000), *range(0x3000, 0x110000, 101)]:
        if not 0xD800 <= code < 0xE000:
            for text in (chr(code), f"a {chr(code)}{chr(code)}"):
                assert gpt2().encode(text) == oracle.encode_ordinary(text), hex(code)
    rng = random.Random(0)
    letters = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000))
    for text in [letters, *(unit * (1_000_000 // len(unit)) for unit in ("a", " ", "\n", "字", "1", "a b"))]:
        assert gpt2().encode(text) == oracle.encode_ordinary(text)


@settings(deadline=None, derandomize=True)
@given(
    text=st.text(
        alphabet=st.one_of(st.sampled_from("abcdefghijklmnopqrstuvwxyz '"), st.characters(codec="utf-8")), max_size=80
    )
)
def test_gpt2_s_merges_lead_to_its_tokens(text):
    assert [token for word in gpt2().merges_of(text) for token in word.tokens] == gpt2().encode(text)
