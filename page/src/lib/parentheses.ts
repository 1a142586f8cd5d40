/** The language of balanced parentheses, whose grammar is a counter; what is wrong after a text is known exactly. */

import type { ModelInfo } from "./api.ts";

export interface Alphabet {
  open: number;
  close: number;
  /** The token that stands before and after every string, if there is one. */
  end: number | null;
}

/** The ids of what a model writes, if that is parentheses and nothing else but an end of line. */
export function alphabetOf({ symbols }: Pick<ModelInfo, "symbols">): Alphabet | null {
  if (symbols === null || symbols.some((symbol) => !["(", ")", "\n"].includes(symbol))) return null;
  const [open, close, end] = ["(", ")", "\n"].map((symbol) => symbols.indexOf(symbol));
  return open >= 0 && close >= 0 ? { open, close, end: end >= 0 ? end : null } : null;
}

/** How many are open before the first parenthesis and after each; what closes nothing counts below 0. */
export function depthsOf(text: string): number[] {
  const depths = [0];
  for (const sign of text) depths.push(depths[depths.length - 1] + (sign === "(" ? 1 : -1));
  return depths;
}

/** d times "(" and then d times ")": all of them closed, and nothing left to close. */
export function nest(depth: number): string {
  return "(".repeat(depth) + ")".repeat(depth);
}

/** A text as the model reads it: with the end before it, where there is one, so that it sees where the text begins. */
export function idsOfNest(text: string, { open, close, end }: Alphabet): number[] {
  return [...(end === null ? [] : [end]), ...[...text].map((sign) => (sign === "(" ? open : close))];
}
