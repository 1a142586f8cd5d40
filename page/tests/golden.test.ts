import { describe, expect, test } from "vitest";
import baby from "../golden/baby.json";
import cases from "../golden/cases.json";
import digits from "../golden/digits.json";
import landscapes from "../golden/landscape.json";
import { lossOn, reach, stationary, tableOf } from "../src/lib/chain.ts";
import { countWindows, idsOf, successor } from "../src/lib/contexts.ts";
import { blur, DigitReader } from "../src/lib/digits.ts";
import { logsOf, nearestIn, type Land } from "../src/lib/landscape.ts";
import { necklaceLayout } from "../src/lib/necklaces.ts";
import { draw, Pcg32 } from "../src/lib/random.ts";
import { parseSafetensors } from "../src/lib/safetensors.ts";
import { bytesOf } from "../src/lib/saved.ts";
import { entropy, jensenShannon, likeliestOfBoth, shape, softmax } from "../src/lib/softmax.ts";

/** Equal to one part in a million, and exactly where the package says exactly 0. */
function expectSame(got: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(got.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    if (expected[i] === 0) expect(got[i]).toBeLessThan(1e-290);
    else expect(Math.abs(got[i] / expected[i] - 1), `entry ${i}: ${got[i]} for ${expected[i]}`).toBeLessThan(1e-6);
  }
}

const samplerOf = (c: { temperature: number; top_k: number; top_p: number }) => ({
  temperature: c.temperature,
  topK: c.top_k,
  topP: c.top_p,
});

