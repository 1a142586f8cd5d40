"""The run folder: all that a training run leaves behind, in files that are whole or not there.

    config.json             the model's shape, in Hugging Face's keys
    model.safetensors       its weights, once training is done
    tokenizer.json          its words, in the format of the tokenizers library
    generation_config.json  how it is sampled if nobody says otherwise
    tokenizer_config.json   of a later stage: its special tokens by what they are for, and its chat template
    head.json               of a model with a head: what its scores mean
    frozen.safetensors      of a later stage: the weights that are not trained, which checkpoints leave out
    added.safetensors       what the finished model has beside a GPT's weights: a head, or adapters
    adapter/                of LoRA: the same as the peft library reads it (the model itself has it merged)
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
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from glassgpt.display import Displayed
from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.files import PARTIAL, Log, make_folder, only_one, remove, replacing, write_atomically
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.models.trainable import Trainable, part_widths
from glassgpt.text.bpe import END_OF_TEXT, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.tokenizer_json import tokenizer_from_json, tokenizer_to_json
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.hf_config import config_from_hf, config_to_hf, eos_tokens, model_type_of
from glassgpt.weights.hf_folder import chat_template_of, roles_of, tokenizer_files
from glassgpt.weights.hf_names import hf_stored, our_parameters
from glassgpt.weights.safetensors_file import metadata_of, read_safetensors, write_safetensors
from glassgpt.weights.stored import Reading, StoredTensor
from glassgpt.weights.tensors import (
    check_numbers,
    check_shapes,
    load_named,
    load_torch_gpt,
    read_parameters,
    torch_gpt,
)

if TYPE_CHECKING:
    from glassgpt.models.gpt_torch import GPT

MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
YARDSTICKS = "yardsticks.json"
CHECKPOINTS = "checkpoints"
MODEL = "model.safetensors"
LOCK = ".lock"
SETTINGS = ("config.json", "tokenizer.json", "generation_config.json", "run.toml")
WORDS, HEAD = "tokenizer_config.json", "head.json"
FROZEN, ADDED, ADAPTER = "frozen.safetensors", "added.safetensors", "adapter"


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on from a step. `state`: what is no tensor, as JSON. `added`: what the model has beside
    a GPT's weights, by the names that it has there."""

    weights: Mapping[str, StoredTensor]
    optimizer: Mapping[str, StoredTensor]
    state: dict[str, Any]
    added: Mapping[str, StoredTensor] = field(default_factory=dict)


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
        self._log, self._timing = Log(path, length), Log(folder / TIMING)

    def add(self, row: dict[str, Any]) -> None:
        self._log.add((json.dumps(row, allow_nan=False) + "\n").encode())

    def add_timing(self, row: dict[str, Any]) -> None:
        self._timing.add((json.dumps(row, allow_nan=False) + "\n").encode())

    def force_to_disk(self) -> int:
        """Returns how long metrics.jsonl is now."""
        return self._log.force_to_disk()

    def close(self) -> None:
        self._log.close()
        self._timing.close()


