/**
 * From logits to the distribution that a token is drawn from: temperature, then top-k, then top-p.
 *
 * The order and the way ties are settled (lower ids first) are those of src/glassgpt/decoding/processors.py, and
 * tests/golden.test.ts holds the two together. Everything is computed in 64-bit floats.
 */

export interface Sampler {
  temperature: number;
  /** 0 keeps all tokens. */
  topK: number;
  topP: number;
}

export const PLAIN: Sampler = { temperature: 1, topK: 0, topP: 1 };

export interface Distribution {
  /** After temperature, top-k and top-p; sums to 1. */
  probs: Float64Array;
  /** How many of the likeliest tokens top-k leaves, and how many of those top-p leaves. */
  keptByK: number;
  keptByP: number;
  /** Of `probs`, in nats. */
  entropy: number;
}

/** Whether the sampler is the model itself. */
export function isPlain(sampler: Sampler): boolean {
  return sampler.temperature === 1 && !isCut(sampler);
}

/** Whether some tokens may be excluded. */
export function isCut({ topK, topP }: Sampler): boolean {
  return topK > 0 || topP < 1;
}

export function softmax(logits: ArrayLike<number>, temperature = 1): Float64Array {
  const probs = new Float64Array(logits.length);
  distribute(logits, temperature, probs);
  return probs;
}

export function logSoftmax(logits: ArrayLike<number>, temperature = 1): Float64Array {
  const logs = new Float64Array(logits.length);
  distribute(logits, temperature, new Float64Array(logits.length), logs);
  return logs;
}

/**
 * Write probabilities, and their logarithms if wanted, from the place `at` on, and give their entropy in nats. At
 * temperature 0 all is on the likeliest token, the lowest id among equals.
 */
export function distribute(logits: ArrayLike<number>, temperature: number, probs: Float64Array, logs: Float64Array | null = null, at = 0): number {
  const n = logits.length;
  const top = argmax(logits);
  if (temperature === 0) {
    probs.fill(0, at, at + n);
    probs[at + top] = 1;
    logs?.fill(-Infinity, at, at + n);
    if (logs) logs[at + top] = 0;
    return 0;
  }
  const highest = logits[top] / temperature;
  let rest = 0; // of all but the likeliest, whose weight is 1
  let below = 0; // how far below the highest they are, each by its weight: a sum of what is not negative
  for (let i = 0; i < n; i++) {
    const shifted = logits[i] / temperature - highest;
    const weight = Math.exp(shifted);
    probs[at + i] = weight;
    if (logs) logs[at + i] = shifted;
    if (i !== top) rest += weight;
    if (weight > 0) below -= weight * shifted;
  }
  const total = 1 + rest;
  const logTotal = Math.log1p(rest);
  for (let i = at; i < at + n; i++) probs[i] /= total;
  if (logs) for (let i = at; i < at + n; i++) logs[i] -= logTotal;
  return logTotal + below / total;
}

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** The values from the largest to the smallest. Once per model reply: neither temperature nor cuts change the order. */
export function falling(values: ArrayLike<number>): Float64Array {
  return Float64Array.from(values).sort().reverse();
}

/** The distribution of a sampler. `ordered`, if at hand, is `falling(logits)`. */
export function shape(logits: ArrayLike<number>, sampler: Sampler, ordered?: Float64Array): Distribution {
  const { temperature } = sampler;
  const n = logits.length;
  const probs = new Float64Array(n);
  const kept = temperature > 0 && isCut(sampler) ? keptOf(ordered ?? falling(logits), sampler) : null;
  const entropy = distribute(kept ? onlyKept(logits, kept) : logits, temperature, probs);
  const all = temperature === 0 ? 1 : n;
  return { probs, keptByK: kept?.byK ?? all, keptByP: kept?.byP ?? all, entropy };
}

/** How many of the likeliest tokens the cuts leave, and the smallest logit among them. */
export interface Kept {
  byK: number;
  byP: number;
  threshold: number;
}

/**
 * What top-k keeps of logits in falling order, and what of that top-p keeps: a token stays if those before it hold less
 * than p of their mass.
 */
export function keptOf(order: Float64Array, { temperature, topK, topP }: Sampler): Kept {
  const byK = topK > 0 ? Math.min(topK, order.length) : order.length;
  let byP = byK;
  if (topP < 1 && temperature > 0) {
    let total = 0;
    for (let i = 0; i < byK; i++) total += Math.exp((order[i] - order[0]) / temperature);
    let held = 0;
    for (byP = 1; byP < byK; byP++) {
      held += Math.exp((order[byP - 1] - order[0]) / temperature) / total;
      if (held >= topP) break;
    }
  }
  return { byK, byP, threshold: order[byP - 1] };
}

/** The logits that are kept, lower ids first among equals, and minus infinity in place of the others. */
export function onlyKept(logits: ArrayLike<number>, { byP, threshold }: Kept): Float64Array {
  let room = byP; // for those that equal the threshold, once those above it have theirs
  for (let i = 0; i < logits.length; i++) if (logits[i] > threshold) room--;
  const result = new Float64Array(logits.length);
  for (let i = 0; i < logits.length; i++) {
    const logit = logits[i];
    result[i] = logit > threshold || (logit === threshold && room-- > 0) ? logit : -Infinity;
  }
  return result;
}

/** The ids of the `n` largest values, largest first and lower ids first among equals; O(values * log n). */
export function likeliest(values: ArrayLike<number>, n: number): number[] {
  const isBefore = (a: number, b: number): boolean => values[a] > values[b] || (values[a] === values[b] && a < b);
  const size = Math.min(n, values.length);
  const heap: number[] = []; // the least of those kept on top
  const sink = (from: number): void => {
    for (let i = from; ; ) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2]) {
        if (child < heap.length && isBefore(heap[least], heap[child])) least = child;
      }
      if (least === i) return;
      [heap[i], heap[least]] = [heap[least], heap[i]];
      i = least;
    }
  };
  for (let id = 0; id < size; id++) heap.push(id);
  for (let i = (size >> 1) - 1; i >= 0; i--) sink(i);
  for (let id = size; id < values.length; id++) {
    if (size === 0 || values[id] <= values[heap[0]]) continue; // among equals the earlier id is in already
    heap[0] = id;
    sink(0);
  }
  return heap.sort((a, b) => (isBefore(a, b) ? -1 : 1));
}

/** The ids of the `n` likeliest tokens of each of two distributions, in the order of the first. */
export function likeliestOfBoth(p: ArrayLike<number>, q: ArrayLike<number>, n: number): number[] {
  const chosen = new Set([...likeliest(p, n), ...likeliest(q, n)]);
  return [...chosen].sort((a, b) => p[b] - p[a] || a - b);
}

/** Shannon entropy in nats; a probability of 0 contributes nothing. */
export function entropy(probs: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < probs.length; i++) if (probs[i] > 0) sum -= probs[i] * Math.log(probs[i]);
  return Math.max(sum, 0);
}

/** Jensen-Shannon divergence in nats, from 0 to ln 2. */
export function jensenShannon(p: ArrayLike<number>, q: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < p.length; i++) {
    const middle = (p[i] + q[i]) / 2;
    if (p[i] > 0) sum += (p[i] * Math.log(p[i] / middle)) / 2;
    if (q[i] > 0) sum += (q[i] * Math.log(q[i] / middle)) / 2;
  }
  return Math.max(sum, 0);
}
