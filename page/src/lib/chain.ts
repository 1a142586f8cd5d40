/**
 * A model as the Markov chain that it is: a table of next-token probabilities for each of the V^k contexts.
 *
 * What a slider moves is computed here, from logits alone: the table under a sampler, the stationary law, and the
 * probability of reaching red states. All sums are of non-negative numbers, so that small results keep their digits.
 */

import { successor } from "./contexts.ts";
import { distribute, falling, isCut, keptOf, onlyKept, type Sampler } from "./softmax.ts";

/** Up to this many states the stationary law is solved; beyond, it is iterated. */
const MOST_SOLVED = 512;
const MOST_SOLVED_IN_LOGARITHMS = 128;
const MOST_SWEEPS = 20_000;
const STILL = 1e-13;
/** A float64 is never trusted below e to this power: sums are then taken in logarithms. */
const LOWEST_LOG = -600;
/** Above this logarithm too few digits are left of what is missing to 1. */
const NEARLY = -1e-6;
const SMALLEST = Math.exp(LOWEST_LOG);

export interface Chain {
  vocabSize: number;
  nStates: number;
  /** (nStates, V), rows one after the other. */
  logits: Float32Array;
}

export interface Table {
  vocabSize: number;
  nStates: number;
  probs: Float64Array;
  /** Natural logarithms; minus infinity where a token is impossible. */
  logs: Float64Array;
}

export function tableOf(chain: Chain, sampler: Sampler): Table {
  const { vocabSize: V, nStates, logits } = chain;
  const [probs, logs] = [new Float64Array(nStates * V), new Float64Array(nStates * V)];
  const order = isCut(sampler) ? orderOf(chain) : null;
  for (let first = 0; first < logs.length; first += V) {
    let row: ArrayLike<number> = logits.subarray(first, first + V);
    if (order) row = onlyKept(row, keptOf(order.subarray(first, first + V), sampler));
    distribute(row, sampler.temperature, probs, logs, first);
  }
  return { vocabSize: V, nStates, probs, logs };
}

const ORDERS = new WeakMap<Float32Array, Float64Array>();

/** Each row's logits from the largest to the smallest; sorted once, since no sampler changes the order. */
function orderOf({ vocabSize: V, logits }: Chain): Float64Array {
  const known = ORDERS.get(logits);
  if (known) return known;
  const order = new Float64Array(logits.length);
  for (let first = 0; first < logits.length; first += V) {
    order.set(falling(logits.subarray(first, first + V)), first);
  }
  ORDERS.set(logits, order);
  return order;
}

export function row(table: Table, state: number): Float64Array {
  return table.probs.subarray(state * table.vocabSize, (state + 1) * table.vocabSize);
}

/**
 * The mean loss in nats of the data's own next tokens under the table: what training made smaller.
 */
export function lossOn(table: Table, counts: ArrayLike<number>): number {
  let total = 0;
  let windows = 0;
  for (let i = 0; i < counts.length; i++) {
    if (counts[i] === 0) continue;
    total -= counts[i] * table.logs[i];
    windows += counts[i];
  }
  return total / windows;
}

/** What that loss can't fall below: the entropy of the data's own next tokens, in nats a token. */
export function lossFloor(counts: ArrayLike<number>, vocabSize: number): number {
  let sum = 0;
  let windows = 0;
  for (let first = 0; first < counts.length; first += vocabSize) {
    let total = 0;
    for (let token = 0; token < vocabSize; token++) total += counts[first + token];
    for (let token = 0; token < vocabSize; token++) {
      const count = counts[first + token];
      if (count > 0) sum -= count * Math.log(count / total);
    }
    windows += total;
  }
  return sum / windows;
}

// ---- the long run ------------------------------------------------------------------------------------------------

export interface Law {
  probs: Float64Array;
  /** "solved": every entry to rounding. "iterated": the last sweep still moved `moved` of the mass. */
  how: "solved" | "iterated";
  moved: number;
}

/**
 * The long-run share of each state in a text without end that begins in `start`. Where it begins matters only if the
 * cuts of top-k and top-p leave several closed classes of states; a periodic class gets its long-run average.
 */
export function stationary(table: Table, start: number): Law {
  const parts = stationaryInParts(table, start);
  for (;;) {
    const { done, value } = parts.next();
    if (done) return value;
  }
}

