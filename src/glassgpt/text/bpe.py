"""Byte-level BPE: the words of GPT-2, SmolLM2, Llama 3 and Qwen, read from the files in which they are published.

A text is cut into words by a fixed rule, a word is written as its UTF-8 bytes, and the pair of neighbouring pieces that
comes first in a list of merges is joined, again and again, until no listed pair is left (Sennrich et al. 2016; over
bytes: Radford et al. 2019). `merges_of` shows that happening; `encode` leaves it to the tokenizers library.

Files are written by strangers. All that is read is checked before the library sees it, and only known rules of cutting
are taken, so that whatever loads also gives every text back. Three kinds of token are told apart:

- words: made of bytes by merges, and all that `encode` ever gives;
- special tokens (end of text, say): they stand for no text, and only `encode_with_special` gives them;
- user-defined ones (`<think>`): they decode to their own name, and again only `encode_with_special` gives them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.interface import Tokenizer

if TYPE_CHECKING:
    import tokenizers

MAX_FILE_BYTES = 64 << 20  # the largest tokenizer.json in use have some 30 MB
MAX_TOKENS = 1 << 21  # and the largest vocabularies some 260,000 tokens
LONGEST_SHOWN_WORD = 512  # bytes of a word whose merges are listed one by one
END_OF_TEXT = "<|endoftext|>"

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class Splitting:
    """How a text is cut into words. `pattern` None is GPT-2's: a word with the space before it, numbers, signs, space.

    `digits_apart` makes each digit a word first; `compose` brings the text to Unicode's form NFC before all else;
    `whole_words` takes a word that is a token at once, without merging its bytes.
    """

    pattern: str | None = None
    digits_apart: bool = False
    compose: bool = False
    whole_words: bool = False

    def pre_tokenizer(self) -> dict[str, Any]:
        """The rule as tokenizer.json spells it."""
        steps: list[dict[str, Any]] = []
        if self.digits_apart:
            steps.append({"type": "Digits", "individual_digits": True})
        if self.pattern is not None:
            pattern = {"Regex": self.pattern}
            steps.append({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False})
        by_gpt2 = self.pattern is None
        steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": by_gpt2})
        return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


SPLITTINGS = {  # by the names that GGUF files give them in tokenizer.ggml.pre
    "gpt-2": Splitting(),
    "smollm": Splitting(digits_apart=True),
    "llama-bpe": Splitting(LLAMA3_WORDS, whole_words=True),
    "qwen2": Splitting(QWEN2_WORDS, compose=True),
}


@dataclass(frozen=True)
class Merging:
    """One word on its way from bytes to tokens: `steps` holds its pieces at first and after every merge."""

    word: str
    steps: list[list[str]]
    tokens: list[int]


class BPETokenizer(Tokenizer):
    """Byte-level BPE over the tokenizers library: decode(encode(text)) == text for every text that it takes.

    With a Qwen tokenizer, which composes characters first, it is NFC(text) that comes back. Nothing is ever added to a
    text: no beginning-of-text token, whatever a file says about one. Some vocabularies lack a few control characters
    (SmolLM2's lacks six); the tokenizers library drops those silently from a text, and `encode` refuses them.

    `vocab_size` counts all tokens, the special ones too; a model may have more rows than that. `end_token` is the id
    after which a text is over, if whoever made the tokenizer knew it.
    """

    def __init__(
        self,
        words: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        splitting: Splitting,
        special: Mapping[str, int],
        user_defined: Mapping[str, int],
        source: Path,
        end_token: int | str | None = None,
    ) -> None:
        """`words`: the tokens but for the special and user-defined ones, spelled in GPT-2's signs for bytes.

        Raises DamagedFileError, naming `source`, unless the ids are 0 to n-1, each once, each byte that text needs is a
        word, and each merge joins two words into a third.
        """
        _check_ids([*words.values(), *special.values(), *user_defined.values()], source)
        self._bytes = [b""] * (len(words) + len(special) + len(user_defined))
        for word, token in words.items():
            self._bytes[token] = _bytes_of(word, source)
        for name, token in user_defined.items():
            self._bytes[token] = name.encode()
        self._absent = _absent_bytes(words, source)
        _check_merges(merges, words, source)
        self.vocab_size = len(self._bytes)
        self.special = dict(special)
        self.user_defined = dict(user_defined)
        self.splitting = splitting
        self._words, self._merges = dict(words), list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self._merges)}
        self._names = {token: name for name, token in special.items()}
        self._added = {**special, **user_defined}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._added_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._library = _library(self._as_json(self._words, []), source)
        self.end_token = self._end(end_token)

    @classmethod
    def from_gpt2_files(cls, encoder_json: Path, vocab_bpe: Path) -> BPETokenizer:
        """OpenAI's pair for GPT-2, encoder.json and vocab.bpe; the same as Hugging Face's vocab.json and merges.txt.

        A token that is neither a byte nor made by a merge is special if its name is in <>. Raises DamagedFileError.
        """
        vocabulary = _vocabulary(parse_json(_read(encoder_json), encoder_json), encoder_json)
        merges = _merge_lines(_read(vocab_bpe), vocab_bpe)
        made = {left + right for left, right in merges} | set(BYTE_SYMBOLS)
        special = {token: i for token, i in vocabulary.items() if token not in made and re.fullmatch("<.+>", token)}
        words = {token: i for token, i in vocabulary.items() if token not in special}
        if unmade := words.keys() - made:
            raise _damaged(encoder_json, f"{min(unmade)!r} is neither a byte nor made by a merge of {vocab_bpe.name}")
        if missing := made - words.keys() - set(BYTE_SYMBOLS):
            raise _damaged(vocab_bpe, f"a merge makes {min(missing)!r}, which {encoder_json.name} does not list")
        if absent := _absent_bytes(words, encoder_json):
            raise _damaged(encoder_json, f"it has no token for the byte 0x{absent[0]:02x}")
        end = special.get(END_OF_TEXT)
        return cls(words, merges, SPLITTINGS["gpt-2"], _names(special, encoder_json), {}, encoder_json, end)

    @classmethod
    def from_tokenizer_json(cls, content: bytes, source: Path, end_token: int | str | None = None) -> BPETokenizer:
        """A Hugging Face tokenizer.json. See `from_parsed_json`."""
        _check_size(len(content), source)
        return cls.from_parsed_json(parse_json(content, source), source, end_token)

    @classmethod
    def from_parsed_json(cls, content: Any, source: Path, end_token: int | str | None = None) -> BPETokenizer:
        """The parsed content of a tokenizer.json that holds byte-level BPE and cuts words by a rule known here.

        What the file says of truncation, padding and tokens to put around a text is not applied. Raises
        UnsupportedError for another kind of tokenizer, DamagedFileError for what is none.
        """
        model = _member(content, "model", dict, source)
        if model.get("type", "BPE") != "BPE":
            raise _unsupported(source, f"a model of type {_short(model['type'])}")
        for key, plain in _PLAIN.items():
            if model.get(key) not in plain:
                raise _unsupported(source, f"a BPE with {key} {_short(model[key])}")
        vocabulary = _vocabulary(_member(model, "vocab", dict, source), source)
        merges = _merges(_member(model, "merges", list, source), source)
        decoder = content.get("decoder")
        if decoder is not None and (not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel"):
            raise _unsupported(source, f"the decoder {_short(decoder)}")
        special, user_defined = _added_tokens(content.get("added_tokens") or [], vocabulary, source)
        words = {token: i for token, i in vocabulary.items() if token not in special and token not in user_defined}
        return cls(words, merges, _splitting(content, model, source), special, user_defined, source, end_token)

    @classmethod
    def from_vocabulary(
        cls,
        tokens: Sequence[str],
        merges: Sequence[str],
        pre_tokenizer: str,
        special: Mapping[str, int],
        source: Path,
        *,
        user_defined: Mapping[str, int] | None = None,
        end_token: int | str | None = None,
    ) -> BPETokenizer:
        """What a GGUF file says: its tokens by id, its merges as "left right", and the name of its rule of cutting.

        `special` and `user_defined` name tokens of `tokens` (its types 3 and 4). Raises UnsupportedError for a
        rule that is not in SPLITTINGS, DamagedFileError for a vocabulary that is not whole.
        """
        if pre_tokenizer not in SPLITTINGS:
            known = ", ".join(SPLITTINGS)
            raise _unsupported(source, f"words cut by the rule {_short(pre_tokenizer)}", f"the rules {known}")
        _check_count(len(tokens), source)
        vocabulary: dict[str, int] = {}
        for i, token in enumerate(tokens):
            if not isinstance(token, str) or token in vocabulary:
                raise _damaged(source, f"token {i}, {_short(token)}, must be a text that no other token has")
            vocabulary[token] = i
        special, user_defined = _names(special, source), _names(user_defined or {}, source)
        for name, i in {**special, **user_defined}.items():
            if vocabulary.get(name) != i or (name in special and name in user_defined):
                raise _damaged(source, f"the special token {_short(name)} is said to have id {i}, and has another")
        words = {token: i for token, i in vocabulary.items() if token not in special and token not in user_defined}
        rule = SPLITTINGS[pre_tokenizer]
        return cls(words, _merges(list(merges), source), rule, special, user_defined, source, end_token)

    def with_special(self, names: Sequence[str]) -> BPETokenizer:
        """The same words with more special tokens, whose ids are vocab_size and on in the order of `names`.

        A name that is a special or user-defined token already keeps its id, and stays what it is. Raises UsageError for
        a name that is no text, or is a word.
        """
        more: dict[str, int] = {}
        for name in names:
            if not _is_text(name) or not name or name in self._words:
                raise UsageError(f"a special token needs a name that is text and no word, got {_short(name)}")
            if name not in self._added:
                more.setdefault(name, self.vocab_size + len(more))
        special, source = {**self.special, **more}, Path("tokenizer.json")
        return BPETokenizer(
            self._words, self._merges, self.splitting, special, self.user_defined, source, self.end_token
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text, none of them special or user-defined.

        Raises UsageError for half a surrogate pair, and for a byte that the vocabulary lacks.
        """
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text holds half a surrogate pair, {text[error.start]!r}, at character {error.start}: "
                "that is no character; read the text as UTF-8, with errors='replace' if it must be"
            ) from None
        if self._absent and (absent := re.search(b"[%b]" % re.escape(self._absent), data)):
            at = len(data[: absent.start()].decode("utf-8", errors="ignore"))
            raise UsageError(
                f"this tokenizer has no token for {text[at]!r}, character {at} of the text "
                f"(byte 0x{absent.group()[0]:02x}): leave it out"
            )
        return list(self._library.encode(text, add_special_tokens=False).ids)

    def encode_with_special(self, text: str) -> list[int]:
        """As `encode`, with every name of a special or user-defined token as that token: for text you wrote yourself.

        Where names overlap, the one that begins first is taken, and of those the longest.
        """
        ids: list[int] = []
        for part in self.split_at_special(text):
            ids.extend([part] if isinstance(part, int) else self.encode(part))
        return ids

    def split_at_special(self, text: str) -> list[str | int]:
        """`text` in its order: ids of the special and user-defined tokens it names, and the text between them."""
        parts: list[str | int] = []
        start = 0
        for match in self._added_pattern.finditer(text):
            parts += [text[start : match.start()], self._added[match.group()]]
            start = match.end()
        parts.append(text[start:])
        return [part for part in parts if part != ""]

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise UsageError(
                f"token id {token} is outside the tokenizer's vocabulary of {self.vocab_size} "
                f"(ids 0 to {self.vocab_size - 1}); a model may have more rows, which stand for nothing"
            )
        return self._bytes[token]

    def text_of(self, token: int) -> str:
        r"""A token for a person: special ones by name, bytes that are no whole character as \xe5."""
        text = self.token_bytes(token)
        return self._names[token] if token in self._names else _spelled(text)

    def merges_of(self, text: str) -> list[Merging]:
        """How each word of `text` becomes tokens, merge by merge. Raises UsageError for words of over 512 bytes."""
        self.encode(text)  # refuses what is no text
        normalizer = self._library.normalizer
        text = normalizer.normalize_str(text) if normalizer is not None else text
        return [self._merging(word) for word, _ in self._library.pre_tokenizer.pre_tokenize_str(text)]

    def _merging(self, word: str) -> Merging:
        if len(word) > LONGEST_SHOWN_WORD:
            raise UsageError(f"a word of {len(word)} bytes: merges are shown for words of up to {LONGEST_SHOWN_WORD}")
        steps = [list(word)]
        if self.splitting.whole_words and word in self._words and len(word) > 1:
            steps.append([word])
        while (at := self._first_merge(pieces := steps[-1])) is not None:
            steps.append([*pieces[:at], pieces[at] + pieces[at + 1], *pieces[at + 2 :]])
        in_text = [[_spelled(_bytes_of(piece)) for piece in pieces] for pieces in steps]
        return Merging(_spelled(_bytes_of(word)), in_text, [self._words[piece] for piece in steps[-1]])

    def _first_merge(self, pieces: list[str]) -> int | None:
        """Where the pair begins that is to be joined next: the first in the list of merges, the leftmost of equals."""
        listed = [(self._ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in self._ranks]
        return min(listed)[1] if listed else None

    def to_tokenizer_json(self) -> dict[str, Any]:
        """This tokenizer as tokenizer.json, which the tokenizers library and transformers read with equal ids."""
        added = [
            {
                "id": token,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": name in self.special,
            }
            for name, token in sorted(self._added.items(), key=lambda item: item[1])
        ]
        return self._as_json({**self._words, **self._added}, added)

    def _as_json(self, vocabulary: dict[str, int], added: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"} if self.splitting.compose else None,
            "pre_tokenizer": self.splitting.pre_tokenizer(),
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": self.splitting.whole_words,
                "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
                "merges": [f"{left} {right}" for left, right in self._merges],
            },
        }

    def _end(self, end_token: int | str | None) -> int | None:
        if end_token is None:
            return None
        if isinstance(end_token, str):
            if end_token not in self._added:
                raise UsageError(f"{end_token!r} is no special token of this tokenizer, which has {list(self._added)}")
            return self._added[end_token]
        self.token_bytes(end_token)  # refuses an id outside the vocabulary
        return end_token


