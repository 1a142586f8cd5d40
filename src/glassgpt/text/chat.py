"""A conversation as token ids, in the form that a model was trained on: its own chat template.

A template is a program in Jinja's language that comes with the weights, and messages are written by anybody. Two
promises hold whatever either says:

- No text of a message becomes a special token. Before the template runs, the characters with which special tokens begin
  and end are replaced in every message by private-use characters; after it has run, the text is cut at the special
  tokens that the template itself wrote, and only then do the messages' characters come back. So neither a token's whole
  name in a message nor pieces of it that the template puts side by side can become one.
- Rendering ends. The template runs in Jinja's sandbox in a process of its own, which has 512 MiB of memory (except on
  Windows) and is killed when its time is over, loops, huge strings and all.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from glassgpt.errors import GlassGPTError, UsageError
from glassgpt.text.bpe import BPETokenizer

MAX_TEMPLATE = 1 << 18  # characters; the longest in use have some 30,000
MAX_MESSAGES = 1 << 24  # characters of all messages as JSON
MAX_RENDERED = 1 << 23  # characters
SECONDS = 5.0
BETWEEN_LOOKS = 0.05  # seconds from one look of the watchdog to the next
SECONDS_TO_START = 60.0  # a process on a very busy machine
PRIVATE_USE = range(0xF0000, 0xFFFFE)


class ChatTemplateError(GlassGPTError):
    """A chat template that cannot be rendered: wrong Jinja, a missing value, too slow, too long, or hostile."""


class ChatTemplate:
    """A chat template. `names` are the texts that it may write by name: bos_token, eos_token and the like.

    The process that renders it starts when it is first needed and stays for the next time; renderings take turns.
    """

    def __init__(self, source: str, names: Mapping[str, str] | None = None, *, seconds: float = SECONDS) -> None:
        """Raises ChatTemplateError for a template of more than MAX_TEMPLATE characters; what else is wrong with it
        comes out when it is rendered."""
        if len(source) > MAX_TEMPLATE:
            raise ChatTemplateError(
                f"the chat template has {len(source):,} characters; up to {MAX_TEMPLATE:,} are read"
            )
        self.source, self.names, self.seconds = source, dict(names or {}), seconds
        self._renderer: _Renderer | None = None
        self._turn = threading.Lock()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as one text, for a person to read. For a model use `encode`: in a text nobody can tell what
        the template wrote from what a message says."""
        return self._write(_checked(messages), add_generation_prompt, variables or {})

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: BPETokenizer,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The conversation as ids; with `add_generation_prompt` it ends where the assistant is to speak.

        `messages`: {"role": ..., "content": ...} each. `variables` are more values for the template, `tools` for
        example; they are treated as the messages are. User-defined tokens such as <think>, which the model writes
        itself, count in the content of an assistant's message, and nowhere else. Raises UsageError for messages that
        are none or that the template refuses, ChatTemplateError for a template that cannot be rendered.
        """
        messages, variables = _checked(messages), dict(variables or {})
        _json([messages, variables])  # refuses what is no JSON, and what is nested without end
        disguise = _disguise(tokenizer, _characters([messages, variables, self.source]))
        hidden = _translated(messages, disguise)
        for message, said in zip(messages, hidden, strict=True):
            if message["role"] == "assistant" and isinstance(message["content"], str):
                said["content"] = _but_for(tokenizer.user_defined, message["content"], disguise)
        text = self._write(hidden, add_generation_prompt, _translated(variables, disguise))
        undisguise = {other: sign for sign, other in disguise.items()}
        ids: list[int] = []
        for part in tokenizer.split_at_special(text):
            ids.extend([part] if isinstance(part, int) else tokenizer.encode(part.translate(undisguise)))
        return ids

    def _write(self, messages: list[dict[str, Any]], add_generation_prompt: bool, more: Mapping[str, Any]) -> str:
        defaults = {"tools": None, "documents": None, **self.names}
        variables = {**defaults, **more, "messages": messages, "add_generation_prompt": add_generation_prompt}
        request = _json(variables)
        with self._turn:
            if self._renderer is None or not self._renderer.alive:
                self._renderer = _Renderer(self.source, self.seconds)
            answer = self._renderer.ask(request)
        if "refused" in answer:
            raise UsageError(f"the chat template refuses these messages: {answer['refused']}")
        if "text" not in answer:
            raise ChatTemplateError(f"the chat template cannot be rendered: {answer.get('failed')}")
        return answer["text"]


class _Renderer:
    """The other process, that of `chat_process.py`."""

    def __init__(self, template: str, seconds: float) -> None:
        program = str(Path(__file__).with_name("chat_process.py"))
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        try:
            self.process = subprocess.Popen([sys.executable, "-P", program], stdin=pipe, stdout=pipe, stderr=nowhere)
        except OSError as error:
            raise ChatTemplateError(f"no process could be started to render the chat template: {error}") from None
        self.seconds, self.alive = seconds, True
        self._end = weakref.finalize(self, _end, self.process)
        self._watchdog = _Watchdog(self.process)
        settings = {"template": template, "seconds": seconds, "characters": MAX_RENDERED}
        if "ready" not in self._exchange(json.dumps(settings), SECONDS_TO_START):
            raise ChatTemplateError("the process that renders chat templates did not start: is jinja2 installed?")

    def ask(self, request: str) -> dict[str, Any]:
        """One rendering's answer."""
        return self._exchange(request, self.seconds)

    def _exchange(self, line: str, seconds: float) -> dict[str, Any]:
        """Send a line and return what is answered; end the process if it is late or gone."""
        self._watchdog.deadline = time.monotonic() + seconds
        try:
            assert self.process.stdin is not None and self.process.stdout is not None
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):  # a broken pipe, or an answer that is cut off
            self.alive = False
            self._end()
            why = f"it takes longer than {seconds:g} seconds" if self._watchdog.late else "its process has died"
            return {"failed": why}
        except BaseException:  # Ctrl-C: an answer still to come would be taken for the next one's
            self.alive = False
            self._end()
            raise
        finally:
            self._watchdog.deadline = None


