import { expect, test } from "vitest";
import { distances, less } from "../src/lib/difference.ts";

test("heads that look the same way are 0 apart, and those that share nothing 1", () => {
  const a = [1, 0, 0.5, 0.5, 1, 0, 1, 0];
  const b = [1, 0, 0.5, 0.5, 0, 1, 0.5, 0.5];
  expect([...distances(a, b, [1, 2, 2, 2])]).toEqual([0, 0.75]);
  expect([...distances([1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 2, 2])]).toEqual([1]);
  expect([...less(Float32Array.of(0.5, 0.25), Float32Array.of(0.25, 0.5))]).toEqual([0.25, -0.25]);
});
