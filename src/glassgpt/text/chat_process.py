"""The process in which a chat template is rendered: `chat.py` starts this file, and kills it when it takes too long.

A template is a program that came with a model's weights. Jinja's sandbox keeps it from Python's objects, but nothing
inside a process keeps it from `'a' * 10**10` or from two nested loops: only another process can be stopped for sure.

JSON objects come in, one a line: the template and the limits first, answered by {"ready": true}, then the variables of
each rendering, answered by {"text": ...}, {"refused": what the template says of the messages}, or {"failed": why}.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

MEMORY_BYTES = 1 << 29


def main() -> None:
    first = json.loads(sys.stdin.buffer.readline())
    environment, template = _environment(), None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin.buffer:
        _limit(first["seconds"])
        try:
            template = template or environment.from_string(first["template"])
            answer = _answer(template, json.loads(line), first["characters"])
        except Exception as error:
            answer = {"failed": _said(error)}
        print(json.dumps(answer), flush=True)


def _answer(template: Any, variables: dict[str, Any], characters: int) -> dict[str, str]:
    try:
        parts, length = [], 0
        for part in template.generate(variables):
            parts.append(part)
            length += len(part)
            if length > characters:
                return {"failed": f"it writes more than {characters:,} characters"}
        return {"text": "".join(parts)}
    except Refusal as error:
        return {"refused": str(error)[:500]}


def _said(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more than {MEMORY_BYTES >> 20} MiB of memory"
    if isinstance(error, RecursionError):
        return "it calls itself without end"
    line = getattr(error, "lineno", None)
    return f"{type(error).__name__}: {str(error)[:300]}" + (f" (line {line})" if line else "")


class Refusal(Exception):
    """The template called raise_exception: these messages are not what it expects."""


def _refuse(message: Any) -> None:
    raise Refusal(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **more: Any) -> str:
    """JSON as it is; Jinja's own filter writes it for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **more)


def _environment() -> Any:
    """Jinja as model authors know it from transformers, but a value that is missing cannot be written as nothing."""
    import jinja2
    from jinja2 import ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Missing(jinja2.Undefined):
        def __str__(self) -> str:
            return self._fail_with_undefined_error()

    class Generation(ext.Extension):
        """{% generation %}: what the assistant says; it marks text for training, and is written as it stands."""

        tags = {"generation"}  # noqa: RUF012  Jinja's own way

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Missing, extensions=[ext.loopcontrols, Generation]
    )
    namespace, counted = environment.globals["namespace"], environment.globals["range"]
    environment.globals.clear()
    environment.globals.update(
        range=counted,
        namespace=namespace,
        dict=lambda *pairs, **members: dict(*pairs, **members),
        raise_exception=_refuse,
        strftime_now=lambda pattern: datetime.now().strftime(pattern),
    )
    environment.filters["tojson"] = _tojson
    return environment


def _limit(seconds: float) -> None:
    """Where the system can: bound memory and processor time, and open, write and start nothing more."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    processor = int(used.ru_utime + used.ru_stime + seconds) + 2
    for kind, bound in (("AS", MEMORY_BYTES), ("CPU", processor), ("FSIZE", 0), ("NPROC", 0), ("CORE", 0)):
        which = getattr(resource, f"RLIMIT_{kind}", None)
        if which is not None:
            hard = resource.getrlimit(which)[1]
            resource.setrlimit(which, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))


if __name__ == "__main__":
    main()
