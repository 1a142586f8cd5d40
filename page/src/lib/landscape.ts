/** A loss over a plane, and training's path across it: levels, contours, and what is nearest to a place. */

export type Plane = "path" | "random";

/** What the server measured. Losses are in nats, null where infinite; `losses` by row, from the lowest up. */
export interface Land {
  plane: Plane;
  /** How many predictions a loss is the mean of. */
  n_tokens: number;
  across: number[];
  up: number[];
  losses: (number | null)[][];
  steps: number[];
  /** The path's shadow on the plane. */
  path: [number, number][];
  path_losses: (number | null)[];
  shadow_losses: (number | null)[];
  off_plane: number[];
  n_parameters: number;
  travelled: number;
  /** Of a random plane there are none. */
  explained: [number, number] | null;
  random_walk: number | null;
}

export type LandEvent = { name: "progress"; done: number; total: number } | { name: "done"; land: Land };

const FEWEST = 8; // contours
/** Round numbers within a power of ten, more and more of them. */
const ROUND = [[1], [1, 2, 5], [1, 1.5, 2, 3, 5, 7], [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]];
const STEPS = [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/** The logarithms of the losses, row after row; what is infinite or 0 lies just beyond the others. */
export function logsOf({ losses }: Land): Float64Array {
  const logs = losses.flat().map((loss) => (loss === null ? Infinity : Math.log10(loss)));
  const finite = logs.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  return Float64Array.from(logs, (log) => Math.min(Math.max(log, low), high));
}

/** Round losses between two, evenly enough spread over their logarithms. */
export function levels(low: number, high: number): number[] {
  if (!(high > low)) return [];
  const inside = (values: number[]): number[] => values.filter((value) => value > low && value < high);
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const powers = Array.from({ length: last - first + 1 }, (_, i) => first + i);
  for (const round of ROUND) {
    const found = inside(powers.flatMap((power) => round.map((factor) => Number((factor * 10 ** power).toPrecision(3)))));
    if (found.length >= FEWEST) return found;
  }
  const even = (step: number): number[] => {
    const from = Math.ceil(low / step);
    return inside(Array.from({ length: Math.floor(high / step) - from + 1 }, (_, i) => Number(((from + i) * step).toPrecision(9))));
  };
  const step = STEPS.find((step) => (high - low) / step >= FEWEST) ?? (high - low) / FEWEST;
  return even(step);
}

export type Segment = [number, number, number, number];

/**
 * Where values over a grid, row after row, are as high as `level`: pieces of line in columns and rows, by the corners of
 * each cell and straight lines between them.
 */
export function contour(values: Float64Array, columns: number, level: number): Segment[] {
  const found: Segment[] = [];
  for (let row = 0; (row + 2) * columns <= values.length; row++) {
    for (let column = 0; column + 1 < columns; column++) {
      const i = row * columns + column;
      const corners = [values[i], values[i + 1], values[i + columns + 1], values[i + columns]];
      const places = [[column, row], [column + 1, row], [column + 1, row + 1], [column, row + 1]];
      const crossed = corners.flatMap((value, c) => {
        const [next, to] = [corners[(c + 1) % 4], places[(c + 1) % 4]];
        if (value >= level === next >= level) return [];
        const share = (level - value) / (next - value);
        return [[places[c][0] + share * (to[0] - places[c][0]), places[c][1] + share * (to[1] - places[c][1])]];
      });
      // A saddle has four: what is high in the middle says which belong together.
      const isHigh = corners.reduce((sum, value) => sum + value, 0) / 4 >= level;
      const pairs = crossed.length < 4 ? [[0, 1]] : isHigh === corners[0] >= level ? [[0, 1], [2, 3]] : [[3, 0], [1, 2]];
      if (crossed.length > 0) for (const [a, b] of pairs) found.push([...crossed[a], ...crossed[b]] as Segment);
    }
  }
  return found;
}

/** The number of the value that is nearest. */
export function nearestIn(values: readonly number[], to: number): number {
  return values.reduce((best, value, i) => (Math.abs(value - to) < Math.abs(values[best] - to) ? i : best), 0);
}

/** The number of the place that is nearest. */
export function nearestOf(places: readonly (readonly [number, number])[], [x, y]: readonly [number, number]): number {
  const away = places.map(([px, py]) => Math.hypot(px - x, py - y));
  return away.indexOf(Math.min(...away));
}

/** The numbers of at most `most` steps, evenly far apart, the first and the last among them. */
export function labelled(steps: readonly number[], most: number): number[] {
  const [first, last] = [steps[0], steps[steps.length - 1]];
  const count = Math.min(most, steps.length);
  const wished = Array.from({ length: count }, (_, i) => nearestIn(steps, first + ((last - first) * i) / Math.max(1, count - 1)));
  return [...new Set([0, ...wished, steps.length - 1])].sort((a, b) => a - b);
}

/** The direction, of eight and of length 1, in which a name beside a place is furthest from the rest of a path, and fits. */
export function clearSide(
  path: readonly (readonly [number, number])[],
  at: number,
  reach: number,
  fits: (side: [number, number]) => boolean = () => true,
): [number, number] {
  const line = path.flatMap(([x, y], i) => {
    const [nx, ny] = path[i + 1] ?? [x, y];
    return Array.from({ length: 8 }, (_, k) => [x + (k / 8) * (nx - x), y + (k / 8) * (ny - y)] as const);
  });
  const all = Array.from({ length: 8 }, (_, k) => [Math.cos((k * Math.PI) / 4), Math.sin((k * Math.PI) / 4)] as [number, number]);
  const sides = all.some(fits) ? all.filter(fits) : all;
  const room = sides.map(([dx, dy]) => Math.min(...line.map(([x, y]) => Math.hypot(x - path[at][0] - reach * dx, y - path[at][1] - reach * dy))));
  return sides[room.findIndex((value) => value >= Math.max(...room) - 1e-6)];
}