class Run(Displayed):
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

    def __repr__(self) -> str:
        steps, state = self.steps, "finished" if self.is_finished else "not finished"
        kept = f"{len(steps):,} steps kept from {steps[0]:,} to {steps[-1]:,}" if steps else "no step kept"
        return f"Run {self.path}: {state}, {kept}"

    @classmethod
    def at(cls, path: Path | str) -> Run:
        """The run folder there, or a new one that has not begun. Raises UsageError, and touches nothing, if the folder
        holds anything else."""
        path = Path(path)
        if not is_run(path):
            _refuse_what_is_no_run(path)
            make_folder(path)
            write_atomically(path / MANIFEST, _json(_manifest({})))
        return cls(path)

    @classmethod
    @contextmanager
    def held(cls, path: Path | str) -> Iterator[Run]:
        """As `at`, and no other process has it within the block. If nothing has begun by then, nothing stays but text
        that is prepared.

        Raises UsageError, naming the process, if another one is training into it.
        """
        path = Path(path)
        _refuse_what_is_no_run(path)
        is_new = not path.exists()
        make_folder(path)
        with only_one(path / LOCK, "is training into this run"):
            run = cls.at(path)
            try:
                yield run
            except BaseException:
                run._withdraw(is_new)
                raise

    def _withdraw(self, is_new: bool) -> None:
        """Take a run away that has not begun, unless its text is prepared, which the next try may want."""
        if self.has_begun or any(path.name not in (MANIFEST, LOCK) for path in self.path.iterdir()):
            return
        with suppress(OSError):
            (self.path / MANIFEST).unlink()
            (self.path / LOCK).unlink()
            if is_new:
                self.path.rmdir()

    @property
    def has_begun(self) -> bool:
        """Whether its settings are written; if not, it was stopped before."""
        return bool(self._hashes)

    def begin(
        self,
        config: GPTConfig,
        tokenizer: CharacterTokenizer | BPETokenizer,
        recipe: dict[str, Any],
        *,
        chat_template: str | None = None,
        end_tokens: tuple[int, ...] = (),
        roles: Mapping[str, int | str] = {},
        frozen: Mapping[str, StoredTensor] = {},
        head: Mapping[str, Any] = {},
    ) -> None:
        """Write the settings, and the weights that will not change. `end_tokens`, `chat_template` and `roles` are as in
        a `Bundle`; `head` says what the scores of a head mean."""
        make_folder(self.path / CHECKPOINTS)
        generation: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 20}
        ends = end_tokens or tuple(token for name, token in tokenizer.special.items() if name == END_OF_TEXT)
        if ends:
            generation["eos_token_id"] = list(ends) if len(ends) > 1 else ends[0]
        settings = (
            _json(config_to_hf(config)),
            _json(tokenizer_to_json(tokenizer)),
            _json(generation),
            tomli_w.dumps(recipe).encode(),
        )
        files = dict(zip(SETTINGS, settings, strict=True))
        if end_tokens:
            files[WORDS] = tokenizer_files(tokenizer, end_tokens, chat_template, roles)[WORDS]
        if head:
            files[HEAD] = _json(dict(head))
        if frozen:
            with replacing(self.path / FROZEN) as file:
                write_safetensors(file, frozen, {"format": "pt"})
            self._hashes = {**self._hashes, FROZEN: file.sha256}  # listed with the settings, or not at all
        self._write(files)

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
        return MODEL in self._hashes

    @property
    def steps(self) -> list[int]:
        """The training steps whose checkpoints are kept, in order."""
        names = [Path(name).stem for name in self._hashes if name.startswith(f"{CHECKPOINTS}/")]
        return sorted(int(name.removeprefix("step-")) for name in names)

    def model(self, step: int | None = None) -> GPT:
        """The trained model, or the one after `step` updates; of an unfinished run, the newest kept."""
        bundle = self.bundle(step)
        if bundle.complete is not None:
            return load_torch_gpt(bundle)
        return torch_gpt(read_parameters(bundle), bundle.config)

    def bundle(self, step: int | None = None) -> Bundle:
        """As `model`, with the weights as what a file holds."""
        config = self.config
        if step is None and self.is_finished:
            path = self._checked(MODEL)
            parameters = our_parameters(read_safetensors(path), config, model_type_of(config), path)
        else:
            parameters = dict(self.checkpoint(self._kept(step), config).weights)
        at = "" if step is None else f"@{step}"
        beside, trainable = self._beside(step), Trainable(**self._trainable())
        if trainable.what == "lora":
            parameters |= with_lora(parameters, beside, config, trainable)
        ends = tuple(eos_tokens(self._json("generation_config.json"))) if WORDS in self._hashes else ()
        return Bundle(
            "run folder",
            f"{self.path}{at}",
            config,
            parameters,
            lambda: self._tokenizer(ends),
            ends,
            chat_template_of(self._json(WORDS)) if WORDS in self._hashes else None,
            roles_of(self._json(WORDS)) if WORDS in self._hashes else {},
            partial(_put_adapters, trainable, beside) if trainable.what == "adapters" else None,
            self.head.get("kind"),
        )

    def _trainable(self) -> dict[str, Any]:
        """What of its base the run trains, as its recipe says."""
        keys = self.recipe.get("trainable", {})
        return keys | ({"targets": tuple(keys["targets"])} if "targets" in keys else {})

    def _beside(self, step: int | None) -> dict[str, StoredTensor]:
        """LoRA or adapters, by their names in a GPT; of a finished run LoRA is in the weights already."""
        if self._trainable().get("what") not in ("lora", "adapters"):
            return {}
        named = self.added(step).items()
        return {name[name.index("h.") :]: value for name, value in named if "lora_" in name or "adapter_" in name}

    def _tokenizer(self, ends: tuple[int, ...]) -> Tokenizer:
        tokenizer = self.tokenizer
        if ends and isinstance(tokenizer, BPETokenizer):
            tokenizer.end_token = ends[0]
        return tokenizer

    @property
    def head(self) -> dict[str, Any]:
        """What the scores of the model's head mean; empty if it has none."""
        return self._json(HEAD) if HEAD in self._hashes else {}

    def added(self, step: int | None = None) -> Mapping[str, StoredTensor]:
        """What the model has beside a GPT's weights, by its names in the module that was trained; of a finished run
        that had LoRA it is merged, and not among them."""
        if step is None and self.is_finished:
            return dict(_sounds(self._checked(ADDED))) if ADDED in self._hashes else {}
        return self.checkpoint(self._kept(step), self.config).added

    def checkpoint(self, step: int, config: GPTConfig) -> Checkpoint:
        """What is kept after `step` updates; it is compared with the manifest now, and read when it is wanted.

        Raises DamagedFileError; reading a tensor raises NumericalError if it holds NaN or infinity."""
        path = self._checked(checkpoint_name(step))
        stored = _sounds(path)
        parts = {name: _under(f"{name}.", stored) for name in ("model", "added")}
        weights = parts["model"]
        if FROZEN in self._hashes:
            weights = _sounds(self._checked(FROZEN)) | weights
        check_shapes(weights, config, path)
        optimizer = {name: tensor for name, tensor in stored.items() if name.startswith("optimizer.")}
        state = _parse_json(metadata_of(path)["state"].encode(), path)
        return Checkpoint(weights, optimizer, state, parts["added"])

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
            whole = content[: content.rfind(b"\n") + 1]  # a power cut may have left half a line, which is made again
            rows = [json.loads(line) for line in whole.decode().splitlines()]
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
        """Write what is needed to go on from `step`, one tensor at a time in memory. Raises NumericalError, and keeps
        nothing of it, for NaN or infinity anywhere in it."""
        frozen = read_safetensors(self.path / FROZEN) if FROZEN in self._hashes else {}
        tensors = {f"model.{name}": tensor for name, tensor in kept.weights.items() if name not in frozen}
        tensors |= {f"added.{name}": tensor for name, tensor in kept.added.items()} | dict(kept.optimizer)
        self._write_tensors(checkpoint_name(step), tensors, {"state": json.dumps(kept.state)})

    def drop_checkpoints(self, steps: Iterable[int]) -> None:
        """Take checkpoints away: from the manifest first, so that what it lists is always there."""
        names = [checkpoint_name(step) for step in steps]
        if not names:
            return
        self._list({name: digest for name, digest in self._hashes.items() if name not in names})
        for name in names:
            remove(self.path / name)

    def save_model(self, weights: Mapping[str, StoredTensor], added: Mapping[str, StoredTensor] = {}) -> None:
        """Write the finished model, and list the metrics, which change no more: from now on the run is complete."""
        config = self.config
        if added:
            self._write_tensors(ADDED, added, {"format": "pt"})
        metrics = hashlib.sha256((self.path / METRICS).read_bytes()).hexdigest()
        tensors = hf_stored(weights, config, model_type_of(config))
        self._write_tensors(MODEL, tensors, {"format": "pt"}, {METRICS: metrics})

    def save_yardsticks(self, bits_per_byte: dict[str, float]) -> None:
        self._write({YARDSTICKS: _json(bits_per_byte)})

    def open_metrics(self, length: int) -> Metrics:
        """The metrics, cut to the first `length` bytes: what came after is of steps that will be made again.

        Raises DamagedFileError if there are fewer."""
        return Metrics(self.path, length)

    def remove_leftovers(self) -> None:
        """What a crash has left half-way: files that are not whole, and checkpoints that the manifest doesn't list."""
        folder = self.path / CHECKPOINTS
        unlisted = [
            path for path in folder.glob("step-*.safetensors") if f"{CHECKPOINTS}/{path.name}" not in self._hashes
        ]
        for path in (*unlisted, *folder.glob(f".*{PARTIAL}"), *self.path.glob(f".*{PARTIAL}")):
            remove(path)

    def _write(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            write_atomically(self.path / name, content)
        self._list(self._hashes | {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})

    def _write_tensors(
        self, name: str, tensors: Mapping[str, StoredTensor], about: dict[str, str], others: Mapping[str, str] = {}
    ) -> None:
        with replacing(self.path / name) as file:
            write_safetensors(file, tensors, about)
        self._list({**self._hashes, **others, name: file.sha256})

    def _list(self, hashes: dict[str, str]) -> None:
        """Make the manifest say so; it is what counts, so it is written last."""
        write_atomically(self.path / MANIFEST, _json(_manifest(hashes)))
        self._hashes = hashes

    def _read(self, name: str) -> bytes:
        path = self.path / name
        with _restorable(path):
            content = path.read_bytes()
        self._check(name, len(content), hashlib.sha256(content).hexdigest())
        return content

    def _checked(self, name: str) -> Path:
        """A file that is read piece by piece, once all of it is known to be what was saved."""
        path = self.path / name
        with _restorable(path), path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._check(name, file.tell(), digest)
        return path

    def _check(self, name: str, size: int, digest: str) -> None:
        path = self.path / name
        if name not in self._hashes:
            raise DamagedFileError(
                f"{path} is not listed in {MANIFEST}: the run was damaged, or stopped before saving it"
            )
        if digest != self._hashes[name]:
            raise DamagedFileError(
                f"{path} is not what was saved ({size} bytes, whose SHA-256 differs from {MANIFEST}): "
                "it was truncated, damaged or edited; restore it from a copy, or train again into a new folder"
            )

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


def _refuse_what_is_no_run(path: Path) -> None:
    if is_run(path):
        return
    if (file := next((part for part in path.parents if part.exists() and not part.is_dir()), None)) is not None:
        raise UsageError(f"{path} cannot be made: {file} is a file, not a folder")
    strange = path.exists() and (not path.is_dir() or any(not _is_ours(inner) for inner in path.iterdir()))
    if strange and not is_run(path):  # another process may have begun it just now
        raise UsageError(f"{path} exists and is not a run folder: choose another --out, or empty it yourself")


def _is_ours(path: Path) -> bool:
    """Whether a run that was killed before it had a manifest may have left this."""
    return path.name == LOCK or (path.name.startswith(f".{MANIFEST}.") and path.suffix == PARTIAL)


@contextmanager
def _restorable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}): restore it from a copy") from None


