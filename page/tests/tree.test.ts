import { describe, expect, test } from "vitest";
import type { FoundBeam } from "../src/lib/api.ts";
import { branchesOf, everyBranch, keyOfBranch, wanted, type Branch, type Found } from "../src/lib/branches.ts";
import { gistOf, sharesOf } from "../src/lib/gist.ts";
import { Pcg32 } from "../src/lib/random.ts";
import { likeliest, PLAIN, shape, type Sampler } from "../src/lib/softmax.ts";
import { bounded, grown, isPath, MOST_NODES, nodeOf, pathOf, raised, readTree, rooted, spelled, within, type Tree } from "../src/lib/tree.ts";
import { FAN, HEIGHTS, LABEL, planOf, ribbon, ROW, type Placed, type Scale } from "../src/lib/tree-layout.ts";

const random = new Pcg32(5);
const normal = (): number => Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
const SAMPLERS: Sampler[] = [0, 0.1, 0.3, 0.7, 1, 2, 50].flatMap((temperature) =>
  [[0, 1], [1, 1], [40, 1], [0, 0.9], [0, 0.001], [5000, 0.99], [700, 1]].map(([topK, topP]) => ({ temperature, topK, topP })),
);

describe("the contexts that were visited", () => {
  test("are a tree whose nodes are found again", () => {
    let tree = grown(rooted(3), [5, 6, 7]);
    tree = grown(tree, [5, 8]);
    tree = grown(tree, [4]);
    expect(tree.nodes).toEqual([{ parent: 0, token: 5 }, { parent: 1, token: 6 }, { parent: 2, token: 7 }, { parent: 1, token: 8 }, { parent: 0, token: 4 }]);
    for (let node = 0; node <= 5; node++) expect(nodeOf(tree, pathOf(tree, node))).toBe(node);
    expect(nodeOf(tree, [5, 9])).toBeNull();
    expect(grown(tree, [5, 6])).toBe(tree);
    expect(spelled(tree)).toBe("0.5.6.7*1.8*0.4");
    expect(readTree(spelled(tree), 3)).toEqual(tree);
    expect(isPath(tree, [5, 6, 7])).toBe(false);
    expect(isPath(grown(rooted(1), [5, 6]), [5, 6, 7])).toBe(true);
  });

  test("stay where they are when the prompt becomes shorter", () => {
    const tree = { ...grown(grown(rooted(4), [1, 2]), [3]), search: { path: [1], beams: 2, tokens: 3 } };
    const higher = raised(tree, [8, 9]);
    expect(higher.root).toBe(2);
    expect([[8, 9, 1, 2], [8, 9, 3]].map((path) => nodeOf(higher, path))).toEqual([4, 5]);
    expect(higher.search!.path).toEqual([8, 9, 1]);
  });

  test("are bounded: the ends of what was visited longest ago go first, and never the text", () => {
    let tree = rooted(1);
    for (let i = 0; i < 10; i++) tree = grown(tree, [i, 100 + i]);
    const small = bounded(tree, [0, 100], 6);
    expect(small.nodes.length).toBe(6);
    expect(small.left).toBe(14);
    for (const path of [[0, 100], [8, 108], [9, 109]]) expect(nodeOf(small, path)).not.toBeNull();
    expect(nodeOf(small, [1])).toBeNull();
  });

  test("along one text the prompt grows instead", () => {
    const path = Array.from({ length: 30 }, (_, i) => i);
    const small = bounded({ ...grown(rooted(2), path), search: { path: path.slice(0, 27), beams: 1, tokens: 1 } }, path, 8);
    expect(small).toMatchObject({ root: 24, left: 22 });
    expect(nodeOf(small, path.slice(22))).toBe(8);
    expect(small.search!.path).toEqual(path.slice(22, 27));
    expect(bounded(small, path.slice(22), 8)).toBe(small);
    expect(bounded(small, path.slice(22), 2).search).toBeNull(); // from where nobody was any more
  });

  test("any walk leaves a tree whose parents come before their children", () => {
    for (let round = 0; round < 10; round++) {
      let [tree, path]: [Tree, number[]] = [rooted(1), []];
      for (let step = 0; step < 60; step++) {
        path = random.uniform() < 0.7 ? [...path, Math.floor(random.uniform() * 3)] : path.slice(0, Math.floor(random.uniform() * path.length));
        const before = tree.root;
        tree = bounded(grown(tree, path), path, 12);
        path = path.slice(tree.root - before);
        expect(tree.nodes.length).toBeLessThanOrEqual(12);
        expect(nodeOf(tree, path)).not.toBeNull();
        expect(tree.nodes.every(({ parent }, i) => parent <= i)).toBe(true);
        expect(readTree(spelled(tree), tree.root)).toEqual(tree);
      }
    }
  });

  test("of another vocabulary what can't be named goes, with all that came after it", () => {
    const tree = grown(grown(grown(rooted(1), [1, 9, 2]), [1, 2, 3]), [9, 1]);
    expect(spelled(within(tree, 9))).toBe("0.1.2.3");
    expect(within(tree, 10)).toBe(tree);
  });
});

