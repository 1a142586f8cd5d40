import { createContext, runInContext } from "node:vm";
import { describe, expect, test } from "vitest";
import golden from "../golden/saved.json";
import { ApiError, type ModelInfo } from "../src/lib/api.ts";
import { SavedApi } from "../src/lib/saved-api.ts";
import { bytesOf, DATA_ID, livePage, packed, savedIn, stillPage, toBase64, type Saved } from "../src/lib/saved.ts";

const HOSTILE = `</script><script>alert(1)</script><!-- <img src=http://x.test/a> ]]> "'&`;

const model: ModelInfo = {
  id: "baby",
  ref: "baby",
  title: HOSTILE,
  kind: "run",
  vocab_size: 2,
  context_length: 1,
  n_layer: 1,
  n_head: 1,
  n_embd: 2,
  n_parameters: 3,
  n_states: 2,
  steps: [0, 1, 2],
  sequence: "0101",
  symbols: ["0", "1"],
  state: "loading",
  message: "…",
};
const chain = { logits: Float32Array.of(0.5, -1.25, 3e-8, -Infinity), counts: Int32Array.of(0, 2, 1, 0) };
const about = {
  info: { version: "1", models: [], limits: { max_states: 9, max_trace_tokens: 9, max_new_tokens: 9 } },
  hash: "#/chain?m=baby@2",
  language: "en" as const,
  mode: "system" as const,
  date: "2025-01-02",
  text: HOSTILE,
  lessons: { "digits 0": HOSTILE },
};
const saved: Saved = packed(
  {
    models: [model],
    chains: [0, 2].map((step) => ({ ref: { id: "baby", step }, chain })),
    replies: [{ ref: { id: "baby", step: 2 }, ids: [1], logits: Float32Array.of(1, 2) }],
  },
  about,
);
const program = `globalThis.said = ["</script>", "<script>", '<!--', \`<!--\`, /<!--/.test("<!--"), 1 < 2];`;
const html = livePage({ title: HOSTILE, language: "zh", style: "p::after { content: '</style>' }", script: program, saved });

/** Everything between the tags of a kind, as an HTML parser cuts it: up to the first closing tag. */
function insides(page: string, tag: string): { attributes: string; text: string }[] {
  return [...page.matchAll(new RegExp(`<${tag}\\b([^>]*)>(.*?)</${tag}`, "gis"))].map(([, attributes, text]) => ({ attributes, text }));
}

describe("a saved page", () => {
  test("holds a model with a weight changed beside the model, at the same step", async () => {
    const change = { name: "wte.weight", at: [0, 1], value: 2.5 };
    const other = { ...chain, logits: Float32Array.of(1, 2, 3, 4) };
    const chains = [
      { ref: { id: "baby", step: 2 }, chain },
      { ref: { id: "baby", step: 2, change }, chain: other },
    ];
    const api = new SavedApi(packed({ models: [model], chains, replies: [] }, about));
    expect((await api.info()).models[0].steps).toEqual([2]);
    expect([...(await api.chain({ id: "baby", step: 2 })).logits]).toEqual([...chain.logits]);
    expect([...(await api.chain({ id: "baby", step: 2, change })).logits]).toEqual([...other.logits]);
    await expect(api.chain({ id: "baby", step: 2, change: { ...change, value: 2 } })).rejects.toThrow(ApiError);
  });

  test("answers as the server did", async () => {
    const api = new SavedApi(JSON.parse(JSON.stringify(saved)) as Saved);
    expect((await api.info()).models).toEqual([{ ...model, steps: [0, 2], state: "ready", message: "" }]);
    const found = await api.chain({ id: "baby", step: 0 });
    expect([...found.logits]).toEqual([...chain.logits]);
    expect([...found.counts!]).toEqual([...chain.counts]);
    expect([...(await api.next({ id: "baby", step: 2 }, [1]))]).toEqual([1, 2]);
  });

  test("says that it has no more, and asks nobody", async () => {
    const api = new SavedApi(saved);
    for (const asked of [api.chain({ id: "baby", step: 1 }), api.next({ id: "baby", step: 2 }, [0])]) {
      await expect(asked).rejects.toMatchObject({ type: "missing", cure: "glassgpt serve" });
    }
    await expect(api.tokenize({ id: "baby", step: 2 }, "01")).rejects.toThrow(ApiError);
  });

  test("numbers survive being written as text", () => {
    const numbers = Float32Array.from({ length: 20_000 }, (_, i) => Math.sin(i) * 10 ** (i % 60 - 30));
    expect(new Float32Array(bytesOf(toBase64(numbers.subarray(7))))).toEqual(numbers.subarray(7));
  });

  test("holds two scripts whatever stands in it, and its data are found again", () => {
    const scripts = insides(html, "script");
    expect(scripts.map(({ attributes }) => attributes.trim())).toEqual([`type="text/plain" id="${DATA_ID}"`, ""]);
    const page = { getElementById: (id: string) => (id === DATA_ID ? { textContent: scripts[0].text } : null) } as unknown as Document;
    expect(savedIn(page)).toEqual(saved);
    expect(savedIn({ getElementById: () => null })).toBeNull();
  });

  test("its program says what it said before", () => {
    const context = createContext({});
    runInContext(insides(html, "script")[1].text, context);
    expect(context.said).toEqual(["</script>", "<script>", "<!--", "<!--", true, true]);
  });

  test.each([
    ["live", html],
    ["still", stillPage({ title: HOSTILE, language: "en", style: "b { color: red }", body: "<main><b>1</b></main>", theme: "dark" })],
  ])("%s: nothing in it is loaded from anywhere", (_, page) => {
    const markup = page.replace(/(<script[^>]*>).*?(<\/script>)/gis, "$1$2");
    const tags = (markup.match(/<[a-z][^>]*>/gi) ?? []).join("\n"); // what is escaped is no tag
    for (const [, value] of tags.matchAll(/(?:src|href|action|poster|srcset)\s*=\s*"?([^"\s>]*)/gi)) expect(value).toMatch(/^data:/);
    expect(markup).not.toMatch(/url\(\s*['"]?(?:https?:)?\/\//i);
    expect(markup).not.toMatch(/@import/i);
    expect(page.indexOf("Content-Security-Policy")).toBeLessThan(page.indexOf("<style"));
    expect(page).toContain("default-src 'none'");
    expect(page).not.toMatch(/connect-src|script-src[^;"]*(?:http|\*|'self')/);
  });

  test("is what the package writes for notebooks, to the byte", () => {
    const { page, ...madeOf } = golden;
    expect(livePage(madeOf as unknown as Parameters<typeof livePage>[0])).toBe(page);
  });

  test("a still one has no script and allows none", () => {
    const still = stillPage({ title: "a", language: "en", style: "", body: "<p>1</p>", theme: "light" });
    expect(still).not.toMatch(/<script|script-src/i);
    expect(still).toContain('data-theme="light"');
  });
});
