"""The page as one file that needs nothing else, made here instead of by the page's own "Save this view".

What stands in it is what `page/src/lib/saved.ts` says; `page/golden` holds both to the same bytes.
"""

from __future__ import annotations

import base64
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt import __version__
from glassgpt.chain.information import EmpiricalChain
from glassgpt.chain.markov import MarkovChain
from glassgpt.errors import TooLargeError, UsageError
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.serving.models import MAX_STATES, Served
from glassgpt.serving.sources import Source, source_of_run
from glassgpt.serving.static import PAGES
from glassgpt.weights.run import Run

MOST_NUMBERS = 500_000  # in the tables of all steps, as in the page's own files
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
LANGUAGES = {"en": "en", "zh": "zh-Hans"}
PARTS = ("saved.js", "saved.css")
MOST_SHORT = 64  # contexts that are not full yet, above which the page does without


@dataclass(frozen=True)
class Tables:
    """A model as a saved page has it: what /info says of it, and the chain after each of its kept steps, or (None) as
    it is. `counts`: how often each token followed each full context in what it was trained on."""

    about: Mapping[str, Any]
    chains: Mapping[int | None, MarkovChain]
    counts: np.ndarray | None = None


def tables_of_chain(chain: MarkovChain, tokenizer: Tokenizer | None = None, title: str = "chain") -> Tables:
    """Raises TooLargeError for a chain of more states than the page lists."""

    def read(*_: Any) -> LanguageModel:
        raise UsageError("there is only the chain of this model")

    source = Source("", title, chain.vocab_size, chain.context_length, read, lambda: tokenizer)
    return Tables(_about(source), {None: chain})


def tables_of_run(run: Run) -> Tables:
    """A run at its kept steps, or at some of them, where all would be too much. Raises as `tables_of_chain`."""
    about = _about(source_of_run(run))
    V, T = about["vocab_size"], about["context_length"]
    has_few = sum(V**length for length in range(1, T)) <= MOST_SHORT
    most = max(1, MOST_NUMBERS // (about["n_states"] * V))
    places = np.linspace(len(run.steps) - 1, 0, min(len(run.steps), most)).round().astype(int)  # the last, if one
    steps = [run.steps[i] for i in sorted(places)]
    chains = {step: MarkovChain.from_model(run.model(step), every_length=has_few) for step in steps or [None]}
    counts = None
    if about["sequence"] is not None:
        counts = EmpiricalChain.of_text(run.tokenizer.encode(about["sequence"]), V, T).counts.astype(np.int32)
    return Tables(about | {"steps": steps}, chains, counts)


def _about(source: Source) -> dict[str, Any]:
    served = Served("model", source)
    served.worker.close()
    about = served.about() | {"state": "ready", "message": ""}
    if about["n_states"] is None or about["n_states"] * source.vocab_size > MOST_NUMBERS:
        raise TooLargeError(
            f"{source.vocab_size:,}^{source.context_length:,} states are more than the page's file holds "
            f"({MAX_STATES:,} states, {MOST_NUMBERS:,} transitions): look at the model with `glassgpt serve REF`"
        )
    return about


def saved_page(tables: Tables, *, red: Sequence[int] = (), language: str = "en", date: str | None = None) -> str:
    """A whole page, live, without a server: the chain, its red states, and the lessons.

    `red`: numbers of full contexts. `language`: "en" or "zh". `date`: told at the foot, today's if
    none is given. Raises UsageError for another language, and where the page isn't built.
    """
    if language not in LANGUAGES:
        raise UsageError(f"the page speaks {' and '.join(LANGUAGES)}, not {language!r}")
    folder = next((folder for folder in PAGES if all((folder / part).is_file() for part in PARTS)), None)
    if folder is None:
        raise UsageError("the page isn't built here: run npm ci and npm run build in page/ (a wheel brings it along)")
    script, style = ((folder / part).read_text(encoding="utf-8") for part in PARTS)
    content = content_of(tables, red, language, date or datetime.date.today().isoformat())
    return live_page(f"{tables.about['title']} · GlassGPT", language, style, script, content)


def content_of(tables: Tables, red: Sequence[int], language: str, date: str) -> dict[str, Any]:
    """What the page has in place of a server: `Saved` of saved.ts."""
    name, last = tables.about["id"], list(tables.chains)[-1]
    shown = f"m={name}" + ("" if last is None else f"@{last}")
    marked = f"&red={'.'.join(map(str, red))}." if red else ""
    return {
        "info": {
            "version": __version__,
            "models": [dict(tables.about)],
            "limits": {"max_states": MAX_STATES, "max_trace_tokens": 0, "max_new_tokens": 0},
        },
        "hash": f"#/chain?{shown}{marked}",
        "language": language,
        "mode": "system",
        "date": date,
        "text": "",
        "chains": [
            {"id": name, "step": step, "logits": as_base64(chain.full.logprobs, "<f4")}
            for step, chain in tables.chains.items()
        ],
        "counts": [] if tables.counts is None else [{"id": name, "counts": as_base64(tables.counts, "<i4")}],
        "replies": [
            {"id": name, "step": last, "ids": list(context), "logits": as_base64(logprobs, "<f4")}
            for context, logprobs in _short(tables.chains[last])
        ],
    }


def _short(chain: MarkovChain) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """The contexts that are not full yet, if they are states, and what follows them."""
    return [(chain.context(state), chain.row(state)) for state in range(chain.offset(chain.context_length))]


def as_base64(numbers: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, dtype=dtype).tobytes()).decode()


# ---- markup ----------------------------------------------------------------------------------------------------------


def live_page(title: str, language: str, style: str, script: str, saved: Mapping[str, Any]) -> str:
    """`livePage` of saved.ts."""
    name = escaped(title)
    data = json.dumps(saved, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    # What would end a script, or begin a comment in it, can only be inside its texts.
    program = re.sub(r"<(?=/script|script|!--)", r"\\x3C", script, flags=re.IGNORECASE)
    rules = style.replace("</", "<\\/")
    return f"""<!doctype html>
<html lang="{LANGUAGES[language]}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{name}</title>
<style>{rules}</style>
</head>
<body>
<div id="page"></div>
<noscript>GlassGPT: {name}. This page needs JavaScript, and nothing else.</noscript>
<script type="text/plain" id="saved">{data}</script>
<script>{program}</script>
</body>
</html>
"""


def framed(page: str, height: int) -> str:
    """A page as an element of another one: of a fixed height, shut off from what is around it.

    Its addresses are of itself: otherwise those after "#" would be taken for the page around it.
    """
    inner = page.replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
    style = f"width:100%;height:{height}px;border:1px solid #c5ccd3"
    rights = 'title="GlassGPT" sandbox="allow-scripts allow-downloads"'
    return f'<iframe {rights} style="{style}" srcdoc="{escaped(inner)}"></iframe>'


def escaped(text: str) -> str:
    return re.sub(r'[&<>"]', lambda sign: f"&#{ord(sign[0])};", text)
