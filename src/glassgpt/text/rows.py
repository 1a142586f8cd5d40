"""Rows to train on after pretraining, in the formats that people have: those of TRL's documentation, as JSON Lines.

A file has a JSON object a line; a .json file may hold one list of objects instead. What a row is follows from its keys:

    {"text"}                            text             {"messages": [{"role", "content"}, ...]}  conversation
    {"prompt", "completion"}            completion       {"prompt"}                                prompt (RL)
    {"prompt", "chosen", "rejected"}    preference       {"text", "label"}, {"text", "labels"}     labelled
    {"prompt", "completions", "ranks"}  ranked answers, smallest rank best; without ranks, best first

A prompt or an answer is a text, or a list of messages. As in TRL an answer in messages may hold the prompt's again, and
a pair of such answers needs no prompt: what both begin with is it. Beyond TRL, where one of a row's prompt and answers
is in messages, the others may be texts: a text is then the message of the user, or of the assistant. Keys that no
format knows are left alone, and a row that has more than one format's keys is what its stage asks for.

Nothing wrong is passed over: every row is read, and what is wrong is told by file and line.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from glassgpt.errors import UsageError

ROLES = ("system", "developer", "user", "assistant", "tool")
LISTED = 10  # wrong rows that an error lists one by one

Message = dict[str, Any]
"""{"role": one of ROLES, "content": text}, and what else a chat template may read, such as tool_calls."""

Said = str | tuple[Message, ...]
"""A prompt or an answer: plain text, or messages."""

R = TypeVar("R", bound="Row")


class _Wrong(Exception):
    """What is wrong with a row, to be told with its place."""


@dataclass(frozen=True)
class Fields:
    """A row as its file has it: any JSON object. `place`: its file and line, for messages."""

    values: dict[str, Any]
    place: str


@dataclass(frozen=True)
class Row:
    """A row of some kind. `place`: its file and line, for messages; it is no part of what the row says."""

    kind: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]
    """The keys that a row of this kind has."""

    place: str = field(default="", compare=False, repr=False, kw_only=True)

    @classmethod
    def fits(cls, values: Mapping[str, Any]) -> bool:
        """Whether an object has the keys of this kind."""
        return all(key in values for key in cls.keys)

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        """The row that an object with these keys is."""
        raise NotImplementedError


@dataclass(frozen=True)
class PreferenceRow(Row):
    """Two answers to one prompt, the better one first. All are texts, or all are messages: each answer begins with one
    of the assistant's and ends with one, and no message that both begin with is left in them."""

    kind, keys = "preference", ("prompt", "chosen", "rejected")

    prompt: Said
    chosen: Said
    rejected: Said

    @classmethod
    def fits(cls, values: Mapping[str, Any]) -> bool:
        in_messages = isinstance(values.get("chosen"), list) and isinstance(values.get("rejected"), list)
        return "chosen" in values and "rejected" in values and (in_messages or "prompt" in values)

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        prompt, answers = _prompt_and_answers(values, ["chosen", "rejected"])
        if answers[0] == answers[1]:
            raise _Wrong("chosen and rejected are the same")
        return cls(prompt, *answers, place=place)


