/**
 * Curves, arrows and places for labels in the plane, after src/glassgpt/figures/geometry.py. Lengths are pixels, and y
 * points up here as on paper; ring.ts turns the finished plan over for the screen.
 */

export type Point = readonly [number, number];
export type Curve = readonly Point[];

export interface Box {
  width: number;
  height: number;
}

const STEPS = 200;
const SPACING = 5;
/** Closer than this, in pixels, a curve is near a label. */
const NEAR = 10.5;

export const unit = (angle: number): Point => [Math.cos(angle), Math.sin(angle)];
export const leftOf = ([x, y]: Point): Point => [-y, x];
export const add = (a: Point, b: Point): Point => [a[0] + b[0], a[1] + b[1]];
export const subtract = (a: Point, b: Point): Point => [a[0] - b[0], a[1] - b[1]];
export const scale = (a: Point, by: number): Point => [a[0] * by, a[1] * by];
export const middleOf = (a: Point, b: Point): Point => [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
export const norm = ([x, y]: Point): number => Math.sqrt(x * x + y * y);
export const distance = (a: Point, b: Point): number => norm(subtract(a, b));

/** A curve of 201 points from a function of t in [0, 1]. */
export function traced(at: (t: number) => Point): Point[] {
  return Array.from({ length: STEPS + 1 }, (_, i) => at(i / STEPS));
}

/** The parabola from start to end that passes `middle` halfway. */
export function curveThrough(start: Point, middle: Point, end: Point): Point[] {
  const control = subtract(scale(middle, 2), middleOf(start, end));
  return traced((t) => blend([start, control, end], [(1 - t) ** 2, 2 * t * (1 - t), t ** 2]));
}

/** A loop that leaves a node and comes back, reaching about three quarters of `length` along `direction`. */
export function loopAt(node: Point, direction: Point, length: number, spread = 0.62): Point[] {
  const angle = Math.atan2(direction[1], direction[0]);
  const [first, second] = [1, -1].map((side) => add(node, scale(unit(angle + side * spread), length)));
  return traced((t) =>
    blend([node, first, second, node], [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3]),
  );
}

function blend(points: readonly Point[], weights: readonly number[]): Point {
  let [x, y] = [0, 0];
  for (let i = 0; i < points.length; i++) [x, y] = [x + points[i][0] * weights[i], y + points[i][1] * weights[i]];
  return [x, y];
}

/** The part of a curve from one node's rim to `gap` before the other's. */
export function betweenNodes(curve: Curve, radius: number, gap: number): Point[] {
  const halfway = curve.length >> 1;
  const end = curve[curve.length - 1];
  const first = Math.max(curve.findIndex((point) => distance(point, curve[0]) >= radius), 0);
  const inside = curve.findIndex((point, i) => i >= halfway && distance(point, end) <= radius + gap);
  return evenly(curve.slice(first, Math.max(inside < 0 ? curve.length : inside, first + 2)));
}

/** The same curve with points at equal distances. */
export function evenly(curve: Curve): Point[] {
  const along = [0];
  for (let i = 1; i < curve.length; i++) along.push(along[i - 1] + distance(curve[i], curve[i - 1]));
  const length = along[along.length - 1];
  const count = Math.max(12, Math.round(length / SPACING));
  let at = 0;
  return Array.from({ length: count }, (_, i) => {
    const goal = (length * i) / (count - 1);
    while (at < curve.length - 2 && along[at + 1] < goal) at++;
    const share = (goal - along[at]) / Math.max(along[at + 1] - along[at], 1e-9);
    return add(scale(curve[at], 1 - share), scale(curve[at + 1], share));
  });
}

/** The directions of a curve at its points, each of length 1. */
function directions(curve: Curve): Point[] {
  return curve.map((_, i) => {
    const way = subtract(curve[Math.min(i + 1, curve.length - 1)], curve[Math.max(i - 1, 0)]);
    return scale(way, 1 / Math.max(norm(way), 1e-9));
  });
}

/** The outline of an arrow along a curve: a stem `width` wide, and a head `head` long that ends at the last point. */
export function arrowOutline(curve: Curve, width: number, head: number): Point[] {
  const tip = curve[curve.length - 1];
  const before = curve.filter((point) => distance(point, tip) > 0.8 * head);
  const stem = before.length >= 2 ? before : curve.slice(0, 2);
  const way = subtract(tip, stem[stem.length - 1]);
  const forward = scale(way, 1 / Math.max(norm(way), 1e-9));
  const wing = scale(leftOf(forward), Math.max(0.38 * head, 0.95 * width));
  const back = subtract(tip, scale(forward, head));
  const sides = directions(stem).map((direction) => scale(leftOf(direction), width / 2));
  const left = stem.map((point, i) => add(point, sides[i]));
  const right = stem.map((point, i) => subtract(point, sides[i])).reverse();
  return [...left, add(back, wing), tip, subtract(back, wing), ...right];
}

/** The closed SVG path of an outline, to a tenth of a pixel. */
export function pathOf(points: Curve, closed = true): string {
  const text = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
  return `M${text}${closed ? "Z" : ""}`;
}

/**
 * Centres of boxes, each near its own curve and clear of nodes, boxes and other curves: greedy from the shortest curve,
 * which has the fewest choices, to the longest, then twice more with all others in place.
 */
export function placeLabels(
  curves: readonly Curve[],
  sizes: readonly Box[],
  nodes: readonly Point[],
  nodeRadius: number,
): Point[] {
  const options = curves.map((curve, i) => labelOptions(curve, sizes[i]));
  const around = curves.map(boxAround);
  const fixed = options.map((places, own) =>
    places.map(({ centre, habit }) => habit + surroundings(centre, sizes[own], curves, around, own, nodes, nodeRadius)),
  );
  const order = [...curves.keys()].sort((a, b) => curves[a].length - curves[b].length);
  const placed: (Point | null)[] = curves.map(() => null);
  for (let round = 0; round < 3; round++) {
    for (const own of order) {
      const costs = options[own].map(({ centre }, option) => {
        let cost = fixed[own][option];
        for (let other = 0; other < placed.length; other++) {
          const where = placed[other];
          if (where === null || other === own || !overlaps(centre, sizes[own], where, sizes[other], 23)) continue;
          cost += overlaps(centre, sizes[own], where, sizes[other], 5) ? 65 : 5;
        }
        return cost;
      });
      placed[own] = options[own][costs.indexOf(Math.min(...costs))].centre;
    }
  }
  return placed as Point[];
}

export function overlaps(a: Point, size: Box, b: Point, other: Box, margin = 0): boolean {
  return (
    Math.abs(a[0] - b[0]) < (size.width + other.width + margin) / 2 &&
    Math.abs(a[1] - b[1]) < (size.height + other.height + margin) / 2
  );
}

/** Places that a label may take, and how unusual each is: the middle of the curve is the best. */
function labelOptions(curve: Curve, size: Box): { centre: Point; habit: number }[] {
  const ways = directions(curve);
  const shares = [0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74, 0.2];
  return [-1, 1, 0].flatMap((side) =>
    shares.map((share) => {
      const at = Math.round(share * (curve.length - 1));
      const normal = leftOf(ways[at]);
      const far = (Math.abs(normal[0]) * size.width + Math.abs(normal[1]) * size.height) / 2 + 5;
      return { centre: add(curve[at], scale(normal, side * far)), habit: 8 * Math.abs(share - 0.5) };
    }),
  );
}

/** The smallest box around a curve. */
function boxAround(curve: Curve): { centre: Point; size: Box } {
  const [xs, ys] = [curve.map(([x]) => x), curve.map(([, y]) => y)];
  const [low, high]: Point[] = [[Math.min(...xs), Math.min(...ys)], [Math.max(...xs), Math.max(...ys)]];
  return { centre: middleOf(low, high), size: { width: high[0] - low[0], height: high[1] - low[1] } };
}

/** How much a label at `centre` covers: never a node, and another curve is worse than its own. */
function surroundings(
  centre: Point,
  size: Box,
  curves: readonly Curve[],
  around: readonly { centre: Point; size: Box }[],
  own: number,
  nodes: readonly Point[],
  nodeRadius: number,
): number {
  let cost = 0;
  for (const node of nodes) {
    const x = Math.max(Math.abs(node[0] - centre[0]) - size.width / 2, 0);
    const y = Math.max(Math.abs(node[1] - centre[1]) - size.height / 2, 0);
    if (x * x + y * y < (nodeRadius + 5) ** 2) cost += 100;
  }
  for (let i = 0; i < curves.length; i++) {
    if (!overlaps(centre, size, around[i].centre, around[i].size, 2 * NEAR)) continue;
    const curve = curves[i];
    let covered = 0;
    let near = 0;
    for (let at = 0; at < curve.length; at++) {
      const x = Math.abs(curve[at][0] - centre[0]) - size.width / 2;
      const y = Math.abs(curve[at][1] - centre[1]) - size.height / 2;
      if (x >= NEAR || y >= NEAR) continue;
      near++;
      if (x < 1.5 && y < 1.5) covered += at < curve.length - 4 ? 1 : 3; // an arrow's head is worth more than its stem
    }
    cost += i === own ? (16 * covered) / curve.length : 2 * covered + 0.8 * near;
  }
  return cost;
}
