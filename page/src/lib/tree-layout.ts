/**
 * Where the branches of a tree stand: time goes to the right, a column for each token. A branch leaves its parent's bar
 * as thick as it is likely, and all that leave a bar fill it exactly, so that no mass is lost. Subtrees lie as close as
 * their outlines allow (Reingold and Tilford, 1981), so that short branches share the rows under a long one.
 */

/** A branch to be placed; the root is one too. */
export interface Limb {
  /** The share of its parent's mass; null where it isn't known yet. */
  share: number | null;
  /** How wide its label is, in pixels. */
  label: number;
  /** Whether other branches leave it: then it ends in a bar. */
  limbs: readonly Limb[];
}

/** Where one stands, in pixels from the upper left corner. */
export interface Placed<T extends Limb> {
  limb: T;
  parent: Placed<T> | null;
  depth: number;
  /** Its end, and its middle line there. */
  x: number;
  y: number;
  /** How thick it is, and the middle of where it leaves its parent's bar. */
  thickness: number;
  from: { x: number; y: number } | null;
  /** How high its own bar is. */
  bar: number;
}

export interface Plan<T extends Limb> {
  placed: Placed<T>[];
  width: number;
  height: number;
}

/** "step": every bar is of one height, the certainty of having come so far. "prompt": as high as that was likely. */
export type Scale = "step" | "prompt";

export const ROW = 22;
export const FAN = 52; // in which branches spread from a bar to their rows
export const LABEL = 19; // above a branch that leads on; one that ends has its label behind it
export const HEIGHTS: Record<Scale, number> = { step: 58, prompt: 190 };
const GAP = 3;
const MARGIN = 10;
const AFTER_LABEL = 12;

/** The upper and lower outline of a subtree at each depth, from its own middle line. */
type Outline = [top: number, bottom: number][];

interface Block<T extends Limb> {
  limb: T;
  thickness: number;
  bar: number;
  blocks: { block: Block<T>; at: number }[];
  outline: Outline;
}

export function planOf<T extends Limb>(root: T, scale: Scale): Plan<T> {
  const block = blockOf(root, 0, HEIGHTS[scale], scale);
  const [top, bottom] = [Math.min(...block.outline.map(([top]) => top)), Math.max(...block.outline.map(([, bottom]) => bottom))];
  const columns: number[] = [];
  measure(root, 0, columns);
  const placed: Placed<T>[] = [];
  place(block, null, 0, MARGIN - top, null, columns, placed);
  return { placed, width: Math.max(...placed.map(({ x }) => x)) + MARGIN, height: bottom - top + 2 * MARGIN };
}

/** The right end of each column. */
function measure(limb: Limb, depth: number, columns: number[], widest: number[] = []): void {
  widest[depth] = Math.max(widest[depth] ?? 0, limb.label);
  for (const child of limb.limbs) measure(child, depth + 1, columns, widest);
  if (depth > 0) return;
  let x = MARGIN;
  for (const [i, width] of widest.entries()) columns[i] = x += (i === 0 ? 0 : FAN) + width + AFTER_LABEL;
}

function blockOf<T extends Limb>(limb: T, thickness: number, bar: number, scale: Scale): Block<T> {
  if (limb.limbs.length === 0) {
    const half = Math.max(ROW, thickness) / 2;
    return { limb, thickness, bar: 0, blocks: [], outline: [[-half, half]] };
  }
  const children = (limb.limbs as readonly T[]).map((child) => {
    const thick = (child.share ?? 0) * bar;
    return blockOf(child, thick, scale === "step" ? HEIGHTS.step : thick, scale);
  });
  const outline: Outline = [];
  const blocks = children.map((block) => {
    const at = outline.length === 0 ? 0 : Math.max(...block.outline.map(([top], depth) => (outline[depth]?.[1] ?? -Infinity) + GAP - top));
    block.outline.forEach(([top, bottom], depth) => (outline[depth] = [outline[depth]?.[0] ?? at + top, at + bottom]));
    return { block, at };
  });
  // A branch that leads on is kept straight; where several do, or none, their middle is.
  const on = blocks.filter(({ block }) => block.blocks.length > 0);
  const leading = on.length > 0 ? on : blocks;
  const middle = (leading[0].at + leading.at(-1)!.at) / 2;
  const half = Math.max(ROW, thickness, bar) / 2;
  const own: Outline[number] = [-Math.max(half, thickness / 2 + LABEL), half];
  return {
    limb,
    thickness,
    bar,
    blocks: blocks.map(({ block, at }) => ({ block, at: at - middle })),
    outline: [own, ...outline.map(([top, bottom]): [number, number] => [top - middle, bottom - middle])],
  };
}

function place<T extends Limb>(
  { limb, thickness, bar, blocks }: Block<T>,
  parent: Placed<T> | null,
  depth: number,
  y: number,
  from: Placed<T>["from"],
  columns: readonly number[],
  placed: Placed<T>[],
): void {
  const x = blocks.length > 0 || depth === 0 ? columns[depth] : columns[depth - 1] + FAN + limb.label;
  const own: Placed<T> = { limb, parent, depth, x, y, thickness, from, bar };
  placed.push(own);
  let top = y - bar / 2;
  for (const { block, at } of blocks) {
    place(block, own, depth + 1, y + at, { x, y: top + block.thickness / 2 }, columns, placed);
    top += block.thickness;
  }
}

/** The outline of a branch, as thick all the way: to its row, and on to its bar if it leads on. */
export function ribbon<T extends Limb>({ from, x, y, thickness, limb }: Placed<T>): string {
  if (!from) return "";
  const n = (value: number): string => value.toFixed(2);
  const [bend, flat] = [n(from.x + FAN / 2), n(from.x + FAN)];
  const end = limb.limbs.length > 0 ? n(x) : flat;
  const [above, below] = [from.y - thickness / 2, from.y + thickness / 2].map(n);
  const [top, bottom] = [y - thickness / 2, y + thickness / 2].map(n);
  return `M${n(from.x)} ${above}C${bend} ${above} ${bend} ${top} ${flat} ${top}H${end}V${bottom}H${flat}C${bend} ${bottom} ${bend} ${below} ${n(from.x)} ${below}Z`;
}
