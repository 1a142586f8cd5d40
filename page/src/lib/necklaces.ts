/**
 * Where the contexts of a chain stand as necklaces: those that are rotations of one another on a ring of their own, in
 * units of the distance between neighbours. The same as src/glassgpt/figures/necklaces.py, which says what it means;
 * page/golden holds the two together.
 */

import { successor } from "./contexts.ts";
import { add, distance, scale, unit, type Point } from "./geometry.ts";

const GAP = 1; // between the circles of two rings
const ASPECT = 1.6; // of width to height that is aimed at
const BREAK = 0.4; // what another band costs beside it, as the logarithm of a ratio
const SWEEPS = 4;
const PARTS = 6; // into which the angle between neighbours is divided, where rings are turned
const TIE = 1e-9;

/** The contexts by rotation class, each class in the order in which the pure shift goes round, its smallest first. */
export function necklaces(vocabSize: number, contextLength: number): number[][] {
  const count = vocabSize ** contextLength;
  const turned = (state: number): number => successor(state, Math.floor(state / (count / vocabSize)), vocabSize, count);
  const seen = new Set<number>();
  const rings: number[][] = [];
  for (let first = 0; first < count; first++) {
    if (seen.has(first)) continue;
    const ring = [first];
    for (let state = turned(first); state !== first; state = turned(state)) ring.push(state);
    for (const state of ring) seen.add(state);
    rings.push(ring);
  }
  return rings;
}

export interface Layout {
  rings: number[][];
  /** Of each state, y pointing up. */
  positions: Point[];
  /** The centre of the ring on which each state stands. */
  centres: Point[];
}

export function necklaceLayout(vocabSize: number, contextLength: number): Layout {
  const rings = necklaces(vocabSize, contextLength);
  const weights = rings.map(([first]) => digitSum(first, vocabSize));
  const centres = centresOf(weights, rings.map((ring) => ring.length));
  const count = vocabSize ** contextLength;
  const ringOf = new Array<number>(count);
  const place = new Array<number>(count);
  rings.forEach((ring, i) => ring.forEach((state, at) => ([ringOf[state], place[state]] = [i, at])));
  const angles = new Array<number>(rings.length).fill(Math.PI / 2);
  const stand = (state: number): Point => {
    const ring = ringOf[state];
    const size = rings[ring].length;
    return add(centres[ring], scale(unit(angles[ring] - (2 * Math.PI * place[state]) / size), radiusOf(size)));
  };
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    rings.forEach((ring, i) => {
      if (ring.length > 1) angles[i] = shortest(ring, i);
    });
  }

  /** The angle of a ring's first member at which the arrows to other rings and from them are shortest. */
  function shortest(ring: number[], i: number): number {
    const tokens = Array.from({ length: vocabSize }, (_, token) => token);
    const out = ring.flatMap((state) => tokens.map((token) => [state, successor(state, token, vocabSize, count)]));
    const into = ring.flatMap((state) => tokens.map((oldest) => [Math.floor(state / vocabSize) + oldest * (count / vocabSize), state]));
    const ways = [...out, ...into].filter(([a, b]) => ringOf[a] !== i || ringOf[b] !== i);
    let [best, bestCost] = [angles[i], Infinity];
    for (let turn = 0; turn < PARTS * ring.length; turn++) {
      angles[i] = Math.PI / 2 + (2 * Math.PI * turn) / (PARTS * ring.length);
      const cost = ways.reduce((sum, [a, b]) => sum + distance(stand(a), stand(b)) ** 2, 0);
      if (cost < bestCost - TIE) [best, bestCost] = [angles[i], cost];
    }
    return best;
  }

  const states = Array.from({ length: count }, (_, state) => state);
  return { rings, positions: states.map(stand), centres: states.map((state) => centres[ringOf[state]]) };
}

/** Of a ring whose neighbours are 1 apart. */
export const radiusOf = (members: number): number => (members === 1 ? 0 : 0.5 / Math.sin(Math.PI / members));

function digitSum(state: number, vocabSize: number): number {
  let sum = 0;
  for (let rest = state; rest > 0 && vocabSize > 1; rest = Math.floor(rest / vocabSize)) sum += rest % vocabSize;
  return sum;
}

/** Centres of rings: a column for each weight, in as many bands as come nearest to the aspect. */
function centresOf(weights: number[], sizes: number[]): Point[] {
  const columns = [...new Set(weights)].sort((a, b) => a - b).map((wanted) => [...weights.keys()].filter((i) => weights[i] === wanted));
  const widths = columns.map((column) => 2 * Math.max(...column.map((i) => radiusOf(sizes[i]))));
  const heights = columns.map((column) => column.reduce((sum, i) => sum + 2 * radiusOf(sizes[i]) + GAP, 0) - GAP);
  const across = (band: number[]): number => band.reduce((sum, column) => sum + widths[column] + GAP, 0);
  const tallest = (band: number[]): number => Math.max(...band.map((column) => heights[column]));
  let best = bandsOf(widths, 1);
  let bestCost = Infinity;
  for (let count = 1; count <= columns.length; count++) {
    const bands = bandsOf(widths, count);
    const width = Math.max(...bands.map(across));
    const height = bands.reduce((sum, band) => sum + tallest(band) + GAP, 0);
    const cost = Math.abs(Math.log(width / height / ASPECT)) + BREAK * (count - 1);
    if (cost < bestCost - TIE) [best, bestCost] = [bands, cost];
  }
  const centres: Point[] = new Array(weights.length);
  let top = 0;
  for (const band of best) {
    const tall = tallest(band);
    let x = -(across(band) - GAP) / 2;
    for (const column of band) {
      let y = top - (tall - heights[column]) / 2;
      for (const i of columns[column]) {
        const radius = radiusOf(sizes[i]);
        centres[i] = [x + widths[column] / 2, y - radius];
        y -= 2 * radius + GAP;
      }
      x += widths[column] + GAP;
    }
    top -= tall + GAP;
  }
  return centres.map(([x, y]) => [x, y - (top + GAP) / 2]);
}

/** Columns in their order, parted where the width that is taken passes the next share of all. */
function bandsOf(widths: number[], count: number): number[][] {
  const total = widths.reduce((sum, width) => sum + width + GAP, 0);
  const bands: number[][] = Array.from({ length: count }, () => []);
  let taken = 0;
  widths.forEach((width, column) => {
    const middle = taken + (width + GAP) / 2;
    bands[Math.min(Math.floor((middle / total) * count + TIE), count - 1)].push(column);
    taken += width + GAP;
  });
  return bands.filter((band) => band.length > 0);
}
