/**
 * A view as one file that needs nothing else: no server, no network, no other file.
 *
 * A "live" page carries the page's own program and what it had from the server, as text; where the program finds such
 * text in its document, it asks that instead of a server. A "still" page carries the picture alone, and no program. In
 * both a content security policy forbids every request.
 */

import type { ChainReply, Info, ModelInfo } from "./api.ts";
import type { ModelRef } from "./route.ts";
import type { Language } from "./strings.ts";

export const DATA_ID = "saved";

/** What a live page has in place of a server. Tables are 32-bit numbers, little-endian, as base64. */
export interface Saved {
  info: Info;
  hash: string;
  language: Language;
  mode: "light" | "dark" | "system";
  /** When it was saved: 2025-11-28. */
  date: string;
  chains: (ModelRef & { logits: string })[];
  counts: { id: string; counts: string }[];
  /** The text that the lessons count, if a reader gave one. */
  text: string;
  /** What the lessons had from the server, by what was asked. */
  lessons: Record<string, string>;
  /** Logits after contexts that are not full yet. */
  replies: (ModelRef & { ids: number[]; logits: string })[];
}

export interface Known {
  models: ModelInfo[];
  chains: { ref: ModelRef; chain: ChainReply }[];
  replies: { ref: ModelRef; ids: number[]; logits: Float32Array }[];
}

/** What is known of some models; each with those of its steps whose tables are there. */
export function packed(known: Known, about: Pick<Saved, "hash" | "language" | "mode" | "date" | "text" | "lessons"> & { info: Info }): Saved {
  const stepsOf = (id: string): number[] =>
    [...new Set(known.chains.flatMap(({ ref }) => (ref.id === id && ref.step !== null ? [ref.step] : [])))].sort((a, b) => a - b);
  const counted = new Map(known.chains.flatMap(({ ref, chain }) => (chain.counts ? [[ref.id, chain.counts] as const] : [])));
  return {
    ...about,
    info: { ...about.info, models: known.models.map((model) => ({ ...model, steps: stepsOf(model.id), state: "ready", message: "" })) },
    chains: known.chains.map(({ ref, chain }) => ({ ...ref, logits: toBase64(chain.logits) })),
    counts: [...counted].map(([id, counts]) => ({ id, counts: toBase64(counts) })),
    replies: known.replies.map(({ ref, ids, logits }) => ({ ...ref, ids, logits: toBase64(logits) })),
  };
}

/** What a document carries, or null if it is the page of a server. */
export function savedIn(page: Pick<Document, "getElementById"> | undefined): Saved | null {
  const text = page?.getElementById(DATA_ID)?.textContent;
  return text ? (JSON.parse(text) as Saved) : null;
}

const POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:";

interface Page {
  title: string;
  language: Language;
  style: string;
}

export function livePage({ title, language, style, script, saved }: Page & { script: string; saved: Saved }): string {
  return `${head({ title, language, style }, POLICY)}
<div id="page"></div>
<noscript>GlassGPT: ${escaped(title)}. This page needs JavaScript, and nothing else.</noscript>
<script type="text/plain" id="${DATA_ID}">${asJson(saved)}</script>
<script>${asScript(script)}</script>
</body>
</html>
`;
}

/** `body` is markup that the browser itself wrote of what it showed. */
export function stillPage({ title, language, style, body, theme }: Page & { body: string; theme: "light" | "dark" }): string {
  return `${head({ title, language, style }, POLICY.replace("script-src 'unsafe-inline'; ", ""), theme)}
${body}
</body>
</html>
`;
}

function head({ title, language, style }: Page, policy: string, theme = ""): string {
  return `<!doctype html>
<html lang="${language === "zh" ? "zh-Hans" : "en"}"${theme && ` data-theme="${theme}"`}>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escaped(title)}</title>
<style>${style.replaceAll("</", "<\\/")}</style>
</head>
<body>`;
}

/** JSON in which no markup can begin. */
const asJson = (saved: Saved): string => JSON.stringify(saved).replaceAll("<", "\\u003c");

/** A program between script tags: what would end them, or begin a comment, can only be inside its texts. */
const asScript = (program: string): string => program.replace(/<(?=\/script|script|!--)/gi, "\\x3C");

export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
}

// ---- numbers as text ---------------------------------------------------------------------------------------------

export function toBase64(numbers: Float32Array | Int32Array | Uint8Array): string {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  let text = "";
  for (let first = 0; first < bytes.length; first += 0x8000) text += String.fromCharCode(...bytes.subarray(first, first + 0x8000));
  return btoa(text);
}

export function bytesOf(base64: string): ArrayBuffer {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer;
}
