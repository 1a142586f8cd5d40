"""Recipes: a whole training run as a TOML file, every key of which can be overridden on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.trainable import Trainable

VOCAB_SIZE = 2048  # what words and bpe aim at if the recipe doesn't say
LARGEST_RATE = 1e30  # beyond it float32 can't hold an update, and no training wants it


@dataclass(frozen=True)
class RunSection:
    """`seed`: of every random number in the run. `base`: the model from which a later stage begins, any REF."""

    seed: int = 0
    base: str | None = None


@dataclass(frozen=True)
class DataSection:
    """What is trained on: either `sequence`, a text in the recipe itself, or `files`.

    `sequence`: one character a token. `symbols`: its vocabulary in order, one character a token; without it digits,
    then letters. A vocab_size larger than the symbols that occur is fine.

    `files`: one or more of a file, a folder, a glob, `-` (standard input), `python-docs`, `toy-world`, `parentheses`,
    `hub:owner/dataset`. `weights`: in what proportion their bytes are mixed, `total_bytes`: until there are so many;
    left out, each is read once. `documents`: how a file becomes documents: "file" (it is one), "blank lines", "lines",
    or else the text between them. `between`: what stands between two documents of characters, which have no end of
    text. `field`: where a line of a .jsonl file or a row of a dataset has its text. `clean`: throw away copies, near
    copies and what is no prose. `split`: by position (the last part validates) or by document (by a hash of each).
    `validation`: the fraction that validates.

    `vocabulary`: bytes, characters, words or bpe, learnt here, or the REF of a model whose words to take.
    model.vocab_size is what words and bpe aim at; what is learnt decides. `mask_documents`: attention stays within a
    document. `tokens`: the folder of the prepared tokens, which runs can share; left out, RUN/tokens.

    Of a stage after pretraining `files` are .jsonl files of rows (`text.rows`) or `toy-world`, of which so many `rows`
    are made; `validation` is the fraction of rows that validates.
    """

    sequence: str | None = None
    symbols: str | None = None
    files: tuple[str, ...] | None = None
    weights: tuple[float, ...] | None = None
    total_bytes: int | None = None
    documents: str = "file"
    between: str = "\n\n"
    field: str = "text"
    clean: bool = False
    split: Literal["position", "document"] = "position"
    validation: float = 0.1
    vocabulary: str = "bpe"
    mask_documents: bool = False
    tokens: str | None = None
    rows: int = 4000

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise UsageError(f"data.rows must be 1 or more, got {self.rows}")
        if (self.sequence is None) == (self.files is None):
            given = "both" if self.files else "neither"
            raise UsageError(
                f"a recipe trains on data.files or on data.sequence, and this has {given}: give one of them, as in "
                "--set data.files=my-text.txt"
            )


@dataclass(frozen=True)
class TrainSection:
    """How the one loop runs.

    `batch_size`: the windows of a step, all processes and parts of it together, so that a recipe means the same on
    every machine; None takes all windows of a sequence. `micro_batch_size`: at most so many at once in one process, to
    save memory; the gradients of the parts are added up.

    `optimizer`: adamw (arXiv 1711.05101), or muon for the matrices of the blocks (Jordan 2024, scaled to AdamW's size
    of update as in arXiv 2502.16982) with adamw for the rest. `learning_rate` is reached after `warmup_steps` and
    follows `schedule`: constant, linear or cosine to the share `final_learning_rate` of it, or wsd, which is constant
    and falls linearly over the last fifth of the steps (arXiv 2404.06395). `weight_decay` is for matrices, with
    `decay_vectors` for norms and biases too. `grad_clip`: the largest norm of the gradient, 0 for any. `dropout`: the
    share of numbers set to 0 after the embedding, in attention, and after each half-block.

    `precision`: auto, float32 or bfloat16 (autocast; weights stay float32). `compile`: auto, yes or no. auto measures
    what pays on this machine, and the run stays with it. `shard`: spread weights over the processes (FSDP2).
    `last_position_only`: the loss counts only the prediction after a whole context, instead of one after every prefix.

    `save_every`: write a checkpoint every so many steps (the first and the last are always written). `keep`: of those,
    keep only so many newest, and the one with the best validation loss; None keeps all.
    """

    steps: int
    batch_size: int | None = None
    micro_batch_size: int | None = None
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    warmup_steps: int = 0
    final_learning_rate: float = 0.1
    beta2: float = 0.99
    weight_decay: float = 0.1
    decay_vectors: bool = False
    grad_clip: float = 1.0
    dropout: float = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "yes", "no"] = "auto"
    shard: bool = False
    last_position_only: bool = False
    save_every: int = 100
    keep: int | None = None

    def __post_init__(self) -> None:
        for key, lowest in (("steps", 0), ("warmup_steps", 0), ("save_every", 1), ("grad_clip", 0.0)):
            if not getattr(self, key) >= lowest:
                raise UsageError(f"train.{key} must be {lowest} or more, got {getattr(self, key)}")
        for key in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, key) <= LARGEST_RATE:
                raise UsageError(f"train.{key} must be between 0 and {LARGEST_RATE:g}, got {getattr(self, key)}")
        for key in ("batch_size", "micro_batch_size", "keep"):
            value = getattr(self, key)
            if value is not None and value < 1:
                cure = ": leave it out for all" if key != "micro_batch_size" else ""
                raise UsageError(f"train.{key} must be 1 or more, got {value}{cure}")
        for key in ("beta2", "dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise UsageError(f"train.{key} must be at least 0 and below 1, got {getattr(self, key)}")
        if not 0 <= self.final_learning_rate <= 1:
            raise UsageError(f"train.final_learning_rate is a share of 0 to 1, got {self.final_learning_rate}")


@dataclass(frozen=True)
class EvaluateSection:
    """`every` so many steps (None: only at the end), on the first `tokens` of the validation part (None: all of it).

    At the end it is always all of it, or the first 2 MB, on which the yardsticks are measured too. Each time the model
    goes on for `sample_tokens` from `prompt` (None: the beginning of the validation part; "": a new text), always with
    the same random numbers, so that what changes is the model. `track`: where the metrics go besides metrics.jsonl.
    """

    every: int | None = None
    tokens: int | None = 100_000
    prompt: str | None = None
    sample_tokens: int = 100
    track: Literal["none", "tensorboard", "trackio", "wandb"] = "none"

    def __post_init__(self) -> None:
        for key in ("every", "tokens"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UsageError(f"evaluate.{key} must be 1 or more, got {value}: leave it out, or give more")
        if self.sample_tokens < 0:
            raise UsageError(f"evaluate.sample_tokens must be 0 or more, got {self.sample_tokens}")


@dataclass(frozen=True)
class SftSection:
    """Supervised fine-tuning: the next token, of what the assistant says alone.

    `prompt` and `completion` make rows with fields of any names into texts, as in "Article: {article}\\nSummary:" and
    " {summary}". `replay`: the share of each step's rows that are windows, as long as the longest row, of the text that
    the base was pretrained on, so that it is not forgotten; the base must be a run that has its tokens. `answers`: how
    many rows that validate are answered, greedily, when the model is evaluated.
    """

    prompt: str | None = None
    completion: str | None = None
    replay: float = 0.0
    answers: int = 200

    def __post_init__(self) -> None:
        if (self.prompt is None) != (self.completion is None):
            raise UsageError("sft.prompt and sft.completion are templates that go together: give both or neither")
        _share(self.replay, "sft.replay")
        _at_least(self.answers, 0, "sft.answers")


@dataclass(frozen=True)
class ClassifySection:
    """A head of a score for each label, at the last token. `multi_label`: a row may have several labels, or none."""

    multi_label: bool = False


@dataclass(frozen=True)
class RewardSection:
    """A reward model: a score at the last token, trained on rankings (Bradley-Terry). `centre`: the weight of the term
    that keeps scores about 0 (arXiv 2312.09244)."""

    centre: float = 0.01

    def __post_init__(self) -> None:
        _at_least(self.centre, 0.0, "reward.centre")


@dataclass(frozen=True)
class DpoSection:
    """Preferences without a reward model (arXiv 2305.18290). `loss`: dpo, or ipo (arXiv 2310.12036). `beta`: how much
    it costs to leave the base. `label_smoothing`: the share of labels that may be wrong (dpo alone)."""

    beta: float = 0.1
    loss: Literal["dpo", "ipo"] = "dpo"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UsageError(f"dpo.beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise UsageError(f"dpo.label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")


@dataclass(frozen=True)
class PpoSection:
    """Proximal policy optimisation (arXiv 1707.06347) against a reward, with its distance from the base in it.

    A step draws train.batch_size answers of up to `max_new_tokens` at temperature 1, scores them by `reward` (the REF
    of a reward model, toy-world for the gold scorer, or toy-rater), less `missing_end` where an answer has no end,
    takes `beta` times the log-ratio to the base off at every token, and makes `epochs` passes over them in
    `minibatches` updates each. `gamma`, `lam`: of GAE (arXiv 1506.02438). `clip`: of the policy's ratio, and of the
    value. `value_weight`: of the value's loss.
    """

    reward: str
    max_new_tokens: int = 96
    beta: float = 0.05
    missing_end: float = 1.0
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_weight: float = 0.1
    epochs: int = 2
    minibatches: int = 1

    def __post_init__(self) -> None:
        for key in ("max_new_tokens", "epochs", "minibatches"):
            _at_least(getattr(self, key), 1, f"ppo.{key}")
        for key in ("beta", "missing_end", "value_weight"):
            _at_least(getattr(self, key), 0.0, f"ppo.{key}")
        for key in ("gamma", "lam", "clip"):
            _share(getattr(self, key), f"ppo.{key}")


@dataclass(frozen=True)
class GrpoSection:
    """Group-relative policy optimisation (arXiv 2402.03300): no value model, since the mean of a group is the baseline.

    A step draws train.batch_size answers, `group` to a prompt, and scores them as ppo does. An answer's advantage is
    its reward less its group's mean, with `scale` over the group's spread. `normalise` names how answers of unequal
    length weigh: "sequence" (the paper: each answer alike), "tokens" (DAPO, arXiv 2503.14476: each token alike),
    "constant" (Dr. GRPO, arXiv 2503.20783: over max_new_tokens, and without `scale`). `clip_low`, `clip_high`: of the
    ratio (DAPO's is higher above). `beta`: the weight of the k3 distance from the base in the loss.
    """

    reward: str
    group: int = 8
    max_new_tokens: int = 96
    beta: float = 0.0
    missing_end: float = 1.0
    normalise: Literal["sequence", "tokens", "constant"] = "sequence"
    scale: bool = True
    clip_low: float = 0.2
    clip_high: float = 0.2
    epochs: int = 1
    minibatches: int = 1

    def __post_init__(self) -> None:
        for key, lowest in (("group", 2), ("max_new_tokens", 1), ("epochs", 1), ("minibatches", 1)):
            _at_least(getattr(self, key), lowest, f"grpo.{key}")
        for key in ("beta", "missing_end", "clip_high"):
            _at_least(getattr(self, key), 0.0, f"grpo.{key}")
        _share(self.clip_low, "grpo.clip_low")


def _at_least(value: float, lowest: float, name: str) -> None:
    if not value >= lowest:
        raise UsageError(f"{name} must be {lowest} or more, got {value}")


def _share(value: float, name: str) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} must be from 0 to 1, got {value}")


STAGES = ("sft", "classify", "reward", "dpo", "ppo", "grpo")
REINFORCED = ("ppo", "grpo")  # the stages whose rows are what the model itself writes


@dataclass(frozen=True)
class Recipe:
    """Pretraining, or with one of the sections of STAGES a stage that begins from `run.base`. `trainable`: what of a
    base is trained."""

    data: DataSection
    model: GPTConfig
    train: TrainSection
    evaluate: EvaluateSection = field(default_factory=EvaluateSection)
    run: RunSection = field(default_factory=RunSection)
    trainable: Trainable = field(default_factory=Trainable)
    sft: SftSection | None = None
    classify: ClassifySection | None = None
    reward: RewardSection | None = None
    dpo: DpoSection | None = None
    ppo: PpoSection | None = None
    grpo: GrpoSection | None = None

    @property
    def stage(self) -> str:
        """The stage's name; "pretrain" where there is no section of one."""
        return next((name for name in STAGES if getattr(self, name) is not None), "pretrain")

    def __post_init__(self) -> None:
        _check_stage(self)
        if not 0 <= self.run.seed < 2**64:
            raise UsageError(f"run.seed must be at least 0 and below 2**64, got {self.run.seed}")
        if self.data.files is not None and self.train.batch_size is None:
            raise UsageError(
                "a recipe with data.files needs train.batch_size: how many windows of the text make a step"
            )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The resolved recipe as nested dicts, without the keys that are left open or follow from the others."""
        sections = dataclasses.asdict(self) | {"model": self.model.choices()}
        if self.stage == "pretrain":
            del sections["trainable"], sections["data"]["rows"]
        return {
            section: {key: _plain_value(value) for key, value in values.items() if value is not None}
            for section, values in sections.items()
            if values is not None
        }


def _check_stage(recipe: Recipe) -> None:
    given = [name for name in STAGES if getattr(recipe, name) is not None]
    if len(given) > 1:
        raise UsageError(f"a recipe is of one stage, and this has [{given[0]}] and [{given[1]}]: take one out")
    if given and recipe.run.base is None:
        raise UsageError(f"[{given[0]}] begins from a model: give run.base, as in --set run.base=runs/mine")
    if not given and recipe.run.base is not None:
        raise UsageError(
            f"run.base = {recipe.run.base!r}, and the recipe says no stage: add one of {', '.join(STAGES)} as a "
            'section, such as [sft]; a text of its own is learnt by [sft] from rows of {"text": ...}'
        )
    if not given and recipe.trainable != Trainable():
        raise UsageError("[trainable] is a choice of stages that begin from a base, and this is pretraining")
    if given and given[0] in (*REINFORCED, "classify", "reward") and recipe.trainable.what == "adapters":
        raise UsageError(f"adapters can't be merged, and what [{given[0]}] makes is read as plain weights: use lora")
    if given and recipe.train.shard and recipe.trainable.what in ("lora", "adapters"):
        raise UsageError("what is added to a base is small and is not spread over processes: train.shard=false")
    if given and recipe.data.files is None:
        raise UsageError(f"[{given[0]}] trains on rows: give data.files, .jsonl files or toy-world")
    if given and recipe.train.shard and given[0] in REINFORCED:
        raise UsageError(f"[{given[0]}] writes with the model that it trains, which can't be spread: train.shard=false")


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return list(value) if isinstance(value, tuple) else value


def read_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a TOML file with `key=value` overrides, each value read as its key's type: a sequence is a string.
    `key=` leaves a key out, as if the file had none, unless a string could be meant to be empty.

    Raises UsageError for a file that isn't there or isn't TOML, a key or a type that no recipe has, or a missing key.
    """
    path = find_recipe(Path(path))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return recipe_from_dict(content, overrides)


def find_recipe(path: Path) -> Path:
    """`path` itself, or the recipe of that name which comes with GlassGPT (`baby`)."""
    if path.exists() and not path.is_dir():
        return path
    shipped = [folder / f"{path.stem}.toml" for folder in _shipped_folders() if path.suffix in ("", ".toml")]
    for candidate in shipped:
        if candidate.is_file() and path.parent in (Path(), Path("recipes")):
            return candidate  # though there may be a folder of its name, such as the run of `train baby --out baby`
    if path.exists():
        return path
    raise UsageError(f"there is no recipe {path}: give the path of a TOML file, such as recipes/baby.toml")


def _shipped_folders() -> list[Path]:
    package = Path(__file__).parents[1]
    return [package / "recipes", package.parents[1] / "recipes"]  # in a wheel, in a checkout


def recipe_from_dict(content: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    sections = _sections()
    values: dict[str, dict[str, Any]] = {section: {} for section in sections if section not in STAGES}
    for section, keys in content.items():
        if section not in sections:
            raise UsageError(f"a recipe has no {_unknown(section, sections)}")
        if not isinstance(keys, dict):
            raise UsageError(f"{section} must be a section of the recipe, [{section}], got {keys!r}")
        values.setdefault(section, {})
        for key, value in keys.items():
            values[section][key] = _checked(value, _type_of(section, key), f"{section}.{key}")
    for override in overrides:
        section, key, value = _split(override)
        kind = _type_of(section, key)
        values.setdefault(section, {})
        if value == "" and kind is not str:
            values[section].pop(key, None)
        else:
            values[section][key] = _parsed(value, kind, f"{section}.{key}")
    base = values["run"].get("base")
    if base is not None and not values["model"] and any(stage in values for stage in STAGES):
        built: dict[str, Any] = {"model": _config_of(base)}
    else:
        if "files" in values["data"]:
            values["model"].setdefault("vocab_size", VOCAB_SIZE)
        built = {"model": _build(GPTConfig, values["model"], "model")}
    others = {
        section: _build(sections[section], keys, section) for section, keys in values.items() if section != "model"
    }
    return Recipe(**built, **others)


def _sections() -> dict[str, type]:
    """The sections of a recipe, each with its dataclass."""
    return {section: _plain(kind)[0] for section, kind in typing.get_type_hints(Recipe).items()}


def _config_of(base: str) -> GPTConfig:
    """The shape of the model that a stage begins from."""
    from glassgpt.loading import open_model

    return open_model(base).config


def _build(cls: type, values: dict[str, Any], section: str) -> Any:
    required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise UsageError(f"the recipe lacks {section}.{missing[0]}: add it, or give --set {section}.{missing[0]}=...")
    return cls(**values)


def _split(override: str) -> tuple[str, str, str]:
    name, equals, value = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot):
        raise UsageError(f"expected --set section.key=value, such as model.vocab_size=3; got {override!r}")
    return section, key, value


def _type_of(section: str, key: str) -> Any:
    sections = _sections()
    if section not in sections:
        raise UsageError(f"a recipe has no {_unknown(section, sections)}")
    keys = typing.get_type_hints(sections[section])
    keys = {name: keys[name] for name in (f.name for f in dataclasses.fields(sections[section]))}
    if key not in keys:
        raise UsageError(f"a recipe's [{section}] has no {_unknown(key, keys)}")
    return keys[key]


def _unknown(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"{name!r}: did you mean {close[0]!r}?" if close else f"{name!r}: it has {', '.join(known)}"


def _plain(kind: Any) -> tuple[Any, bool]:
    """The type itself and whether it may be left open: `int | None` gives (int, True); a Literal of names is a str."""
    if typing.get_origin(kind) is Literal:
        return str, False
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None)), True
    return kind, False


