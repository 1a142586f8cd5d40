/**
 * The path of a newcomer: twelve things to try, each with the deed that completes it. The page offers the first that is
 * still open; nobody is made to follow it.
 */

export const PATH = [
  "train",
  "scrub",
  "context",
  "unseen",
  "walk",
  "red",
  "map",
  "real",
  "inside",
  "meaning",
  "estimate",
  "compare",
] as const;

export type Deed = (typeof PATH)[number];

export function nextOf(done: ReadonlySet<Deed>): Deed | null {
  return PATH.find((deed) => !done.has(deed)) ?? null;
}

/** The deeds done, as one number that a browser can keep between visits. */
export function packed(done: ReadonlySet<Deed>): number {
  return PATH.reduce((bits, deed, i) => bits + (done.has(deed) ? 2 ** i : 0), 0);
}

export function unpacked(bits: number): Set<Deed> {
  return new Set(PATH.filter((_, i) => Math.floor(bits / 2 ** i) % 2 === 1));
}
