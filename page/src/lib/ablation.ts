/**
 * Heads and MLPs that can be switched off, and what the next token loses without each, after
 * src/glassgpt/models/ablation.py and figures/ablation.py.
 */

/** A head of a layer, both counted from 0; without a head, the layer's MLP. */
export interface Part {
  layer: number;
  head: number | null;
}

const MLP = "mlp";
const UNITS = ["bits", "millibits", "microbits", "nanobits", "picobits"] as const;
const FURTHEST = 1000; // layers and heads that an address may name

/** "3.2" or "3.mlp". */
export const spellPart = ({ layer, head }: Part): string => `${layer}.${head ?? MLP}`;

export const isSamePart = (a: Part | null, b: Part | null): boolean => a?.layer === b?.layer && a?.head === b?.head;

export function readPart(text: string | null): Part | null {
  const [, layer, head] = /^(\d{1,4})\.(\d{1,4}|mlp)$/.exec(text ?? "") ?? [];
  if (layer === undefined || Number(layer) > FURTHEST || Number(head) > FURTHEST) return null;
  return { layer: Number(layer), head: head === MLP ? null : Number(head) };
}

/** What the next token loses with each part of a model, in bits of Jensen-Shannon divergence; NaN where not known yet. */
export interface Effects {
  n_layer: number;
  n_head: number;
  /** Rows of layers: the heads, then the MLP. */
  bits: Float64Array;
  known: number;
}

export function noEffects(n_layer: number, n_head: number): Effects {
  return { n_layer, n_head, bits: new Float64Array(n_layer * (n_head + 1)).fill(NaN), known: 0 };
}

export const placeOf = ({ n_head }: { n_head: number }, { layer, head }: Part): number => layer * (n_head + 1) + (head ?? n_head);

export function partAt({ n_head }: { n_head: number }, place: number): Part {
  const head = place % (n_head + 1);
  return { layer: Math.floor(place / (n_head + 1)), head: head === n_head ? null : head };
}

/** The effects with some more of them known. */
export function joined(effects: Effects, parts: readonly string[], nats: readonly number[]): Effects {
  const bits = effects.bits.slice();
  parts.forEach((name, i) => {
    const part = readPart(name);
    if (part) bits[placeOf(effects, part)] = nats[i] / Math.LN2;
  });
  return { ...effects, bits, known: effects.known + parts.length };
}

/** The greatest effect known. */
export function topOf({ bits }: Effects): number {
  return bits.reduce((top, value) => (value > top ? value : top), 0);
}

/** The heads with the greatest effects known, the greatest first. */
export function strongestHeads(effects: Effects, n: number): Part[] {
  const heads = [...effects.bits.keys()].filter((place) => effects.bits[place] > 0 && partAt(effects, place).head !== null);
  return heads.sort((a, b) => effects.bits[b] - effects.bits[a] || a - b).slice(0, n).map((place) => partAt(effects, place));
}

/** Bits or a small part of them, with so many digits that the greatest has two or more. */
export interface Unit {
  name: (typeof UNITS)[number];
  write: (bits: number) => string;
}

/** A divergence goes as the square of a small change: a head that hardly writes has a very small one. */
export function unitOf(top: number): Unit {
  let power = 0;
  while (power < UNITS.length - 1 && top * 1e3 ** power < 0.1) power++;
  const scaled = top * 1e3 ** power;
  const digits = scaled <= 1 ? 2 : scaled < 10 ? 1 : 0;
  return { name: UNITS[power], write: (bits) => (bits * 1e3 ** power).toFixed(digits) };
}
