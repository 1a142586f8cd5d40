"""What `glassgpt doctor` found out about this machine, kept so that `load` can choose by it.

Without a doctor's word the choices are careful ones: the compiled engine where it can be built, bfloat16 only where
the processor has matrix units for it.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from glassgpt.files import write_atomically
from glassgpt.models import native
from glassgpt.weights.hub import cache_folder


@dataclass(frozen=True)
class Machine:
    """`native`: the compiled engine can be built and gave right numbers. `fast_bfloat16`: prompts go faster in it.
    `threads`: with how many the engine's steps are fastest.

    `key` says which machine and which torch this was found out on: what was true of another is not believed.
    """

    native: bool
    fast_bfloat16: bool
    threads: int
    key: str


def key_of_this_machine() -> str:
    processor = f"{capabilities().get('cpu_name', platform.machine())} {torch.backends.cpu.get_cpu_capability()}"
    return f"{processor}, {native.default_threads()} cores, torch {torch.__version__}"


def capabilities() -> dict[str, Any]:
    """What torch knows of the processor; older ones tell nothing."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def has_matrix_units() -> bool:
    """Whether the processor multiplies bfloat16 matrices by units of their own (AMX), as far as torch tells."""
    return bool(capabilities().get("amx_bf16", False))


@cache
def machine() -> Machine:
    """This machine as the doctor found it, or as it looks from outside."""
    try:
        content = json.loads((cache_folder() / "doctor.json").read_text())
        if content["key"] == key_of_this_machine():
            threads = min(max(1, int(content["threads"])), native.default_threads())
            sound = bool(content["native"]) and native.why_not() is None
            return Machine(sound, bool(content["fast_bfloat16"]), threads, content["key"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # the doctor hasn't been here, or on another torch
    return Machine(native.why_not() is None, has_matrix_units(), native.default_threads(), key_of_this_machine())


def remember(found: Machine) -> None:
    """Keep what the doctor found for the next time."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "doctor.json", json.dumps(asdict(found), indent=2).encode())
    machine.cache_clear()
