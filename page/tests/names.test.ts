import { describe, expect, test } from "vitest";
import { besides, boxOf, type Named } from "../src/lib/names.ts";

const dot = (x: number, y: number, width = 40): Named => ({ x, y, radius: 5, width, height: 14 });

describe("names beside dots", () => {
  test("a dot by itself is named on the right, and at the right edge on the left", () => {
    expect(besides([dot(100, 100)], [0], 400)).toEqual(["right"]);
    expect(besides([dot(390, 100)], [0], 400)).toEqual(["left"]);
  });

  test("no name covers a dot or another name, however crowded", () => {
    const dots = Array.from({ length: 60 }, (_, i) => dot(40 + ((i * 37) % 300), 40 + ((i * 91) % 200), 20 + (i % 5) * 10));
    const sides = besides(dots, [...dots.keys()], 400);
    const boxes = sides.flatMap((side, i) => (side ? [{ i, ...boxOf(dots[i], side) }] : []));
    expect(boxes.length).toBeGreaterThan(10);
    expect(boxes.length).toBeLessThan(60);
    for (const a of boxes) {
      for (const b of boxes) if (a.i < b.i) expect(a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom).toBe(false);
      for (const [j, { x, y }] of dots.entries()) if (j !== a.i) expect(x > a.left && x < a.right && y > a.top && y < a.bottom).toBe(false);
    }
  });

  test("who comes first chooses first", () => {
    const pair = [dot(100, 100, 300), dot(100, 112, 300)];
    expect(besides(pair, [1, 0], 450)[1]).toBe("right");
    expect(besides(pair, [1, 0], 450)[0]).toBeNull();
  });
});
