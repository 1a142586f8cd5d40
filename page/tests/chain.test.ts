import { describe, expect, test } from "vitest";
import { lossFloor, lossOn, reach, stationary, tableOf, type Table } from "../src/lib/chain.ts";
import { countWindows, successor } from "../src/lib/contexts.ts";
import { Pcg32 } from "../src/lib/random.ts";
import { PLAIN } from "../src/lib/softmax.ts";

function randomTable(vocabSize: number, contextLength: number, spread: number, seed = 1): Table {
  const random = new Pcg32(seed);
  const nStates = vocabSize ** contextLength;
  const logits = Float32Array.from({ length: nStates * vocabSize }, () => spread * (random.uniform() - 0.5));
  return tableOf({ vocabSize, nStates, logits }, PLAIN);
}

/** A table of given rows. */
function tableWith(rows: number[][]): Table {
  const probs = Float64Array.from(rows.flat());
  return { vocabSize: rows[0].length, nStates: rows.length, probs, logs: probs.map(Math.log) };
}

function stepped(table: Table, law: Float64Array): Float64Array {
  const next = new Float64Array(table.nStates);
  for (let state = 0; state < table.nStates; state++) {
    for (let token = 0; token < table.vocabSize; token++) {
      next[successor(state, token, table.vocabSize, table.nStates)] += law[state] * table.probs[state * table.vocabSize + token];
    }
  }
  return next;
}

describe("the long run", () => {
  test("a law that is solved stands still", () => {
    const table = randomTable(3, 4, 6);
    const { probs, how } = stationary(table, 0);
    expect(how).toBe("solved");
    stepped(table, probs).forEach((p, state) => expect(Math.abs(p / probs[state] - 1)).toBeLessThan(1e-9));
  });

  test("iteration and solving agree", () => {
    const small = stationary(randomTable(2, 9, 4), 0);
    const large = randomTable(2, 10, 4, 5);
    const { probs, how, moved } = stationary(large, 0);
    expect([small.how, how]).toEqual(["solved", "iterated"]);
    expect(moved).toBeLessThan(1e-12);
    stepped(large, probs).forEach((p, state) => expect(p).toBeCloseTo(probs[state], 12));
  });

  test("a period gets its long-run average", () => {
    // 0 -> 1 -> 0: contexts of one token, each followed by the other.
    expect([...stationary(tableWith([[0, 1], [1, 0]]), 0).probs]).toEqual([0.5, 0.5]);
  });

  test("of several closed classes the law is weighed by where the text falls", () => {
    // Token 0 is followed by itself, 1 by itself, 2 by either.
    const { probs } = stationary(tableWith([[1, 0, 0], [0, 1, 0], [0.25, 0.75, 0]]), 2);
    expect(probs[0]).toBeCloseTo(0.25, 12);
    expect(probs[1]).toBeCloseTo(0.75, 12);
    expect(stationary(tableWith([[1, 0, 0], [0, 1, 0], [0.25, 0.75, 0]]), 1).probs[1]).toBe(1);
  });
});

describe("red states", () => {
  const table = tableWith([[0.9, 0.1], [0.5, 0.5]]);

  test("the worked example of the package's hitting probability", () => {
    const { profile } = reach(table, new Set([1]), 2, 0);
    expect([...profile].map(Math.exp)).toEqual([0, expect.closeTo(0.1, 12), expect.closeTo(0.19, 12)]);
  });

  test("a start that is red has been hit at once", () => {
    expect([...reach(table, new Set([0]), 3, 0).profile]).toEqual([0, 0, 0, 0]);
  });

  test("what can't be reached is exactly impossible", () => {
    const stuck = tableWith([[1, 0], [0.5, 0.5]]);
    expect(reach(stuck, new Set([1]), 50, 0).profile[50]).toBe(-Infinity);
  });

  test("numbers far below the smallest float keep their digits", () => {
    const small = 400; // e^-400 a step, three steps
    const logits = Float32Array.from([0, -small, 0, -small, 0, -small, 0, -small]);
    const rare = tableOf({ vocabSize: 2, nStates: 4, logits }, PLAIN);
    const { profile } = reach(rare, new Set([3]), 2, 0); // 11 from 00: two rare tokens
    expect(profile[2]).toBeCloseTo(-2 * small, 9);
    expect(reach(rare, new Set([3]), 3, 0).profile[3]).toBeCloseTo(-2 * small + Math.log(2), 9);
  });

  test("what is nearly certain is not called certain, however little is missing", () => {
    // From 0 red is met with every token but in one of two, ten or 1e200 cases.
    for (const [logit, missing] of [[0, 0.5], [Math.log(9), 0.1], [460, Math.exp(-460)]]) {
      const chain = tableOf({ vocabSize: 2, nStates: 2, logits: Float32Array.from([0, logit, 0, 0]) }, PLAIN);
      const { profile, fromState } = reach(chain, new Set([1]), 300, 0);
      for (const t of [1, 2, 5, 50].filter((t) => missing ** t > 1e-300)) expect(-Math.expm1(profile[t]) / missing ** t).toBeCloseTo(1, 5);
      expect(fromState[0]).toBeLessThan(0); // 0.5 ** 300 or 1e-60000: little, but not nothing
      expect(fromState[1]).toBe(0);
    }
    const always = tableWith([[0, 1], [0.5, 0.5]]);
    expect(reach(always, new Set([1]), 1, 0).profile[1]).toBe(0);
  });

  test("logarithms and plain floats agree where both can", () => {
    const logits = Float32Array.from({ length: 54 }, (_, i) => 2 * Math.sin(i));
    const plain = tableOf({ vocabSize: 2, nStates: 8, logits: logits.slice(0, 16) }, PLAIN);
    const other = { ...plain, logs: plain.logs.slice() };
    const low = reach(plain, new Set([0]), 30, 7);
    // One entry that a float could hardly hold sends the whole sum to logarithms, and is itself never on the way.
    other.logs[0] = -650;
    const high = reach(other, new Set([0]), 30, 7);
    low.profile.forEach((log, t) => log > -Infinity && expect(high.profile[t]).toBeCloseTo(log, 10));
  });
});

describe("the data", () => {
  test("windows are counted by context and next token", () => {
    expect([...countWindows([0, 1, 0, 1, 1], 2, 1)]).toEqual([0, 2, 1, 1]);
  });

  test("the loss is least where the table is the data's own", () => {
    const counts = countWindows([0, 0, 1, 0, 0, 1, 1, 0, 1], 2, 1);
    const own = tableWith([[counts[0], counts[1]], [counts[2], counts[3]]].map((row) => row.map((n) => n / (row[0] + row[1]))));
    expect(lossOn(own, counts)).toBeCloseTo(lossFloor(counts, 2), 12);
    expect(lossOn(randomTable(2, 1, 3), counts)).toBeGreaterThan(lossFloor(counts, 2));
  });
});