describe("the page's numbers are the package's", () => {
  test.each(cases.samplers)("sampler: T $temperature, k $top_k, p $top_p", (c) => {
    const { probs } = shape(Float32Array.from(c.logits), samplerOf(c));
    expectSame(probs, c.probs);
    expect(entropy(probs)).toBeCloseTo(c.entropy, 9);
  });

  test.each(cases.chains)("chain: V $vocab_size, T $temperature, k $top_k, p $top_p", (c) => {
    const chain = {
      vocabSize: c.vocab_size,
      nStates: c.vocab_size ** c.context_length,
      logits: Float32Array.from(c.logits),
    };
    const table = tableOf(chain, samplerOf(c));
    const { profile, fromState } = reach(table, new Set(c.red), c.horizon, c.start);
    c.log_within.forEach((log, t) => {
      if (log === null) expect(profile[t]).toBe(-Infinity);
      else expect(Math.abs(Math.expm1(profile[t] - log)), `within ${t}: ${profile[t]} for ${log}`).toBeLessThan(1e-6);
    });
    expect(fromState[c.start]).toBe(profile[c.horizon]);
    expectSame(stationary(table, c.start).probs, c.stationary);
  });

  test.each(cases.ablations)("with a part switched off the distribution moves by $js_nats nats", (c) => {
    const [p, q] = [c.whole, c.ablated].map((logits) => softmax(Float32Array.from(logits)));
    expect(Math.abs(jensenShannon(p, q) - c.js_nats)).toBeLessThan(1e-6 * c.js_nats + 1e-15);
    expect(likeliestOfBoth(p, q, 6)).toEqual(c.likeliest);
  });

  test.each(cases.necklaces)("necklaces: V $vocab_size, k $context_length", (c) => {
    const { rings, positions } = necklaceLayout(c.vocab_size, c.context_length);
    expect(rings).toEqual(c.rings);
    positions.forEach((position, state) => position.forEach((x, axis) => expect(x).toBeCloseTo(c.positions[state][axis], 6)));
  });

  test("the random numbers are PCG32's", () => {
    const numbers = new Pcg32(42);
    expect(cases.random.seed_42.map(() => numbers.next())).toEqual(cases.random.seed_42);
    expect(cases.random.seed_42[0]).toBe(0xa15c02b7); // as in the reference code's own demonstration
    const uniforms = new Pcg32(7);
    expect(cases.random.uniforms_of_seed_7.map(() => uniforms.uniform())).toEqual(cases.random.uniforms_of_seed_7);
  });

  test("a walk of one seed takes the same tokens", () => {
    const logits = baby.tables["3"].at(-1)!;
    const random = new Pcg32(1);
    let state = 7;
    const tokens = cases.random.walk_of_seed_1_from_111.map(() => {
      const token = draw(softmax(Float32Array.from(logits[state])), random.uniform());
      state = successor(state, token, 2, 8);
      return token;
    });
    expect(tokens).toEqual(cases.random.walk_of_seed_1_from_111);
  });

  test("the loss of a table on its data is the loss that training reported", () => {
    const counts = countWindows(idsOf(baby.sequence, ["0", "1"])!, 2, 3);
    baby.losses.forEach((loss, step) => {
      const logits = Float32Array.from(baby.tables["3"][step].flat());
      const table = tableOf({ vocabSize: 2, nStates: 8, logits }, { temperature: 1, topK: 0, topP: 1 });
      expect(Math.abs(lossOn(table, counts) / loss - 1)).toBeLessThan(1e-6);
    });
  });

  describe("the net that reads digits", () => {
    const reader = new DigitReader(parseSafetensors(bytesOf(digits.reply)));
    const close = (got: ArrayLike<number>, expected: number[]): void => {
      expect(got.length).toBe(expected.length);
      expected.forEach((value, i) => expect(Math.abs(got[i] - value), `entry ${i}: ${got[i]} for ${value}`).toBeLessThan(1e-9));
    };

    test.each(digits.cases.map((c, i) => [i, c] as const))("picture %i: blur, units, answers and place", (_, c) => {
      const image = Float64Array.from(c.image, (ink) => ink / 16);
      const blurred = blur(image, c.width);
      close(blurred, c.blurred);
      const { hidden, probs, place, answer } = reader.read(blurred);
      close(hidden, c.hidden);
      close(probs, c.probs);
      expectSame(probs, c.probs);
      close(place, c.place);
      expect(probs[answer]).toBe(Math.max(...probs));
    });

    test("the digits held out are those of the cases, and are read as often right as is said", () => {
      digits.cases.slice(0, 12).forEach((c, i) => close(reader.image(i), c.image.map((ink) => ink / 16)));
      const right = reader.readings.filter(({ answer }, i) => answer === reader.labels[i]).length;
      expect(right / 500).toBe(reader.right[0]);
      expect(reader.misread.length).toBe(500 - right);
      expect(reader.typical.map((i) => reader.labels[i])).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      expect(reader.parameters).toBe(64 * 32 + 32 + 32 * 10 + 10);
    });

    test("the map's middle is where the digits are on average, and its axes hold what is said", () => {
      const variance = (values: number[]): number => {
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        return values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
      };
      const along = [0, 1].map((axis) => reader.readings.map(({ place }) => place[axis]));
      for (const values of along) expect(Math.abs(values.reduce((sum, value) => sum + value, 0))).toBeLessThan(1e-9);
      const all = Array.from({ length: reader.units }, (_, unit) => variance(reader.readings.map(({ hidden }) => hidden[unit]))).reduce((a, b) => a + b);
      along.forEach((values, axis) => expect(variance(values) / all).toBeCloseTo(reader.explained[axis], 10));
    });
  });

  test("the losses of the baby's path are those that training wrote down", () => {
    const land = landscapes.path as Land;
    expect(land.steps).toEqual(baby.steps);
    baby.losses.forEach((loss, i) => expect(Math.abs(land.path_losses[i]! - loss)).toBeLessThan(1e-6));
    expect(land.path.at(-1)).toEqual([0, 0]);
    // Of a random plane the middle of the grid is the model itself.
    const around = landscapes.random as Land;
    const middle = nearestIn(around.across, 0);
    expect(10 ** logsOf(around)[middle * around.across.length + middle]).toBeCloseTo(around.path_losses[0]!, 9);
    expect(around.path_losses[0]).toBeCloseTo(land.path_losses.at(-1)!, 9);
  });
});
