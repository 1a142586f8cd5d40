"""tokenizer.json: read by the tokenizers library as by us, and nothing else taken for one."""

import copy
import json
from pathlib import Path

import pytest

from glassgpt.errors import DamagedFileError, UnsupportedError
from glassgpt.text.bpe import BYTE_SYMBOLS, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.tokenizer_json import tokenizer_from_json, tokenizer_to_json

SYMBOLS = [
    "01",
    "012",
    "ab \n",
    '"\\\n\r\t\x00',
    "é字👩\u200d\u0301\u2028\ufeff",
    ".*+?[](){}^$|",
    "0123456789abcdefghijklmnopqrstuvwxyz",
]
SOURCE = Path("run") / "tokenizer.json"


@pytest.mark.parametrize("symbols", SYMBOLS)
def test_the_round_trip_gives_the_same_symbols(symbols):
    text = json.dumps(tokenizer_to_json(CharacterTokenizer(symbols)))
    assert tokenizer_from_json(json.loads(text), SOURCE).symbols == symbols


@pytest.mark.parametrize("symbols", SYMBOLS)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_the_tokenizers_library_reads_it_with_equal_ids(symbols, ensure_ascii):
    tokenizers = pytest.importorskip("tokenizers")
    ours = CharacterTokenizer(symbols)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_to_json(ours), ensure_ascii=ensure_ascii))
    assert theirs.get_vocab_size() == ours.vocab_size
    for text in (symbols, symbols[::-1] * 3, symbols[0] * 5, "", symbols[-1] + symbols):
        ids = theirs.encode(text).ids
        assert ids == ours.encode(text)
        assert theirs.decode(ids) == ours.decode(ids) == text
    for token, symbol in enumerate(symbols):
        assert theirs.token_to_id(symbol) == token


def test_the_tokenizers_library_refuses_other_characters_too():
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_to_json(CharacterTokenizer("01"))))
    with pytest.raises(Exception, match="UNK"):
        theirs.encode("2")


def test_the_order_of_the_entries_does_not_matter():
    content = tokenizer_to_json(CharacterTokenizer("ba"))
    content["model"]["vocab"] = {"a": 1, "b": 0}
    assert tokenizer_from_json(content, SOURCE).symbols == "ba"


def changed(*path, value):
    content = copy.deepcopy(tokenizer_to_json(CharacterTokenizer("01")))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "text",
        3,
        {},
        {"model": None},
        {"model": {}},
        {"model": {"vocab": None}},
        {"model": {"vocab": ["0", "1"]}},
        changed("model", "vocab", value={"0": 0, "1": 2}),
        changed("model", "vocab", value={"0": 0, "1": 0}),
        changed("model", "vocab", value={"0": 0, "1": "1"}),
        changed("model", "vocab", value={"0": 0, "12": 1}),
        changed("model", "vocab", value={"0": 0, "": 1}),
        changed("model", "vocab", value={"0": 0, "1": None}),
        changed("model", "vocab", value={"0": 0, "1": [1]}),
        changed("model", "type", value="BPE"),
        changed("model", "unk_token", value="0"),
        changed("normalizer", value={"type": "Lowercase"}),
        changed("added_tokens", value=[{"id": 2, "content": "<s>"}]),
        changed("decoder", value=None),
        changed("extra", value=1),
    ],
)
def test_anything_else_is_refused_by_its_name(content):
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json"):
        tokenizer_from_json(content, SOURCE)


def test_byte_level_bpe_goes_through_the_same_door():
    tokens = [*BYTE_SYMBOLS, "he", "<|end|>"]
    tokenizer = BPETokenizer.from_vocabulary(tokens, ["h e"], "qwen2", {"<|end|>": 257}, SOURCE)
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer_to_json(tokenizer))), SOURCE)
    assert isinstance(again, BPETokenizer)
    assert tokenizer_to_json(again) == tokenizer_to_json(tokenizer)
    assert again.encode("he") == [256]
    untyped = tokenizer_to_json(tokenizer)
    del untyped["model"]["type"]
    assert isinstance(tokenizer_from_json(untyped, SOURCE), BPETokenizer)


@pytest.mark.parametrize("kind", ["Unigram", "WordPiece"])
def test_other_kinds_of_tokenizer_are_refused_as_such(kind):
    with pytest.raises(UnsupportedError, match=rf"tokenizer\.json holds a tokenizer of type {kind}"):
        tokenizer_from_json(changed("model", "type", value=kind), SOURCE)
