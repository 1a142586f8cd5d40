"""`glassgpt export REF --to hf|gguf --out DIR`: a model for other programs to run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.cli.output import add_json, print_json
from glassgpt.cli.reference import add_ref
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.weights.bundle import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ref(parser, runs_it=False)
    parser.add_argument("--to", required=True, choices=["hf", "gguf"], help="a Hugging Face folder, or a GGUF file")
    parser.add_argument("--out", required=True, metavar="DIR", help="the new folder; for gguf also a file, NAME.gguf")
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="hf: float32 (the default), bfloat16, float16; gguf: F32 (the default), F16, Q8_0",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.loading import open_model
    from glassgpt.weights.tensors import read_parameters

    bundle = open_model(args.ref, allow_pickle=args.allow_pickle)
    out = Path(args.out)
    if args.to == "hf":
        from glassgpt.weights.hf_folder import export_hf, refuse_unexportable

        refuse_unexportable(bundle.config)
        export_hf(
            out,
            bundle.config,
            read_parameters(bundle),
            bundle.tokenizer(),
            dtype=args.dtype or "float32",
            end_tokens=bundle.end_tokens,
            chat_template=bundle.chat_template,
        )
    else:
        out = export_to_gguf(bundle, out, args.dtype or "F32")
    if args.json:
        print_json({"to": args.to, "path": str(out)})
    else:
        print(out)
    return 0


def export_to_gguf(bundle: Bundle, out: Path, dtype: str) -> Path:
    from glassgpt.text.bpe import BPETokenizer
    from glassgpt.weights.gguf_export import export_gguf, exportable_architecture
    from glassgpt.weights.tensors import read_parameters

    exportable_architecture(bundle.config)
    tokenizer = bundle.tokenizer()
    if not isinstance(tokenizer, BPETokenizer):
        found = "no tokenizer" if tokenizer is None else f"a {type(tokenizer).__name__}"
        raise UsageError(f"a GGUF file wants byte-level BPE words, and {bundle.place} has {found}")
    if out.suffix != ".gguf":
        out.mkdir(parents=True, exist_ok=True)
        out = out / "model.gguf"
    if out.exists():
        raise UsageError(f"{out} exists: choose another --out")
    export_gguf(
        bundle.config,
        read_parameters(bundle),
        tokenizer,
        out,
        dtype=dtype,
        chat_template=bundle.chat_template,
        name=Path(bundle.place).stem,
    )
    return out
