/**
 * The page's random numbers: PCG-XSH-RR 64/32 (O'Neill, 2014), seeded as its reference code is.
 *
 *     state = state * 6364136223846793005 + (2 * stream + 1)   mod 2^64
 *     output: the upper bits folded by xor, rotated right by the topmost five
 *
 * page/golden/make.py repeats it in Python, so a walk that is drawn here can be checked there.
 */

const MULTIPLIER = 6364136223846793005n;
const MASK = (1n << 64n) - 1n;
const STREAM = 54n;

export class Pcg32 {
  private state = 0n;
  private readonly increment: bigint;

  constructor(seed: number, stream: bigint = STREAM) {
    this.increment = (2n * stream + 1n) & MASK;
    this.next();
    this.state = (this.state + BigInt(Math.trunc(seed))) & MASK;
    this.next();
  }

  /** An integer from 0 to 2^32 - 1. */
  next(): number {
    const old = this.state;
    this.state = (old * MULTIPLIER + this.increment) & MASK;
    const mixed = Number((((old >> 18n) ^ old) >> 27n) & 0xffffffffn);
    const turn = Number(old >> 59n);
    return ((mixed >>> turn) | (mixed << (-turn & 31))) >>> 0;
  }

  /** A number in [0, 1) of 53 random bits: the upper 27 of one output, then the upper 26 of the next. */
  uniform(): number {
    const high = this.next() >>> 5;
    const low = this.next() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }
}

/** The index whose part of the cumulative sum of `probs` holds `uniform`; one of probability 0 is never drawn. */
export function draw(probs: ArrayLike<number>, uniform: number): number {
  let total = 0;
  for (let i = 0; i < probs.length; i++) total += probs[i];
  const goal = uniform * total;
  let sum = 0;
  let last = -1;
  for (let i = 0; i < probs.length; i++) {
    if (probs[i] <= 0) continue;
    sum += probs[i];
    last = i;
    if (sum > goal) return i;
  }
  return last;
}
