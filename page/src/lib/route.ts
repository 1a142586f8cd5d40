/**
 * All that a person chose, in the part of the address after #, so that back and forward, bookmarks and links work:
 *
 *     #/chain?m=baby@50&ctx=101&T=0.8&k=5&p=0.9&seed=7
 *
 * What is as it usually is stays out of the address. Whatever cannot be read is left at its default: an address comes
 * from anywhere.
 */

import { readPart, spellPart, type Part } from "./ablation.ts";
import { readChange, spellChange, type Change } from "./change.ts";
import { PLAIN, type Sampler } from "./softmax.ts";
import { bounded, grown, isPath, MOST_BEAMS, MOST_DEPTH, MOST_NODES, readSearch, readTree, rooted, spelled, spelledSearch, type Tree } from "./tree.ts";
import type { Scale } from "./tree-layout.ts";

export const PLACES = ["chain", "tokens", "inside", "meaning", "red", "lessons"] as const;
export const OVERLAYS = ["none", "data", "stationary", "entropy", "red"] as const;
export const LAYOUTS = ["ring", "necklace", "map"] as const;
export const SHOWN = ["a", "b", "both", "difference"] as const;
export const WAYS = ["draw", "greedy", "beam"] as const;
export const SCALES = ["step", "prompt"] as const satisfies readonly Scale[];
export const LESSONS = ["letters", "temperature", "fits", "activations", "attractors", "digits", "landscape", "parentheses"] as const;

export type Place = (typeof PLACES)[number];
export type Overlay = (typeof OVERLAYS)[number];
export type Layout = (typeof LAYOUTS)[number];
export type Shown = (typeof SHOWN)[number];
export type Way = (typeof WAYS)[number];
export type Lesson = (typeof LESSONS)[number];

/** A model, and the training step at which it is looked at (null: as it is in the end). */
export interface ModelRef {
  id: string;
  step: number | null;
  /** One of its weights as it was changed by hand. */
  change?: Change;
}

export interface Route {
  place: Place;
  a: ModelRef | null;
  b: ModelRef | null;
  shown: Shown;
  /** The text so far in token ids. Its end is the context, and the context is the state. */
  ids: number[];
  /** How many of them are looked at; null for all. */
  at: number | null;
  /** The contexts that were visited since the prompt. The text is a path of it. */
  tree: Tree;
  /** What the widths of its branches are shares of. */
  scale: Scale;
  /** How to write on: drawn, always the likeliest, or by a search; how far; and how many beams and how far with those. */
  way: Way;
  ahead: number;
  beams: number;
  depth: number;
  sampler: Sampler;
  seed: number;
  overlay: Overlay;
  /** How the states stand, where they are few enough for a ring. */
  layout: Layout;
  /** Whether contexts that are not full yet count as states too. */
  every: boolean;
  /** Red states by number, and within how many tokens they must not be reached. */
  red: number[];
  horizon: number;
  /** Tokens that must not be written one after the other. */
  pattern: number[];
  /** By how many walks that is estimated where it can't be computed. */
  walks: number;
  /** Which layer and head are looked into. */
  layer: number;
  head: number;
  /** What is switched off inside. */
  off: Part | null;
  /** The token at which the head is shown step by step; null for not at all. */
  steps: number | "last" | null;
  lesson: Lesson;
  /** What is set in the lesson, by its own names. */
  knobs: Readonly<Record<string, string>>;
}

export const LARGEST_SEED = 2 ** 32 - 1;
export const LONGEST_HORIZON = 1000;
export const LONGEST_PATTERN = 64;
export const MOST_WALKS = 10_000;
export const MOST_AHEAD = 2048;
const MOST_IDS = 400; // of a text that is longer only the end is in the address
const MOST_KNOBS = 12;

export const HOME: Route = {
  place: "chain",
  a: null,
  b: null,
  shown: "a",
  ids: [],
  at: null,
  tree: rooted(0),
  scale: "step",
  way: "draw",
  ahead: 40,
  beams: 4,
  depth: 8,
  sampler: PLAIN,
  seed: 1,
  overlay: "none",
  layout: "ring",
  every: false,
  red: [],
  horizon: 100,
  pattern: [],
  walks: 256,
  layer: 0,
  head: 0,
  off: null,
  steps: null,
  lesson: "letters",
  knobs: {},
};

