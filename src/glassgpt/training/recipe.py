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
from typing import Any

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig

LARGEST_RATE = 1e30  # beyond it float32 can't hold an update, and no training wants it


@dataclass(frozen=True)
class RunSection:
    """`seed`: of every random number in the run."""

    seed: int = 0


@dataclass(frozen=True)
class DataSection:
    """`sequence`: the training text, one character a token. `symbols`: the vocabulary in order, one character a token;
    without it digits, then letters. A vocab_size larger than the symbols that occur is fine."""

    sequence: str
    symbols: str | None = None


@dataclass(frozen=True)
class TrainSection:
    """How the one loop runs.

    `batch_size` None takes every window at every step. `last_position_only`: the loss counts only the prediction after
    a whole context, instead of one after every prefix. `save_every`: keep a checkpoint every so many steps (the first
    and the last are always kept).
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int | None = None
    last_position_only: bool = False
    save_every: int = 100


@dataclass(frozen=True)
class Recipe:
    data: DataSection
    model: GPTConfig
    train: TrainSection
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        train = self.train
        for key, lowest in (("steps", 0), ("save_every", 1)):
            if not getattr(train, key) >= lowest:
                raise UsageError(f"train.{key} must be {lowest} or more, got {getattr(train, key)}")
        for key in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(train, key) <= LARGEST_RATE:
                raise UsageError(f"train.{key} must be between 0 and {LARGEST_RATE:g}, got {getattr(train, key)}")
        if train.batch_size is not None and train.batch_size < 1:
            raise UsageError(
                f"train.batch_size must be 1 or more, got {train.batch_size}: leave it out for all windows"
            )
        if not 0 <= self.run.seed < 2**64:
            raise UsageError(f"run.seed must be at least 0 and below 2**64, got {self.run.seed}")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The resolved recipe as nested dicts, without the keys that are left open or follow from the others."""
        sections = dataclasses.asdict(self) | {"model": self.model.choices()}
        return {
            section: {key: value for key, value in values.items() if value is not None}
            for section, values in sections.items()
        }


def read_recipe(path: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a TOML file with `key=value` overrides, each value read as its key's type: a sequence is a string.

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
    if path.exists():
        return path
    shipped = [folder / f"{path.stem}.toml" for folder in _shipped_folders() if path.suffix in ("", ".toml")]
    for candidate in shipped:
        if candidate.is_file() and path.parent in (Path(), Path("recipes")):
            return candidate
    raise UsageError(f"there is no recipe {path}: give the path of a TOML file, such as recipes/baby.toml")


def _shipped_folders() -> list[Path]:
    package = Path(__file__).parents[1]
    return [package / "recipes", package.parents[1] / "recipes"]  # in a wheel, in a checkout


def recipe_from_dict(content: dict[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    sections = typing.get_type_hints(Recipe)
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for section, keys in content.items():
        if section not in sections:
            raise UsageError(f"a recipe has no {_unknown(section, sections)}")
        if not isinstance(keys, dict):
            raise UsageError(f"{section} must be a section of the recipe, [{section}], got {keys!r}")
        for key, value in keys.items():
            values[section][key] = _checked(value, _type_of(section, key), f"{section}.{key}")
    for override in overrides:
        section, key, value = _split(override)
        values[section][key] = _parsed(value, _type_of(section, key), f"{section}.{key}")
    return Recipe(**{section: _build(cls, values[section], section) for section, cls in sections.items()})


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
    sections = typing.get_type_hints(Recipe)
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


def _plain(kind: Any) -> tuple[type, bool]:
    """The type itself and whether it may be left open: `int | None` gives (int, True); a Literal of names is a str."""
    if typing.get_origin(kind) is typing.Literal:
        return str, False
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None)), True
    return kind, False


def _checked(value: Any, kind: Any, name: str) -> Any:
    plain, _ = _plain(kind)
    if plain is float and type(value) is int:
        return float(value)
    if type(value) is not plain:
        raise UsageError(f"{name} must be of type {plain.__name__}, got {value!r}")
    return value


def _parsed(text: str, kind: Any, name: str) -> Any:
    plain, optional = _plain(kind)
    if optional and text == "":
        return None
    if plain is bool:
        if text.lower() not in ("true", "false"):
            raise UsageError(f"{name} must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return plain(text)
    except ValueError:
        raise UsageError(f"{name} must be of type {plain.__name__}, got {text!r}") from None
