/**
 * Where everything in a picture of a state graph stands, after src/glassgpt/figures/ring_plan.py.
 *
 * Full contexts stand on a ring in de Bruijn order, so the arrow to the neighbour is always a legal transition and runs
 * along the ring; all others are chords. Contexts that are not full yet stand on an outer ring. The plan depends on the
 * states and not on their probabilities, so nothing jumps while a model trains.
 */

import { spell, successor } from "./contexts.ts";
import {
  add,
  betweenNodes,
  curveThrough,
  distance,
  leftOf,
  loopAt,
  middleOf,
  norm,
  placeLabels,
  scale,
  subtract,
  traced,
  unit,
  type Box,
  type Curve,
  type Point,
} from "./geometry.ts";

/** A ring of more states than this can't be read; a map shows them instead. */
export const MOST_RING_STATES = 64;
/** Up to this many arrows each carries its label; with more, the tokens are listed beside their state. */
export const MOST_LABELLED_ARROWS = 48;
/** With a larger vocabulary only this many of the likeliest tokens are listed. */
export const MOST_LISTED_TOKENS = 4;

export interface Edge {
  source: number;
  target: number;
  token: number;
}

export interface Graph {
  /** Shorter contexts first; the last V^k are the full ones. */
  labels: string[];
  edges: Edge[];
  symbols: readonly string[];
  vocabSize: number;
  contextLength: number;
  /** How many labels belong to contexts that are still growing. */
  nGrowing: number;
}

export interface Sizes {
  nodeType: number;
  labelType: number;
  nodeRadius: number;
  loop: number;
  thinnest: number;
  thickest: number;
  head: number;
}

export interface Plan {
  /** Whether arrows carry labels. */
  labelled: boolean;
  /** Whether names and tokens stand beside the nodes, not in them. */
  hasLists: boolean;
  /** The states in the order in which keys go through them. */
  order: number[];
  sizes: Sizes;
  positions: Point[];
  outward: Point[];
  curves: Point[][];
  labelCentres: Point[];
  /** How far from its centre the text beside a node begins. */
  listStarts: number[];
  low: Point;
  high: Point;
}

/** The width in pixels of one line of text set at `size` pixels. */
export type Measure = (text: string, size: number) => number;

/** The states of a model and their arrows: the full contexts, with `every` the shorter ones too. */
export function graphOf(symbols: readonly string[], contextLength: number, every = false): Graph {
  const vocabSize = symbols.length;
  const labels: string[] = [];
  const edges: Edge[] = [];
  for (let length = every ? 1 : contextLength; length <= contextLength; length++) {
    const first = labels.length;
    const count = vocabSize ** length;
    for (let state = 0; state < count; state++) {
      labels.push(spell(state, length, symbols));
      for (let token = 0; token < vocabSize; token++) {
        const isFull = length === contextLength;
        const target = isFull
          ? first + successor(state, token, vocabSize, count)
          : first + count + state * vocabSize + token;
        edges.push({ source: first + state, target, token });
      }
    }
  }
  return { labels, edges, symbols, vocabSize, contextLength, nGrowing: labels.length - vocabSize ** contextLength };
}

/**
 * The full contexts in an order in which each can follow the one before, and the first the last: the windows of a
 * de Bruijn sequence, which joins the Lyndon words whose length divides that of the context (Fredricksen, Kessler,
 * Maiorana, 1978; the words by Duval's algorithm, 1988).
 */
export function deBruijnOrder(vocabSize: number, contextLength: number): number[] {
  const sequence: number[] = [];
  let word = [-1];
  while (word.length > 0) {
    word[word.length - 1] += 1;
    if (contextLength % word.length === 0) sequence.push(...word);
    // Duval's step: repeat the word to the full length, then drop trailing tokens that can't be increased.
    word = Array.from({ length: contextLength }, (_, i) => word[i % word.length]);
    while (word.length > 0 && word[word.length - 1] === vocabSize - 1) word.pop();
  }
  const count = vocabSize ** contextLength;
  const order: number[] = [];
  let state = 0;
  [...sequence, ...sequence.slice(0, contextLength - 1)].forEach((token, at) => {
    state = (state * vocabSize + token) % count;
    if (at >= contextLength - 1) order.push(state);
  });
  return order;
}