describe("the gist of logits", () => {
  const logits = Float32Array.from({ length: 20_000 }, () => 3 * normal());
  logits[7] = logits[9]; // equals
  const order = likeliest(logits, logits.length);
  const tokens = [0, 1, 10, 511, 512, 600, 3000, 19_999].map((rank) => order[rank]);
  const gist = gistOf(logits, tokens);

  test.each(SAMPLERS)("gives the sampler's own shares: T $temperature, k $topK, p $topP", (sampler) => {
    const { probs } = shape(logits, sampler);
    const share = sharesOf(gist, sampler);
    const isInsideAStep = sampler.topP < 1 || sampler.topK > 512;
    for (const token of [...tokens, ...order.slice(0, 100)]) {
      // Where a cut falls among those that are kept by their height only, a token there may fall on its other side.
      if (probs[token] === 0 || share(token) === 0) expect(Math.max(probs[token], share(token)!)).toBeLessThan(1e-4);
      else expect(Math.abs(share(token)! / probs[token] - 1), `${token}`).toBeLessThan(isInsideAStep ? 1e-4 : 1e-6);
    }
    expect(share(order[700])).toBeNull(); // was not asked for
  });

  test("of a small vocabulary is all of it, what is impossible too", () => {
    const few = [0.3, -Infinity, 2, 2];
    for (const sampler of SAMPLERS) {
      const { probs } = shape(few, sampler);
      const share = sharesOf(gistOf(few, []), sampler);
      few.forEach((_, token) => expect(share(token)).toBeCloseTo(probs[token], 12));
    }
  });

  test("is a hundredth of the numbers", () => {
    const wide = Float32Array.from({ length: 50_000 }, () => 3 * normal());
    expect(gistOf(wide, []).steps.length).toBeLessThan(700);
  });
});

// ---- a tree with all that may be in it ------------------------------------------------------------------------------

const V = 12;
const rows = new Map<string, Float64Array>();
function rowOf(path: readonly number[]): Float64Array {
  const key = path.join();
  if (!rows.has(key)) rows.set(key, Float64Array.from({ length: V }, () => 1.5 * normal()));
  return rows.get(key)!;
}
const beam = (...ids: number[]): FoundBeam => ({ ids, pieces: ids.map(String), logprobs: ids.map(() => -1), logprob: -ids.length, score: -1 });
const found: Found = { path: [1], beams: [beam(2, 3, 4), beam(2, 3, 5)], running: [], dropped: [beam(2, 6), beam(7)] };
const visited = grown(grown(grown(rooted(2), [1, 2, 8]), [1, 0, 0]), [11]);

function tree(sampler: Sampler, more: Partial<Parameters<typeof branchesOf>[0]> = {}): Branch {
  const seen = (path: readonly number[]) => {
    const gist = gistOf(rowOf(path), []);
    return { gist, shares: sharesOf(gist, sampler) };
  };
  return branchesOf({ tree: visited, found, here: [1, 2], seen, measure: ({ path, kind }) => 30 + ((path.at(-1) ?? 0) % 5) * 12 + (kind === "others" ? 40 : 0), ...more });
}

