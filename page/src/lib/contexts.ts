/**
 * Contexts as numbers. A context of k tokens is a number in base V, the oldest token the most significant digit, so
 * emitting a token leads from state s to (s * V + token) mod V^k.
 */

export function successor(state: number, token: number, vocabSize: number, nStates: number): number {
  return (state * vocabSize + token) % nStates;
}

/** The number of the last `length` tokens, or null if there are fewer. */
export function numberOf(tokens: readonly number[], vocabSize: number, length: number): number | null {
  if (tokens.length < length) return null;
  let number = 0;
  for (const token of tokens.slice(-length)) number = number * vocabSize + token;
  return number;
}

export function tokensOf(number: number, vocabSize: number, length: number): number[] {
  const tokens = new Array<number>(length);
  for (let i = length - 1; i >= 0; i--) {
    tokens[i] = number % vocabSize;
    number = Math.floor(number / vocabSize);
  }
  return tokens;
}

/** The context in symbols, oldest token first; symbols of several characters are kept apart by a dot. */
export function spell(number: number, length: number, symbols: readonly string[]): string {
  const separator = symbols.every((symbol) => [...symbol].length === 1) ? "" : "·";
  return tokensOf(number, symbols.length, length)
    .map((token) => visible(symbols[token]))
    .join(separator);
}

const BLANKS: Record<string, string> = { " ": "␣", "\n": "↵", "\t": "⇥" };

/** The text with blanks that can be seen, and a code for each character that has no shape of its own. */
export function visible(text: string): string {
  if (text === "") return "∅";
  return text.replace(/[ \n\t]/g, (blank) => BLANKS[blank]).replace(/[\p{C}\p{Zl}\p{Zp}\p{Zs}]/gu, code);
}

function code(character: string): string {
  const point = character.codePointAt(0)!;
  return point < 256 ? `\\x${point.toString(16).padStart(2, "0")}` : `\\u{${point.toString(16)}}`;
}

/**
 * The token ids of a sequence of symbols, the longest symbol first where several fit; null if something is no symbol.
 */
export function idsOf(text: string, symbols: readonly string[]): number[] | null {
  const byLength = symbols.map((symbol, id) => ({ symbol, id })).sort((a, b) => b.symbol.length - a.symbol.length);
  const ids: number[] = [];
  for (let at = 0; at < text.length; ) {
    const found = byLength.find(({ symbol }) => symbol !== "" && text.startsWith(symbol, at));
    if (found === undefined) return null;
    ids.push(found.id);
    at += found.symbol.length;
  }
  return ids;
}

/** How often each token follows each context in a sequence, as a table (V^length, V). */
export function countWindows(sequence: readonly number[], vocabSize: number, length: number): Int32Array {
  const nStates = vocabSize ** length;
  const counts = new Int32Array(nStates * vocabSize);
  for (let at = length; at < sequence.length; at++) {
    const state = numberOf(sequence.slice(at - length, at), vocabSize, length)!;
    counts[state * vocabSize + sequence[at]] += 1;
  }
  return counts;
}
