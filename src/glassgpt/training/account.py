"""What a run is made of and how far it has come, as plain facts for a person, a script, or a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from glassgpt.errors import GlassGPTError
from glassgpt.interface import Tokenizer
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.token_files import MANIFEST, TokenPart, read_manifest
from glassgpt.text.vocabulary import bytes_per_token
from glassgpt.training.data import Corpus
from glassgpt.training.evaluate import best_step
from glassgpt.training.pretrain import TOKENS
from glassgpt.training.recipe import Recipe
from glassgpt.weights.run import Run

GPT2_FILES = "GLASSGPT_GPT2_FILES"  # names a folder with GPT-2's encoder.json and vocab.bpe, which are not ours to ship
COMPARED_TOKENS = 1 << 18  # of the text, on which vocabularies are compared


def account_of_text(corpus: Corpus, recipe: Recipe) -> dict[str, Any]:
    """What is trained on. `epochs`: how often the run as planned sees the training part. `bytes_per_token` and
    `gpt2_bytes_per_token`: on the same stretch of the text, the latter None unless GLASSGPT_GPT2_FILES names the folder
    of GPT-2's words."""
    files, train = corpus.files, recipe.train
    told = _counts(files.manifest)
    text = _text_of(files.validation or files.train, files.tokenizer)
    gpt2 = _gpt2_words()
    return told | {
        "vocabulary": recipe.data.vocabulary,
        "vocab_size": files.tokenizer.vocab_size,
        "bytes_per_token": bytes_per_token(files.tokenizer, [text]),
        "gpt2_bytes_per_token": None if gpt2 is None else bytes_per_token(gpt2, [text]),
        "tokens_a_step": corpus.batch_size * corpus.context_length,
        "epochs": files.train.epoch(train.steps, corpus.batch_size, corpus.context_length),
    }


def _counts(manifest: dict[str, Any]) -> dict[str, Any]:
    parts = manifest["parts"]
    return {
        "bytes": parts["train"]["bytes"] + parts["validation"]["bytes"],
        "documents": sum(source["documents"] for source in manifest["sources"]),
        "train_tokens": parts["train"]["tokens"],
        "validation_tokens": parts["validation"]["tokens"],
        "sources": manifest["sources"],
        "cleaning": manifest["cleaning"],
    }


def _text_of(part: TokenPart, tokenizer: Tokenizer) -> str:
    """The beginning of a part."""
    tokens = part.tokens[:COMPARED_TOKENS].tolist()
    return b"".join(tokenizer.token_bytes(token) for token in tokens).decode("utf-8", errors="ignore")


def _gpt2_words() -> BPETokenizer | None:
    folder = os.environ.get(GPT2_FILES)
    if not folder:
        return None
    return BPETokenizer.from_gpt2_files(Path(folder, "encoder.json"), Path(folder, "vocab.bpe"))


def account_of_run(run: Run) -> dict[str, Any]:
    """How far a run has come. `loss` and `validation_loss` are nats a token, the first of the last step's batch; what
    was not measured is None. `text` is None if its prepared tokens are no longer there."""
    recipe, losses, evaluations = run.recipe, run.metrics(), run.evaluations()
    last: dict[str, Any] = evaluations[-1] if evaluations else {}
    return {
        "finished": run.is_finished,
        "steps_done": run.steps[-1] if run.steps else 0,
        "steps": recipe["train"]["steps"],
        "loss": losses[-1]["loss"] if losses else None,
        "evaluated_step": last.get("step"),
        "validation_loss": last.get("validation_loss"),
        "bits_per_byte": last.get("bits_per_byte"),
        "best_step": best_step(evaluations),
        "kept_steps": run.steps,
        "trained_on": recipe["data"].get("files") or [recipe["data"]["sequence"]],
        "text": _text_of_run(run),
    }


def _text_of_run(run: Run) -> dict[str, Any] | None:
    folder = Path(run.recipe["data"].get("tokens") or run.path / TOKENS)
    try:
        return _counts(read_manifest(folder)) if (folder / MANIFEST).exists() else None
    except GlassGPTError:
        return None  # a damaged text is no matter of the model's
