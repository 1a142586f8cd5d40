"""The options that name a model and say how to load it, the same for every command that runs one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassgpt.interface import LanguageModel, Tokenizer

REF_HELP = (
    "a run folder or RUN@STEP, a Hugging Face folder or repo id, gpt2, smollm2, a checkpoint folder, a .gguf file"
)


def add_ref(parser: argparse.ArgumentParser, *, runs_it: bool = True) -> None:
    parser.add_argument("ref", metavar="REF", help=REF_HELP)
    parser.add_argument(
        "--allow-pickle", action="store_true", help="read a pytorch_model.bin too: only if you trust whoever made it"
    )
    if runs_it:
        parser.add_argument(
            "--dtype", metavar="TYPE", help="float32 (the default), float64, bfloat16, float16, int8 or int4"
        )
        parser.add_argument("--device", metavar="NAME", help="cpu, cuda, ... (a CUDA GPU if there is one, else cpu)")


def load_ref(args: argparse.Namespace) -> tuple[LanguageModel, Tokenizer | None]:
    from glassgpt.loading import load

    return load(args.ref, args.dtype, device=args.device, allow_pickle=args.allow_pickle)