/** The same for whoever must answer to others meanwhile: `next()` works for a moment, and the last one gives the law. */
export function* stationaryInParts(table: Table, start: number): Generator<void, Law> {
  if (table.nStates > MOST_SOLVED) return yield* iterated(table, start);
  const law = new Float64Array(table.nStates);
  const { label, closed } = classes(table);
  const members = closed.map((name) => [...label.keys()].filter((state) => label[state] === name));
  const shares = fallingInto(table, start, members);
  members.forEach((states, i) => {
    const within = shares[i] > 0 ? solve(table, states) : [];
    within.forEach((share, at) => (law[states[at]] = shares[i] * share));
  });
  if (law.some(Number.isNaN)) return yield* iterated(table, start); // a float64 was too short
  return { probs: law, how: "solved", moved: 0 };
}

/** Steps until it stands still. Where tokens are excluded it rests every other time, which breaks any period. */
function* iterated(table: Table, start: number): Generator<void, Law> {
  const { vocabSize: V, nStates, probs, logs } = table;
  const rest = logs.includes(-Infinity) ? 0.5 : 0;
  let law = new Float64Array(nStates);
  let next = new Float64Array(nStates);
  law[start] = 1;
  let moved = 1;
  for (let sweep = 0; sweep < MOST_SWEEPS && moved > STILL; sweep++) {
    for (let state = 0; state < nStates; state++) next[state] = rest * law[state];
    for (let state = 0; state < nStates; state++) {
      const mass = (1 - rest) * law[state];
      const [row, first] = [state * V, (state * V) % nStates];
      for (let token = 0; token < V; token++) next[first + token] += mass * probs[row + token];
    }
    moved = 0;
    for (let state = 0; state < nStates; state++) moved += Math.abs(next[state] - law[state]);
    [law, next] = [next, law];
    yield;
  }
  return { probs: law, how: "iterated", moved };
}

/**
 * State reduction (Grassmann, Taksar, Heyman, 1985): states are taken out one by one, and the ways through them added
 * to the ways between those that stay. There is no subtraction, hence no cancellation.
 */
function solve(table: Table, states: readonly number[]): Float64Array {
  if (states.length <= MOST_SOLVED_IN_LOGARITHMS && hasTiny(table)) return solveInLogarithms(table, states);
  const n = states.length;
  const ways = waysAmong(table, states);
  for (let out = n - 1; out > 0; out--) {
    const leaving = sumOf(ways[out].subarray(0, out));
    for (let from = 0; from < out; from++) {
      const into = ways[from][out] / leaving;
      ways[from][out] = into;
      if (into > 0) for (let to = 0; to < out; to++) ways[from][to] += into * ways[out][to];
    }
  }
  const law = new Float64Array(n);
  law[0] = 1;
  for (let state = 1; state < n; state++) {
    for (let from = 0; from < state; from++) law[state] += law[from] * ways[from][state];
  }
  const total = sumOf(law);
  return law.map((mass) => mass / total);
}

/** The same, for rows whose smallest entries a float64 can't multiply. */
function solveInLogarithms(table: Table, states: readonly number[]): Float64Array {
  const n = states.length;
  const place = new Map(states.map((state, i) => [state, i]));
  const ways = states.map((state) => {
    const logs = new Float64Array(n).fill(-Infinity);
    for (let token = 0; token < table.vocabSize; token++) {
      const to = place.get(successor(state, token, table.vocabSize, table.nStates));
      if (to !== undefined) logs[to] = logAdd(logs[to], table.logs[state * table.vocabSize + token]);
    }
    return logs;
  });
  for (let out = n - 1; out > 0; out--) {
    const leaving = ways[out].subarray(0, out).reduce(logAdd, -Infinity);
    for (let from = 0; from < out; from++) {
      ways[from][out] -= leaving;
      for (let to = 0; to < out; to++) ways[from][to] = logAdd(ways[from][to], ways[from][out] + ways[out][to]);
    }
  }
  const law = new Float64Array(n).fill(-Infinity);
  law[0] = 0;
  for (let state = 1; state < n; state++) {
    for (let from = 0; from < state; from++) law[state] = logAdd(law[state], law[from] + ways[from][state]);
  }
  const total = law.reduce(logAdd, -Infinity);
  return law.map((log) => Math.exp(log - total));
}

