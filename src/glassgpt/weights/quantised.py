"""temporary"""

from __future__ import annotations

from glassgpt.interface import LanguageModel
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.tensors import load_torch_gpt

FORMATS = ("float32", "float64", "bfloat16", "float16", "int8", "int4")


def load_bundle(bundle: Bundle, dtype: str | None) -> LanguageModel:
    return load_torch_gpt(bundle, dtype or "float32")