class _Watchdog:
    """Ends a process whose answer is late. One thread for its whole life: a timer for each rendering would cost more
    than the rendering."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process, self.late = process, False
        self.deadline: float | None = None  # by time.monotonic(); None while no answer is due
        threading.Thread(target=self._watch, name="chat template's watchdog", daemon=True).start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            deadline = self.deadline
            if deadline is not None and time.monotonic() > deadline:
                self.late = True
                self.process.kill()
                return
            time.sleep(BETWEEN_LOOKS)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # of what was still to be written
                pipe.close()


def _checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, each known to say who speaks and what."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise UsageError("expected a list of messages, such as [{'role': 'user', 'content': 'Hello'}]")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise UsageError(
                f"message {number} must have a role and a content, as {{'role': 'user', 'content': 'Hello'}}"
            )
        if not isinstance(message["content"], str | list | None):
            raise UsageError(f"the content of message {number} must be text, got {type(message['content']).__name__}")
    return [dict(message) for message in messages]


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"messages and variables must be JSON values: {error}") from None
    if len(text) > MAX_MESSAGES:
        raise UsageError(f"the messages have {len(text):,} characters as JSON; up to {MAX_MESSAGES:,} are taken")
    return text


def _characters(value: Any) -> set[str]:
    """All characters of the texts in a JSON value."""
    if isinstance(value, str):
        return set(value)
    if isinstance(value, Mapping):
        return set().union(*map(_characters, value), *map(_characters, value.values()))
    return set().union(*map(_characters, value)) if isinstance(value, list | tuple) else set()


def _disguise(tokenizer: BPETokenizer, taken: set[str]) -> dict[int, int]:
    """For each character with which a special token begins or ends, a private-use one that is not `taken`."""
    names = [*tokenizer.special, *tokenizer.user_defined]
    signs = sorted({name[0] for name in names} | {name[-1] for name in names})
    if plain := [sign for sign in signs if sign.isalnum() or sign.isspace() or sign == "_"]:
        raise ChatTemplateError(
            f"a special token of this tokenizer begins or ends with {plain[0]!r}, as ordinary words do: "
            "messages cannot be kept apart from it"
        )
    free = list(islice((code for code in PRIVATE_USE if chr(code) not in taken), len(signs)))
    if len(free) < len(signs):
        raise UsageError("the messages use all of Unicode's private-use characters: leave some out")
    return {ord(sign): other for sign, other in zip(signs, free, strict=True)}


def _translated(value: Any, table: Mapping[int, int]) -> Any:
    """A JSON value with the characters of all its texts replaced, those of its keys too."""
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, Mapping):
        return {_translated(key, table): _translated(member, table) for key, member in value.items()}
    return [_translated(member, table) for member in value] if isinstance(value, list | tuple) else value


def _but_for(kept: Mapping[str, int], text: str, table: Mapping[int, int]) -> str:
    """`text` with its characters replaced, outside the names in `kept`."""
    if not kept:
        return text.translate(table)
    names = "|".join(re.escape(name) for name in sorted(kept, key=len, reverse=True))
    parts = re.split(f"({names})", text)
    return "".join(part if part in kept else part.translate(table) for part in parts)
