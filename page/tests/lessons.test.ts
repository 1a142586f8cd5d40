import { describe, expect, test } from "vitest";
import { ACTIVATIONS, SLOPE, VALUE } from "../src/lib/activations.ts";
import { answer, ATTRACTORS, borders, CODES, gridOf, Learner, nearest, shareRight } from "../src/lib/attractors.ts";
import { Fits, HELD_OUT, scattered, wave, type Points } from "../src/lib/fits.ts";
import { frequencies, lettersOf, longestCopy, MOST_LETTERS, pairsOf, Ring, shareKnown, wordsOf, write } from "../src/lib/letters.ts";
import { Net } from "../src/lib/net.ts";
import { alphabetOf, depthsOf, idsOfNest, nest } from "../src/lib/parentheses.ts";
import { Pcg32 } from "../src/lib/random.ts";

describe("letters", () => {
  test("words and letters are read as the package reads them", () => {
    expect(wordsOf("Don't PANIC: it's 42_times ok")).toEqual(["don't", "panic", "it's", "times", "ok"]);
    expect(lettersOf("Don't PANIC: it's 42_times ok").join("")).toBe("dont panic its times ok");
    expect(lettersOf("三个点，一条线").join("")).toBe("三个点 一条线");
    expect(wordsOf("1, 2!")).toEqual([]);
    expect(lettersOf("ab ".repeat(MOST_LETTERS)).length).toBe(MOST_LETTERS);
  });

  test("letters are counted, the most frequent first", () => {
    expect(frequencies([..."banana"])).toEqual([
      { letter: "a", count: 3 },
      { letter: "n", count: 2 },
      { letter: "b", count: 1 },
    ]);
  });

  test("pairs are counted by this letter and the next, and rows know what was left out", () => {
    const { signs, counts, totals } = pairsOf([..."aba ab"], 2);
    expect(signs).toEqual([" ", "a"]);
    expect([...counts]).toEqual([0, 1, 1, 0]); // a b is not among the signs
    expect([...totals]).toEqual([1, 3]);
  });

  test("what follows a history is what stands after it in the text", () => {
    const ring = new Ring([..."the then"]);
    const found = ring.following(["t", "h"]);
    expect(found).toEqual([{ letter: "e", count: 2 }]);
    expect(ring.following(["e"])).toEqual([{ letter: " ", count: 1 }, { letter: "n", count: 1 }]);
    expect(ring.following(["n"])).toEqual([{ letter: " ", count: 1 }]); // the end leads back to the beginning
  });

  test("every stretch of n letters that is written stands in the text", () => {
    const text = lettersOf("She sells sea shells by the sea shore, and the shells she sells are sea shells.");
    const around = `${text.join("")} ${text.join("")} `;
    for (const n of [1, 2, 3, 4, 5, 6]) {
      const wrote = ` ${write(new Ring(text), n, 80, 3)}`;
      expect(wrote.length).toBe(81);
      for (let at = 0; at + n <= wrote.length; at++) expect(around).toContain(wrote.slice(at, at + n));
    }
  });

  test("the same seed writes the same, another seed another text", () => {
    const ring = new Ring(lettersOf("the quick brown fox jumps over the lazy dog and runs away"));
    expect(write(ring, 2, 50, 1)).toBe(write(ring, 2, 50, 1));
    expect(write(ring, 2, 50, 1)).not.toBe(write(ring, 2, 50, 2));
  });

  test("single letters come as often as in the text", () => {
    const wrote = write(new Ring([..."aaaaaaab"]), 1, 4000, 5); // seven a, a b, and the space of the ring: of nine each
    const share = [...wrote].filter((letter) => letter === "a").length / 4000;
    expect(Math.abs(share - 7 / 9)).toBeLessThan(4 * Math.sqrt((7 * 2) / 81 / 4000));
  });

  test("known words and copied stretches are measured as in the package", () => {
    expect(shareKnown("the dgo the c", ["the", "dog"])).toBeCloseTo(2 / 3, 12);
    expect(shareKnown("the", ["the", "dog"])).toBeNull();
    expect(longestCopy("a cat and a dog", "the cat and the dog")).toBe(9);
  });
});

