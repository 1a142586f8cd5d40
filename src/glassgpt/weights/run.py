"""The run folder: all that a training run leaves behind, in files that are whole or not there.

    config.json             the model's shape, in Hugging Face's keys
    model.safetensors       its weights, once training is done
    tokenizer.json          its words, in the format of the tokenizers library
    generation_config.json  how it is sampled if nobody says otherwise
    run.toml                the resolved recipe and a hash of the data
    metrics.jsonl           a line for each step and each evaluation, listed in the manifest once training is done
    timing.jsonl            how long it took: the only file that two equal runs don't share, and in no manifest
    yardsticks.json         what the validation part's bits per byte are judged by
    tokens/                 the prepared text, with a manifest of its own (`text.token_files`)
    checkpoints/            step-NNNNNN.safetensors: weights and optimizer state at every kept step
    manifest.json           a SHA-256 of each of these but the metrics, and of itself: what is not listed is not there

safetensors carries no checksum, so a flipped bit in it would load as another model: the manifest is what notices.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from safetensors.numpy import save

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.files import write_atomically
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.bpe import END_OF_TEXT, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.tokenizer_json import tokenizer_from_json, tokenizer_to_json
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.hf_config import config_from_hf, config_to_hf, model_type_of
from glassgpt.weights.hf_names import hf_tensors, our_parameters
from glassgpt.weights.stored import StoredTensor
from glassgpt.weights.tensors import check_tensors, read_parameters, read_tensors, tensors_of, torch_gpt

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
YARDSTICKS = "yardsticks.json"
LOCK = ".lock"
SETTINGS = ("config.json", "tokenizer.json", "generation_config.json", "run.toml")


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on from a step. `state`: what is no tensor, as JSON."""

    weights: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    state: dict[str, Any]


class Metrics:
    """metrics.jsonl and timing.jsonl, growing line by line."""

    def __init__(self, folder: Path, length: int) -> None:
        path = folder / METRICS
        if (path.stat().st_size if path.exists() else 0) < length:
            found = len(path.read_bytes().splitlines()) if path.exists() else 0
            raise DamagedFileError(
                f"{path} has only {found} lines, fewer than when the last checkpoint was written: restore it from a "
                "copy"
            )
        self._file = path.open("ab")
        self._file.truncate(length)
        self._timing = (folder / TIMING).open("ab")

    def add(self, row: dict[str, Any]) -> None:
        self._file.write((json.dumps(row, allow_nan=False) + "\n").encode())

    def add_timing(self, row: dict[str, Any]) -> None:
        self._timing.write((json.dumps(row, allow_nan=False) + "\n").encode())

    def force_to_disk(self) -> int:
        """Write all that was added, and return how long metrics.jsonl is now."""
        self._timing.flush()
        self._file.flush()
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()
        self._timing.close()