function logAdd(a: number, b: number): number {
  const top = Math.max(a, b);
  return top === -Infinity ? top : top + Math.log1p(Math.exp(Math.min(a, b) - top));
}

function hasTiny(table: Table): boolean {
  return table.logs.some((log) => log < LOWEST_LOG && log > -Infinity);
}

/** The square matrix of transitions among some states. */
function waysAmong(table: Table, states: readonly number[]): Float64Array[] {
  const place = new Map(states.map((state, i) => [state, i]));
  return states.map((state) => {
    const ways = new Float64Array(states.length);
    for (let token = 0; token < table.vocabSize; token++) {
      const to = place.get(successor(state, token, table.vocabSize, table.nStates));
      if (to !== undefined) ways[to] += table.probs[state * table.vocabSize + token];
    }
    return ways;
  });
}

/** From `start`, the probability of ending in each closed class: the states on the way are reduced as above. */
function fallingInto(table: Table, start: number, members: readonly number[][]): number[] {
  if (members.length === 1) return [1];
  const home = members.findIndex((states) => states.includes(start));
  if (home >= 0) return members.map((_, i) => (i === home ? 1 : 0));
  const inside = new Map(members.flatMap((states, i) => states.map((state) => [state, i] as const)));
  const transient = [start, ...[...Array(table.nStates).keys()].filter((s) => s !== start && !inside.has(s))];
  const n = transient.length;
  const place = new Map(transient.map((state, i) => [state, i]));
  const ways = transient.map((state) => {
    const ways = new Float64Array(n + members.length);
    for (let token = 0; token < table.vocabSize; token++) {
      const to = successor(state, token, table.vocabSize, table.nStates);
      ways[place.get(to) ?? n + inside.get(to)!] += table.probs[state * table.vocabSize + token];
    }
    return ways;
  });
  for (let out = n - 1; out > 0; out--) {
    const leaving = sumOf(ways[out].subarray(0, out)) + sumOf(ways[out].subarray(n));
    for (let from = 0; from < out; from++) {
      const into = ways[from][out] / leaving;
      if (!(into > 0)) continue;
      for (let to = 0; to < n + members.length; to++) {
        if (to < out || to >= n) ways[from][to] += into * ways[out][to];
      }
    }
  }
  const ends = ways[0].subarray(n);
  const total = sumOf(ends);
  return [...ends].map((share) => share / total);
}

/** Communicating classes by Tarjan's algorithm, without recursion: a label for each state, and which are closed. */
function classes(table: Table): { label: Int32Array; closed: number[] } {
  const { vocabSize: V, nStates, logs } = table;
  const order = new Int32Array(nStates).fill(-1);
  const low = new Int32Array(nStates);
  const label = new Int32Array(nStates).fill(-1);
  const nextToken = new Int32Array(nStates);
  const stack: number[] = [];
  let met = 0;
  let found = 0;
  for (let root = 0; root < nStates; root++) {
    if (order[root] >= 0) continue;
    const path = [root];
    while (path.length > 0) {
      const state = path[path.length - 1];
      if (order[state] < 0) {
        order[state] = low[state] = met++;
        stack.push(state);
      }
      if (nextToken[state] < V) {
        const token = nextToken[state]++;
        if (logs[state * V + token] === -Infinity) continue;
        const to = successor(state, token, V, nStates);
        if (order[to] < 0) path.push(to);
        else if (label[to] < 0) low[state] = Math.min(low[state], order[to]);
        continue;
      }
      path.pop();
      if (path.length > 0) low[path[path.length - 1]] = Math.min(low[path[path.length - 1]], low[state]);
      if (low[state] === order[state]) {
        let member: number;
        do label[(member = stack.pop()!)] = found;
        while (member !== state);
        found++;
      }
    }
  }
  const isClosed = new Array<boolean>(found).fill(true);
  for (let i = 0; i < logs.length; i++) {
    const state = Math.floor(i / V);
    if (logs[i] > -Infinity && label[successor(state, i % V, V, nStates)] !== label[state]) isClosed[label[state]] = false;
  }
  return { label, closed: [...isClosed.keys()].filter((name) => isClosed[name]) };
}