export type Lines = Pick<Plan, "labelled" | "hasLists" | "order" | "sizes" | "positions" | "outward" | "curves">;

/** The first half of a plan: where the states stand, and how the arrows run. `room` scales it for narrow screens. */
export function linesOf(graph: Graph, measure: Measure, room: number): Lines {
  const labelled = graph.edges.length <= MOST_LABELLED_ARROWS;
  const sizes = sizesFor(graph, measure, labelled, room);
  const order = deBruijnOrder(graph.vocabSize, graph.contextLength);
  const { positions, outward } = stand(graph, order, labelled, room);
  const curves = curvesOf(graph, order, positions, outward, sizes, labelled);
  const states = [...order.map((state) => graph.nGrowing + state), ...Array(graph.nGrowing).keys()];
  return { labelled, hasLists: !labelled, order: states, sizes, positions, outward, curves };
}

/** The whole; `widestLabel` is what the arrows' labels must have room for. */
export function planRing(
  graph: Graph,
  measure: Measure,
  widestLabel: (edge: Edge) => string,
  room = 1,
  lines: Lines = linesOf(graph, measure, room),
): Plan {
  return finished(graph, measure, widestLabel, lines);
}

/** The second half: labels, and the box that holds it all. */
export function finished(graph: Graph, measure: Measure, widestLabel: (edge: Edge) => string, lines: Lines): Plan {
  const { labelled, sizes, positions, curves } = lines;
  const boxes: Box[] = labelled
    ? graph.edges.map((edge) => ({
        width: measure(widestLabel(edge), sizes.labelType) + 3,
        height: 1.2 * sizes.labelType,
      }))
    : [];
  const labelCentres = labelled ? placeLabels(curves, boxes, positions, sizes.nodeRadius) : [];
  const listStarts = graph.labels.map(() => sizes.nodeRadius + 7);
  for (const { source, target } of graph.edges) if (source === target) listStarts[source] = 0.75 * sizes.loop + 7;
  const corners = labelCentres.flatMap(([x, y], i) => [
    [x - boxes[i].width / 2, y - boxes[i].height / 2] as Point,
    [x + boxes[i].width / 2, y + boxes[i].height / 2] as Point,
  ]);
  const margin = sizes.nodeRadius + 10;
  const around = positions.flatMap(([x, y]) => [[x - margin, y - margin] as Point, [x + margin, y + margin] as Point]);
  return onScreen({ ...lines, labelCentres, listStarts, ...extent([...corners, ...around, ...curves.flat()]) });
}

/** The plan for a screen, whose y points down. */
function onScreen(plan: Plan): Plan {
  const flip = ([x, y]: Point): Point => [x, -y];
  return {
    ...plan,
    positions: plan.positions.map(flip),
    outward: plan.outward.map(flip),
    curves: plan.curves.map((curve) => curve.map(flip)),
    labelCentres: plan.labelCentres.map(flip),
    low: [plan.low[0], -plan.high[1]],
    high: [plan.high[0], -plan.low[1]],
  };
}

function extent(points: readonly Point[]): { low: Point; high: Point } {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
  }
  return { low: [x0 - 4, y0 - 4], high: [x1 + 4, y1 + 4] };
}

function sizesFor(graph: Graph, measure: Measure, labelled: boolean, room: number): Sizes {
  if (!labelled) {
    return { nodeType: 12, labelType: 11, nodeRadius: 7, loop: 31, thinnest: 0.6, thickest: 4, head: 11 };
  }
  const widest = Math.max(...graph.labels.map((label) => measure(label, 15)));
  const radius = Math.max(26 * Math.sqrt(room), widest / 2 + 7);
  return {
    nodeType: 15,
    labelType: 12,
    nodeRadius: radius,
    loop: 42 * Math.sqrt(room) + radius * 1.9,
    thinnest: 1.2,
    thickest: 6,
    head: 16,
  };
}

