import { describe, expect, test } from "vitest";
import { pointsBetween } from "../src/lib/numbers.ts";

describe("the difference of two probabilities", () => {
  test("is told in percentage points, with its sign", () => {
    expect(pointsBetween(Math.log(0.5), Math.log(0.25))).toBe("+25.0");
    expect(pointsBetween(Math.log(0.25), Math.log(0.5))).toBe("−25.0");
    expect(pointsBetween(0, -Infinity)).toBe("+100.0");
    expect(pointsBetween(Math.log(0.5012), Math.log(0.5))).toBe("+0.12");
    expect(pointsBetween(-3, -3)).toBe("0");
    expect(pointsBetween(-Infinity, -Infinity)).toBe("0");
  });

  test("is never 0 where there is one, however near to 0 or 1 the two are", () => {
    expect(pointsBetween(Math.log(1e-200), -Infinity)).toBe("+1.0e−198");
    expect(pointsBetween(-1e-150, 0)).toBe("−1.0e−148");
  });
});
