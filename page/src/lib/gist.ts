/**
 * What is kept of the logits after a context, so that the shares of its tokens can follow temperature and cuts for many
 * contexts at once, at every move of a slider: the largest logits as they are, the others only by how high they stand, in
 * steps of 1/32, with the mean and the variance of each step. A sum over all tokens of exp(logit / T) follows from that
 * to better than one part in a million for T of 0.1 and more, from a hundredth of the numbers; where a cut falls inside
 * a step, to better than one in ten thousand. Small vocabularies are kept whole.
 */

import { likeliest, type Sampler } from "./softmax.ts";

const HEAD = 512;
const STEPS_PER_NAT = 32;

export interface Gist {
  /** How many tokens there are. */
  size: number;
  /** The largest logits, falling, and whose they are. */
  head: Float64Array;
  ids: number[];
  /** The others, highest first: how many stand on a step, their mean and their variance. */
  steps: { count: number; mean: number; variance: number }[];
  /** The logits of single tokens, and how many tokens are likelier: of the largest, and of those that are asked about. */
  places: ReadonlyMap<number, { logit: number; rank: number }>;
}

/** The gist of logits. `tokens` are those whose share will be asked for though they may be unlikely. */
export function gistOf(logits: ArrayLike<number>, tokens: readonly number[]): Gist {
  const ids = likeliest(logits, HEAD);
  const places = new Map(ids.map((id, rank) => [id, { logit: logits[id], rank }]));
  const steps = logits.length > HEAD ? stepsOf(logits, new Set(ids)) : [];
  for (const token of tokens) if (!places.has(token)) places.set(token, { logit: logits[token], rank: rankOf(logits, token) });
  return { size: logits.length, head: Float64Array.from(ids, (id) => logits[id]), ids, steps, places };
}

function stepsOf(logits: ArrayLike<number>, without: ReadonlySet<number>): Gist["steps"] {
  const steps = new Map<number, { count: number; sum: number; squares: number }>();
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id];
    if (logit === -Infinity || without.has(id)) continue;
    const at = Math.floor(logit * STEPS_PER_NAT);
    const off = logit - at / STEPS_PER_NAT;
    const step = steps.get(at);
    if (step === undefined) steps.set(at, { count: 1, sum: off, squares: off * off });
    else {
      step.count++;
      step.sum += off;
      step.squares += off * off;
    }
  }
  return [...steps]
    .sort(([a], [b]) => b - a)
    .map(([at, { count, sum, squares }]) => ({ count, mean: at / STEPS_PER_NAT + sum / count, variance: Math.max(squares / count - (sum / count) ** 2, 0) }));
}

/** How many tokens come before this one, lower ids first among equals. */
function rankOf(logits: ArrayLike<number>, token: number): number {
  let rank = 0;
  for (let id = 0; id < logits.length; id++) if (logits[id] > logits[token] || (logits[id] === logits[token] && id < token)) rank++;
  return rank;
}

/** The probability of a token under a sampler; null of one whose logit wasn't kept. */
export type Shares = (token: number) => number | null;

export function sharesOf(gist: Gist, sampler: Sampler): Shares {
  const { temperature } = sampler;
  if (temperature === 0) return (token) => (gist.places.has(token) ? (token === gist.ids[0] ? 1 : 0) : null);
  const top = gist.head[0];
  const weight = (logit: number): number => Math.exp((logit - top) / temperature);
  const levels = levelsOf(gist, weight, temperature);
  const byK = sampler.topK > 0 ? Math.min(sampler.topK, gist.size) : gist.size;
  const all = massOf(levels, byK);
  const kept = sampler.topP < 1 ? Math.min(countOf(levels, sampler.topP * all), byK) : byK;
  const total = kept === byK ? all : massOf(levels, kept);
  return (token) => {
    const place = gist.places.get(token);
    return place === undefined ? null : place.rank < kept ? weight(place.logit) / total : 0;
  };
}

/** Tokens of one height: how many, and the weight of one, highest first. */
interface Levels {
  counts: Float64Array;
  weights: Float64Array;
}

function levelsOf({ head, steps }: Gist, weight: (logit: number) => number, temperature: number): Levels {
  const n = head.length;
  const counts = new Float64Array(n + steps.length).fill(1, 0, n);
  const weights = new Float64Array(n + steps.length);
  for (let i = 0; i < n; i++) weights[i] = weight(head[i]);
  steps.forEach(({ count, mean, variance }, i) => {
    counts[n + i] = count;
    // The mean of exp(x / T) over a step, to second order about the mean of x.
    weights[n + i] = weight(mean) * (1 + variance / (2 * temperature ** 2));
  });
  return { counts, weights };
}

/** The weight of the `n` likeliest tokens. */
function massOf({ counts, weights }: Levels, n: number): number {
  let mass = 0;
  for (let i = 0; i < counts.length && n > 0; i++) {
    mass += Math.min(counts[i], n) * weights[i];
    n -= counts[i];
  }
  return mass;
}

/** How many tokens stay if each does before which less than `mass` is held: one at least. */
function countOf({ counts, weights }: Levels, mass: number): number {
  let [n, held] = [0, 0];
  for (let i = 0; i < counts.length; i++) {
    const more = counts[i] * weights[i];
    if (held + more >= mass) return Math.max(n + Math.ceil((mass - held) / weights[i]), 1);
    held += more;
    n += counts[i];
  }
  return n;
}