def _checked(value: Any, kind: Any, name: str) -> Any:
    """A value out of a TOML file as its key's type, which it must have; a list may be given as its one entry."""
    plain, _ = _plain(kind)
    if typing.get_origin(plain) is tuple:
        entry = typing.get_args(plain)[0]
        values = value if isinstance(value, list) else [value]
        if not values:
            raise UsageError(f"{name} must have at least one entry, got []")
        return tuple(_checked(one, entry, name) for one in values)
    if plain is float and type(value) is int:
        return float(value)
    if dataclasses.is_dataclass(plain) and isinstance(value, dict):
        return _build(typing.cast(type, plain), value, name)
    if type(value) is not plain:
        raise UsageError(f"{name} must be of type {plain.__name__}, got {value!r}")
    return _one_of(value, kind, name)


def _parsed(text: str, kind: Any, name: str) -> Any:
    """A value of the command line: a list is written as in TOML, or as its one entry."""
    plain, _ = _plain(kind)
    if typing.get_origin(plain) is tuple:
        if not text.startswith("["):
            return (_parsed(text, typing.get_args(plain)[0], name),)
        try:
            return _checked(tomllib.loads(f"list = {text}")["list"], kind, name)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f'{name} must be a list as in TOML, such as ["a", "b"], got {text!r}: {error}') from None
    if plain is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{name} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return _one_of(plain(text), kind, name)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name} must be of type {plain.__name__}, got {text!r}") from None


def _one_of(value: Any, kind: Any, name: str) -> Any:
    if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
        raise UsageError(f"{name} must be one of {', '.join(typing.get_args(kind))}; got {value!r}")
    return value