describe("the branches", () => {
  test.each([PLAIN, { temperature: 0.2, topK: 0, topP: 1 }, { temperature: 1.7, topK: 5, topP: 0.8 }])("of every bar hold all its mass: %j", (sampler) => {
    for (const { limbs, path } of everyBranch(tree(sampler))) {
      if (limbs.length === 0) continue;
      expect(limbs.reduce((sum, { share }) => sum + share!, 0)).toBeCloseTo(1, 12);
      const { probs } = shape(rowOf(path), sampler);
      for (const { token, share } of limbs) if (token !== null) expect(share).toBeCloseTo(probs[token], 12);
    }
  });

  test("are as likely as the product of their shares, and the ends of the tree are all there is", () => {
    const branches = [...everyBranch(tree(PLAIN))];
    const ends = branches.filter(({ limbs }) => limbs.length === 0);
    expect(ends.reduce((sum, { logprob }) => sum + Math.exp(logprob!), 0)).toBeCloseTo(1, 12);
    const two = branches.find(({ path, kind }) => kind === "visited" && path.join() === "1,2")!;
    expect(Math.exp(two.logprob!)).toBeCloseTo(shape(rowOf([]), PLAIN).probs[1] * shape(rowOf([1]), PLAIN).probs[2], 12);
  });

  test("say what was visited, what was searched and what became of it", () => {
    const by = new Map([...everyBranch(tree(PLAIN))].map((branch) => [keyOfBranch(branch), branch]));
    const about = (key: string) => [by.get(key)?.kind, by.get(key)?.fate, by.get(key)?.beam?.rank];
    expect(about("1.2")).toEqual(["visited", "kept", undefined]);
    expect(about("1.2.3")).toEqual(["beam", "kept", undefined]);
    expect(about("1.2.3.4")).toEqual(["beam", "kept", 1]);
    expect(about("1.2.3.5")).toEqual(["beam", "kept", 2]);
    expect(about("1.2.6")).toEqual(["beam", "dropped", 0]);
    expect(about("1.7")).toEqual(["beam", "dropped", 0]);
    expect(about("1.0.0")).toEqual(["visited", null, undefined]);
    expect([...by.values()].filter(({ isHere }) => isHere).map(({ path }) => path)).toEqual([[1, 2]]);
    expect([...by.values()].filter(({ isOnText }) => isOnText).map(({ path }) => path)).toEqual([[], [1], [1, 2]]);
    expect(new Set(by.keys()).size).toBe([...everyBranch(tree(PLAIN))].length);
  });

  test("stand in the order of their likelihood, whatever the temperature", () => {
    const order = (sampler: Sampler): string[] => [...everyBranch(tree(sampler))].map(keyOfBranch);
    expect(order({ ...PLAIN, temperature: 3 })).toEqual(order(PLAIN));
  });

  test("of which nothing is known yet are there all the same", () => {
    const all = [...everyBranch(tree(PLAIN, { seen: () => null }))];
    expect(all.filter(({ kind }) => kind === "stub" || kind === "others")).toEqual([]);
    expect(all.map(({ share }) => share)).toEqual([1, ...Array<null>(all.length - 1).fill(null)]);
    expect(planOf(all[0], "prompt").placed.length).toBe(all.length);
  });

  test("that are asked for lead on, or are where the person is", () => {
    const paths = wanted({ tree: visited, found, here: [11] }).map(({ path }) => path.join());
    expect(paths.sort()).toEqual(["", "1", "1,0", "1,2", "1,2,3", "11"]);
  });
});

