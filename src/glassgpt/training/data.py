"""The training text as windows: a context of tokens, each with the token that follows it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from glassgpt.errors import GlassGPTError, UsageError
from glassgpt.interface import Tokenizer
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.cleaning import CleanedSources, Cleaning
from glassgpt.text.mixture import Mixture
from glassgpt.text.prepare import Progress, prepare
from glassgpt.text.sources import source_of
from glassgpt.text.split import Split
from glassgpt.text.token_files import TokenFiles, TokenPart
from glassgpt.text.vocabulary import KINDS, Vocabulary
from glassgpt.training.recipe import VOCAB_SIZE, DataSection, Recipe

if TYPE_CHECKING:
    from glassgpt.training.objective import Rows

SMALLEST, LARGEST = 257, 1 << 20  # tokens of a vocabulary of words or bpe
MOST_VALIDATION_BYTES = 2_000_000
PROMPT = 16  # tokens of the text itself that samples go on with, unless the recipe has a prompt


class TrainingData(Protocol):
    """What a run is trained on: `rows(step)` depends on the step alone, so a run that goes on draws the same."""

    @property
    def tokenizer(self) -> CharacterTokenizer | BPETokenizer: ...

    @property
    def sha256(self) -> str: ...

    @property
    def validation(self) -> TokenPart | None: ...

    @property
    def prompt(self) -> list[int]:
        """What samples go on with."""
        ...

    def rows(self, step: int) -> Rows: ...


@dataclass(frozen=True, eq=False)
class Windows:
    """Every window of a short sequence. `inputs` and `targets`, int64 (windows, context_length): targets are the inputs
    one token later."""

    tokens: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray
    tokenizer: CharacterTokenizer
    batch_size: int | None
    seed: int
    prompt: list[int]
    validation: None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.tokenizer.decode(self.tokens.tolist()).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, step: int) -> Rows:
        """The windows of one step: all of them, or a draw that depends on seed and step alone."""
        if self.batch_size is None or self.batch_size >= len(self):
            return {"inputs": self.inputs, "targets": self.targets}
        chosen = np.random.default_rng([self.seed, step]).choice(len(self), self.batch_size, replace=False)
        return {"inputs": self.inputs[chosen], "targets": self.targets[chosen]}


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text that was prepared as token files. `validation`: of a long part that validates the first 2 MB, since all
    of it would take longer than the training."""

    files: TokenFiles
    validation: TokenPart | None
    batch_size: int
    context_length: int
    seed: int
    prompt: list[int]
    mask_documents: bool

    @property
    def tokenizer(self) -> CharacterTokenizer | BPETokenizer:
        return self.files.tokenizer  # type: ignore[return-value]

    @property
    def sha256(self) -> str:
        parts = "".join(f"{name} {about['sha256']}\n" for name, about in sorted(self.files.manifest["files"].items()))
        return hashlib.sha256(parts.encode()).hexdigest()

    def rows(self, step: int) -> Rows:
        """Windows that begin anywhere, each text seen whole before any is seen again (`TokenPart.batch`)."""
        batch = self.files.train.batch(step, self.batch_size, self.context_length, self.seed)
        rows = {"inputs": batch.inputs, "targets": batch.targets}
        return rows | {"documents": batch.documents} if self.mask_documents else rows


def training_data(
    recipe: Recipe,
    folder: Path,
    on_progress: Progress = lambda stage, done, total: None,
    *,
    replace: bool = False,
) -> TrainingData:
    """What the recipe trains on; the tokens of files are prepared in `folder`, unless they are there already.

    `replace`: tokens of another text or setting that lie there may be overwritten, or else are refused. Raises
    UsageError for a text too short for one window, and for symbols outside the vocabulary, of `evaluate.prompt` too.
    """
    if recipe.data.sequence is not None:
        return windows_of(recipe, tokenizer_for(recipe))
    files = prepare(
        corpus_of(recipe.data),
        vocabulary_of(recipe),
        folder,
        split=Split(recipe.data.split, recipe.data.validation),
        between=recipe.data.between,
        replace=replace,
        on_progress=on_progress,
    )
    return _corpus(recipe, files)


def prepared_data(recipe: Recipe, folder: Path) -> Corpus:
    """What was prepared for the recipe in `folder`, when its text is no longer at hand. Raises DamagedFileError."""
    return _corpus(recipe, TokenFiles.open(folder))


def _corpus(recipe: Recipe, files: TokenFiles) -> Corpus:
    T, batch_size = recipe.model.context_length, recipe.train.batch_size
    files.train.windows_of_an_epoch(T)  # refuses a text that is too short
    validation = files.validation
    if validation is not None:
        validation.windows_of_an_epoch(1)
        n_tokens = int(MOST_VALIDATION_BYTES / max(validation.bytes_per_token, 1e-9))
        validation = beginning(validation, n_tokens, files.tokenizer)
    assert batch_size is not None
    prompt = prompt_of(recipe, files)
    return Corpus(files, validation, batch_size, T, recipe.run.seed, prompt, recipe.data.mask_documents)