# --- Bytes as visible signs -------------------------------------------------------------------------------------------


def _byte_symbols() -> tuple[str, ...]:
    """GPT-2's sign for each byte: itself where Latin-1 prints it, else the next character from U+0100 on."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printed else next(others)) for byte in range(256))


BYTE_SYMBOLS = _byte_symbols()
DISPENSABLE = (  # control characters, bytes of characters that Unicode has not assigned, and bytes never in UTF-8
    *(byte for byte in range(1, 0x20) if byte not in b"\t\n\r"),
    *(0x7F, 0xC0, 0xC1, 0xF1, 0xF2),
    *range(0xF5, 0x100),
)
_TO_LATIN_1 = {code: 0xFFFF for code in range(256)} | {ord(symbol): byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


def _bytes_of(word: str, source: Path | None = None) -> bytes:
    try:
        return word.translate(_TO_LATIN_1).encode("latin-1")
    except UnicodeEncodeError:
        if "▁" in word:
            raise _unsupported(source, f"the token {_short(word)}, with SentencePiece's sign for a space") from None
        raise _damaged(source, f"the token {_short(word)} is not spelled in byte-level BPE's signs for bytes") from None


def _spelled(text: bytes) -> str:
    return text.decode("utf-8", errors="backslashreplace")


# --- Reading, and not believing ---------------------------------------------------------------------------------------

_PLAIN: dict[str, tuple[Any, ...]] = {  # settings of a BPE, and the values that leave it plain byte-level BPE
    "byte_fallback": (None, False),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "dropout": (None, 0),
    "ignore_merges": (None, False, True),
}
READ = "byte-level BPE that cuts words as GPT-2, SmolLM2, Llama 3 or Qwen 2 does"


def _damaged(source: Path | None, what: str) -> DamagedFileError:
    return DamagedFileError(f"{source} is no whole tokenizer: {what}; fetch the file again")


def _unsupported(source: Path | None, found: str, read: str = READ) -> UnsupportedError:
    return UnsupportedError(f"{source} holds {found}, and what is read here is {read}")


def _short(value: Any) -> str:
    """A value from a file as it may stand in a message."""
    try:
        text = ascii(value)
    except RecursionError:
        return "something deeply nested"
    return text if len(text) <= 80 else text[:77] + "..."


def _check_size(size: int, source: Path) -> None:
    if size > MAX_FILE_BYTES:
        raise _damaged(source, f"it has {size:,} bytes, and no tokenizer has more than {MAX_FILE_BYTES:,}")


def _check_count(count: int, source: Path) -> None:
    if count > MAX_TOKENS:
        raise _damaged(source, f"it lists {count:,} tokens or merges, and none has more than {MAX_TOKENS:,}")


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise DamagedFileError(f"{path} is missing, or is no file: fetch it from where the model came from")
        _check_size(path.stat().st_size, path)
        return path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror or error}") from None


def parse_json(content: bytes, source: Path) -> Any:
    """The value of JSON text. Raises DamagedFileError for what is none, and for a key listed twice in one object."""

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            raise ValueError("a key is listed twice in one object")
        return members

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=without_repeats)
    except RecursionError:
        raise _damaged(source, "it is nested too deeply") from None
    except ValueError as error:  # of json, of UTF-8, and of the hook
        raise _damaged(source, f"it is not JSON ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:120]


def _member(content: Any, key: str, kind: type, source: Path) -> Any:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        expected = "an object" if kind is dict else "a list"
        raise _damaged(source, f"expected {expected} under {key!r}, got {_short(value)}")
    return value


def _vocabulary(content: Any, source: Path) -> dict[str, int]:
    """An object of tokens and their ids."""
    if not isinstance(content, dict):
        raise _damaged(source, f"expected an object of tokens and ids, got {_short(content)}")
    _check_count(len(content), source)
    for token, i in content.items():
        if type(i) is not int:
            raise _damaged(source, f"the id of {_short(token)} must be a whole number, got {_short(i)}")
    return content


def _merge_lines(content: bytes, source: Path) -> list[tuple[str, str]]:
    """The lines of a vocab.bpe or merges.txt: a first one with #version, or none, then "left right"."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(source, f"it is not UTF-8 at byte {error.start}") from None
    for sign, name in (("\ufeff", "a byte order mark"), ("\r", "Windows line ends")):
        if sign in text:
            raise _damaged(source, f"it holds {name}, which an editor or git has put into it")
    lines = text.removesuffix("\n").split("\n")
    return _merges(lines[1:] if lines[0].startswith("#version") else lines, source)


