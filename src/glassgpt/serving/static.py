"""The built page out of the package's own files, read once and then answered from memory.

No path is ever made of what a client asks for.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from glassgpt.serving.refusals import Refusal

PACKAGE = Path(__file__).parents[1]
PAGES = (PACKAGE / "page", PACKAGE.parents[1] / "page" / "dist")  # in a wheel, in a checkout
INDEX = "index.html"
KINDS = {  # written down, since what `mimetypes` says depends on the machine
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}
OTHERWISE = "application/octet-stream"
HASHED = re.compile(r"/assets/.*-[A-Za-z0-9_-]{8}\.(?!html)[a-z0-9]+")  # how Vite names what never changes
FOR_EVER, ASK_AGAIN = "public, max-age=31536000, immutable", "no-cache"
NOT_BUILT = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>GlassGPT</title><meta name="viewport" content="width=device-width"></head>
<body>
<h1>GlassGPT is running</h1>
<p>The page itself is not built here. In a checkout, with Node at hand, build it and start the server again:</p>
<pre>cd page
npm ci
npm run build</pre>
<p>An installed wheel brings the page along. The interface works without it:
<a href="/api/v1/info">/api/v1/info</a>.</p>
</body>
</html>
"""


@dataclass(frozen=True)
class File:
    content: bytes
    kind: str
    cache: str

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'


class Pages:
    """The files of a built page by their paths; where there is none, one page that says how to build it."""

    def __init__(self, *folders: Path) -> None:
        """The first of `folders` that is there; by default where the page lies in a wheel or a checkout."""
        folder = next((folder for folder in folders or PAGES if (folder / INDEX).is_file()), None)
        self.files = {} if folder is None else files_in(folder)
        self.files["/"] = self.files.get(f"/{INDEX}", File(NOT_BUILT, KINDS[".html"], ASK_AGAIN))

    async def answer(self, request: Request) -> Response:
        """GET or HEAD of any path. Raises Refusal where there is no such file."""
        file = self.files.get(request.scope["path"])
        if file is None:
            raise Refusal(
                "missing", f"there is no {ascii(request.scope['path'])[:80]} here", "open / or ask /api/v1/info"
            )
        headers = {"ETag": file.tag, "Cache-Control": file.cache}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.content, headers=headers | {"Content-Type": file.kind})


def files_in(folder: Path) -> dict[str, File]:
    """Every regular file below `folder`, links left out, as "/assets/index-1a2b3c4d.js" and so on."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = f"/{path.relative_to(folder).as_posix()}"
            cache = FOR_EVER if HASHED.fullmatch(name) else ASK_AGAIN
            found[name] = File(path.read_bytes(), KINDS.get(path.suffix.lower(), OTHERWISE), cache)
    return found