def beginning(part: TokenPart, n_tokens: int | None, tokenizer: Tokenizer) -> TokenPart:
    """The first `n_tokens` of a part, or all of it, with the bytes that just these stand for."""
    if n_tokens is None or n_tokens >= len(part):
        return part
    tokens = part.tokens[: max(2, n_tokens)]
    starts = part.starts[: np.searchsorted(part.starts, len(tokens))]
    ids, times = np.unique(tokens, return_counts=True)
    n_bytes = sum(len(tokenizer.token_bytes(int(i))) * int(n) for i, n in zip(ids, times, strict=True))
    return TokenPart(part.name, tokens, starts, n_bytes)


def prompt_of(recipe: Recipe, files: TokenFiles) -> list[int]:
    """The tokens of `evaluate.prompt`, or the first of the validation part (of the training part, if there is none).

    Of an empty prompt it is the end of text, after which documents begin. Raises UsageError for what the vocabulary
    can't write.
    """
    if recipe.evaluate.prompt is None:
        part = files.validation or files.train
        return part.tokens[: min(PROMPT, recipe.model.context_length)].astype(np.int64).tolist()
    tokens = files.tokenizer.encode(recipe.evaluate.prompt)
    if not tokens and files.end_token is None:
        raise UsageError("evaluate.prompt is empty, and characters have no end of text to begin after: give some text")
    return tokens or [files.end_token]  # type: ignore[list-item]


def refuse_what_cannot_be(recipe: Recipe) -> None:
    """Raise UsageError for data that are not there or don't fit, as far as can be told without reading files."""
    if recipe.data.sequence is not None:
        windows_of(recipe, tokenizer_for(recipe))
    else:
        corpus_of(recipe.data)
        vocabulary_of(recipe)


def corpus_of(data: DataSection) -> Mixture:
    sources = [source_of(name, split=data.documents, field=data.field) for name in data.files or ()]
    if data.clean:
        sources = list(CleanedSources(sources, Cleaning()).sources)
    return Mixture(sources, data.weights, data.total_bytes)


def vocabulary_of(recipe: Recipe) -> Vocabulary | CharacterTokenizer | BPETokenizer:
    """What vocabulary to learn, or the words of the model that `data.vocabulary` refers to."""
    kind, size = recipe.data.vocabulary, recipe.model.vocab_size
    if kind in ("words", "bpe"):
        if not SMALLEST <= size <= LARGEST:
            raise UsageError(
                f"model.vocab_size must be from {SMALLEST} (256 bytes, end of text) to {LARGEST:,} with "
                f"data.vocabulary = {kind!r}, got {size}"
            )
        return Vocabulary(kind, size)
    tokenizer = Vocabulary(kind) if kind in KINDS else _words_of(kind)
    if size not in (VOCAB_SIZE, getattr(tokenizer, "vocab_size", None)):
        raise UsageError(
            f"model.vocab_size is {size}, and data.vocabulary = {kind!r} decides itself how many there are: leave "
            "model.vocab_size out, --set model.vocab_size="
        )
    return tokenizer


def _words_of(ref: str) -> CharacterTokenizer | BPETokenizer:
    from glassgpt.loading import load_tokenizer

    try:
        return load_tokenizer(ref)  # type: ignore[return-value]
    except GlassGPTError as error:
        raise UsageError(f"data.vocabulary is {', '.join(KINDS)}, or names a model with words: {error}") from None


def tokenizer_for(recipe: Recipe) -> CharacterTokenizer:
    """The vocabulary of a recipe's sequence: one character a token. Raises UsageError if it doesn't have vocab_size
    symbols."""
    size = recipe.model.vocab_size
    if recipe.data.symbols is None:
        return CharacterTokenizer.of_size(size)
    if len(recipe.data.symbols) != size:
        raise UsageError(f"data.symbols names {len(recipe.data.symbols)} tokens, and model.vocab_size is {size}")
    return CharacterTokenizer(recipe.data.symbols)


def windows_of(recipe: Recipe, tokenizer: CharacterTokenizer) -> Windows:
    """Every window of the recipe's sequence. Raises UsageError if it has none, or symbols outside the vocabulary."""
    T = recipe.model.context_length
    tokens = np.array(tokenizer.encode(recipe.data.sequence or ""), dtype=np.int64)
    if len(tokens) <= T:
        raise UsageError(
            f"the sequence has {len(tokens)} tokens and the context {T}: it must be at least one token longer, "
            "so that there is something to predict"
        )
    windows = np.lib.stride_tricks.sliding_window_view(tokens, T + 1)
    inputs, targets = windows[:, :-1].copy(), windows[:, 1:].copy()
    prompt = tokens[:T].tolist()
    return Windows(tokens, inputs, targets, tokenizer, recipe.train.batch_size, recipe.run.seed, prompt)
