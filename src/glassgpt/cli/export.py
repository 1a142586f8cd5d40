"""`glassgpt export REF --to hf|gguf --out DIR`: a model for other programs to run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from glassgpt.cli.output import add_json, print_json
from glassgpt.cli.reference import add_ref
from glassgpt.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from glassgpt.interface import Tokenizer
    from glassgpt.weights.bundle import Bundle

NO_WORDS = "the model has no tokenizer"


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

    if not args.out:
        raise UsageError("--out is empty: name a new folder")
    bundle = open_model(args.ref, allow_pickle=args.allow_pickle)
    tokenizer, note = words_of(bundle)
    if args.to == "hf":
        out = export_to_hf(bundle, tokenizer, Path(args.out), args.dtype or "float32")
    else:
        out = export_to_gguf(bundle, tokenizer, note, Path(args.out), args.dtype or "F32")
    files = {path.name: path.stat().st_size for path in (sorted(out.iterdir()) if out.is_dir() else [out])}
    if args.json:
        without = {"tokenizer_note": note} if tokenizer is None else {}
        print_json({"to": args.to, "path": str(out), "files": files, "tokenizer": tokenizer is not None} | without)
        return 0
    print(f"{out}: {', '.join(f'{name} ({spell_size(size)})' for name, size in files.items())}")
    if tokenizer is None:
        print(f"no tokenizer was written: {note}", file=sys.stderr)
    return 0


def words_of(bundle: Bundle) -> tuple[Tokenizer | None, str]:
    """The tokenizer, and why there is none if there is none."""
    try:
        return bundle.read_tokenizer(), NO_WORDS
    except UnsupportedError as error:
        return None, f"{error}; for a Hugging Face folder, copy the model's own tokenizer files there"


def spell_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def export_to_hf(bundle: Bundle, tokenizer: Tokenizer | None, out: Path, dtype: str) -> Path:
    from glassgpt.weights.hf_folder import export_hf, refuse_export
    from glassgpt.weights.tensors import read_parameters

    refuse_export(out, bundle.config, dtype)
    end = getattr(tokenizer, "end_token", None)
    export_hf(
        out,
        bundle.config,
        read_parameters(bundle),
        tokenizer,
        dtype=dtype,
        end_tokens=bundle.end_tokens or (() if end is None else (end,)),
        chat_template=bundle.chat_template,
        roles=bundle.roles,
    )
    return out


def export_to_gguf(bundle: Bundle, tokenizer: Tokenizer | None, note: str, out: Path, dtype: str) -> Path:
    from glassgpt.text.bpe import BPETokenizer
    from glassgpt.weights.gguf_export import DTYPES, export_gguf, exportable_architecture
    from glassgpt.weights.tensors import read_parameters

    exportable_architecture(bundle.config)
    if dtype not in DTYPES:
        raise UsageError(f"a GGUF file is written as one of {', '.join(DTYPES)}; got {dtype!r}")
    if not isinstance(tokenizer, BPETokenizer):
        found = note if tokenizer is None else f"{bundle.place} has a {type(tokenizer).__name__}"
        raise UsageError(f"a GGUF file wants byte-level BPE words, and {found}")
    if out.suffix != ".gguf":
        out = out / "model.gguf"
    if out.exists() or (out.parent.exists() and not out.parent.is_dir()):
        raise UsageError(f"{out if out.exists() else out.parent} exists: choose another --out")
    params = read_parameters(bundle)
    made = [part for part in out.parents if not part.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    name = Path(bundle.place).stem
    try:
        export_gguf(bundle.config, params, tokenizer, out, dtype=dtype, chat_template=bundle.chat_template, name=name)
    except BaseException:
        for part in made:
            part.rmdir()
        raise
    return out