export function toHash(route: Route): string {
  const query = new Map<string, string>();
  const { temperature, topK, topP } = route.sampler;
  if (route.a) query.set("m", spellRef(route.a));
  if (route.b) query.set("b", spellRef(route.b));
  if (route.b && route.shown !== "a") query.set("show", route.shown);
  if (route.ids.length > 0) query.set("ctx", spellIds(route.ids.slice(-MOST_IDS)));
  const cut = Math.max(0, route.ids.length - MOST_IDS);
  const at = route.at === null ? 0 : route.at - cut;
  if (at > 0) query.set("at", String(at));
  for (const [name, value] of spellTree(route, cut)) query.set(name, value);
  if (route.scale !== HOME.scale) query.set("of", route.scale);
  if (route.way !== HOME.way) query.set("way", route.way);
  if (route.ahead !== HOME.ahead) query.set("ahead", String(route.ahead));
  if (route.beams !== HOME.beams) query.set("beams", String(route.beams));
  if (route.depth !== HOME.depth) query.set("depth", String(route.depth));
  if (temperature !== PLAIN.temperature) query.set("T", String(temperature));
  if (topK !== PLAIN.topK) query.set("k", String(topK));
  if (topP !== PLAIN.topP) query.set("p", String(topP));
  if (route.seed !== HOME.seed) query.set("seed", String(route.seed));
  if (route.overlay !== "none") query.set("over", route.overlay);
  if (route.layout !== HOME.layout) query.set("lay", route.layout);
  if (route.every) query.set("every", "1");
  if (route.red.length > 0) query.set("red", spellIds(route.red));
  if (route.horizon !== HOME.horizon) query.set("n", String(route.horizon));
  if (route.pattern.length > 0) query.set("pat", spellIds(route.pattern));
  if (route.walks !== HOME.walks) query.set("walks", String(route.walks));
  if (route.layer > 0) query.set("L", String(route.layer));
  if (route.head > 0) query.set("H", String(route.head));
  if (route.off) query.set("off", spellPart(route.off));
  if (route.steps !== null) query.set("steps", String(route.steps));
  if (route.lesson !== HOME.lesson) query.set("lesson", route.lesson);
  for (const [name, value] of Object.entries(route.knobs)) query.set(`x.${name}`, value);
  const text = [...query].map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%40", "@")}`).join("&");
  return `#/${route.place}${text && `?${text}`}`;
}

export function fromHash(hash: string): Route {
  const [, place, text = ""] = /^#?\/?([^?]*)\??(.*)$/s.exec(hash) ?? [];
  const query = new URLSearchParams(text);
  const b = readRef(query.get("b"));
  const ids = readIds(query.get("ctx"));
  return {
    place: oneOf(PLACES, place, "chain"),
    a: readRef(query.get("m")),
    b,
    shown: b ? oneOf(SHOWN, query.get("show"), "a") : "a",
    ids,
    at: Math.trunc(number(query.get("at"), 1, ids.length - 1, 0)) || null,
    tree: readTreeOf(query, ids),
    scale: oneOf(SCALES, query.get("of"), HOME.scale),
    way: oneOf(WAYS, query.get("way"), HOME.way),
    ahead: Math.trunc(number(query.get("ahead"), 1, MOST_AHEAD, HOME.ahead)),
    beams: Math.trunc(number(query.get("beams"), 1, MOST_BEAMS, HOME.beams)),
    depth: Math.trunc(number(query.get("depth"), 1, MOST_DEPTH, HOME.depth)),
    sampler: {
      temperature: number(query.get("T"), 0, 100, PLAIN.temperature),
      topK: Math.trunc(number(query.get("k"), 0, 1e7, PLAIN.topK)),
      topP: number(query.get("p"), 1e-6, 1, PLAIN.topP),
    },
    seed: Math.trunc(number(query.get("seed"), 0, LARGEST_SEED, HOME.seed)),
    overlay: oneOf(OVERLAYS, query.get("over"), "none"),
    layout: oneOf(LAYOUTS, query.get("lay"), HOME.layout),
    every: query.get("every") === "1",
    red: [...new Set(readIds(query.get("red")))],
    horizon: Math.trunc(number(query.get("n"), 1, LONGEST_HORIZON, HOME.horizon)),
    pattern: readIds(query.get("pat")).slice(0, LONGEST_PATTERN),
    walks: Math.trunc(number(query.get("walks"), 1, MOST_WALKS, HOME.walks)),
    layer: Math.trunc(number(query.get("L"), 0, 1000, HOME.layer)),
    head: Math.trunc(number(query.get("H"), 0, 1000, HOME.head)),
    off: readPart(query.get("off")),
    steps: readSteps(query.get("steps")),
    lesson: oneOf(LESSONS, query.get("lesson"), HOME.lesson),
    knobs: readKnobs(query),
  };
}