/** Least squares in powers of x by the normal equations: plain, and good for a few parameters. */
function plainFit({ x, y }: Points, parameters: number): (at: number) => number {
  const rows = Array.from({ length: parameters }, (_, i) => [
    ...Array.from({ length: parameters }, (_, j) => x.reduce((sum, at) => sum + at ** (i + j), 0)),
    x.reduce((sum, at, place) => sum + at ** i * y[place], 0),
  ]);
  for (let i = 0; i < parameters; i++) {
    const pivot = rows.slice(i).reduce((best, row, at) => (Math.abs(row[i]) > Math.abs(rows[i + best][i]) ? at : best), 0);
    [rows[i], rows[i + pivot]] = [rows[i + pivot], rows[i]];
    for (let j = 0; j < parameters; j++) {
      if (j === i) continue;
      const by = rows[j][i] / rows[i][i];
      for (let k = i; k <= parameters; k++) rows[j][k] -= by * rows[i][k];
    }
  }
  return (at) => rows.reduce((sum, row, i) => sum + (row[parameters] / row[i]) * at ** i, 0);
}

describe("curve fits", () => {
  const { fitted, heldOut } = scattered(1, 20, 0.25);
  const fits = new Fits(fitted);

  test("they are the least squares of a plain solution", () => {
    const places = Float64Array.from({ length: 41 }, (_, i) => -1 + i / 20);
    for (let parameters = 1; parameters <= 8; parameters++) {
      const plain = plainFit(fitted, parameters);
      fits.heights(places, parameters).forEach((height, i) => expect(height).toBeCloseTo(plain(places[i]), 7));
    }
  });

  test("with all sixteen, what is left over is perpendicular to every power of x", () => {
    const off = fits.heights(fitted.x, 16).map((height, i) => height - fitted.y[i]);
    for (let power = 0; power < 16; power++) {
      expect(Math.abs(off.reduce((sum, value, i) => sum + value * fitted.x[i] ** power, 0))).toBeLessThan(1e-10);
    }
  });

  test("as many parameters as points go through every point", () => {
    const few = scattered(2, 16, 0.5).fitted;
    expect(new Fits(few).error(few, 16)).toBeLessThan(1e-9);
    expect(new Fits(few).error(few, 15)).toBeGreaterThan(1e-6);
  });

  test("a polynomial is found again", () => {
    const y = (at: number): number => 2 - at + 3 * at ** 4;
    const line = new Fits({ x: fitted.x, y: fitted.x.map(y) });
    line.heights(heldOut.x, 5).forEach((height, i) => expect(height).toBeCloseTo(y(heldOut.x[i]), 10));
  });

  test("more parameters never fit worse, but the points held out see it", () => {
    const training = Array.from({ length: 16 }, (_, i) => fits.error(fitted, i + 1));
    const elsewhere = Array.from({ length: 16 }, (_, i) => fits.error(heldOut, i + 1));
    for (let i = 1; i < 16; i++) expect(training[i]).toBeLessThanOrEqual(training[i - 1] + 1e-12);
    const best = elsewhere.indexOf(Math.min(...elsewhere));
    expect(best).toBeGreaterThan(3);
    expect(elsewhere[15]).toBeGreaterThan(2 * elsewhere[best]);
  });

  test("points are where they should be, and noise moves the same ones", () => {
    const quiet = scattered(1, 20, 0);
    expect([...quiet.fitted.x]).toEqual([...fitted.x]);
    expect([...quiet.fitted.y]).toEqual([...fitted.x].map(wave));
    expect(heldOut.x.length).toBe(HELD_OUT);
    expect(Math.min(...heldOut.x)).toBeGreaterThanOrEqual(fitted.x[0]);
    const noise = Math.sqrt(heldOut.y.reduce((sum, y, i) => sum + (y - wave(heldOut.x[i])) ** 2, 0) / HELD_OUT);
    expect(Math.abs(noise - 0.25)).toBeLessThan((4 * 0.25) / Math.sqrt(2 * HELD_OUT));
  });
});

describe("activation functions", () => {
  test("known values", () => {
    expect([VALUE.relu(-2), VALUE.relu(2), VALUE.relu2(3), VALUE.silu(0), VALUE.gelu(0)]).toEqual([0, 2, 9, 0, 0]);
    expect(VALUE.gelu(1)).toBeCloseTo(0.841192, 6);
    expect(VALUE.silu(1)).toBeCloseTo(1 / (1 + Math.exp(-1)), 12);
    expect(VALUE.silu(-800)).toBeCloseTo(0, 12);
  });

  test.each(ACTIVATIONS)("the slope of %s is what its values say", (name) => {
    for (const x of [-3.2, -1, -0.31, 0.2, 0.9, 2.7]) {
      const measured = (VALUE[name](x + 1e-5) - VALUE[name](x - 1e-5)) / 2e-5;
      expect(SLOPE[name](x)).toBeCloseTo(measured, 6);
    }
  });
});

