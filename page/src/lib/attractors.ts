/**
 * Which of three points is nearest, as a net has to learn it: two numbers in, one number out, and the code nearest to
 * that is its answer. The task is that of src/glassgpt/evaluation/attractors.py, where nets are trained otherwise.
 */

import { Adam, Net, type Bend } from "./net.ts";
import { Pcg32 } from "./random.ts";

export const ATTRACTORS: readonly (readonly [number, number])[] = [
  [-0.6, -0.5],
  [0.65, -0.35],
  [-0.05, 0.7],
];
export const CODES = [-1, 0, 1] as const;
export const EXAMPLES = 500;
const ENOUGH = 400; // places along a border, to find its ends

/** The index of the point nearest to a place. */
export function nearest(x: number, y: number): number {
  const away = ATTRACTORS.map(([px, py]) => (x - px) ** 2 + (y - py) ** 2);
  return away.indexOf(Math.min(...away));
}

/** The index of the code that is nearest to an output. */
export function answer(output: number): number {
  return output < -0.5 ? 0 : output <= 0.5 ? 1 : 2;
}

/** The straight borders between the regions in the square from -1 to 1, each from end to end. */
export function borders(): [[number, number], [number, number]][] {
  const found: [[number, number], [number, number]][] = [];
  for (const [i, j, k] of [[0, 1, 2], [0, 2, 1], [1, 2, 0]]) {
    const [[ax, ay], [bx, by], [cx, cy]] = [ATTRACTORS[i], ATTRACTORS[j], ATTRACTORS[k]];
    const inside: [number, number][] = [];
    for (let step = -ENOUGH; step <= ENOUGH; step++) {
      const t = (3 * step) / ENOUGH;
      const [x, y] = [(ax + bx) / 2 + t * (by - ay), (ay + by) / 2 - t * (bx - ax)];
      const isBorder = (x - ax) ** 2 + (y - ay) ** 2 <= (x - cx) ** 2 + (y - cy) ** 2;
      if (isBorder && Math.abs(x) <= 1 && Math.abs(y) <= 1) inside.push([x, y]);
    }
    if (inside.length > 1) found.push([inside[0], inside[inside.length - 1]]);
  }
  return found;
}

/** The places of a grid over the square, (side * side, 2), row after row from the top. */
export function gridOf(side: number): Float64Array {
  const places = new Float64Array(2 * side * side);
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const at = 2 * (row * side + column);
      places[at] = (2 * column) / (side - 1) - 1;
      places[at + 1] = 1 - (2 * row) / (side - 1);
    }
  }
  return places;
}

/** The share of places at which the net says what is right. */
export function shareRight(outputs: Float64Array, grid: Float64Array): number {
  let right = 0;
  for (let i = 0; i < outputs.length; i++) if (answer(outputs[i]) === nearest(grid[2 * i], grid[2 * i + 1])) right++;
  return right / outputs.length;
}

/** A net on its way: the same shape, rate and seed take the same steps. */
export class Learner {
  readonly net: Net;
  readonly losses: number[] = [];
  private readonly adam: Adam;
  private readonly inputs: Float64Array;
  private readonly targets: Float64Array;

  constructor(readonly hidden: readonly number[], bend: Bend, rate: number, seed: number) {
    const random = new Pcg32(seed, 1n);
    this.inputs = Float64Array.from({ length: 2 * EXAMPLES }, () => 2 * random.uniform() - 1);
    this.targets = Float64Array.from({ length: EXAMPLES }, (_, i) => CODES[nearest(this.inputs[2 * i], this.inputs[2 * i + 1])]);
    this.net = new Net([2, ...hidden, 1], bend, seed);
    this.adam = new Adam(this.net, rate);
  }

  get steps(): number {
    return this.losses.length;
  }

  step(): void {
    this.losses.push(this.adam.train(this.inputs, this.targets));
  }
}
