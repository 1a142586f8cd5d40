import { describe, expect, test } from "vitest";
import { distance, overlaps, type Point } from "../src/lib/geometry.ts";
import { estimated } from "../src/lib/measure.ts";
import { planNecklaces } from "../src/lib/necklace-plan.ts";
import { necklaces } from "../src/lib/necklaces.ts";
import { deBruijnOrder, graphOf, outerOrder, planRing, type Edge } from "../src/lib/ring.ts";

const label = (edge: Edge): string => `${edge.token} (88%)`;

describe("the order of the ring", () => {
  test("the eight states stand as in the figures of the package", () => {
    expect(deBruijnOrder(2, 3).map((state) => state.toString(2).padStart(3, "0"))).toEqual(
      ["000", "001", "010", "101", "011", "111", "110", "100"],
    );
  });

  test.each([[2, 3], [3, 2], [2, 6], [4, 3], [5, 1]])("each of the %i^%i states can follow the one before", (V, k) => {
    const order = deBruijnOrder(V, k);
    expect(new Set(order).size).toBe(V ** k);
    order.forEach((state, i) => {
      const next = order[(i + 1) % order.length];
      expect(Math.floor(next / V)).toBe(state % V ** (k - 1));
    });
  });

  test("growing contexts stand between their children", () => {
    expect(outerOrder(2, 1, 2)).toEqual([[2, 0], [1, 0], [2, 1], [2, 2], [1, 1], [2, 3]]);
  });
});

describe("the graph", () => {
  test("there is an arrow for each token of each state", () => {
    const graph = graphOf(["0", "1"], 3);
    expect(graph.labels).toHaveLength(8);
    expect(graph.edges).toHaveLength(16);
    expect(graph.edges.find(({ source, token }) => source === 5 && token === 1)!.target).toBe(3); // 101, 1: 011
  });

  test("with the shorter contexts there are fourteen, which grow", () => {
    const graph = graphOf(["0", "1"], 3, true);
    expect(graph.labels.slice(0, 6)).toEqual(["0", "1", "00", "01", "10", "11"]);
    const grown = graph.edges.filter(({ source }) => source === 4).map(({ target }) => graph.labels[target]);
    expect(grown).toEqual(["100", "101"]);
  });

  test("words are kept apart by a dot, and blanks can be seen", () => {
    expect(graphOf(["the", " "], 2).labels).toEqual(["the·the", "the·␣", "␣·the", "␣·␣"]);
  });
});

describe("the plan", () => {
  const graph = graphOf(["0", "1"], 3);

  test.each([1, 0.7, 0.56])("no label lies on a node, nor on another, at room %d", (room) => {
    const plan = planRing(graph, estimated, label, room);
    const box = { width: estimated("0 (88%)", plan.sizes.labelType), height: plan.sizes.labelType };
    plan.labelCentres.forEach((centre, i) => {
      for (const node of plan.positions) {
        const x = Math.max(Math.abs(node[0] - centre[0]) - box.width / 2, 0);
        const y = Math.max(Math.abs(node[1] - centre[1]) - box.height / 2, 0);
        expect(Math.hypot(x, y)).toBeGreaterThan(plan.sizes.nodeRadius - 1);
      }
      plan.labelCentres.slice(i + 1).forEach((other) => expect(overlaps(centre, box, other, box)).toBe(false));
    });
  });

  test("an arrow begins at the rim of its source and ends at that of its target", () => {
    const plan = planRing(graph, estimated, label);
    graph.edges.forEach(({ source, target }, i) => {
      const curve = plan.curves[i];
      const close = (point: Point, node: Point): number => distance(point, node) - plan.sizes.nodeRadius;
      expect(Math.abs(close(curve[0], plan.positions[source]))).toBeLessThan(4);
      expect(Math.abs(close(curve.at(-1)!, plan.positions[target]))).toBeLessThan(6);
    });
  });

  test("all of it lies inside the box that is drawn", () => {
    const plan = planRing(graphOf(["0", "1"], 3, true), estimated, label);
    for (const [x, y] of [...plan.positions, ...plan.curves.flat(), ...plan.labelCentres]) {
      expect(x).toBeGreaterThan(plan.low[0]);
      expect(x).toBeLessThan(plan.high[0]);
      expect(y).toBeGreaterThan(plan.low[1]);
      expect(y).toBeLessThan(plan.high[1]);
    }
  });

  test("the first state stands on top, and the next to its right", () => {
    const { positions } = planRing(graph, estimated, label);
    expect(positions[0][1]).toBe(Math.min(...positions.map(([, y]) => y)));
    expect(positions[1][0]).toBeGreaterThan(0);
  });
});

describe("necklaces", () => {
  test.each([[2, 3, 1, false], [2, 3, 0.56, true], [2, 4, 0.84, false], [3, 2, 0.7, true]])(
    "of %i^%i states at room %d: no label lies on a node, nor on another; keys go along rings",
    (V, k, room, isUpright) => {
      const graph = graphOf([..."012"].slice(0, V), k);
      const plan = planNecklaces(graph, estimated, label, room, isUpright);
      const box = { width: estimated("0 (88%)", plan.sizes.labelType), height: plan.sizes.labelType };
      expect(plan.labelCentres).toHaveLength(graph.edges.length);
      plan.labelCentres.forEach((centre, i) => {
        for (const node of plan.positions) {
          const x = Math.max(Math.abs(node[0] - centre[0]) - box.width / 2, 0);
          const y = Math.max(Math.abs(node[1] - centre[1]) - box.height / 2, 0);
          expect(Math.hypot(x, y)).toBeGreaterThan(plan.sizes.nodeRadius - 1);
        }
        plan.labelCentres.slice(i + 1).forEach((other) => expect(overlaps(centre, box, other, box)).toBe(false));
      });
      expect([...plan.order].sort((a, b) => a - b)).toEqual([...graph.labels.keys()]);
      expect(plan.order).toEqual(necklaces(V, k).flat());
    },
  );

  test("arrows that bring back the token that drops out run along their ring, clockwise", () => {
    const graph = graphOf(["0", "1"], 4);
    const plan = planNecklaces(graph, estimated, label);
    for (const ring of necklaces(2, 4).filter((ring) => ring.length > 2)) {
      const mean = (axis: 0 | 1): number => ring.reduce((sum, state) => sum + plan.positions[state][axis], 0) / ring.length;
      const centre: Point = [mean(0), mean(1)];
      ring.forEach((state, i) => {
        const index = graph.edges.findIndex(({ source, target }) => source === state && target === ring[(i + 1) % ring.length]);
        for (const point of plan.curves[index]) {
          expect(Math.abs(distance(point, centre) - distance(plan.positions[state], centre))).toBeLessThan(0.5);
        }
      });
      const [[ax, ay], [bx, by]] = ring.slice(0, 2).map((state) => [plan.positions[state][0] - centre[0], plan.positions[state][1] - centre[1]]);
      expect(ax * by - ay * bx).toBeGreaterThan(0); // y points down on the screen
    }
  });

  test("upright the ones grow in number from top to bottom", () => {
    const { positions } = planNecklaces(graphOf(["0", "1"], 3), estimated, label, 1, true);
    expect(positions[0][1]).toBe(Math.min(...positions.map(([, y]) => y)));
    expect(positions[7][1]).toBe(Math.max(...positions.map(([, y]) => y)));
  });
});