@dataclass(frozen=True)
class RankedRow(Row):
    """Several answers to one prompt, and their ranks: the smallest is the best, equal ones are equally good."""

    kind, keys = "ranked", ("prompt", "completions")

    prompt: Said
    completions: tuple[Said, ...]
    ranks: tuple[float, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        completions = values["completions"]
        if not isinstance(completions, list) or len(completions) < 2:
            raise _Wrong(f"completions must be a list of at least two answers, got {_short(completions)}")
        named = {f"completions[{i}]": completion for i, completion in enumerate(completions)}
        prompt, answers = _prompt_and_answers({"prompt": values["prompt"], **named}, list(named))
        ranks = _ranks(values.get("ranks"), len(completions))
        return cls(prompt, tuple(answers), ranks, place=place)


@dataclass(frozen=True)
class CompletionRow(Row):
    """A prompt and its answer: both texts, or both messages."""

    kind, keys = "completion", ("prompt", "completion")

    prompt: Said
    completion: Said

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        prompt, [completion] = _prompt_and_answers(values, ["completion"])
        return cls(prompt, completion, place=place)


@dataclass(frozen=True)
class MessagesRow(Row):
    """A conversation that the assistant ends. `tools`: what the chat template is to say of tools, if anything."""

    kind, keys = "conversation", ("messages",)

    messages: tuple[Message, ...]
    tools: tuple[Any, ...] | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        messages = _messages(values["messages"], "messages")
        _check_end(messages, "messages")
        tools = values.get("tools")
        if tools is not None and not isinstance(tools, list):
            raise _Wrong(f"tools must be a list, got {_short(tools)}")
        return cls(messages, tuple(tools) if tools else None, place=place)


@dataclass(frozen=True)
class LabelledRow(Row):
    """A text and what it is. `is_multi`: whether any number of labels may hold, none too ("labels"), not just one."""

    kind, keys = "labelled", ("text", "label")

    text: str
    labels: tuple[str | int, ...]
    is_multi: bool = False

    @classmethod
    def fits(cls, values: Mapping[str, Any]) -> bool:
        return "text" in values and ("label" in values or "labels" in values)

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        text = _text(values["text"], "text")
        if "label" in values:
            return cls(text, (_label(values["label"], "label"),), place=place)
        labels = values["labels"]
        if not isinstance(labels, list):
            raise _Wrong(f"labels must be a list of texts or whole numbers, got {_short(labels)}")
        found = tuple(_label(label, f"labels[{i}]") for i, label in enumerate(labels))
        if len(set(found)) < len(found):
            raise _Wrong(f"labels lists a label twice: {_short(labels)}")
        return cls(text, found, is_multi=True, place=place)


@dataclass(frozen=True)
class TextRow(Row):
    """A text, all of which is trained on."""

    kind, keys = "text", ("text",)

    text: str

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        return cls(_text(values["text"], "text"), place=place)


@dataclass(frozen=True)
class PromptRow(Row):
    """A prompt, which the model is to answer. `others`: the row's other keys, for what judges the answer."""

    kind, keys = "prompt", ("prompt",)

    prompt: Said
    others: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any], place: str) -> Self:
        prompt = _said(values["prompt"], "prompt")
        if isinstance(prompt, tuple) and prompt[-1]["role"] == "assistant":
            raise _Wrong("prompt ends with a message of the assistant, who is to speak next")
        others = {key: value for key, value in values.items() if key != "prompt"}
        return cls(prompt, others, place=place)


KINDS: tuple[type[Row], ...] = (  # those with more keys first: what fits several is the first of them
    PreferenceRow,
    RankedRow,
    CompletionRow,
    MessagesRow,
    LabelledRow,
    TextRow,
    PromptRow,
)


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_rows(paths: Iterable[str | Path], *wanted: type[R]) -> list[R]:
    """The rows of JSON files in their order, each of one of the kinds `wanted`.

    A row may have more keys than its kind; of several kinds that fit it is the one with the most. Raises UsageError for
    a file that is missing, a folder or without rows, and for wrong rows: it counts them and lists the first ten by file
    and line, with what was expected and what was got.
    """
    known = [kind for kind in KINDS if kind in wanted]
    return _all_of(_read(paths), lambda row: _row(row, known))


def read_fields(paths: Iterable[str | Path]) -> list[Fields]:
    """The rows of JSON files as objects with any keys, for `templated`. Raises UsageError as `read_rows` does."""
    return _all_of(_read(paths), lambda row: row)


def templated(rows: Iterable[Fields], prompt: str, completion: str) -> list[CompletionRow]:
    """Rows of any fields as prompts and completions, such as "Article: {article}\\nSummary:" and " {summary}".

    A template is text with the names of fields in braces, and {{ and }} for braces themselves; a field is a text or a
    number. Raises UsageError for a template that says more (attributes, indices, formats) or has no field in its
    completion, and for rows without such fields, by file and line.
    """
    parts = {"prompt": _parsed(prompt, "prompt"), "completion": _parsed(completion, "completion")}
    if all(name is None for _, name in parts["completion"]):
        raise UsageError(f"the completion template {completion!r} names no field: all rows would be given one answer")

    def made(row: Fields) -> CompletionRow:
        said = {key: _filled(template, row.values) for key, template in parts.items()}
        return _checked(CompletionRow.of(said, row.place))

    return _all_of(rows, made)


