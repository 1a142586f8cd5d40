/**
 * Curves through noisy points: too few parameters miss the shape, too many learn the noise. The points are scattered as
 * in src/glassgpt/figures/fits.py (drawn by the page's own generator, so they are others of the same kind).
 */

import { Pcg32 } from "./random.ts";

export const MOST_PARAMETERS = 16;
export const HELD_OUT = 200;

export interface Points {
  x: Float64Array;
  y: Float64Array;
}

export interface Scattered {
  fitted: Points;
  heldOut: Points;
}

/** What the points are scattered about. */
export const wave = (x: number): number => Math.sin(5 * x) + x;

/**
 * Points about the wave on [-1, 1] with normally distributed noise. Those to be fitted lie near even distances, those
 * held out anywhere between the outermost of them. More noise moves the same points further.
 */
export function scattered(seed: number, count: number, noise: number): Scattered {
  const random = new Pcg32(seed);
  const step = 2 / count;
  const x = Float64Array.from({ length: count }, (_, i) => -1 + (i + 0.5) * step + (0.8 * random.uniform() - 0.4) * step);
  const others = Float64Array.from({ length: HELD_OUT }, () => x[0] + random.uniform() * (x[count - 1] - x[0])).sort();
  const lifted = (at: Float64Array): Points => ({ x: at, y: at.map((place) => wave(place) + noise * normal(random)) });
  return { fitted: lifted(x), heldOut: lifted(others) };
}

/** A normally distributed number (Box and Muller, 1958). */
function normal(random: Pcg32): number {
  const radius = Math.sqrt(-2 * Math.log(1 - random.uniform()));
  return radius * Math.cos(2 * Math.PI * random.uniform());
}

/**
 * The polynomials of 1 to `most` parameters with the least squared error at the points.
 *
 * Their basis is orthonormal at the points, each member the one before times x, less what the others have of it
 * ("Vandermonde with Arnoldi", Brubeck, Nakatsukasa and Trefethen, 2021). So every coefficient is found by itself, and
 * one more parameter leaves the others as they were; with powers of x, 16 would be too nearly dependent for a float64.
 */
export class Fits {
  /** How x times member k is made of the members up to k + 1. */
  private readonly ways: Float64Array[] = [];
  readonly coefficients: number[] = [];

  constructor(
    readonly points: Points,
    most = MOST_PARAMETERS,
  ) {
    const { x, y } = points;
    let member = new Float64Array(x.length).fill(1);
    const members = [member];
    this.coefficients.push(mean(member, y));
    while (members.length < Math.min(most, x.length)) {
      const next = member.map((value, i) => value * x[i]);
      const way = new Float64Array(members.length + 1);
      for (let round = 0; round < 2; round++) {
        members.forEach((other, k) => {
          const share = mean(other, next);
          way[k] += share;
          for (let i = 0; i < next.length; i++) next[i] -= share * other[i];
        });
      }
      const size = Math.sqrt(mean(next, next));
      way[members.length] = size;
      member = next.map((value) => value / size);
      members.push(member);
      this.ways.push(way);
      this.coefficients.push(mean(member, y));
    }
  }

  /** The heights at `x` of the curve with so many parameters. */
  heights(x: Float64Array, parameters: number): Float64Array {
    const members = [new Float64Array(x.length).fill(1)];
    for (const way of this.ways.slice(0, parameters - 1)) {
      const last = members[members.length - 1];
      const next = x.map((at, i) => at * last[i]);
      members.forEach((other, k) => {
        for (let i = 0; i < next.length; i++) next[i] -= way[k] * other[i];
      });
      members.push(next.map((value) => value / way[members.length]));
    }
    const sum = new Float64Array(x.length);
    members.forEach((member, k) => {
      for (let i = 0; i < sum.length; i++) sum[i] += this.coefficients[k] * member[i];
    });
    return sum;
  }

  /** The root mean square error at some points of the curve with so many parameters. */
  error({ x, y }: Points, parameters: number): number {
    const off = this.heights(x, parameters).map((height, i) => height - y[i]);
    return Math.sqrt(mean(off, off));
  }
}

function mean(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum / a.length;
}
