"""Texts that would be more than text if they could: as prompts, as tokens, as names of models, in the address."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from tests.page.browsing import expect, running, soon

import glassgpt
from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.serving.sources import Source, source_of

pytestmark = pytest.mark.slow
FAR = "http://192.0.2.7/"  # an address that nobody has (RFC 5737)
HOSTILE = [
    "<script>hacked = 1</script>",
    "</script><script>hacked = 1</script>",
    "<ScRiPt src=//192.0.2.7/x.js></sCrIpT>",
    f"<img src={FAR}x.png onerror=hacked=1>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>hacked=1</script></svg>",
    "</text></svg><img src=x onerror=hacked=1>",
    "<svg><foreignObject><iframe src=javascript:alert(1)></iframe></foreignObject></svg>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    f"<iframe src={FAR}></iframe>",
    f"<object data={FAR}></object><embed src={FAR}>",
    f"<video src={FAR} autoplay></video>",
    f"<link rel=stylesheet href={FAR}x.css>",
    f"<style>@import '{FAR}x.css'; * {{ display: none }}</style>",
    f"<base href={FAR}>",
    f"<meta http-equiv=refresh content='0;url={FAR}'>",
    f"<form action={FAR}><button id=hostile>",
    "<b id=hostile>bold</b>",
    "<a href=javascript:alert(1) id=hostile>here</a>",
    "<details open ontoggle=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<math><mi xlink:href=javascript:alert(1)>x</mi></math>",
    "<template id=hostile><p>x</template>",
    "<!--",
    "-->",
    "<![CDATA[",
    "&lt;b&gt;&amp;&#60;&NewLine;&notanentity;",
    "javascript:alert(1)",
    "data:text/html,<script>hacked=1</script>",
    "\" onmouseover=\"alert(1)\" x=\"",
    "' autofocus onfocus='alert(1)",
    "`${hacked = 1}`",
    "{{hacked}}{{constructor.constructor('hacked = 1')()}}",
    "{@html '<b id=hostile>'}{#if true}",
    "{token} {n} {p} {state} {to}",
    "%s %d %n %00 %3Cscript%3E",
    "\\u003cscript\\u003ehacked=1\\u003c/script\\u003e",
    "'; DROP TABLE models; --",
    "$(touch /tmp/hacked) `id` | true",
    "../../../etc/passwd\x00.png",
    "__proto__",
    "constructor",
    "toString",
    "\x00",
    "\x1b[31mred\x1b[0m\x07\x08",
    "\r\n\r\nHTTP/1.1 200 OK\r\n",
    "data: {}\n\nevent: done\ndata: {}\n\n",
    "\u202egnp.exe\u202c",
    "\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "\u200b\u200c\u200d\u2060\ufeff",
    "\u2028\u2029\x85\x0b\x0c",
    "a" + "\u0301\u0316\u0489\u20dd" * 60,
    "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈👍🏽🇨🇳",
    "ﷺ﷽𒐫꧅",
    "\U000e0041\U000e0042",
    "שלום عالم नमस्ते สวัสดี",
    "\ufffe\uffff\U0010ffff",
    "\ue000\uf8ff",
    "W" * 2000,
    "\u3000\u00a0\u1680",
]  # fmt: skip
HALVES = ["\ud800", "\udc00x", "a\udbff", "\udfff\ud800"]  # of a surrogate pair, as JSON allows
TOKENS = [*HOSTILE, "\ud800", "a\udfff", ""]
READY = {"tokens": "g.bar-row", "inside": "table.lens button", "meaning": "ol.steps > li", "red": ".answer"}
TITLE = "<img src=x onerror=alert(1)>\u202e{n}"
IS_MORE_THAN_TEXT = """() => {
  const isOurs = (address) => address === 'data:,' || URL.parse(address, location)?.origin === location.origin;
  const never = 'img, iframe, object, embed, video, audio, base, meta[http-equiv], marquee, math, template';
  const found = [...document.querySelectorAll(`#hostile, ${never}, foreignObject`)];
  const active = [...document.querySelectorAll('*')].filter((element) =>
    [...element.attributes].some(({ name, value }) => name.startsWith('on') ||
      (/^(href|src|action|formaction|data|xlink:href)$/.test(name) && !isOurs(value))));
  return [...found, ...active].map((element) => element.outerHTML.slice(0, 200))
    .concat(window.hacked === undefined ? [] : ['a script ran'])
    .concat(Object.prototype.hacked === undefined ? [] : ['a prototype was changed']);
}"""
SET = """([selector, units]) => {
  const field = document.querySelector(selector);
  let text = '';
  for (let i = 0; i < units.length; i += 5000) text += String.fromCharCode(...units.slice(i, i + 5000));
  field.value = text;
  field.dispatchEvent(new Event('input', { bubbles: true }));
}"""


class Spells(Tokenizer):
    """Every token is one of TOKENS."""

    vocab_size = len(TOKENS)
    special = {}  # noqa: RUF012

    def encode(self, text):
        ids = []
        while text:
            fits = [i for i, spelled in enumerate(TOKENS) if spelled and text.startswith(spelled)]
            if not fits:
                raise UsageError(f"{text[:9]!a} is not in the vocabulary")
            ids.append(max(fits, key=lambda i: len(TOKENS[i])))
            text = text[len(TOKENS[ids[-1]]) :]
        return ids

    def token_bytes(self, token):
        return TOKENS[token].encode("utf-8", "replace")

    def text_of(self, token):
        return TOKENS[token]


def spells(context_length: int, title: str) -> Source:
    config = GPTConfig(vocab_size=len(TOKENS), context_length=context_length, n_layer=2, n_head=2, n_embd=8, bias=False)
    return Source(
        ref=f"{title}/{TITLE}",
        title=title,
        vocab_size=config.vocab_size,
        context_length=context_length,
        read=lambda step, progress: GPT(config, seed=3),
        read_tokenizer=Spells,
        config=config,
        sequence="".join(HOSTILE) if context_length == 1 else None,
    )


def visible(text: str) -> str:
    """How the page writes a token: what has no shape of its own by its number."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥"}

    def shown(character: str) -> str:
        point = ord(character)
        if character in signs:
            return signs[character]
        if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp", "Zs"):
            return f"\\x{point:02x}" if point < 256 else f"\\u{{{point:x}}}"
        return character

    return "".join(map(shown, text)) or "∅"