class Run:
    """A run folder on disk. Opening one reads only its manifest; every file is checked against it when read."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if self.path.is_file():
            raise DamagedFileError(f"{self.path} is a file, not a run folder")
        if not self.path.is_dir():
            raise DamagedFileError(
                f"there is no run folder {self.path}: train one with `glassgpt train RECIPE --out RUN`"
            )
        if not is_run(self.path):
            raise DamagedFileError(f"{self.path} is not a run folder: it has no {MANIFEST}")
        self._hashes = _parse_manifest(self.path / MANIFEST)

    @classmethod
    def at(cls, path: Path | str) -> Run:
        """The run folder there, or a new one that has not begun. Raises UsageError, and touches nothing, if the folder
        holds anything else."""
        path = Path(path)
        if not is_run(path):
            if (file := next((part for part in path.parents if part.exists() and not part.is_dir()), None)) is not None:
                raise UsageError(f"{path} cannot be made: {file} is a file, not a folder")
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(f"{path} exists and is not a run folder: choose another --out, or empty it yourself")
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            write_atomically(path / MANIFEST, _json(_manifest({})))
        return cls(path)

    @property
    def has_begun(self) -> bool:
        """Whether its settings are written; if not, it was stopped before."""
        return bool(self._hashes)

    def begin(self, config: GPTConfig, tokenizer: CharacterTokenizer | BPETokenizer, recipe: dict[str, Any]) -> None:
        """Write the settings."""
        generation = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 20}
        end = tokenizer.special.get(END_OF_TEXT)
        settings = (
            _json(config_to_hf(config)),
            _json(tokenizer_to_json(tokenizer)),
            _json(generation if end is None else generation | {"eos_token_id": end}),
            tomli_w.dumps(recipe).encode(),
        )
        self._write(dict(zip(SETTINGS, settings, strict=True)))

    def refuse_other_recipe(self, recipe: dict[str, Any]) -> None:
        """Raise UsageError unless the run was begun with this recipe, naming the key that differs."""
        self.check_settings()
        _refuse_other_recipe(self, recipe)

    # ---- reading ---------------------------------------------------------------------------------------------

    def check_settings(self) -> None:
        """Raise DamagedFileError unless each of the small files is what was saved, needed for the model or not."""
        for name in SETTINGS:
            self._read(name)

    @property
    def config(self) -> GPTConfig:
        return config_from_hf(self._json("config.json"), self.path / "config.json")

    @property
    def tokenizer(self) -> Tokenizer:
        return tokenizer_from_json(self._json("tokenizer.json"), self.path / "tokenizer.json")

    @property
    def recipe(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._read("run.toml").decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DamagedFileError(f"{self.path / 'run.toml'} is not TOML: {error}") from None

    @property
    def is_finished(self) -> bool:
        return "model.safetensors" in self._hashes

    @property
    def steps(self) -> list[int]:
        """The training steps whose checkpoints are kept, in order."""
        names = [Path(name).stem for name in self._hashes if name.startswith("checkpoints/")]
        return sorted(int(name.removeprefix("step-")) for name in names)

    def model(self, step: int | None = None) -> GPT:
        """The trained model, or the one after `step` updates; of an unfinished run, the newest kept."""
        bundle = self.bundle(step)
        return torch_gpt(read_parameters(bundle), bundle.config)

    def bundle(self, step: int | None = None) -> Bundle:
        """As `model`, with the weights as what a file holds."""
        config = self.config
        if step is None and self.is_finished:
            path = self.path / "model.safetensors"
            tensors = read_tensors(self._read(path.name), path)
            stored = {name: StoredTensor.of(value) for name, value in tensors.items()}
            parameters = our_parameters(stored, config, model_type_of(config), path)
        else:
            weights = self.checkpoint(self._kept(step), config).weights
            parameters = {name: StoredTensor.of(value) for name, value in weights.items()}
        at = "" if step is None else f"@{step}"
        return Bundle("run folder", f"{self.path}{at}", config, parameters, lambda: self.tokenizer)

    def checkpoint(self, step: int, config: GPTConfig) -> Checkpoint:
        """What is kept after `step` updates."""
        name = checkpoint_name(step)
        path = self.path / name
        content = self._read(name)
        tensors = read_tensors(content, path)
        weights = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
        check_tensors(weights, config, path)
        optimizer = {key: value for key, value in tensors.items() if key.startswith("optimizer.")}
        return Checkpoint(weights, optimizer, _parse_json(metadata_of(content)["state"].encode(), path))

    def metrics(self) -> list[dict[str, Any]]:
        """What metrics.jsonl says of each step; of a finished run it is checked like any other file."""
        return [row for row in self._metrics() if "loss" in row]

    def evaluations(self) -> list[dict[str, Any]]:
        """What metrics.jsonl says of each evaluation."""
        return [row for row in self._metrics() if "validation_loss" in row]

    def _metrics(self) -> list[dict[str, Any]]:
        path = self.path / METRICS
        try:
            content = self._read(METRICS) if METRICS in self._hashes else path.read_bytes()
            rows = [json.loads(line) for line in content.decode().splitlines()]
            if [row["step"] for row in rows if "loss" in row] != list(range(sum("loss" in row for row in rows))):
                raise ValueError("its lines are not one step after another")
            return rows
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFileError(f"{path} is damaged ({error}): restore it from a copy") from None

    def yardsticks(self) -> dict[str, float]:
        """Bits per byte of the validation part by counting and by compressors; empty if there is none."""
        return self._json(YARDSTICKS) if YARDSTICKS in self._hashes else {}

    # ---- writing ---------------------------------------------------------------------------------------------

    def save_checkpoint(self, step: int, kept: Checkpoint) -> None:
        """Write what is needed to go on from `step`, first of all the metrics so far."""
        tensors = {f"model.{name}": value for name, value in kept.weights.items()} | kept.optimizer
        content = save(tensors, metadata={"state": json.dumps(kept.state)})
        self._write({checkpoint_name(step): content})

    def drop_checkpoints(self, steps: Iterable[int]) -> None:
        """Take checkpoints away: from the manifest first, so that what it lists is always there."""
        names = [checkpoint_name(step) for step in steps]
        if not names:
            return
        self._hashes = {name: digest for name, digest in self._hashes.items() if name not in names}
        self._write({})
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def save_model(self, model: GPT) -> None:
        """Write the finished model, and list the metrics, which change no more: from now on the run is complete."""
        tensors = hf_tensors(tensors_of(model), model.config, model_type_of(model.config))
        model_file = save(tensors, metadata={"format": "pt"})
        self._write({METRICS: (self.path / METRICS).read_bytes(), "model.safetensors": model_file})

    def save_yardsticks(self, bits_per_byte: dict[str, float]) -> None:
        self._write({YARDSTICKS: _json(bits_per_byte)})

    def open_metrics(self, length: int) -> Metrics:
        """The metrics, cut to the first `length` bytes: what came after is of steps that will be made again.

        Raises DamagedFileError if there are fewer."""
        return Metrics(self.path, length)

    def remove_leftovers(self) -> None:
        """What a crash has left half-way: files that the manifest doesn't list."""
        for path in (self.path / "checkpoints").iterdir():
            if f"checkpoints/{path.name}" not in self._hashes:
                path.unlink()
        for path in self.path.glob(".*.*"):
            if path.is_file() and path.name != LOCK:
                path.unlink()

    def _write(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            write_atomically(self.path / name, content)
            self._hashes[name] = hashlib.sha256(content).hexdigest()
        write_atomically(self.path / MANIFEST, _json(_manifest(self._hashes)))

    def _read(self, name: str) -> bytes:
        path = self.path / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedFileError(f"{path} cannot be read ({error.strerror}): restore it from a copy") from None
        if name not in self._hashes:
            raise DamagedFileError(
                f"{path} is not listed in {MANIFEST}: the run was damaged, or stopped before saving it"
            )
        if hashlib.sha256(content).hexdigest() != self._hashes[name]:
            raise DamagedFileError(
                f"{path} is not what was saved ({len(content)} bytes, whose SHA-256 differs from {MANIFEST}): "
                "it was truncated, damaged or edited; restore it from a copy, or train again into a new folder"
            )
        return content

    def _json(self, name: str) -> Any:
        return _parse_json(self._read(name), self.path / name)

    def _kept(self, step: int | None) -> int:
        kept = self.steps
        if not kept:
            raise DamagedFileError(f"{self.path} holds no model yet: go on training it with the same `glassgpt train`")
        if step is None:
            return kept[-1]
        if step not in kept:
            shown = ", ".join(map(str, kept)) if len(kept) <= 8 else f"{kept[0]}, {kept[1]}, ... {kept[-1]}"
            raise UsageError(f"{self.path} keeps no step {step}; it keeps {shown}")
        return step


def is_run(path: Path | str) -> bool:
    return (Path(path) / MANIFEST).is_file()


def checkpoint_name(step: int) -> str:
    return f"checkpoints/step-{step:06d}.safetensors"


def _refuse_other_recipe(run: Run, recipe: dict[str, Any]) -> None:
    before = run.recipe
    for section in sorted(before.keys() | recipe.keys()):
        old, new = before.get(section, {}), recipe.get(section, {})
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                raise UsageError(
                    f"{run.path} was begun with {section}.{key} = {old.get(key)!r}, and now has {new.get(key)!r}: "
                    "give the recipe it was begun with to go on, or another --out to start afresh"
                )


def metadata_of(content: bytes) -> dict[str, str]:
    """The __metadata__ of a safetensors file that has been read."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})


def _manifest(hashes: dict[str, str]) -> dict[str, Any]:
    return {"files": hashes, "sha256": hashlib.sha256(json.dumps(hashes).encode()).hexdigest()}


def _parse_manifest(path: Path) -> dict[str, str]:
    content = _parse_json(path.read_bytes(), path)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or content != _manifest(files):
        raise DamagedFileError(f"{path} is not the list of hashes that was saved: restore it from a copy")
    return files


def _parse_json(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON ({error}): restore it from a copy") from None


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
