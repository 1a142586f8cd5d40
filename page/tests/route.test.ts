import { describe, expect, test } from "vitest";
import { fromHash, HOME, toHash, type Route } from "../src/lib/route.ts";
import { grown, MOST_NODES, rooted } from "../src/lib/tree.ts";

const BUSY: Route = {
  place: "tokens",
  a: { id: "baby", step: 50 },
  b: { id: "odd@name@7", step: null },
  shown: "difference",
  ids: [464, 3290, 0, 12, 7],
  at: 2,
  tree: {
    root: 2,
    nodes: [
      { parent: 0, token: 0 },
      { parent: 0, token: 11 },
      { parent: 1, token: 12 },
      { parent: 3, token: 7 },
      { parent: 1, token: 5 },
    ],
    left: 3,
    search: { path: [0], beams: 4, tokens: 12 },
  },
  scale: "prompt",
  way: "beam",
  ahead: 12,
  beams: 8,
  depth: 20,
  sampler: { temperature: 0.8, topK: 5, topP: 0.95 },
  seed: 7,
  overlay: "entropy",
  layout: "necklace",
  every: true,
  red: [0, 12],
  horizon: 30,
  pattern: [0, 0, 1, 0],
  walks: 64,
  layer: 2,
  head: 3,
  off: { layer: 2, head: null },
  steps: 3,
  lesson: "fits",
  knobs: { n: "7", noise: "0.25", text: "(())", before: "的_é" },
};

describe("the address", () => {
  test("says what was chosen, and nothing that is as usual", () => {
    expect(toHash(HOME)).toBe("#/chain");
    const hash = toHash({ ...HOME, a: { id: "baby", step: 50 }, ids: [1, 0, 1], tree: rooted(3), sampler: { ...HOME.sampler, temperature: 0.8 }, seed: 7 });
    expect(hash).toBe("#/chain?m=baby@50&ctx=101&T=0.8&seed=7");
  });

  test("read again it is the same", () => {
    const one = { at: null, tree: rooted(1) };
    for (const route of [HOME, BUSY, { ...BUSY, ...one, ids: [7] }, { ...BUSY, ...one, ids: [12] }, { ...BUSY, b: null, shown: "a" as const }]) {
      expect(fromHash(toHash(route))).toEqual(route);
    }
  });

  test("what is switched off is a head or an MLP of a layer", () => {
    expect(toHash({ ...HOME, place: "inside", off: { layer: 3, head: 2 } })).toBe("#/inside?off=3.2");
    expect(fromHash("#/inside?off=3.2").off).toEqual({ layer: 3, head: 2 });
    expect(fromHash("#/inside?off=0.mlp").off).toEqual({ layer: 0, head: null });
    for (const wrong of ["3", "3.", ".2", "3.2.1", "-1.0", "3.x", "9999.0", "0.1001"]) expect(fromHash(`#/inside?off=${wrong}`).off).toBeNull();
  });

  test("a head is shown step by step at a token, or at the last whichever that is", () => {
    for (const steps of [0, 17, "last"] as const) expect(fromHash(toHash({ ...HOME, place: "inside", steps })).steps).toBe(steps);
    for (const wrong of ["", "-1", "first", "1.5", "12345"]) expect(fromHash(`#/inside?steps=${wrong}`).steps).toBeNull();
  });

  test.each(["a b", "runs/baby", "x@", "x@1", "é&m=?#%"])("a model called %j keeps its name", (id) => {
    for (const step of [null, 3]) expect(fromHash(toHash({ ...HOME, a: { id, step } })).a).toEqual({ id, step });
  });

  test("whatever can't be read is left as usual", () => {
    const hash = "#/nowhere?T=hot&k=-3&p=2&seed=1e99&ctx=1x1&show=both&over=all&lay=spiral&n=0&red=%&walks=0";
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

  test("a text that went one way says all of its tree; a branch is spelt", () => {
    const route: Route = { ...HOME, place: "tokens", ids: [3, 1, 4, 1], tree: grown(rooted(2), [4, 1]) };
    expect(toHash(route)).toBe("#/tokens?ctx=3141&from=2");
    expect(fromHash(toHash(route))).toEqual(route);
    const branched = { ...route, tree: grown(route.tree, [4, 5]) };
    expect(toHash(branched)).toBe("#/tokens?ctx=3141&from=2&tree=0.4.1*1.5");
    expect(fromHash(toHash(branched))).toEqual(branched);
  });

  test("of a long text the tree stays the same, and one that began before what the address holds is left out", () => {
    const ids = Array.from({ length: 1000 }, (_, i) => i % 3);
    const tree = grown(grown(rooted(990), ids.slice(990)), [7, 7]);
    const read = fromHash(toHash({ ...HOME, ids, tree }));
    expect(read.tree).toEqual({ ...tree, root: read.ids.length - 10 });
    const long = fromHash(toHash({ ...HOME, ids, tree: { ...tree, root: 10 } }));
    expect(long.tree).toEqual(rooted(long.ids.length));
  });

  test("a tree of any address is small, and holds the text", () => {
    const ids = "1".repeat(100_000);
    expect(fromHash(`#/tokens?ctx=${ids}&from=1`).tree).toMatchObject({ root: 100_000 - MOST_NODES, left: 0 });
    expect(fromHash("#/tokens?ctx=123&from=1&tree=0.9.9*7.1").tree).toEqual(grown(rooted(1), [2, 3])); // no node 7
    expect(fromHash("#/tokens?ctx=123&from=1&tree=0.9~2").tree).toEqual({ ...grown(grown(rooted(1), [9]), [2, 3]), left: 2 });
    for (const text of ["x", "0", "0.", "0.1*", "*", "-1.2", "0.1e3", "0.1*0.9999999999", "~x"]) {
      expect(fromHash(`#/tokens?ctx=123&from=2&tree=${text}`).tree.root).toBe(2);
    }
    for (const text of ["4.12", "0.1.0", "4.0.0", "4.12.9", "17.1.0", "1.33.0", "x"]) expect(fromHash(`#/tokens?ctx=123&search=${text}`).tree.search).toBeNull();
    expect(fromHash("#/tokens?ctx=123&search=4.12.0").tree.search).toEqual({ beams: 4, tokens: 12, path: [] });
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