def _put_adapters(trainable: Trainable, tensors: Mapping[str, StoredTensor], model: GPT) -> None:
    from glassgpt.models.adaptation import adapt

    adapt(model, replace(trainable, base="float32"))
    own = {name: parameter for name, parameter in model.named_parameters() if "adapter_" in name}
    load_named(own, Reading(tensors))


def with_lora(
    parameters: Mapping[str, StoredTensor], lora: Mapping[str, StoredTensor], config: GPTConfig, trainable: Trainable
) -> dict[str, StoredTensor]:
    """The maps that have LoRA, with it in their weights when they are read: (in, out), as files hold them."""

    def read(weight: StoredTensor, module: str) -> np.ndarray:
        widths = part_widths(config, module.split(".", 2)[2])
        A, B = (lora[f"{module}.{side}"].read().astype(np.float64) for side in ("lora_A", "lora_B"))
        parts = zip(np.split(A, len(widths)), np.split(B, np.cumsum(widths)[:-1]), strict=True)
        change = np.concatenate([b @ a for a, b in parts]) * trainable.alpha / trainable.rank
        value = weight.read()
        return (value + change.T).astype(value.dtype)

    modules = [name.removesuffix(".lora_A") for name in lora if name.endswith(".lora_A")]
    whole = {f"{module}.weight": parameters[f"{module}.weight"] for module in modules}
    return {
        name: StoredTensor(weight.shape, weight.dtype, partial(read, weight, name.removesuffix(".weight")))
        for name, weight in whole.items()
    }


def _sounds(path: Path) -> dict[str, StoredTensor]:
    return {name: _sound(name, tensor, path) for name, tensor in read_safetensors(path).items()}


def _under(prefix: str, tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _sound(name: str, tensor: StoredTensor, path: Path) -> StoredTensor:
    def read() -> np.ndarray:
        value = tensor.read()
        check_numbers(name, value, str(path))
        return value

    return StoredTensor(tensor.shape, tensor.dtype, read)


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