def hash_of(rows: Iterable[Row]) -> str:
    """The SHA-256 of the rows' content in their order, for the record of a run. Where they were read makes no
    difference."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_canonical(row).encode() + b"\n")
    return digest.hexdigest()


def _all_of(rows: Iterable[Fields | tuple[str, str]], make: Callable[[Fields], Any]) -> list[Any]:
    """What `make` makes of each row. A pair is a wrong row already: its place, and what is wrong."""
    made, wrong = [], []
    for row in rows:
        if isinstance(row, tuple):
            wrong.append(f"{row[0]}: {row[1]}")
            continue
        try:
            made.append(make(row))
        except _Wrong as error:
            wrong.append(f"{row.place}: {error}")
    if wrong:
        count = f"{len(wrong):,} of {len(wrong) + len(made):,} rows {'is' if len(wrong) == 1 else 'are'} wrong"
        more = f"\n  and {len(wrong) - LISTED:,} more" if len(wrong) > LISTED else ""
        raise UsageError(f"{count}:\n  " + "\n  ".join(wrong[:LISTED]) + more)
    return made


def _read(paths: Iterable[str | Path]) -> Iterator[Fields | tuple[str, str]]:
    """The objects in files, and (place, why) for each line that is none."""
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise UsageError("expected the name of at least one file of rows, got none")
    for path in files:
        content = _content(path).removeprefix(b"\xef\xbb\xbf")
        empty = True
        for place, value in _values(content, path):
            empty = False
            if isinstance(value, _Wrong):
                yield place, str(value)
            elif isinstance(value, dict):
                yield Fields(value, place)
            else:
                cure = ", or name a file that holds a list .json" if isinstance(value, list) else ""
                yield place, f'expected an object such as {{"text": ...}}, got {_short(value)}{cure}'
        if empty:
            raise UsageError(f"{path} is empty: expected rows, a JSON object a line")


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the .jsonl files in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}: expected JSON Lines, an object a line") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None


def _values(content: bytes, path: Path) -> Iterator[tuple[str, Any]]:
    """Each row's place and value, or what is wrong in its stead. Lines are ended by \\n alone, blank ones are none."""
    if path.suffix == ".json" and content.lstrip()[:1] == b"[":
        rows = _parsed_json(content)
        if isinstance(rows, _Wrong):
            yield str(path), rows
        else:
            yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, 1))
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield f"{path} line {number}", _parsed_json(line)


def _parsed_json(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        return _Wrong(f"not UTF-8 at byte {error.start}: save the file as UTF-8")
    except RecursionError:
        return _Wrong("nested too deeply")
    except json.JSONDecodeError as error:
        return _Wrong(f"not JSON ({error.msg} at character {error.pos + 1})")
    except ValueError as error:  # a number of thousands of digits, NaN
        return _Wrong(f"not JSON ({str(error)[:80]})")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


# --- One row ----------------------------------------------------------------------------------------------------------


def _row(row: Fields, wanted: Sequence[type[R]]) -> R:
    for kind in wanted:
        if kind.fits(row.values):
            return _checked(kind.of(row.values, row.place))
    named = " or ".join(f"{kind.kind} rows ({', '.join(kind.keys)})" for kind in wanted)
    for other in KINDS:
        if other.fits(row.values):
            own = f"a {other.kind} row ({', '.join(other.keys)})"
            raise _Wrong(f"this is {own}, and this stage takes {named}")
    raise _Wrong(f"expected {named}, got {_keys(row.values)}")


def _checked(row: R) -> R:
    """The row, if all it says are characters."""
    try:
        text = _canonical(row)
        text.encode()
    except UnicodeEncodeError as error:
        raise _Wrong(f"half a surrogate pair, {text[error.start]!r}, which is no character") from None
    except RecursionError:
        raise _Wrong("nested too deeply") from None
    return row


def _keys(values: Mapping[str, Any]) -> str:
    if not values:
        return "an object without keys"
    listed = ", ".join(_short(key) for key in list(values)[:8])
    return f"the key{'s' * (len(values) > 1)} {listed}" + (", ..." if len(values) > 8 else "")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"{name} must be a text, got {_short(value)}")
    if not value:
        raise _Wrong(f"{name} is empty")
    return value


def _label(value: Any, name: str) -> str | int:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise _Wrong(f"{name} must be a text or a whole number, got {_short(value)}")
    return value


def _ranks(ranks: Any, count: int) -> tuple[float, ...]:
    if ranks is None:
        return tuple(range(1, count + 1))
    if not isinstance(ranks, list) or any(isinstance(r, bool) or not isinstance(r, int | float) for r in ranks):
        raise _Wrong(f"ranks must be a list of numbers, the smallest for the best, got {_short(ranks)}")
    if len(ranks) != count:
        raise _Wrong(f"expected a rank for each of {count} completions, got {len(ranks)}")
    if len(set(ranks)) == 1:
        raise _Wrong(f"all ranks are {ranks[0]}, so that no completion is better than another")
    return tuple(ranks)


def _said(value: Any, name: str) -> Said:
    return _messages(value, name) if isinstance(value, list) else _text(value, name)