function sumOf(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

// ---- red states --------------------------------------------------------------------------------------------------

export interface Reach {
  /** ln P(red within t tokens) from the start, for t = 0 to the horizon. */
  profile: Float64Array;
  /** ln P(red within the horizon) from every state. */
  fromState: Float64Array;
}

/**
 * The probability of being in a red state within `horizon` tokens. A start that is red has been hit at token 0.
 *
 * Backward: h_t(s) = 1 if s is red, else the mean of h_{t-1} over the states that follow s. Where a number could be
 * too small for a float64, the same sums are taken in logarithms. O(horizon * nStates * V).
 */
export function reach(table: Table, red: ReadonlySet<number>, horizon: number, start: number): Reach {
  const isRed = new Uint8Array(table.nStates);
  for (const state of red) isRed[state] = 1;
  const hit = swept(table, isRed, horizon, start, 1);
  if (!hit.fromState.some((log, state) => !isRed[state] && log > NEARLY)) return hit;
  const missed = swept(table, isRed, horizon, start, 0);
  return { profile: besideOne(hit.profile, missed.profile), fromState: besideOne(hit.fromState, missed.fromState) };
}

/** Beside 1 a float holds little of what is missing: the probability of not getting there is a sum of its own. */
function besideOne(logs: Float64Array, missing: Float64Array): Float64Array {
  return logs.map((log, i) => {
    if (log <= NEARLY) return log;
    return missing[i] === -Infinity ? 0 : Math.min(Math.log1p(-Math.exp(missing[i])), -Number.MIN_VALUE);
  });
}

/** ln P(red within t tokens) where `atRed` is 1, and ln P(not within t) where it is 0. */
function swept(table: Table, isRed: Uint8Array, horizon: number, start: number, atRed: 0 | 1): Reach {
  return plainSweep(table, isRed, horizon, start, atRed) ?? logSweep(table, isRed, horizon, start, atRed);
}

/** In ordinary floats; null if one of them came so near to the smallest that digits may be lost. */
function plainSweep(table: Table, isRed: Uint8Array, horizon: number, start: number, atRed: 0 | 1): Reach | null {
  if (hasTiny(table)) return null;
  let now = Float64Array.from(isRed, (red) => (red ? atRed : 1 - atRed));
  let next = new Float64Array(table.nStates);
  const profile = new Float64Array(horizon + 1);
  profile[0] = Math.log(now[start]);
  for (let t = 1; t <= horizon; t++) {
    if (!stepBack(table, isRed, atRed, now, next)) return null;
    [now, next] = [next, now];
    profile[t] = Math.log(now[start]);
  }
  return { profile, fromState: now.map(Math.log) };
}

/** One step back, from `now` to `next`. False if something that is possible became too small to be trusted. */
function stepBack({ vocabSize: V, nStates, probs }: Table, isRed: Uint8Array, atRed: 0 | 1, now: Float64Array, next: Float64Array): boolean {
  for (let state = 0; state < nStates; state++) {
    if (isRed[state]) {
      next[state] = atRed;
      continue;
    }
    const row = state * V;
    const first = row % nStates;
    let sum = 0;
    for (let token = 0; token < V; token++) sum += probs[row + token] * now[first + token];
    if (sum < SMALLEST) {
      for (let token = 0; token < V; token++) if (probs[row + token] > 0 && now[first + token] > 0) return false;
    }
    next[state] = sum;
  }
  return true;
}

function logSweep(table: Table, isRed: Uint8Array, horizon: number, start: number, atRed: 0 | 1): Reach {
  const { vocabSize: V, nStates, logs } = table;
  let now = Float64Array.from(isRed, (red) => (red === atRed ? 0 : -Infinity));
  const profile = new Float64Array(horizon + 1);
  profile[0] = now[start];
  for (let t = 1; t <= horizon; t++) {
    const next = new Float64Array(nStates);
    for (let state = 0; state < nStates; state++) {
      if (isRed[state]) {
        next[state] = now[state];
        continue;
      }
      const first = (state * V) % nStates;
      let top = -Infinity;
      for (let token = 0; token < V; token++) top = Math.max(top, logs[state * V + token] + now[first + token]);
      let sum = 0;
      if (top > -Infinity) {
        for (let token = 0; token < V; token++) sum += Math.exp(logs[state * V + token] + now[first + token] - top);
      }
      next[state] = top > -Infinity ? Math.min(top + Math.log(sum), 0) : -Infinity;
    }
    now = next;
    profile[t] = now[start];
  }
  return { profile, fromState: now };
}
