"""`glassgpt serve [REF...]`: the page, and the interface behind it, on this machine."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glassgpt.cli.output import console
from glassgpt.cli.reference import REF_HELP
from glassgpt.errors import GlassGPTError, UsageError

if TYPE_CHECKING:
    from glassgpt.serving.sources import Source

HOST, PORT = "127.0.0.1", 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="REF", nargs="*", help=f"{REF_HELP}; without any, a baby GPT to be trained")
    parser.add_argument(
        "--port", type=int, metavar="N", help=f"the port, 0 for a free one ({PORT}, or else a free one)"
    )
    parser.add_argument("--host", default=HOST, metavar="H", help=f"where to listen ({HOST}: this machine alone)")
    parser.add_argument("--key", metavar="K", help="what clients must show; needed if other machines can reach --host")
    parser.add_argument("--no-open", action="store_true", help="don't open a browser")


def run(args: argparse.Namespace) -> int:
    if args.port is not None and not 0 <= args.port < 1 << 16:
        raise UsageError(f"--port must be from 0 to {(1 << 16) - 1}, got {args.port}")
    serve_at(args.host, args.port, args.key, sources_of(args.ref), opens=not args.no_open)
    return 0


def serve_at(host: str, port: int | None, key: str | None, sources: list[Source], *, opens: bool = True) -> None:
    """Serve until Ctrl-C, which is raised again; say where, and show it in a browser if `opens`."""
    from glassgpt.serving.guard import Doors, spelled
    from glassgpt.serving.server import serve

    doors = Doors(host, key)
    with listening(host, port) as sock:
        address = f"http://{spelled(host)}:{sock.getsockname()[1]}/"
        console(error=True).print(f"GlassGPT is at {address} (Ctrl-C stops it)")
        serve(sources, doors, sock, on_start=lambda: open_browser(address) if opens else None)


def sources_of(refs: Sequence[str]) -> list[Source]:
    """The models that are named, their small files looked at; the baby GPT if none is."""
    from glassgpt.serving.sources import source_of, untrained_baby

    return [source_of(ref) for ref in refs] or [untrained_baby()]


def listening(host: str, port: int | None) -> socket.socket:
    """A socket at `port`, or where none is asked for at PORT, or if that is taken at a free one."""
    for wanted in (PORT, 0) if port is None else (port,):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, wanted), family=family)
        except OSError as error:
            refused = error
    raise GlassGPTError(f"{host}:{port} can't be listened at ({refused.strerror}): give another --port or --host")


def open_browser(address: str) -> threading.Thread | None:
    """Show the page where there is a screen; a browser of the terminal would take the terminal."""
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen:
        return None
    import webbrowser

    opening = threading.Thread(target=webbrowser.open, args=(address,), daemon=True)
    opening.start()
    return opening
