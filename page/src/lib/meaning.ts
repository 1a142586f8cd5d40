/** What the pictures of a model's spaces share: the captions' numbers, and the rows that are kept as a file. */

import type { Projection } from "./api.ts";
import { percent } from "./numbers.ts";

/** So long a question waits for a newer one. */
export const WAIT_MS = 250;

/** What each axis keeps of the differences, and all together. */
export function kept({ explained }: Projection): { kept: string; total: string } {
  const total = explained.reduce((sum, share) => sum + share, 0);
  return { kept: explained.map((share) => percent(share)).join(", "), total: percent(Math.min(total, 1)) };
}

export const rowsOf = (dots: readonly { text: string; kind: string; xyz: readonly number[] }[]): (string | number)[][] => [
  ["text", "kind", "x", "y", "z"],
  ...dots.map(({ text, kind, xyz }) => [text, kind, ...xyz]),
];