def _merges(entries: list[Any], source: Path) -> list[tuple[str, str]]:
    """Merges, written as "left right" or as [left, right]."""
    _check_count(len(entries), source)
    merges = []
    for number, entry in enumerate(entries, 1):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(piece, str) and piece for piece in pair):
            raise _damaged(source, f"merge {number} must name two pieces, got {_short(entry)}")
        merges.append((pair[0], pair[1]))
    return merges


def _names(special: Mapping[str, int], source: Path) -> dict[str, int]:
    """Names of special tokens, each a text of its own."""
    for name, i in special.items():
        if not _is_text(name) or not name or type(i) is not int:
            raise _damaged(source, f"a special token must have a name and an id, got {_short(name)} and {_short(i)}")
    return dict(special)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _added_tokens(entries: Any, vocabulary: dict[str, int], source: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The special and the user-defined tokens among `added_tokens`."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _damaged(source, "added_tokens must be a list of objects")
    _check_count(len(entries), source)
    special: dict[str, int] = {}
    user_defined: dict[str, int] = {}
    for entry in entries:
        name, token = entry.get("content"), entry.get("id")
        _names({name if isinstance(name, str) else "": token}, source)
        if name in special or name in user_defined or vocabulary.get(name, token) != token:
            raise _damaged(source, f"the added token {_short(name)} has two ids")
        if any(entry.get(flag) for flag in ("single_word", "lstrip", "rstrip")):
            raise _unsupported(source, f"the added token {_short(name)}, which takes in the space around it")
        if entry.get("special"):
            special[name] = token
        elif re.fullmatch(r"<.+>|\[.+\]", name):
            user_defined[name] = token
        else:
            raise _unsupported(source, f"the added word {_short(name)}, which is no special token")
    return special, user_defined


def _splitting(content: dict[str, Any], model: dict[str, Any], source: Path) -> Splitting:
    """The rule of cutting that a tokenizer.json spells, if it is one of those known."""
    normalizer = content.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}, {"type": "Sequence", "normalizers": []}):
        raise _unsupported(source, f"the normalizer {_short(normalizer)}")
    compose = normalizer == {"type": "NFC"}
    for pattern in (None, LLAMA3_WORDS, QWEN2_WORDS):
        for digits_apart in (False, True):
            known = Splitting(pattern, digits_apart, compose, model.get("ignore_merges") is True)
            if _steps(content.get("pre_tokenizer")) == _steps(known.pre_tokenizer()):
                return known
    raise _unsupported(source, f"the pre_tokenizer {_short(content.get('pre_tokenizer'))}")


