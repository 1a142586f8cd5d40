/** One weight of a model changed by hand, as it is asked of the server and as it stands in the address. */

import { signed } from "./numbers.ts";
import type { Values } from "./strings.ts";

export interface Change {
  /** The parameter: "h.0.attn.c_attn.weight". */
  name: string;
  /** Row and column, or of a vector the place alone. */
  at: number[];
  value: number;
}

export const LARGEST_WEIGHT = 1e6;

/** "h.0.mlp.c_fc.weight:3.5:0.25" */
export function spellChange({ name, at, value }: Change): string {
  return `${name}:${at.join(".")}:${value}`;
}

export function readChange(text: string): Change | null {
  const [, name, at, value] = /^(\w[\w.]{0,99}):(\d{1,6}(?:\.\d{1,6})?):(-?\d[\d.]{0,24}(?:e[+-]\d{1,3})?)$/.exec(text) ?? [];
  if (!name || !(Math.abs(Number(value)) <= LARGEST_WEIGHT)) return null;
  return { name, at: at.split(".").map(Number), value: Number(value) };
}

/** How a matrix of so many rows and columns is laid out: one that is taller than wide lies on its side. */
export function laidOut(shape: readonly number[]): { rows: number; columns: number; isTurned: boolean } {
  const [rows, columns] = shape.length === 1 ? [1, shape[0]] : shape;
  return rows > columns ? { rows: columns, columns: rows, isTurned: true } : { rows, columns, isTurned: false };
}

/** The numbers of a matrix as they are laid out, with the change in its place. */
export function laid(values: Float32Array, shape: readonly number[], change: Change | null): Float32Array {
  const { rows, columns, isTurned } = laidOut(shape);
  const all = Float32Array.from(values);
  if (change) all[placeOf(change.at, shape)] = change.value;
  if (!isTurned) return all;
  return Float32Array.from(all, (_, i) => all[(i % columns) * rows + Math.floor(i / columns)]);
}

/** Where a cell of the picture stands in the matrix. */
export function atOf(row: number, column: number, shape: readonly number[]): number[] {
  if (shape.length === 1) return [column];
  return laidOut(shape).isTurned ? [column, row] : [row, column];
}

/** Where a place of the matrix stands in the picture: row, column. */
export function cellOf(at: readonly number[], shape: readonly number[]): [number, number] {
  if (shape.length === 1) return [0, at[0]];
  return laidOut(shape).isTurned ? [at[1], at[0]] : [at[0], at[1]];
}

/** The place of a number among all of its matrix, row after row. */
export function placeOf(at: readonly number[], shape: readonly number[]): number {
  return at.length === 1 ? at[0] : at[0] * shape[1] + at[1];
}

/** The change in words. */
export function changeIn({ name, at, value }: Change, t: (key: "change.said", values: Values) => string): string {
  return t("change.said", { name, at: at.join(", "), value: signed(value, 4) });
}