function stand(graph: Graph, order: readonly number[], labelled: boolean, room: number) {
  const nFull = order.length;
  const angles = new Array<number>(graph.labels.length).fill(0);
  order.forEach((state, i) => (angles[graph.nGrowing + state] = Math.PI / 2 - (2 * Math.PI * i) / nFull));
  const radius = labelled ? Math.max(150, nFull * 19 + 58) * room : Math.max(154, (nFull * 36) / (2 * Math.PI));
  if (graph.nGrowing > 0) {
    growingAngles(graph, angles).forEach((angle, state) => (angles[state] = angle));
  }
  const outward = angles.map(unit);
  const outer = radius + (labelled ? 130 * Math.sqrt(room) : 240);
  const positions = outward.map((direction, state) => scale(direction, state < graph.nGrowing ? outer : radius));
  return { positions, outward };
}

/** Where the first of the contexts of each length stands among the labels. */
function firstOfLength(graph: Graph): Map<number, number> {
  const starts = new Map<number, number>();
  let start = graph.nGrowing;
  for (let length = graph.contextLength - 1; start > 0; length--) {
    start -= graph.vocabSize ** length;
    starts.set(length, start);
  }
  return starts;
}

/** Angles of the contexts that are not full, each near the full contexts that it grows into. */
function growingAngles(graph: Graph, angles: readonly number[]): number[] {
  const { vocabSize: V, contextLength, nGrowing } = graph;
  const starts = firstOfLength(graph);
  const shortest = Math.min(...starts.keys());
  const order = outerOrder(V, shortest, contextLength - 1).map(([length, code]) => starts.get(length)! + code);
  const lastStart = starts.get(contextLength - 1)!;
  let best: number[] = [];
  let bestCost = Infinity;
  // Turn (and mirror) the outer ring until the arrows from it to the inner ring are as short as possible.
  for (const mirror of [1, -1]) {
    for (let turn = 0; turn < 6 * nGrowing; turn++) {
      const tried = order.map((_, i) => (2 * Math.PI * (mirror * i + turn / 6)) / nGrowing);
      let cost = 0;
      order.forEach((state, i) => {
        if (state < lastStart) return;
        for (let token = 0; token < V; token++) {
          cost += 1 - Math.cos(tried[i] - angles[nGrowing + (state - lastStart) * V + token]);
        }
      });
      if (cost < bestCost - 1e-9) [best, bestCost] = [tried, cost];
    }
  }
  const result = new Array<number>(nGrowing);
  order.forEach((state, i) => (result[state] = best[i]));
  return result;
}

/** Contexts [length, code] as trees of growing contexts from left to right, children to both sides of each. */
export function outerOrder(vocabSize: number, shortest: number, longest: number): [number, number][] {
  const walk = (length: number, code: number): [number, number][] => {
    const children = length < longest ? [...Array(vocabSize).keys()].map((token) => code * vocabSize + token) : [];
    const half = children.length >> 1;
    const below = children.map((child) => walk(length + 1, child));
    return [...below.slice(0, half).flat(), [length, code], ...below.slice(half).flat()];
  };
  return [...Array(vocabSize ** shortest).keys()].flatMap((code) => walk(shortest, code));
}