/** Where the prompt ends, unless nothing follows it; the tree, unless the text is all of it; the search. */
function spellTree({ ids, tree }: Route, cut: number): [string, string][] {
  const root = tree.root - cut;
  if (root < 1 || root > ids.length - cut) return []; // more was visited than the address holds
  const found: [string, string][] = [];
  if (root < ids.length - cut) found.push(["from", String(root)]);
  if (!isPath(tree, ids.slice(tree.root))) found.push(["tree", spelled(tree)]);
  const search = spelledSearch(tree);
  if (search) found.push(["search", search]);
  return found;
}

function readTreeOf(query: URLSearchParams, ids: readonly number[]): Tree {
  const root = Math.max(Math.trunc(number(query.get("from"), 1, ids.length, ids.length)), ids.length - MOST_NODES);
  const text = query.get("tree");
  const tree = bounded(grown((text && readTree(text, root)) || rooted(root), ids.slice(root)), ids.slice(root));
  return { ...tree, search: readSearch(query.get("search"), tree) };
}

/** "baby@50". A model's name may hold an @ itself, so the last one counts, and only before a number. */
function spellRef({ id, step, change }: ModelRef): string {
  const which = step === null ? (/@\d*$/.test(id) ? `${id}@` : id) : `${id}@${step}`;
  return change ? `${which}~${spellChange(change)}` : which;
}

function readRef(text: string | null): ModelRef | null {
  if (!text) return null;
  const tilde = text.lastIndexOf("~");
  const change = tilde > 0 ? readChange(text.slice(tilde + 1)) : null;
  if (change) return { ...readRef(text.slice(0, tilde))!, change };
  const [, id, step] = /^(.*)@(\d*)$/s.exec(text) ?? [];
  if (!id) return { id: text, step: null };
  return { id, step: step === "" ? null : Number(step) };
}

/** Digits side by side while all ids have one digit, else numbers with dots: "101", "464.3290", "12.". */
function spellIds(ids: readonly number[]): string {
  if (ids.every((id) => id < 10)) return ids.join("");
  return ids.length === 1 ? `${ids[0]}.` : ids.join(".");
}

function readIds(text: string | null): number[] {
  if (!text) return [];
  const parts = text.includes(".") ? text.split(".").filter(Boolean) : [...text];
  return parts.every((part) => /^\d{1,9}$/.test(part)) ? parts.map(Number) : [];
}

function readSteps(text: string | null): Route["steps"] {
  return text === "last" ? text : /^\d{1,4}$/.test(text ?? "") ? Number(text) : null;
}

function readKnobs(query: URLSearchParams): Record<string, string> {
  const knobs = [...query].filter(([name, value]) => /^x\.[a-z]{1,12}$/.test(name) && /^[\p{L}\p{M}\w.,()+-]{1,64}$/u.test(value));
  return Object.fromEntries(knobs.slice(0, MOST_KNOBS).map(([name, value]) => [name.slice(2), value]));
}

function number(text: string | null, low: number, high: number, usual: number): number {
  const value = text === null || text.trim() === "" ? NaN : Number(text);
  return value >= low && value <= high ? value : usual;
}

function oneOf<T extends string>(choices: readonly T[], text: string | null | undefined, usual: T): T {
  return choices.find((choice) => choice === text) ?? usual;
}
