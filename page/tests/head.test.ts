import { describe, expect, test } from "vitest";
import { columnsOf, decimal, formulaOf, nameOfHead, readHead, rowsOf, stacked, stepsAt, sumOf } from "../src/lib/head.ts";
import { FormatError, type Tensors } from "../src/lib/safetensors.ts";
import { softmax } from "../src/lib/softmax.ts";

const PART = { layer: 1, head: 2 };
const [T, D] = [3, 2];

/** By hand: two numbers wide, so scores are divided by √2. */
function file(slope = 0): Tensors {
  const queries = [1, 0, 0.5, -1, 2, 1];
  const keys = [1, 1, -1, 0.5, 0.25, -2];
  const values = [0.5, 1, -1, 0, 3, -2];
  const scores: number[] = [];
  const weights: number[] = [];
  const mix: number[] = [];
  for (let t = 0; t < T; t++) {
    const row = [0, 1, 2].map((j) => (queries[2 * t] * keys[2 * j] + queries[2 * t + 1] * keys[2 * j + 1]) / Math.SQRT2);
    const shares = softmax(row.slice(0, t + 1).map((score, j) => score - slope * (t - j)));
    scores.push(...row);
    weights.push(...[0, 1, 2].map((j) => shares[j] ?? 0));
    mix.push(...[0, 1].map((i) => shares.reduce((sum, share, j) => sum + share * values[2 * j + i], 0)));
  }
  const written = [0, 0, 0, 0, 0, 0, 2, 3, 6];
  const tensor = (data: number[], ...shape: number[]) => ({ shape, data: Float32Array.from(data) });
  const square = { scores: tensor(scores, T, T), weights: tensor(weights, T, T) };
  const steps = { queries: tensor(queries, T, D), keys: tensor(keys, T, D), values: tensor(values, T, D), mix: tensor(mix, T, D), written: tensor(written, T, 3), ...square };
  const named = Object.entries({ ...steps, ...(slope ? { slope: tensor([slope], 1) } : {}) }).map(([name, value]) => [`head:1.2:${name}`, value]);
  return { tensors: Object.fromEntries(named), metadata: {} };
}

describe("a head's steps", () => {
  test("follow from each other, with a slope and without", () => {
    for (const slope of [0, 0.5]) {
      const head = readHead(file(slope), PART);
      for (let at = 0; at < T; at++) {
        const { seen, ahead, mix, query } = stepsAt(head, at);
        expect([seen.length, ahead]).toEqual([at + 1, T - 1 - at]);
        const shares = softmax(seen.map(({ score }) => score));
        seen.forEach(({ weight, key, score, place }, j) => {
          expect(weight).toBeCloseTo(shares[j], 6);
          expect(score).toBeCloseTo((query[0] * key[0] + query[1] * key[1]) / Math.SQRT2 - slope * (at - place), 6);
        });
        for (const i of [0, 1]) expect(mix[i]).toBeCloseTo(seen.reduce((sum, { weight, value }) => sum + weight * value[i], 0), 6);
      }
    }
  });

  test("end in what is added to the stream", () => {
    const head = readHead(file(), PART);
    expect([stepsAt(head, 0).length, stepsAt(head, 2).length]).toEqual([0, 7]);
  });

  test("are drawn on the scale of the whole head", () => {
    const { topOfKeys, topOfValues } = readHead(file(), PART);
    expect([topOfKeys, topOfValues]).toEqual([2, 3]);
  });

  test("that don't fit each other are refused", () => {
    expect(nameOfHead(PART)).toBe("head:1.2");
    const short = file();
    short.tensors["head:1.2:keys"].data = short.tensors["head:1.2:keys"].data.subarray(2) as Float32Array;
    expect(() => readHead(short, PART)).toThrow(FormatError);
    expect(() => readHead(file(), { layer: 0, head: 0 })).toThrow('expected a tensor "head:0.0:queries"');
  });

  test("are told as rows, with their vectors or without", () => {
    const steps = stepsAt(readHead(file(), PART), 1);
    const [head, query, ...more] = rowsOf(steps, ["a", "b", "c"], true);
    expect(head).toEqual(["step", "position", "token", "k0", "k1", "score", "weight", "v0", "v1"]);
    expect(query).toEqual(["query", 1, "b", 0.5, -1, "", "", "", ""]);
    expect(more.map((row) => row.slice(0, 3))).toEqual([["key, value", 0, "a"], ["key, value", 1, "b"], ["mix", 1, "b"]]);
    expect(more[1].slice(3)).toEqual([-1, 0.5, steps.seen[1].score, steps.seen[1].weight, -1, 0]);
    expect(more[2].slice(5)).toEqual(["", 1, ...steps.mix]);
    for (const row of rowsOf(steps, ["a", "b", "c"], false)) expect(row).toHaveLength(5);
  });
});

describe("in words", () => {
  test("the formula has the head's numbers", () => {
    expect(formulaOf(readHead(file(), PART), "distance")).toBe("softmax(q·k / √2) v");
    expect(formulaOf(readHead(file(0.25), PART), "distance")).toBe("softmax(q·k / √2 − 0.25 · distance) v");
  });

  test("a sum names every token, or those with the greatest weights", () => {
    const seen = [0.25, 0.125, 0.625].map((weight, place) => ({ place, weight, score: 0, key: new Float32Array(1), value: Float32Array.of(place - 1) }));
    const steps = { at: 2, query: new Float32Array(1), seen, ahead: 0, mix: Float32Array.of(0.375), length: 0 };
    expect(sumOf(steps, 3)).toBe("25% × −1.00 + 13% × 0.00 + 63% × 1.00 = 0.38");
    expect(sumOf(steps, 2)).toBe("63% × 1.00 + 25% × −1.00 + … = 0.38");
  });

  test.each([
    [-0.123, 1, "−0.12"],
    [-0.001, 1, "0.00"],
    [12.34, 12.34, "12.3"],
    [-120, 300, "−120"],
  ])("%d among numbers up to %d is %s", (value, top, text) => expect(decimal(value, top)).toBe(text));
});

describe("the drawing", () => {
  test.each([280, 330, 600, 1200])("fits %d pixels", (width) => {
    for (const D of [1, 4, 64, 256]) {
      const { keys, scores, weights, values, strip, bar, width: taken } = columnsOf(width, D, 60);
      expect(taken).toBeLessThanOrEqual(width);
      expect(strip).toBeGreaterThan(20);
      expect([keys + strip < scores, scores < weights, weights + bar < values, values + strip < taken]).toEqual([true, true, true, true]);
    }
  });

  test("gives numbers of a narrow head room to be written", () => {
    expect(columnsOf(1000, 4, 60).strip).toBe(160);
  });

  test("joins rows to one picture", () => {
    expect([...stacked([Float32Array.of(1, 2), Float32Array.of(3, 4)])]).toEqual([1, 2, 3, 4]);
  });
});