def _steps(pre_tokenizer: Any) -> Any:
    """A pre-tokenizer as a list of steps, without what makes no difference."""
    if not isinstance(pre_tokenizer, dict):
        return None
    steps = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        return None
    return [{"use_regex": True, **step, "trim_offsets": True} for step in steps]


def _check_ids(ids: list[int], source: Path) -> None:
    _check_count(len(ids), source)
    if not ids:
        raise _damaged(source, "its vocabulary is empty")
    ordered = sorted(ids)
    for expected, found in enumerate(ordered):
        if found != expected:
            what = f"{found} is the id of two tokens" if found < expected else f"no token has id {expected}"
            raise _damaged(source, f"{what}, of {len(ids)} tokens" if found >= 0 else f"{found} is no id")


def _absent_bytes(words: Mapping[str, int], source: Path) -> bytes:
    """The bytes that are no words: only such as people's texts do without are let pass."""
    absent = bytes(byte for byte, symbol in enumerate(BYTE_SYMBOLS) if symbol not in words)
    if needed := [byte for byte in absent if byte not in DISPENSABLE]:
        raise _damaged(source, f"it has no token for the byte 0x{needed[0]:02x}, so there is text that it cannot write")
    return absent


def _check_merges(merges: Sequence[tuple[str, str]], words: Mapping[str, int], source: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for number, pair in enumerate(merges, 1):
        for piece in (*pair, pair[0] + pair[1]):
            if piece not in words:
                raise _damaged(source, f"merge {number}, {_short(' '.join(pair))}, needs the token {_short(piece)}")
        if pair in seen:
            raise _damaged(source, f"merge {number}, {_short(' '.join(pair))}, is listed twice")
        seen.add(pair)


def _library(content: dict[str, Any], source: Path) -> tokenizers.Tokenizer:
    """The tokenizers library's own object. What it refuses, with an exception or a panic of Rust, is our error."""
    import tokenizers

    read: Callable[[str], tokenizers.Tokenizer] = tokenizers.Tokenizer.from_str
    try:
        return read(json.dumps(content))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise _damaged(source, f"the tokenizers library refuses it ({_first_line(error)})") from None
