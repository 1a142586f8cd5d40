/**
 * What counting finds in a text: its letters, pairs of letters, and what n-grams write that have counted it. Words and
 * letters are read as src/glassgpt/evaluation/ngrams.py reads them; what is written here is drawn from plain counts,
 * where the package backs off to shorter histories.
 */

import { draw, Pcg32 } from "./random.ts";
import { softmax } from "./softmax.ts";

export const SPACE = " ";
export const LENGTHS = [1, 2, 3, 4, 5, 6] as const;
/** Of a longer text the beginning is counted, so that it is done while one types. */
export const MOST_LETTERS = 100_000;
const MOST_SIGNS = 36;
const RAREST = 1e-4;

/** Words in lower case: letters of any script, with apostrophes between two. */
export function wordsOf(text: string): string[] {
  const lower = text.normalize("NFC").replaceAll("’", "'").toLowerCase();
  return lower.replace(/[^\p{L}']/gu, SPACE).match(/[^\s']+(?:'[^\s']+)*/gu) ?? [];
}

/** The letters of a text in lower case, with one space between two words; apostrophes are left out. */
export function lettersOf(text: string): string[] {
  return [...wordsOf(text).join(SPACE).replaceAll("'", "")].slice(0, MOST_LETTERS);
}

export interface Frequency {
  letter: string;
  count: number;
}

/** The most frequent first, equals in alphabetical order. */
export function frequencies(letters: readonly string[]): Frequency[] {
  const counts = new Map<string, number>();
  for (const letter of letters) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  return [...counts]
    .map(([letter, count]) => ({ letter, count }))
    .sort((a, b) => b.count - a.count || (a.letter < b.letter ? -1 : 1));
}

export interface Pairs {
  /** The space, then the most frequent letters in alphabetical order. */
  signs: string[];
  /** (signs, signs), row: this letter, column: the next. */
  counts: Int32Array;
  /** How often each sign is followed by any letter, those that are no signs included. */
  totals: Int32Array;
}

/** How often each letter is followed by each. Letters whose share of the text is below a ten-thousandth are left out. */
export function pairsOf(letters: readonly string[], most = MOST_SIGNS): Pairs {
  const enough = frequencies(letters).filter(({ letter, count }) => letter !== SPACE && count >= RAREST * letters.length);
  const signs = [SPACE, ...enough.slice(0, most - 1).map(({ letter }) => letter).sort()];
  const place = new Map(signs.map((sign, i) => [sign, i]));
  const counts = new Int32Array(signs.length ** 2);
  const totals = new Int32Array(signs.length);
  for (let i = 0; i + 1 < letters.length; i++) {
    const row = place.get(letters[i]);
    if (row === undefined) continue;
    totals[row]++;
    const column = place.get(letters[i + 1]);
    if (column !== undefined) counts[row * signs.length + column]++;
  }
  return { signs, counts, totals };
}

/** A text as a ring of letters: after the last comes a space and then the first, so that no history is a dead end. */
export class Ring {
  private readonly code = new Map<string, number>();
  private readonly around: Uint32Array;
  /** Where each history of up to five letters stands, found when it is first asked for. */
  private readonly known = new Map<string, Int32Array>();

  constructor(private readonly letters: readonly string[]) {
    const ring = [...letters, SPACE];
    this.around = Uint32Array.from(ring, (letter) => {
      if (!this.code.has(letter)) this.code.set(letter, this.code.size);
      return this.code.get(letter)!;
    });
  }

  get size(): number {
    return this.around.length;
  }

  /** The places at which the letters of `history` have just been read. */
  placesAfter(history: readonly string[]): Int32Array {
    const name = history.join("");
    const known = this.known.get(name);
    if (known) return known;
    const codes = history.map((letter) => this.code.get(letter) ?? -1);
    const places: number[] = [];
    for (let at = 0; at < this.size; at++) {
      let back = 1;
      while (back <= codes.length && this.around[(at - back + this.size) % this.size] === codes[codes.length - back]) back++;
      if (back > codes.length) places.push(at);
    }
    const found = Int32Array.from(places);
    this.known.set(name, found);
    return found;
  }

  letterAt(place: number): string {
    return place < this.letters.length ? this.letters[place] : SPACE;
  }

  /** How often each letter follows a history, the most frequent first. */
  following(history: readonly string[]): Frequency[] {
    return frequencies(Array.from(this.placesAfter(history), (place) => this.letterAt(place)));
  }
}

/**
 * `count` letters, each drawn as often as it follows the n - 1 before it in the text; at another temperature, as often
 * as that to the power 1 / T, and at 0 always the most frequent. It begins after a space, with whatever histories of
 * less than n - 1 letters hold.
 */
export function write(ring: Ring, n: number, count: number, seed: number, temperature = 1): string {
  const random = new Pcg32(seed, BigInt(n));
  const written = [SPACE];
  while (written.length <= count) {
    const history = n > 1 ? written.slice(-(n - 1)) : [];
    if (temperature === 1) {
      const places = ring.placesAfter(history);
      written.push(ring.letterAt(places[Math.floor(random.uniform() * places.length)]));
    } else {
      const next = ring.following(history);
      const probs = softmax(next.map(({ count }) => Math.log(count)), temperature);
      written.push(next[draw(probs, random.uniform())].letter);
    }
  }
  return written.slice(1).join("");
}

/** The share of the whole words of `wrote` that are among `words`, one that is broken off left out; null without any. */
export function shareKnown(wrote: string, words: readonly string[]): number | null {
  const whole = `${wrote}.`.split(SPACE).filter((word) => word !== "").slice(0, -1);
  const known = new Set(words.map((word) => word.replaceAll("'", "")));
  return whole.length === 0 ? null : whole.filter((word) => known.has(word)).length / whole.length;
}

/** How long the longest stretch of `wrote` is that stands in `counted` just so, in letters. */
export function longestCopy(wrote: string, counted: string): number {
  const letters = [...wrote];
  let longest = 0;
  // What ends one letter further on can be longer by one at most.
  for (let end = 1; end <= letters.length; end++) {
    if (end > longest && counted.includes(letters.slice(end - longest - 1, end).join(""))) longest++;
  }
  return longest;
}