def _messages(value: Any, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise _Wrong(f"{name} must be a list of messages, got {_short(value)}")
    if not value:
        raise _Wrong(f"{name} is empty")
    return tuple(_message(message, f"{name}[{i}]") for i, message in enumerate(value))


def _message(value: Any, name: str) -> Message:
    if not isinstance(value, dict) or "role" not in value or not ("content" in value or value.get("tool_calls")):
        raise _Wrong(f'{name} must be a message, {{"role": ..., "content": ...}}, got {_short(value)}')
    role, content = value["role"], value.get("content")
    if role not in ROLES:
        raise _Wrong(f"the role of {name} must be one of {', '.join(ROLES)}, got {_short(role)}")
    if not isinstance(content, str) and not (content is None and value.get("tool_calls")):
        raise _Wrong(f"the content of {name} must be a text, got {_short(content)}")
    if content == "" and role in ("user", "assistant") and not value.get("tool_calls"):
        raise _Wrong(f"the content of {name}, of the {role}, is empty")
    return {**value, "content": content}


def _check_end(messages: Sequence[Message], name: str) -> None:
    if messages[-1]["role"] != "assistant":
        raise _Wrong(f"{name} must end with a message of the assistant, got one of the role {messages[-1]['role']}")


def _prompt_and_answers(values: Mapping[str, Any], names: Sequence[str]) -> tuple[Said, list[Said]]:
    """The prompt and the answers under `names`: all texts, or all messages, the prompt's in the prompt alone."""
    prompt = _said(values["prompt"], "prompt") if values.get("prompt") is not None else ()
    answers = {name: _said(values[name], name) for name in names}
    if not any(isinstance(said, tuple) and said for said in (prompt, *answers.values())):
        if isinstance(prompt, tuple):
            raise _Wrong("prompt must be a text or a list of messages, got null")
        return prompt, list(answers.values())
    before = _as_messages(prompt, "user")
    after = [_without(before, _as_messages(said, "assistant")) for said in answers.values()]
    shared = _shared(after) if len(after) > 1 else 0
    before, after = before + after[0][:shared], [messages[shared:] for messages in after]
    if not before:
        raise _Wrong("expected a prompt, or answers that begin with the same messages")
    for name, messages in zip(names, after, strict=True):
        if not messages or messages[0]["role"] != "assistant":
            got = f"one of the role {messages[0]['role']}" if messages else "the prompt alone"
            raise _Wrong(f"after the prompt {name} must begin with a message of the assistant, got {got}")
        _check_end(messages, name)
    return before, list(after)


def _as_messages(said: Said, role: str) -> tuple[Message, ...]:
    return ({"role": role, "content": said},) if isinstance(said, str) else said


def _without(prompt: tuple[Message, ...], messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """What follows the prompt's messages, where they are repeated."""
    return messages[len(prompt) :] if messages[: len(prompt)] == prompt else messages


def _shared(answers: Sequence[tuple[Message, ...]]) -> int:
    """How many messages all answers begin with; the last of each is its own."""
    most = min(len(messages) for messages in answers) - 1
    return next((i for i in range(most) if any(messages[i] != answers[0][i] for messages in answers)), max(most, 0))


def _canonical(row: Row) -> str:
    """What a row says as JSON, the same for equal rows."""
    members = {name: value for name, value in vars(row).items() if name != "place"}
    return json.dumps([row.kind, members], ensure_ascii=False, sort_keys=True)


def _short(value: Any) -> str:
    """A value as it may stand in a message."""
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):
        return "something deeply nested"
    return text if len(text) <= 60 else text[:57] + "..."


# --- Templates --------------------------------------------------------------------------------------------------------

_Parts = list[tuple[str, str | None]]  # text, and the field after it


def _parsed(template: str, name: str) -> _Parts:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"the {name} template {template!r} is wrong ({error}): write {{{{ and }}}} for braces"
        ) from None
    for _, key, form, conversion in parts:
        if key is not None and (not key or form or conversion or any(sign in key for sign in ".[]{")):
            raise UsageError(
                f"the {name} template {template!r} may hold names of fields in braces and no more, as in {{summary}}, "
                f"got {{{key}{'!' + conversion if conversion else ''}{':' + form if form else ''}}}"
            )
    return [(text, key) for text, key, _, _ in parts]


def _filled(parts: _Parts, values: Mapping[str, Any]) -> str:
    return "".join(text + ("" if key is None else _field(values, key)) for text, key in parts)


def _field(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        raise _Wrong(f"expected the field {_short(key)} of the template, got {_keys(values)}")
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Wrong(f"the field {_short(key)} must be a text or a number, got {_short(value)}")
    return str(value)
