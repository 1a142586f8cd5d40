import { describe, expect, test } from "vitest";
import { lineThrough, roomFor, scaleOf, written } from "../src/lib/axes.ts";

describe("axes", () => {
  test("a scale takes the ends of its values to the ends of its pixels, also downwards", () => {
    const [across, up] = [scaleOf([-1, 3], [10, 50]), scaleOf([0, 4], [100, 20])];
    expect([-1, 1, 3, 5].map(across)).toEqual([10, 30, 50, 70]);
    expect([0, 1, 4].map(up)).toEqual([100, 80, 20]);
  });

  test("values that are all the same stand at the beginning, and nothing is divided by zero", () => {
    expect(scaleOf([7, 7], [10, 50])(7)).toBe(10);
  });

  test("ticks are written with a minus sign that is as wide as a plus, or as they are asked to be", () => {
    expect(written([-0.5, 0, 2])).toEqual([
      { at: -0.5, text: "−0.5" },
      { at: 0, text: "0" },
      { at: 2, text: "2" },
    ]);
    expect(written([0.25], (share) => `${100 * share}%`)).toEqual([{ at: 0.25, text: "25%" }]);
  });

  test("the longest number says how much room an upright axis takes, and its name takes more", () => {
    expect(roomFor(written([5, 1000])) - roomFor(written([5, 10]))).toBe(14);
    expect(roomFor(written([5])) - roomFor(written([5]), false)).toBe(16);
    expect(roomFor([], false)).toBe(roomFor(written([1]), false));
  });

  test("a line is interrupted where there is no number, and begins anew", () => {
    const spots = [NaN, 1, 2, Infinity, 3, 4].map((y, x) => ({ x, y }));
    const same = (value: number): number => value;
    expect(lineThrough(spots, same, (y) => 10 * y)).toBe("M1.0 10.0L2.0 20.0M4.0 30.0L5.0 40.0");
    expect(lineThrough([], same, same)).toBe("");
  });
});
