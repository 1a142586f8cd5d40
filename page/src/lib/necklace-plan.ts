/**
 * Where everything in a picture of a state graph stands on the necklace layout, after
 * src/glassgpt/figures/necklace_plan.py. Nodes carry their names inside, whatever their number.
 */

import { add, betweenNodes, curveThrough, distance, leftOf, loopAt, middleOf, norm, scale, subtract, traced, unit, type Point } from "./geometry.ts";
import { necklaceLayout } from "./necklaces.ts";
import { finished, MOST_LABELLED_ARROWS, type Edge, type Graph, type Measure, type Plan, type Sizes } from "./ring.ts";

const BOW = 0.1; // of an arrow between rings, to its left, as a share of its length: so that two ways stay apart
const MOST_BENT = 300; // arrows each of which finds its own way past the states
const TOO_NEAR = 13; // pixels between arrows that look like one

/** `isUpright`: from top to bottom in place of from left to right. `room` as on the ring. */
export function planNecklaces(graph: Graph, measure: Measure, widestLabel: (edge: Edge) => string, room = 1, isUpright = false): Plan {
  const labelled = graph.edges.length <= MOST_LABELLED_ARROWS;
  const sizes = sizesFor(graph, measure, labelled, room);
  const apart = labelled ? Math.max(130 * room, 2 * sizes.nodeRadius + 56) : Math.max(44, 2 * sizes.nodeRadius + 16);
  const { rings, ...layout } = necklaceLayout(graph.vocabSize, graph.contextLength);
  const standing = ([x, y]: Point): Point => scale(isUpright ? [y, -x] : [x, y], apart);
  const [positions, centres] = [layout.positions.map(standing), layout.centres.map(standing)];
  const outward = positions.map((position, state) => away(position, centres[state]));
  const turning = new Map(rings.flatMap((ring) => ring.map((state, i) => [state, ring[(i + 1) % ring.length]])));
  const curves = curvesOf(graph, positions, centres, outward, turning, sizes, labelled);
  return finished(graph, measure, widestLabel, { labelled, hasLists: false, order: rings.flat(), sizes, positions, outward, curves });
}

function sizesFor(graph: Graph, measure: Measure, labelled: boolean, room: number): Sizes {
  const type = labelled ? 15 : 11;
  const widest = Math.max(...graph.labels.map((label) => measure(label, type)));
  const radius = Math.max(labelled ? 26 * Math.sqrt(room) : 15, widest / 2 + (labelled ? 7 : 5));
  return labelled
    ? { nodeType: type, labelType: 12, nodeRadius: radius, loop: 42 * Math.sqrt(room) + radius * 1.9, thinnest: 1.2, thickest: 6, head: 16 }
    : { nodeType: type, labelType: 11, nodeRadius: radius, loop: 20 + radius * 1.9, thinnest: 0.6, thickest: 4, head: 11 };
}

/** Away from the ring's centre; of a state that stands alone, away from the picture's. */
function away(position: Point, centre: Point): Point {
  const from = [subtract(position, centre), position, [0, 1] as Point].find((way) => norm(way) > 1e-6)!;
  return scale(from, 1 / norm(from));
}

function curvesOf(
  graph: Graph,
  positions: readonly Point[],
  centres: readonly Point[],
  outward: readonly Point[],
  turning: ReadonlyMap<number, number>,
  sizes: Sizes,
  labelled: boolean,
): Point[][] {
  const curves: Point[][] = new Array(graph.edges.length);
  const drawn: Point[] = []; // points of the arrows so far, where others must not run along them
  const bows = bowsOf(labelled ? 21 : graph.edges.length <= MOST_BENT ? 11 : 1);
  const isTurning = (index: number): boolean => turning.get(graph.edges[index].source) === graph.edges[index].target;
  // Those of the rings first: the others then find their way between them.
  for (const index of [...graph.edges.keys()].sort((a, b) => Number(isTurning(b)) - Number(isTurning(a)))) {
    const { source, target } = graph.edges[index];
    const [start, end] = [positions[source], positions[target]];
    let curve: Point[];
    if (source === target) curve = loopAt(start, outward[source], sizes.loop);
    else if (isTurning(index)) curve = along(start, end, centres[source]);
    else curve = across(start, end, positions, sizes, bows, drawn);
    curves[index] = betweenNodes(curve, sizes.nodeRadius, 2);
    if (labelled) drawn.push(...curves[index].filter((_, i) => i % 2 === 0));
  }
  return curves;
}

/** Ways to bend, the usual one first. */
function bowsOf(count: number): number[] {
  if (count === 1) return [BOW];
  return Array.from({ length: count }, (_, i) => i / (count - 1) - 0.5).sort((a, b) => Math.abs(a - BOW) - Math.abs(b - BOW) || a - b);
}

/** The arc of a ring, clockwise. */
function along(start: Point, end: Point, centre: Point): Point[] {
  const [from, to] = [subtract(start, centre), subtract(end, centre)];
  const angle = Math.atan2(from[1], from[0]);
  const turn = (angle - Math.atan2(to[1], to[0]) + 2 * Math.PI) % (2 * Math.PI);
  return traced((t) => add(centre, scale(unit(angle - t * turn), norm(from))));
}

/** The curve with nearly the usual bow that runs through no other state and along no other arrow. */
function across(start: Point, end: Point, nodes: readonly Point[], sizes: Sizes, bows: readonly number[], drawn: readonly Point[]): Point[] {
  const way = subtract(end, start);
  const clear = sizes.nodeRadius + (drawn.length > 0 ? 20 : 6);
  const strangers = nodes.filter((node) => distance(node, start) > 1e-6 && distance(node, end) > 1e-6);
  let best: Point[] = [];
  let bestCost = Infinity;
  for (const bow of bows) {
    if (9 * Math.abs(bow - BOW) >= bestCost) break; // the others are no better whatever they run through
    const curve = curveThrough(start, add(middleOf(start, end), scale(leftOf(way), bow)), end);
    if (bows.length === 1) return curve;
    const some = curve.filter((_, i) => i % 4 === 0);
    let touched = 0;
    for (const node of strangers) touched += Math.max(clear - Math.sqrt(nearestSquared(node, some)), 0);
    const own = drawn.length > 0 ? betweenNodes(curve, sizes.nodeRadius, 0).filter((_, i) => i % 2 === 0) : [];
    const shared = own.filter((point) => nearestSquared(point, drawn) < TOO_NEAR ** 2).length;
    const cost = 0.4 * touched + 0.3 * shared + 9 * Math.abs(bow - BOW);
    if (cost < bestCost - 1e-9) [best, bestCost] = [curve, cost];
  }
  return best;
}

function nearestSquared([x, y]: Point, others: readonly Point[]): number {
  let least = Infinity;
  for (const [a, b] of others) least = Math.min(least, (a - x) ** 2 + (b - y) ** 2);
  return least;
}