@pytest.fixture(scope="module")
def site(browser, base):
    """Models whose every token is hostile, of one token of context and of many; one with words."""
    words = replace(source_of(str(base)), title="base")
    with running([spells(1, TITLE), spells(24, "javascript:alert(2)"), words]) as site:
        yield site


@pytest.fixture(autouse=True)
def ids(site):
    """What the models are called in an address."""
    return [served.id for served in site.api.models.all_of_them()]


def put(page, selector, text):
    """Set a field as typing would; also to what no protocol of a test could carry."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2").tolist()
    page.evaluate(SET, [selector, units])


def is_text(page):
    found = page.evaluate(IS_MORE_THAN_TEXT)
    assert not found, found


def test_tokens_are_text_in_every_view(open_page, ids, watch):
    watch.allowed += ["status of 400"]  # words of several words are no words of this model
    assert len(TOKENS) <= 64  # so that a ring is drawn of one token of context
    page = open_page(f"#/chain?m={ids[0]}&ctx=0.1.2.3&red=1.2")
    expect(page.locator("g.node")).to_have_count(len(TOKENS))
    names = page.locator("g.node .strong").all_text_contents()
    assert names == [visible(token) for token in TOKENS]
    assert page.locator("#model option").all_text_contents()[0] == TITLE
    page.get_by_role("button", name="Draw one token").click()
    expect(page.locator(".walk .text span").nth(4)).to_be_attached()
    is_text(page)
    for overlay in ("stationary", "entropy", "red", "data"):
        page.get_by_label("On the states").select_option(overlay)
        is_text(page)
    for place in ("tokens", "inside", "meaning", "red"):
        page.goto(page.url.split("#")[0] + f"#/{place}?m={ids[0]}&ctx=0.1.2.3&red=1.2")
        expect(page.locator(READY[place]).first).to_be_visible()
        is_text(page)


def test_what_a_model_writes_is_text(open_page, ids, watch):
    watch.allowed += ["status of 400"]  # words of several words are no words of this model
    page = open_page(f"#/tokens?m={ids[1]}&ctx={'.'.join(map(str, range(20)))}&seed=5")
    page.get_by_label("How many tokens").fill("60")
    page.get_by_role("button", name="Write on").click()
    chips = page.locator("ol.chips li")
    expect(chips).to_have_count(80)
    shown = page.eval_on_selector_all("ol.chips .id", "items => items.map((item) => Number(item.textContent))")
    assert len(set(shown)) > 30  # most of them occur
    assert page.locator("ol.chips .text").all_text_contents() == [visible(TOKENS[token]) for token in shown]
    is_text(page)
    places = page.get_by_role("navigation").get_by_role("button")
    for at, ready in ((2, READY["inside"]), (3, READY["meaning"]), (4, "text=Commodore 64"), (0, "text=Commodore 64")):
        places.nth(at).click()
        expect(page.locator(ready).first).to_be_visible()
        is_text(page)


def test_fifty_prompts_are_text(open_page, base, watch):
    watch.allowed += ["status of 400"]  # half a pair is refused
    page, tokenizer = open_page("#/tokens?m=base"), glassgpt.load(str(base))[1]
    assert len(HOSTILE) >= 50
    expect(page.locator("#prompt")).to_be_visible()
    for text in HOSTILE:
        put(page, "#prompt", text)
        typed = text.replace("\r\n", "\n").replace("\r", "\n")  # as a field has it
        wanted = tokenizer.encode(typed)[-300:]

        def check(wanted=wanted):
            script = "items => items.map((item) => Number(item.textContent))"
            assert page.eval_on_selector_all("ol.chips .id", script) == wanted

        soon(page, check)
        assert page.locator("#prompt").input_value() == typed
        is_text(page)
    for text in HALVES:
        put(page, "#prompt", "begin anew")
        expect(page.get_by_role("alert")).to_have_count(0)
        put(page, "#prompt", text)
        expect(page.get_by_role("alert")).to_contain_text("half a surrogate pair")
        is_text(page)
    put(page, "#prompt", "Mira has")
    expect(page.locator("ol.chips .id")).to_have_text([str(token) for token in tokenizer.encode("Mira has")])


def test_a_hundred_thousand_characters_leave_the_page_alive(open_page, base):
    page, tokenizer = open_page("#/tokens?m=base"), glassgpt.load(str(base))[1]
    expect(page.locator("#prompt")).to_be_visible()
    put(page, "#prompt", "<b id=hostile>" * 7_143)
    expect(page.locator("ol.chips")).to_have_attribute("aria-label", "Tokens (4000)")  # the end of it is kept
    expect(page.locator("g.bar-row").first).to_be_visible()
    is_text(page)
    put(page, "#prompt", "Mira has")
    expect(page.locator("ol.chips .id")).to_have_text([str(token) for token in tokenizer.encode("Mira has")])


def test_other_fields_take_anything(open_page, ids, watch):
    watch.allowed += ["status of 400"]
    page = open_page("#/meaning?m=base&ctx=101.262")
    expect(page.locator("ol.steps > li").first).to_be_visible()
    for text in (HOSTILE[3], HOSTILE[33], HOSTILE[48], HALVES[0]):
        put(page, "#words", text)
        put(page, "#search", text)
        for field in page.locator("main input[type=text]:not(#search)").all():
            field.fill(HOSTILE[18])
        page.wait_for_load_state("networkidle")
        is_text(page)
    page.goto(page.url.split("#")[0] + f"#/chain?m={ids[0]}")
    page.locator("summary", has_text="Settings").click()
    letters = "<img src=x onerror=alert(1)>{{n}}\u202e👩\u200d<b id=hostile>"
    for label, value in (("tokens V", "40"), ("context k", "1"), ("steps", "2"), ("sequence", letters)):
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("output")).to_contain_text("step 2 of 2")
    expect(page.get_by_role("button", name="Train", exact=True)).to_be_enabled()
    expect(page.locator("#model option", has_text="trained on <img src=x")).to_have_count(1)
    is_text(page)


def test_addresses_are_text(open_page, watch):
    """Whatever stands after "#" is read, or left at what is usual."""
    watch.allowed += ["/events?after="]  # of a model that isn't served it is asked whether it is in training
    page = open_page()
    expect(page.locator("main h1")).to_be_visible()
    parts = [f"#/chain?m={quote(text, safe='')}" for text in (*HOSTILE, TITLE) if text.isprintable()]
    parts += [f"#/{quote(text, safe='')}" for text in HOSTILE[:8]]
    parts += [
        "#/chain?m=%E0%A4%A&ctx=%",
        "#/chain?ctx=" + "1" * 100_000,
        "#/chain?red=999999999",
        "#/chain?T=1e999&k=-1&p=nan&seed=1e99&n=1e9&L=1e9&H=-5&at=99",
        "#/chain?T=0.0001&k=1&p=1e-6",
        "#/inside?L=1000&H=1000&ctx=101&off=999.mlp&steps=9999",
        "#/chain?lay=<b id=hostile>&off=<b id=hostile>",
        "#/lessons?lesson=__proto__&x.constructor=1&x.a=<b id=hostile>",
        "#/lessons?" + "&".join(f"x.{letter}=1" for letter in "abcdefghijklmnopqrstuvwxyz"),
        "#__proto__?constructor=1",
        "#javascript:alert(1)",
    ]
    for part in parts:
        page.evaluate("part => { location.hash = part; }", part)
        expect(page.locator("main h1").first).to_be_attached()
        is_text(page)
        assert not watch.wrong(), part[:100]
    page.evaluate("location.hash = '#/chain'")
    expect(page.locator("g.node").first).to_be_visible()
    assert not Path("/tmp/hacked").exists()


def test_ids_that_a_model_lacks_do_no_harm(open_page, ids, watch):
    """As in a link that was made with another model: they are left out, in the tree of contexts too, and it is said."""
    page = open_page()
    more = "from=1&tree=0.5.999.7*0.998*1.8&search=4.8.3&at=2&red=999&pat=999.5"
    for place in ("chain", "inside", "meaning", "tokens", "red"):
        for address in (f"{place}?m={ids[0]}&ctx=999.5.999", f"{place}?m={ids[0]}&ctx=7.999.5.999.6&{more}"):
            page.goto(page.url.split("#")[0] + f"#/{address}")
            expect(page.locator("main h1")).to_be_visible()
            expect(page.locator("main").get_by_role("status").first).to_contain_text("The address holds 2 tokens")
            page.wait_for_load_state("networkidle")
            assert page.get_by_role("alert").count() == 0, address
            assert not watch.wrong(), address
    page.goto(page.url.split("#")[0] + f"#/tokens?m={ids[0]}&ctx=7.999.5.999.6&{more}")
    expect(page.locator("ol.chips .id")).to_have_text(["7", "5", "6"])
    expect(page.locator("ol.chips [aria-current=true] .id")).to_have_text("7")  # of the first two one was left out
    visited = page.locator("#tree g.visited, #tree g.prompt")
    expect(visited).to_have_count(4)  # 7; 5 and 6 after it; and 8, which is a branch of 5
    page.locator("g.bar-row").first.press("Enter")
    expect(page.get_by_text("The address holds")).to_have_count(0)
    assert "999" not in page.url.split("&red=")[0]
