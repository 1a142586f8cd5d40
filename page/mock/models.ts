/** The models that the mock serves: the baby GPT of the golden file, and three that are made up on the spot. */

import { readFileSync } from "node:fs";
import baby from "../golden/baby.json" with { type: "json" };

export interface MockModel {
  info: Record<string, unknown> & { id: string; vocab_size: number; context_length: number; steps: number[] };
  pieces: (id: number) => string;
  tokenize: (text: string) => number[];
  logits: (ids: number[], step: number | null) => number[];
}

const MAX_STATES = 65536;

function about(id: string, title: string, vocabSize: number, contextLength: number, more: Record<string, unknown> = {}) {
  const nStates = vocabSize ** contextLength;
  return {
    id,
    ref: id,
    title,
    kind: "model",
    vocab_size: vocabSize,
    context_length: contextLength,
    n_layer: null,
    n_head: null,
    n_embd: null,
    n_parameters: null,
    n_states: nStates <= MAX_STATES ? nStates : null,
    steps: [] as number[],
    sequence: null,
    symbols: null,
    state: "ready",
    message: "",
    ...more,
  };
}

const tables = baby.tables as Record<string, number[][][]>;

export function theBaby(id: string, title: string, steps: number[]): MockModel {
  const { n_layer, n_head, n_embd, n_parameters, sequence } = baby;
  const sizes = { n_layer, n_head, n_embd, n_parameters, sequence, symbols: ["0", "1"] };
  return {
    info: about(id, title, 2, 3, { ...sizes, steps, kind: steps.length > 0 ? "run" : "model" }),
    pieces: String,
    tokenize: (text) => [...text].map(Number),
    logits: (ids, step) => {
      const context = ids.slice(-3);
      const number = context.reduce((sum, token) => 2 * sum + token, 0);
      return tables[context.length][step ?? steps.at(-1) ?? 0][number];
    },
  };
}

/** A number in [0, 1) that looks random, from a list of integers. */
function hashed(...parts: number[]): number {
  let hash = 2166136261;
  for (const part of parts) hash = Math.imul(hash ^ (part + 0x9e37), 16777619) ^ (hash >>> 13);
  return ((hash >>> 0) % 65521) / 65521;
}

/** Two tokens, a context of twelve: 4096 states, each token leaning on some of those before it. */
export const twelve: MockModel = {
  info: about("twelve", "two tokens, a context of twelve", 2, 12, { symbols: ["0", "1"], sequence: "110100110010110".repeat(8) }),
  pieces: String,
  tokenize: (text) => [...text].map(Number),
  logits: (ids) => {
    const lean = ids.slice(-12).reverse().reduce((sum, token, back) => sum + (token - 0.5) * 3 * Math.cos(2.1 * back) * 0.75 ** back, 0);
    return [0, lean + 1.5 * (hashed(...ids.slice(-5)) - 0.5)];
  },
};

const text = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
const letters = [...new Set(text)].sort();

/** Letters that follow the last three as they do in this project's README. */
export const writer: MockModel = {
  info: about("writer", "letters of the README", letters.length, 8, { symbols: letters, n_parameters: 0 }),
  pieces: (id) => letters[id],
  tokenize: (text) => [...text].map((letter) => letters.indexOf(letter)).filter((id) => id >= 0),
  logits: (ids) => {
    const counts = new Float64Array(letters.length).fill(0.01);
    for (const [length, weight] of [[0, 0.001], [1, 0.05], [2, 1], [3, 20]]) {
      const searched = length === 0 ? "" : ids.slice(-length).map((id) => letters[id]).join("");
      for (let at = text.indexOf(searched); at >= 0 && at + length < text.length; at = text.indexOf(searched, at + 1)) {
        counts[letters.indexOf(text[at + length])] += weight;
      }
    }
    return [...counts].map(Math.log);
  },
};

/** As many tokens as SmolLM2 has, with nothing to say. */
export const wide: MockModel = {
  info: about("wide", "49,152 tokens", 49152, 2048, { n_parameters: 135_000_000 }),
  pieces: (id) => ` word${id}`,
  tokenize: (text) => text.split(/(?= )/).filter(Boolean).map((word) => Math.floor(hashed(...[...word].map((c) => c.codePointAt(0)!)) * 49152)),
  logits: (ids) => Array.from({ length: 49152 }, (_, id) => 9 * hashed(id, ids.at(-1) ?? 0) ** 4 - Math.log(id + 1) / 2),
};