describe("the plan of a tree", () => {
  const boxes = (placed: Placed<Branch>[]): { what: string; left: number; right: number; top: number; bottom: number }[] =>
    placed.flatMap(({ limb, parent, x, y, thickness, bar, from }) => {
      const what = keyOfBranch(limb);
      const found = bar > 0 ? [{ what: `bar ${what}`, left: x - 2, right: x + 2, top: y - bar / 2, bottom: y + bar / 2 }] : [];
      if (!from || !parent) return found;
      const row = { what: `row ${what}`, left: from.x + FAN, right: x - 2, top: y - thickness / 2, bottom: y + thickness / 2 };
      const isAbove = limb.limbs.length > 0;
      const middle = isAbove ? y - thickness / 2 - LABEL / 2 : y;
      const label = { what: `label ${what}`, left: from.x + FAN, right: from.x + FAN + limb.label, top: middle - 7, bottom: middle + 7 };
      return [...found, label, ...(isAbove ? [row] : [])];
    });

  const scales: Scale[] = ["step", "prompt"];
  const samplers = [PLAIN, { ...PLAIN, temperature: 0.05 }, { ...PLAIN, temperature: 0 }, { ...PLAIN, temperature: 4 }, { temperature: 1, topK: 3, topP: 1 }];
  test.each(scales.flatMap((scale) => samplers.map((sampler) => ({ scale, sampler }))))("lets nothing overlap: $scale, $sampler", ({ scale, sampler }) => {
    const { placed, width, height } = planOf(tree(sampler), scale);
    const all = boxes(placed);
    for (const [i, a] of all.entries()) {
      for (const b of all.slice(i + 1)) {
        const isApart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 1e-9 || b.bottom <= a.top + 1e-9;
        expect(isApart, `${a.what} over ${b.what}`).toBe(true);
      }
      expect(a.left).toBeGreaterThanOrEqual(0);
      expect(a.right).toBeLessThanOrEqual(width);
      expect(a.top).toBeGreaterThanOrEqual(0);
      expect(a.bottom).toBeLessThanOrEqual(height);
    }
  });

  test.each(scales)("lets all mass that comes to a bar leave it: %s", (scale) => {
    const { placed } = planOf(tree({ ...PLAIN, temperature: 0.6 }), scale);
    for (const own of placed.filter(({ bar }) => bar > 0)) {
      const children = placed.filter(({ parent }) => parent === own);
      expect(children.reduce((sum, { thickness }) => sum + thickness, 0)).toBeCloseTo(own.bar, 9);
      if (scale === "prompt" && own.parent) expect(own.bar).toBeCloseTo(own.thickness, 9);
      if (scale === "step") expect(own.bar).toBe(HEIGHTS.step);
      // They leave it side by side, in the order of their rows.
      let top = own.y - own.bar / 2;
      let row = -Infinity;
      for (const child of children) {
        expect(child.from).toEqual({ x: own.x, y: expect.closeTo(top + child.thickness / 2, 9) as number });
        expect(child.y).toBeGreaterThan(row);
        [top, row] = [top + child.thickness, child.y];
      }
    }
  });

  test("widths are the shares of the whole: what ends anywhere fills the prompt's bar", () => {
    const { placed } = planOf(tree(PLAIN), "prompt");
    const ends = placed.filter(({ limb }) => limb.limbs.length === 0);
    expect(ends.reduce((sum, { thickness }) => sum + thickness, 0)).toBeCloseTo(HEIGHTS.prompt, 9);
  });

  test("a text that goes one way lies on one line", () => {
    const path = Array.from({ length: 25 }, (_, i) => (i * 5) % V);
    const { placed, height } = planOf(tree(PLAIN, { tree: grown(rooted(1), path), found: null, here: path }), "step");
    const along = placed.filter(({ limb }) => limb.isOnText && limb.limbs.length > 0 && !limb.isHere);
    expect(along.length).toBe(25);
    expect(new Set(along.map(({ y }) => y.toFixed(6))).size).toBe(1);
    expect(height).toBeLessThan(12 * ROW);
  });

  test("a prompt alone is a bar", () => {
    const { placed, width, height } = planOf(tree(PLAIN, { tree: rooted(1), found: null, here: null }), "step");
    expect(placed.length).toBe(1);
    expect(ribbon(placed[0])).toBe("");
    expect(width > 0 && height > 0).toBe(true);
  });

  test("two hundred contexts are laid out at once", () => {
    let wide = rooted(1);
    while (wide.nodes.length < MOST_NODES) wide = bounded(grown(wide, Array.from({ length: 6 }, () => Math.floor(random.uniform() * 4))), []);
    const branch = tree(PLAIN, { tree: wide, found: null, here: [] });
    const begun = performance.now();
    const { placed } = planOf(branch, "step");
    expect(performance.now() - begun).toBeLessThan(200);
    expect(placed.length).toBeGreaterThan(MOST_NODES);
  });
});
