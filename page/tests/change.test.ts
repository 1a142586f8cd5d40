import { describe, expect, test } from "vitest";
import { atOf, cellOf, laid, laidOut, placeOf, readChange, spellChange } from "../src/lib/change.ts";
import { fromHash, toHash } from "../src/lib/route.ts";

describe("a weight changed by hand", () => {
  test("comes back from an address as it was", () => {
    for (const change of [
      { name: "h.0.attn.c_attn.weight", at: [3, 5], value: 0.25 },
      { name: "ln_f.bias", at: [7], value: -1e-7 },
      { name: "wte.weight", at: [0, 0], value: 0 },
    ]) {
      expect(readChange(spellChange(change))).toEqual(change);
      for (const step of [null, 50]) {
        const a = { id: "baby-run", step, change };
        expect(fromHash(toHash({ ...fromHash(""), a })).a).toEqual(a);
      }
    }
  });

  test("is left out where it can't be read", () => {
    for (const text of ["", "wte:1", "wte:1:", "wte:1:x", "wte:1:1e9", "wte:-1:0", "wte:1.2.3:0", "<b>:1:0", "wte:1:NaN"]) expect(readChange(text)).toBeNull();
    expect(fromHash("#/chain?m=baby@50~wte:1:x").a).toEqual({ id: "baby@50~wte:1:x", step: null });
    expect(fromHash("#/chain?m=baby@50").a).toEqual({ id: "baby", step: 50 });
  });

  test("stands where its matrix is drawn, upright, on its side and as a vector", () => {
    for (const shape of [[2, 3], [3, 2], [4]]) {
      const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => i + 1);
      const { rows, columns } = laidOut(shape);
      expect(rows).toBeLessThanOrEqual(columns);
      for (let row = 0; row < rows; row++) {
        for (let column = 0; column < columns; column++) {
          const at = atOf(row, column, shape);
          expect(cellOf(at, shape)).toEqual([row, column]);
          const drawn = laid(values, shape, { name: "w", at, value: -9 });
          expect(drawn.indexOf(-9)).toBe(row * columns + column);
          expect(laid(values, shape, null)[row * columns + column]).toBe(values[placeOf(at, shape)]);
        }
      }
    }
  });
});