describe("the net of three attractors", () => {
  test.each([["tanh", [3, 4]], ["relu", [5]], ["tanh", []]] as const)("the gradient of %s %j is that of finite differences", (bend, hidden) => {
    const net = new Net([2, ...hidden, 1], bend, 7);
    const random = new Pcg32(3);
    const inputs = Float64Array.from({ length: 12 }, () => 2 * random.uniform() - 1);
    const targets = Float64Array.from({ length: 6 }, () => 2 * random.uniform() - 1);
    const { gradient } = net.lossAndGradient(inputs, targets);
    expect(gradient.length).toBe(net.parameters.length);
    net.parameters.forEach((value, i) => {
      const at = (moved: number): number => {
        net.parameters[i] = moved;
        const { loss } = net.lossAndGradient(inputs, targets);
        net.parameters[i] = value;
        return loss;
      };
      expect(gradient[i]).toBeCloseTo((at(value + 1e-6) - at(value - 1e-6)) / 2e-6, 7);
    });
  });

  test("the loss is the mean square of what the outputs are off", () => {
    const net = new Net([2, 3, 1], "tanh", 1);
    const inputs = Float64Array.of(0.1, 0.2, -0.5, 0.9);
    const [a, b] = net.outputs(inputs);
    expect(net.lossAndGradient(inputs, Float64Array.of(1, -1)).loss).toBeCloseTo(((a - 1) ** 2 + (b + 1) ** 2) / 2, 12);
  });

  test("the same seed takes the same steps, and another seed others", () => {
    const [one, same, other] = [4, 4, 5].map((seed) => new Learner([4], "tanh", 0.05, seed));
    for (const learner of [one, same, other]) for (let i = 0; i < 30; i++) learner.step();
    expect([...same.net.parameters]).toEqual([...one.net.parameters]);
    expect(same.losses).toEqual(one.losses);
    expect(other.losses).not.toEqual(one.losses);
  });

  test("it learns, and a wider net learns more than one unit can", () => {
    const grid = gridOf(41);
    const reached = [[1], [8]].map((hidden) => {
      const learner = new Learner(hidden, "tanh", 0.05, 1);
      for (let i = 0; i < 600; i++) learner.step();
      expect(learner.losses.at(-1)!).toBeLessThan(learner.losses[0] / 2);
      return shareRight(learner.net.outputs(grid), grid);
    });
    expect(reached[1]).toBeGreaterThan(0.9);
    expect(reached[1]).toBeGreaterThan(reached[0] + 0.05);
  });

  test("every attractor is nearest to itself, and codes answer for outputs near them", () => {
    ATTRACTORS.forEach(([x, y], i) => expect(nearest(x, y)).toBe(i));
    expect([-7, -0.51, -0.4, 0.3, 0.6].map((output) => CODES[answer(output)])).toEqual([-1, -1, 0, 0, 1]);
    const grid = gridOf(21);
    const right = Float64Array.from({ length: 441 }, (_, i) => CODES[nearest(grid[2 * i], grid[2 * i + 1])]);
    expect(shareRight(right, grid)).toBe(1);
  });

  test("borders lie between two attractors, as near to one as to the other, and meet", () => {
    const lines = borders();
    expect(lines.length).toBe(3);
    for (const end of lines.flat()) {
      const away = ATTRACTORS.map(([x, y]) => Math.hypot(end[0] - x, end[1] - y)).sort((a, b) => a - b);
      expect(away[1] - away[0]).toBeLessThan(1e-9);
    }
    const middles = lines.map((ends) => ends.reduce((best, end) => (Math.hypot(...end) < Math.hypot(...best) ? end : best)));
    for (const middle of middles) expect(Math.hypot(middle[0] - middles[0][0], middle[1] - middles[0][1])).toBeLessThan(0.05);
  });
});

describe("parentheses", () => {
  test("a model that writes nothing else is known by its symbols", () => {
    expect(alphabetOf({ symbols: ["\n", "(", ")"] })).toEqual({ open: 1, close: 2, end: 0 });
    expect(alphabetOf({ symbols: ["(", ")"] })).toEqual({ open: 0, close: 1, end: null });
    expect(alphabetOf({ symbols: ["(", ")", "x"] })).toBeNull();
    expect(alphabetOf({ symbols: ["0", "1"] })).toBeNull();
    expect(alphabetOf({ symbols: null })).toBeNull();
  });

  test("depth is a counter, and what closes nothing is below 0", () => {
    expect(depthsOf("(())")).toEqual([0, 1, 2, 1, 0]);
    expect(depthsOf("())(")).toEqual([0, 1, 0, -1, 0]);
    expect(nest(2)).toBe("(())");
    expect(idsOfNest("()", { open: 1, close: 2, end: 0 })).toEqual([0, 1, 2]);
    expect(idsOfNest("()", { open: 0, close: 1, end: null })).toEqual([0, 1]);
  });
});
