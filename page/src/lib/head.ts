/** What one head of attention does, step by step, after src/glassgpt/models/trace.py and figures/head.py. */

import { spellPart, type Part } from "./ablation.ts";
import { percent } from "./numbers.ts";
import { floats, FormatError, type Tensors } from "./safetensors.ts";

/** A head over a text of T tokens, D wide: rows of tokens, as the server sends them. */
export interface Head {
  T: number;
  D: number;
  queries: Float32Array;
  keys: Float32Array;
  values: Float32Array;
  /** Query times key / √D, before anything lies on them: T × T. */
  scores: Float32Array;
  weights: Float32Array;
  mix: Float32Array;
  /** What the head adds to the stream: T × the model's width. */
  written: Float32Array;
  /** What each token of distance takes from the scores (ALiBi); 0 for nothing. */
  slope: number;
  /** The greatest number of queries and keys, and of values and their mix: where their colours end. */
  topOfKeys: number;
  topOfValues: number;
}

export const nameOfHead = (part: Part): string => `head:${spellPart(part)}`;

/** The head in an answer of the server, or an error that says what is wrong with it. */
export function readHead(file: Tensors, part: Part): Head {
  const name = nameOfHead(part);
  const named = (step: string): Float32Array => floats(file, `${name}:${step}`);
  const [queries, keys, values, scores, weights, mix] = ["queries", "keys", "values", "scores", "weights", "mix"].map(named);
  const [T, D] = file.tensors[`${name}:queries`].shape;
  if ([keys, values, mix].some(({ length }) => length !== T * D) || [scores, weights].some(({ length }) => length !== T * T)) {
    throw new FormatError(`the steps of ${name} don't fit ${T} queries of ${D} numbers`);
  }
  const slope = `${name}:slope` in file.tensors ? named("slope")[0] : 0;
  return { T, D, queries, keys, values, scores, weights, mix, written: named("written"), slope, topOfKeys: top(queries, keys), topOfValues: top(values, mix) };
}

function top(...arrays: Float32Array[]): number {
  let found = 0;
  for (const array of arrays) for (const value of array) found = Math.max(found, Math.abs(value));
  return found || 1;
}

/** A token that is looked at from another: what softmax is taken of, and what comes of it. */
export interface Seen {
  place: number;
  key: Float32Array;
  score: number;
  weight: number;
  value: Float32Array;
}

export interface Steps {
  at: number;
  query: Float32Array;
  seen: Seen[];
  /** How many tokens lie ahead, which the mask leaves out. */
  ahead: number;
  mix: Float32Array;
  /** The length of what the head adds to the stream. */
  length: number;
}

/** What happens at one token. */
export function stepsAt(head: Head, at: number): Steps {
  const { T, D, slope } = head;
  const row = (array: Float32Array, place: number, width = D): Float32Array => array.subarray(place * width, (place + 1) * width);
  const seen = Array.from({ length: at + 1 }, (_, place) => ({
    place,
    key: row(head.keys, place),
    score: head.scores[at * T + place] - slope * (at - place),
    weight: head.weights[at * T + place],
    value: row(head.values, place),
  }));
  const written = row(head.written, at, head.written.length / T);
  return { at, query: row(head.queries, at), seen, ahead: T - 1 - at, mix: row(head.mix, at), length: Math.hypot(...written) };
}

/** The rows of matrices in one: what is drawn as one picture. */
export function stacked(rows: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(rows.reduce((n, row) => n + row.length, 0));
  let at = 0;
  for (const row of rows) {
    all.set(row, at);
    at += row.length;
  }
  return all;
}

/** "−0.12": with as few digits as numbers up to `top` need. */
export function decimal(value: number, top = 1): string {
  const text = value.toFixed(top < 10 ? 2 : top < 100 ? 1 : 0);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Softmax over what: the formula with this head's own numbers. */
export function formulaOf({ D, slope }: Head, distance: string): string {
  return `softmax(q·k / √${D}${slope > 0 ? ` − ${Number(slope.toPrecision(3))} · ${distance}` : ""}) v`;
}

/** The first number of the mix as the sum that it is, of the `most` tokens with the greatest weights. */
export function sumOf({ seen, mix }: Steps, most: number): string {
  const chosen = [...seen].sort((a, b) => b.weight - a.weight || a.place - b.place).slice(0, most);
  if (chosen.length === seen.length) chosen.sort((a, b) => a.place - b.place);
  const parts = chosen.map(({ weight, value }) => `${percent(weight)} × ${decimal(value[0])}`);
  return `${[...parts, ...(chosen.length < seen.length ? ["…"] : [])].join(" + ")} = ${decimal(mix[0])}`;
}

/** Everything as rows: of the query, of every token that is seen, and of the mix; with their vectors or without. */
export function rowsOf({ at, query, seen, mix }: Steps, names: readonly string[], hasVectors: boolean): (string | number)[][] {
  const vector = (values?: Float32Array): (string | number)[] => (hasVectors ? Array.from(query, (_, i) => values?.[i] ?? "") : []);
  const columns = (letter: string): string[] => (hasVectors ? Array.from(query, (_, i) => `${letter}${i}`) : []);
  return [
    ["step", "position", "token", ...columns("k"), "score", "weight", ...columns("v")],
    ["query", at, names[at], ...vector(query), "", "", ...vector()],
    ...seen.map(({ place, key, score, weight, value }) => ["key, value", place, names[place], ...vector(key), score, weight, ...vector(value)]),
    ["mix", at, names[at], ...vector(), "", 1, ...vector(mix)],
  ];
}

/** Where the columns of the drawing begin, and how wide they are. */
export interface Columns {
  keys: number;
  scores: number;
  weights: number;
  values: number;
  /** Of queries, keys, values and the mix. */
  strip: number;
  /** The longest bar, behind which its number stands. */
  bar: number;
  width: number;
}

const [GAP, SCORE, NUMBER, CELL, EDGE] = [12, 46, 42, 40, 1];

/** As many pixels as there are, and no more than cells with numbers need. `names`: of the longest. */
export function columnsOf(width: number, D: number, names: number): Columns {
  const room = Math.max(width - names - SCORE - NUMBER - 3 * GAP - EDGE, 90);
  const bar = Math.round(Math.min(Math.max(room / 5, 16), 110));
  const strip = Math.floor(Math.min((room - bar) / 2, Math.max(CELL * D, 160)));
  const scores = names + strip + GAP;
  const weights = scores + SCORE + GAP;
  const values = weights + bar + NUMBER + GAP;
  return { keys: names, scores, weights, values, strip, bar, width: values + strip + EDGE };
}
