"""GlassGPT: a GPT you can see through.

A GPT is a function from a context of tokens to a distribution over the next token, and so a finite-state Markov chain
over contexts. Everything here is a way to make that function, to walk it, or to see it.

    model, tokenizer = glassgpt.load("runs/baby")
    chain = glassgpt.MarkovChain.from_model(model)

What is named below is imported when it is first used, so that `import glassgpt` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glassgpt.chain.markov import End, MarkovChain
    from glassgpt.chain.walk import Red
    from glassgpt.check import check_model, check_tokenizer
    from glassgpt.decoding.batch import generate_batch
    from glassgpt.decoding.beam import beam_search
    from glassgpt.decoding.generate import generate
    from glassgpt.decoding.shaped import Shaped
    from glassgpt.decoding.speculative import Lookup, generate_speculative
    from glassgpt.decoding.text import stream_text
    from glassgpt.errors import GlassGPTError
    from glassgpt.evaluation.agreement import agreement
    from glassgpt.evaluation.score import bits_per_byte, score
    from glassgpt.interface import LanguageModel, LogitsProcessor, Session, Tokenizer
    from glassgpt.loading import load
    from glassgpt.models.config import GPTConfig
    from glassgpt.notebook import show
    from glassgpt.training.loop import train
    from glassgpt.training.recipe import read_recipe

__version__ = "0.1.0"

_HOMES = {
    "End": "chain.markov",
    "GPTConfig": "models.config",
    "GlassGPTError": "errors",
    "LanguageModel": "interface",
    "LogitsProcessor": "interface",
    "Lookup": "decoding.speculative",
    "MarkovChain": "chain.markov",
    "Red": "chain.walk",
    "Session": "interface",
    "Shaped": "decoding.shaped",
    "Tokenizer": "interface",
    "agreement": "evaluation.agreement",
    "beam_search": "decoding.beam",
    "bits_per_byte": "evaluation.score",
    "check_model": "check",
    "check_tokenizer": "check",
    "generate": "decoding.generate",
    "generate_batch": "decoding.batch",
    "generate_speculative": "decoding.speculative",
    "load": "loading",
    "read_recipe": "training.recipe",
    "score": "evaluation.score",
    "show": "notebook",
    "stream_text": "decoding.text",
    "train": "training.loop",
}

__all__ = [
    "End",
    "GPTConfig",
    "GlassGPTError",
    "LanguageModel",
    "LogitsProcessor",
    "Lookup",
    "MarkovChain",
    "Red",
    "Session",
    "Shaped",
    "Tokenizer",
    "agreement",
    "beam_search",
    "bits_per_byte",
    "check_model",
    "check_tokenizer",
    "generate",
    "generate_batch",
    "generate_speculative",
    "load",
    "read_recipe",
    "score",
    "show",
    "stream_text",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'glassgpt' has no attribute {name!r}")
    return getattr(import_module(f"glassgpt.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
