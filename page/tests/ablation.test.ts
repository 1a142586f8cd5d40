import { describe, expect, test } from "vitest";
import { joined, noEffects, partAt, placeOf, readPart, spellPart, strongestHeads, topOf, unitOf } from "../src/lib/ablation.ts";

describe("parts", () => {
  test("have a place each, layer by layer and the MLP last", () => {
    const effects = noEffects(3, 4);
    const parts = [...effects.bits.keys()].map((place) => partAt(effects, place));
    expect(parts.map(spellPart).slice(3, 7)).toEqual(["0.3", "0.mlp", "1.0", "1.1"]);
    expect(parts.map((part) => placeOf(effects, part))).toEqual([...effects.bits.keys()]);
    expect(parts.map((part) => readPart(spellPart(part)))).toEqual(parts);
  });

  test("are known some at a time", () => {
    const none = noEffects(2, 2);
    const some = joined(none, ["1.0", "1.mlp"], [Math.LN2, Math.LN2 / 4]);
    expect([none.known, some.known]).toEqual([0, 2]);
    expect([...some.bits]).toEqual([NaN, NaN, NaN, 1, NaN, 0.25]);
    expect(topOf(none)).toBe(0);
    expect(topOf(some)).toBe(1);
  });

  test("of heads the strongest come first, and MLPs and those without effect not at all", () => {
    const found = joined(noEffects(2, 2), ["0.0", "0.1", "0.mlp", "1.0", "1.1", "1.mlp"], [0.1, 0.3, 0.6, 0, 0.3, 0.5]);
    expect(strongestHeads(found, 9).map(spellPart)).toEqual(["0.1", "1.1", "0.0"]);
    expect(strongestHeads(found, 1).map(spellPart)).toEqual(["0.1"]);
  });
});

describe("units", () => {
  test.each([
    [0.96, "bits", "0.96"],
    [0.1, "bits", "0.10"],
    [0.0999, "millibits", "100"],
    [0.0034, "millibits", "3.4"],
    [1.8e-9, "nanobits", "1.8"],
    [2e-14, "picobits", "0.02"],
    [0, "picobits", "0.00"],
  ])("%d is written in %s", (top, name, text) => {
    expect(unitOf(top).name).toBe(name);
    expect(unitOf(top).write(top)).toBe(text);
  });
});
