"""One door to every kind of model: `model, tokenizer = glassgpt.load(ref)`."""

from __future__ import annotations

from pathlib import Path

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.gguf_model import read_gguf_model
from glassgpt.weights.hf_folder import is_hf_folder, read_hf_folder
from glassgpt.weights.hub import GPT2_REPOS, is_repo_id, pull
from glassgpt.weights.run import MANIFEST, Run, is_run
from glassgpt.weights.tf_folder import is_tf_checkpoint, read_tf_folder

REFS = (
    "a run folder, a Hugging Face folder or repo id, gpt2 to gpt2-xl, smollm2, a folder with OpenAI's checkpoint, or a "
    ".gguf file"
)


def load(
    ref: str | Path, dtype: str | None = None, *, device: str | None = None, allow_pickle: bool = False
) -> tuple[LanguageModel, Tokenizer | None]:
    """The model and tokenizer that `ref` names; the tokenizer is None where there is none that GlassGPT reads.

    `ref`: a run folder or RUN@STEP, a Hugging Face folder or repo id, gpt2 to gpt2-xl, smollm2, a folder with OpenAI's
    TensorFlow checkpoint, or a .gguf file. `dtype`: float32 (the default), float64, bfloat16 or float16; or int8 or
    int4, which round the weights to that many bits and run faster. `device`: "cpu", "cuda", ... as torch names them;
    None is a CUDA GPU where there is one and the model is worth it, else the processor.

    Raises UsageError for a reference that names nothing, DamagedFileError for files that are missing, altered or not
    what they say, UnsupportedError for a sound model of a kind that GlassGPT doesn't read, TooLargeError before
    anything is read that won't fit in memory.
    """
    from glassgpt.weights.quantised import load_bundle  # torch: a second and more, which looking at a model can spare

    bundle = open_model(ref, allow_pickle=allow_pickle)
    return load_bundle(bundle, dtype, device), bundle.tokenizer()


def load_tokenizer(ref: str | Path) -> Tokenizer:
    """The tokenizer of a model. Raises UnsupportedError if GlassGPT doesn't read it, UsageError if there is none."""
    bundle = open_model(ref)
    tokenizer = bundle.read_tokenizer()
    if tokenizer is None:
        raise UsageError(f"{bundle.place} holds no tokenizer: it knows token ids alone")
    return tokenizer


def open_model(ref: str | Path, *, allow_pickle: bool = False) -> Bundle:
    """What `ref` names, its shape and tensors checked, before anything large is read. Raises as `load`."""
    if not isinstance(ref, (str, Path)):
        raise UsageError(f"a model is named by a text or a path, and this is {type(ref).__name__}: give {REFS}")
    name = str(ref)
    if not name:
        raise UsageError(f"the model's name is empty: give {REFS}")
    path = Path(ref)
    try:
        path.exists()
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise DamagedFileError(f"{name[:80]!r} cannot be read ({error.strerror}): give {REFS}") from None
    if path.suffix.lower() == ".gguf":
        return read_gguf_model(path)
    if path.is_dir() and not is_run(path):
        if is_tf_checkpoint(path):
            return read_tf_folder(path)
        if is_hf_folder(path) and not (path / "run.toml").exists():  # a run that lost its manifest is damaged
            return read_hf_folder(path, allow_pickle=allow_pickle)
        if not (path / "run.toml").exists():
            raise DamagedFileError(
                f"{path} holds no model: no {MANIFEST} (a run), no config.json (Hugging Face), no hparams.json with an "
                ".index file (OpenAI's checkpoint)"
            )
    if not path.exists() and (name == "smollm2" or name in GPT2_REPOS or is_repo_id(name)):
        fetched = pull(name)
        return read_gguf_model(fetched) if fetched.is_file() else read_hf_folder(fetched)
    if not path.exists() and not Path(name.rpartition("@")[0] or name).exists():
        raise DamagedFileError(f"there is no {name} here: give {REFS}")
    run, step = open_run(ref)
    return run.bundle(step)


def open_run(ref: str | Path) -> tuple[Run, int | None]:
    """The run folder that `ref` names, its small files checked, and the step if it names one."""
    if not str(ref):
        raise UsageError("the model's name is empty: give a run folder")
    path, at, step = str(ref).rpartition("@")
    if not at or Path(ref).exists():
        path, step = str(ref), ""
    elif not step.isdecimal():
        raise UsageError(f"{step!r} in {str(ref)!r} is no training step: write RUN@STEP, as in runs/baby@25")
    run = Run(path)
    run.check_settings()
    return run, int(step) if step else None
