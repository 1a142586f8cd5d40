import { describe, expect, test } from "vitest";
import { ACTIVATIONS, SLOPE, VALUE } from "../src/lib/activations.ts";
import { answer, ATTRACTORS, borders, CODES, gridOf, Learner, nearest, shareRight } from "../src/lib/attractors.ts";
import { blur, CELLS, cycled, readInk, spellInk, Stroke } from "../src/lib/digits.ts";
import { Fits, HELD_OUT, scattered, wave, type Points } from "../src/lib/fits.ts";
import { clearSide, contour, labelled, levels, logsOf, nearestOf, type Land } from "../src/lib/landscape.ts";
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

describe("drawing digits", () => {
  const paper = new Uint8Array(CELLS);
  const row = (ink: Uint8Array, r: number): number[] => [...ink.subarray(8 * r, 8 * r + 8)];

  test("a drawing and its address are each other's inverse, and nothing else is read", () => {
    const ink = Uint8Array.from({ length: CELLS }, (_, i) => i % 17);
    expect(readInk(spellInk(ink))).toEqual(ink);
    expect(spellInk(ink)).toMatch(/^[0-9a-g]{64}$/);
    for (const text of [undefined, "", "0".repeat(63), "0".repeat(65), "h".repeat(64), "-".repeat(64)]) expect(readInk(text)).toBeNull();
  });

  test("a key gives all ink, half of it, none", () => {
    expect([0, 16, 8, 3, 12].map(cycled)).toEqual([16, 8, 0, 0, 8]);
  });

  test("a straight stroke inks the cells below it evenly, and those beside it by its breadth", () => {
    const stroke = new Stroke(paper, false);
    stroke.to(0.5, 3.5);
    const ink = stroke.to(7.5, 3.5);
    expect(row(ink, 3).slice(1, 7)).toEqual([16, 16, 16, 16, 16, 16]);
    expect(row(ink, 2)).toEqual(row(ink, 4)); // five bits broad, about the middle of a cell of four
    for (const r of [0, 1, 5, 6, 7]) expect(row(ink, r)).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(paper.every((value) => value === 0)).toBe(true);
  });

  test("a slanted stroke is symmetric, and goes past the edge without a trace", () => {
    const stroke = new Stroke(paper, false);
    stroke.to(-2, -2);
    const ink = stroke.to(10, 10);
    for (let r = 0; r < 8; r++) for (let c = 0; c < 8; c++) expect(ink[8 * r + c]).toBe(ink[8 * c + r]);
    for (let r = 0; r < 8; r++) expect(ink[9 * r]).toBe(16);
    expect(ink[7]).toBe(0);
  });

  test("what was drawn stays below a stroke, and a rubber takes it away again", () => {
    const before = Uint8Array.from(paper, () => 9);
    const drawn = new Stroke(before, false).to(4.5, 4.5);
    expect([Math.min(...drawn), Math.max(...drawn)]).toEqual([9, 16]);
    const rubbed = new Stroke(drawn, true).to(4.5, 4.5);
    expect(rubbed[36]).toBe(0);
    expect(rubbed[0]).toBe(9);
  });

  test("blur keeps the ink that does not run off the paper, and the middle of it", () => {
    const dot = new Float64Array(CELLS);
    dot[27] = 1;
    const soft = blur(dot, 0.6);
    expect(soft.reduce((sum, ink) => sum + ink, 0)).toBeCloseTo(1, 4);
    expect(soft[26]).toBeCloseTo(soft[28], 14);
    expect(soft[26]).toBeCloseTo(soft[19], 14);
    expect(soft[26] / soft[27]).toBeCloseTo(Math.exp(-0.5 / 0.36), 12);
    expect([...blur(dot, 0)]).toEqual([...dot]);
    expect(blur(Float64Array.from(dot, () => 1), 2).reduce((sum, ink) => sum + ink, 0)).toBeLessThan(50);
  });
});

describe("the loss landscape", () => {
  const side = 21;
  const at = (i: number): number => -1 + (2 * i) / (side - 1);
  const valley = (x: number, y: number): number => 0.5 + x * x + 2 * y * y;
  const grid = Float64Array.from({ length: side * side }, (_, i) => valley(at(i % side), at(Math.floor(i / side))));

  test.each([[0.41, 0.703], [0.35, 4], [0.3, 900], [2, 2.001], [1e-3, 1e5]])("levels from %d to %d are round, rising and enough", (low, high) => {
    const found = levels(low, high);
    expect(found.length).toBeGreaterThanOrEqual(6);
    expect(found.length).toBeLessThan(45);
    found.forEach((level, i) => {
      expect(level > low && level < high).toBe(true);
      if (i > 0) expect(level).toBeGreaterThan(found[i - 1]);
    });
    if (high / low > 1.01) for (const level of found) expect(String(level).replace(/[0.]/g, "").length).toBeLessThanOrEqual(2);
  });

  test("there are none where all is one height", () => expect(levels(0.7, 0.7)).toEqual([]));

  test("a contour of a valley is the ellipse that it should be", () => {
    const segments = contour(grid, side, 0.9);
    expect(segments.length).toBeGreaterThan(20);
    const toPlane = (column: number): number => -1 + (2 * column) / (side - 1);
    for (const [a, b, c, d] of segments) {
      for (const [x, y] of [[a, b], [c, d]]) expect(Math.abs(valley(toPlane(x), toPlane(y)) - 0.9)).toBeLessThan(0.01);
    }
    // It is closed: every end is another's too.
    const ends = segments.flatMap(([a, b, c, d]) => [`${a.toFixed(6)} ${b.toFixed(6)}`, `${c.toFixed(6)} ${d.toFixed(6)}`]);
    for (const end of ends) expect(ends.filter((other) => other === end).length).toBe(2);
    expect(contour(grid, side, 0.4)).toEqual([]);
    expect(contour(grid, side, 9)).toEqual([]);
  });

  test("at a saddle the two lines don't cross, and go by what is in the middle", () => {
    const cut = (corner: number): string[] => contour(Float64Array.of(1, 0, 0, corner), 2, 0.4).map((segment) => segment.map((value) => value.toFixed(2)).join(" "));
    expect(cut(1)).toHaveLength(2); // the middle is 0.5: high corners are joined
    expect(cut(1)[0]).toBe("0.60 0.00 1.00 0.40");
    expect(contour(Float64Array.of(1, 0, 0, 1), 2, 0.6).map((segment) => segment[0].toFixed(2))).toEqual(["0.00", "1.00"]);
  });

  test("losses without bound lie as high as the highest that has one", () => {
    expect([...logsOf({ losses: [[1, 10], [null, 100]] } as Land)]).toEqual([0, 1, 2, 2]);
  });

  test("named steps are evenly far apart, with the first and the last", () => {
    const steps = Array.from({ length: 51 }, (_, i) => i);
    expect(labelled(steps, 6)).toEqual([0, 10, 20, 30, 40, 50]);
    expect(labelled([0, 1, 2, 4, 8, 100], 3)).toEqual([0, 4, 5]);
    expect(labelled([7], 6)).toEqual([0]);
  });

  test("a name goes where the path doesn't, if it fits there", () => {
    const path = [[0, 0], [10, 0], [20, 0]] as const;
    expect(Math.abs(clearSide(path, 1, 5)[1])).toBeCloseTo(1, 9);
    expect(clearSide(path, 2, 5, ([dx]) => dx < -0.9)).toEqual([Math.cos(Math.PI), Math.sin(Math.PI)]);
    expect(clearSide(path, 2, 5)[0]).toBeGreaterThan(0.7);
    expect(nearestOf(path, [12, 3])).toBe(1);
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