function curvesOf(
  graph: Graph,
  order: readonly number[],
  positions: readonly Point[],
  outward: readonly Point[],
  sizes: Sizes,
  labelled: boolean,
): Point[][] {
  const { nGrowing } = graph;
  const place = new Map(order.map((state, i) => [nGrowing + state, i]));
  const curves: Point[][] = new Array(graph.edges.length);
  // The arrows of the ring first: those that come in from outside then find their way between them.
  const indices = [...graph.edges.keys()].sort(
    (a, b) => Number(graph.edges[a].source < nGrowing) - Number(graph.edges[b].source < nGrowing),
  );
  const drawn: Point[][] = [];
  for (const index of indices) {
    const { source, target } = graph.edges[index];
    const [start, end] = [positions[source], positions[target]];
    let curve: Point[];
    if (source === target) curve = loopAt(start, outward[source], sizes.loop);
    else if (source >= nGrowing) {
      const isNext = (place.get(target)! - place.get(source)! + order.length) % order.length === 1;
      curve = isNext ? alongRing(start, end) : chord(start, end);
    } else if (target < nGrowing) curve = alongOuterRing(start, end, nGrowing, labelled ? 1 : -1);
    else curve = inward(start, end, positions, sizes.nodeRadius, drawn);
    curves[index] = betweenNodes(curve, sizes.nodeRadius, 2);
    drawn.push(curves[index]);
  }
  return curves;
}

/** The arc of the ring, clockwise, from a state to the next. */
function alongRing(start: Point, end: Point): Point[] {
  const angle = Math.atan2(start[1], start[0]);
  const turn = modulo(angle - Math.atan2(end[1], end[0]), 2 * Math.PI);
  return traced((t) => scale(unit(angle - t * turn), norm(start)));
}

/** An arrow across the ring: it bends inward, past the states between, and to its left, apart from its reverse. */
function chord(start: Point, end: Point): Point[] {
  const middle = middleOf(start, end);
  const across = subtract(end, start);
  const length = norm(across);
  const bend = (0.3 * length * (1 - length / (2.05 * norm(start)))) / Math.max(norm(middle), 1e-9);
  return curveThrough(start, add(scale(middle, 1 - bend), scale(leftOf(across), 0.075)), end);
}

/** An arc along the outer ring; where it passes over states it leaves the ring, outward (side 1) or inward (-1). */
function alongOuterRing(start: Point, end: Point, nOuter: number, side: number): Point[] {
  const angle = Math.atan2(start[1], start[0]);
  const turn = modulo(Math.atan2(end[1], end[0]) - angle + Math.PI, 2 * Math.PI) - Math.PI;
  const passed = Math.max((Math.abs(turn) * nOuter) / (2 * Math.PI) - 1, 0);
  const rise = side * 0.35 * Math.abs(turn) * Math.min(passed, 1);
  return traced((t) => scale(unit(angle + t * turn), norm(start) * (1 + rise * Math.sin(Math.PI * t))));
}

/** The straightest curve from the outer ring to the inner one, off other states and along no other arrow. */
function inward(start: Point, end: Point, nodes: readonly Point[], radius: number, others: readonly Curve[]): Point[] {
  const across = subtract(end, start);
  const drawn = others.flatMap((other) => other.filter((_, i) => i % 2 === 0));
  const bows = Array.from({ length: 21 }, (_, i) => (i - 10) / 20).sort((a, b) => Math.abs(a) - Math.abs(b));
  let best: Point[] = [];
  let bestCost = Infinity;
  for (const bow of bows) {
    const curve = curveThrough(start, add(middleOf(start, end), scale(leftOf(across), bow)), end);
    const some = curve.filter((_, i) => i % 4 === 0);
    let touched = -2 * (radius + 20);
    for (const node of nodes) touched += Math.max(radius + 20 - nearest(node, some), 0);
    const own = betweenNodes(curve, radius, 0).filter((_, i) => i % 2 === 0);
    const shared = own.filter((point) => nearest(point, drawn) < 13).length;
    const cost = 0.4 * touched + 0.6 * shared + 3 * Math.abs(bow);
    if (cost < bestCost - 1e-9) [best, bestCost] = [curve, cost];
  }
  return best;
}

function nearest(point: Point, others: readonly Point[]): number {
  let least = Infinity;
  for (const other of others) least = Math.min(least, distance(point, other));
  return least;
}

const modulo = (value: number, by: number): number => ((value % by) + by) % by;
