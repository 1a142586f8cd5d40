import { describe, expect, test } from "vitest";
import { fromHash, HOME, toHash, type Route } from "../src/lib/route.ts";

const BUSY: Route = {
  place: "tokens",
  a: { id: "baby", step: 50 },
  b: { id: "odd@name@7", step: null },
  shown: "difference",
  ids: [464, 3290, 0],
  at: 2,
  sampler: { temperature: 0.8, topK: 5, topP: 0.95 },
  seed: 7,
  overlay: "entropy",
  layout: "necklace",
  every: true,
  red: [0, 12],
  horizon: 30,
  pattern: [0, 0, 1, 0],
  layer: 2,
  head: 3,
  off: { layer: 2, head: null },
  lesson: "fits",
  knobs: { n: "7", noise: "0.25", text: "(())", before: "的_é" },
};

describe("the address", () => {
  test("says what was chosen, and nothing that is as usual", () => {
    expect(toHash(HOME)).toBe("#/chain");
    const hash = toHash({ ...HOME, a: { id: "baby", step: 50 }, ids: [1, 0, 1], sampler: { ...HOME.sampler, temperature: 0.8 }, seed: 7 });
    expect(hash).toBe("#/chain?m=baby@50&ctx=101&T=0.8&seed=7");
  });

  test("read again it is the same", () => {
    for (const route of [HOME, BUSY, { ...BUSY, ids: [7], at: null }, { ...BUSY, ids: [12], at: null }, { ...BUSY, b: null, shown: "a" as const }]) {
      expect(fromHash(toHash(route))).toEqual(route);
    }
  });

  test("what is switched off is a head or an MLP of a layer", () => {
    expect(toHash({ ...HOME, place: "inside", off: { layer: 3, head: 2 } })).toBe("#/inside?off=3.2");
    expect(fromHash("#/inside?off=3.2").off).toEqual({ layer: 3, head: 2 });
    expect(fromHash("#/inside?off=0.mlp").off).toEqual({ layer: 0, head: null });
    for (const wrong of ["3", "3.", ".2", "3.2.1", "-1.0", "3.x", "9999.0", "0.1001"]) expect(fromHash(`#/inside?off=${wrong}`).off).toBeNull();
  });

  test.each(["a b", "runs/baby", "x@", "x@1", "é&m=?#%"])("a model called %j keeps its name", (id) => {
    for (const step of [null, 3]) expect(fromHash(toHash({ ...HOME, a: { id, step } })).a).toEqual({ id, step });
  });

  test("whatever can't be read is left as usual", () => {
    const hash = "#/nowhere?T=hot&k=-3&p=2&seed=1e99&ctx=1x1&show=both&over=all&lay=spiral&n=0&red=%";
    expect(fromHash(hash)).toEqual(HOME);
    expect(fromHash("")).toEqual(HOME);
    expect(fromHash("#")).toEqual(HOME);
  });

  test("of a long text the end is kept", () => {
    const ids = Array.from({ length: 1000 }, (_, i) => i % 2);
    const read = fromHash(toHash({ ...HOME, ids })).ids;
    expect(read).toEqual(ids.slice(-read.length));
    expect(read.length).toBeGreaterThan(100);
    expect(fromHash(toHash({ ...HOME, ids, at: 990 })).at).toBe(read.length - 10);
    expect(fromHash(toHash({ ...HOME, ids, at: 10 })).at).toBeNull(); // what is looked at is not in the address
  });

  test("a place in the text lies inside it", () => {
    expect(fromHash("#/tokens?ctx=101&at=2").at).toBe(2);
    for (const at of ["3", "0", "-1", "x"]) expect(fromHash(`#/tokens?ctx=101&at=${at}`).at).toBeNull();
  });

  test("a lesson is set by short plain words only", () => {
    const { knobs, lesson } = fromHash("#/lessons?lesson=attractors&x.seed=3&x.Bad=1&x.t=<b>&x.long=" + "a".repeat(65));
    expect([lesson, knobs]).toEqual(["attractors", { seed: "3" }]);
    expect(fromHash("#/lessons?lesson=nothing").lesson).toBe(HOME.lesson);
  });

  test("a comparison needs something to compare with", () => {
    expect(fromHash("#/chain?m=a&show=difference").shown).toBe("a");
  });
});
