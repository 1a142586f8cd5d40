import { describe, expect, test } from "vitest";
import { entropy, falling, jensenShannon, likeliest, shape, softmax } from "../src/lib/softmax.ts";
import { Pcg32 } from "../src/lib/random.ts";

const random = new Pcg32(3);
const some = Float32Array.from({ length: 300 }, () => 8 * random.uniform() - 4);
const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

describe("softmax and its cuts", () => {
  test("probabilities add up to one under every sampler", () => {
    for (const temperature of [0, 0.01, 0.7, 1, 5]) {
      for (const topK of [0, 1, 7, 1000]) {
        for (const topP of [1e-6, 0.4, 1]) {
          expect(sum(shape(some, { temperature, topK, topP }).probs)).toBeCloseTo(1, 12);
        }
      }
    }
  });

  test("a shift of all logits changes nothing, even a huge one", () => {
    const shifted = softmax([1001, 1002, 1003]);
    softmax([1, 2, 3]).forEach((p, i) => expect(shifted[i]).toBeCloseTo(p, 12));
  });

  test("temperature 0 takes the first of the likeliest", () => {
    expect([...shape([1, 3, 3], { temperature: 0, topK: 2, topP: 0.5 }).probs]).toEqual([0, 1, 0]);
  });

  test("top-k keeps exactly k, the lower ids among equals", () => {
    const { probs } = shape([1, 1, 1, 1], { temperature: 1, topK: 2, topP: 1 });
    expect([...probs]).toEqual([0.5, 0.5, 0, 0]);
  });

  test("top-p keeps the likeliest even where p is tiny, and the token that crosses p", () => {
    const logits = [0.5, 0.3, 0.2].map(Math.log);
    expect(shape(logits, { temperature: 1, topK: 0, topP: 0.01 }).keptByP).toBe(1);
    expect(shape(logits, { temperature: 1, topK: 0, topP: 0.6 }).keptByP).toBe(2);
  });

  test("excluded logits stay excluded", () => {
    const { probs } = shape([0, -Infinity, 0], { temperature: 2, topK: 3, topP: 0.999 });
    expect([...probs]).toEqual([0.5, 0, 0.5]);
  });

  test("an order at hand gives the same as sorting anew", () => {
    const sampler = { temperature: 0.9, topK: 50, topP: 0.8 };
    expect([...shape(some, sampler, falling(some)).probs]).toEqual([...shape(some, sampler).probs]);
  });

  test("the likeliest are those that a full sort finds", () => {
    const ties = Float32Array.from({ length: 100 }, (_, i) => (i * 7) % 10);
    const sorted = [...ties.keys()].sort((a, b) => ties[b] - ties[a] || a - b);
    for (const n of [0, 1, 3, 50, 100, 200]) expect(likeliest(ties, n)).toEqual(sorted.slice(0, n));
  });

  test("the entropy that comes with a distribution is that of its probabilities, close to certainty too", () => {
    for (const temperature of [0, 0.01, 0.7, 1, 5]) {
      for (const [topK, topP] of [[0, 1], [1, 1], [7, 1], [0, 0.4]]) {
        const { probs, entropy: given } = shape(some, { temperature, topK, topP });
        expect(given).toBeCloseTo(entropy(probs), 12);
      }
    }
    const doubt = Math.exp(-60); // P(1) rounds to 1: by its logarithm the likelier token would add nothing
    expect(shape(Float32Array.of(60, 0), { temperature: 1, topK: 0, topP: 1 }).entropy / (doubt * 61)).toBeCloseTo(1, 12);
  });

  test("entropy and divergence have their known values", () => {
    expect(entropy([0.5, 0.5, 0])).toBeCloseTo(Math.LN2, 12);
    expect(entropy([1, 0])).toBe(0);
    expect(jensenShannon([1, 0], [0, 1])).toBeCloseTo(Math.LN2, 12);
    expect(jensenShannon([0.3, 0.7], [0.3, 0.7])).toBe(0);
  });
});
