"""The GPT's forward pass in C, for decoding: one file compiled at first use with the machine's own compiler.

`why_not()` is None where it can be used, and else says why not. `pack` turns parameters into `Weights`, in float32,
bfloat16, int8 or int4, and `Weights.cache()` begins a text.
"""

from glassgpt.models.native.build import why_not
from glassgpt.models.native.engine import FORMATS, Cache, Format, Weights, default_threads, pack

__all__ = ["FORMATS", "Cache", "Format", "Weights", "default_threads", "pack", "why_not"]
