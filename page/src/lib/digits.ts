/**
 * The net that reads digits, run here on what the server sends of it, and the pictures that it is given. The numbers are
 * those of src/glassgpt/evaluation/digits.py.
 */

import { Net } from "./net.ts";
import { FormatError, type Tensors } from "./safetensors.ts";
import { argmax, softmax } from "./softmax.ts";

export const SIDE = 8;
export const CELLS = SIDE * SIDE;
/** Of a cell's ink; 0 is paper. */
export const DARKEST = 16;
/** Of a blur, in pixels. */
export const WIDEST = 2.4;
export const BLURS = Array.from({ length: 49 }, (_, i) => Number((0.05 * i).toFixed(2)));

export interface Reading {
  /** What the last hidden layer gives. */
  hidden: Float64Array;
  probs: Float64Array;
  answer: number;
  /** Where that lies on the map. */
  place: [number, number];
}

export class DigitReader {
  /** The digits held out, (n, 64), from 0 for paper to 1 for ink; what they are, and what the net reads. */
  readonly images: Float64Array;
  readonly labels: Uint8Array;
  readonly readings: Reading[];
  /** Of those numbers: the first of each digit, and those misread, the ones that the net is surest of first. */
  readonly typical: number[];
  readonly misread: number[];
  readonly training: number;
  /** The share read right, and the ends of its 95% interval. */
  readonly right: [number, number, number];
  /** Which shares of the variance the map's axes hold. */
  readonly explained: [number, number];
  /** The largest activation of any digit held out. */
  readonly largest: number;
  private readonly net: Net;
  private readonly mean: ArrayLike<number>;
  private readonly axes: ArrayLike<number>;

  constructor(file: Tensors) {
    const tensor = (name: string) => {
      const found = file.tensors[name];
      if (!found) throw new FormatError(`expected a tensor "${name}" of the net that reads digits`);
      return found;
    };
    const about = (name: string) => JSON.parse(file.metadata[name]);
    const layers = Object.keys(file.tensors).filter((name) => /^layers\.\d+\.weight$/.test(name)).length;
    const weights = Array.from({ length: layers }, (_, i) => tensor(`layers.${i}.weight`));
    this.net = new Net([CELLS, ...weights.map(({ shape }) => shape[0])], "relu", 0);
    this.net.parameters.set(weights.flatMap(({ data }, i) => [...data, ...tensor(`layers.${i}.bias`).data]));
    [this.mean, this.axes] = [tensor("mean").data, tensor("axes").data];
    this.images = Float64Array.from(tensor("images").data, (ink) => ink / about("darkest"));
    this.labels = Uint8Array.from(tensor("labels").data);
    [this.training, this.right, this.explained] = [about("n_training"), about("right"), about("explained")];
    this.readings = Array.from(this.labels, (_, i) => this.read(this.image(i)));
    this.typical = Array.from({ length: 10 }, (_, digit) => this.labels.indexOf(digit)).filter((i) => i >= 0);
    const surest = (i: number): number => Math.max(...this.readings[i].probs);
    this.misread = [...this.labels.keys()].filter((i) => this.readings[i].answer !== this.labels[i]).sort((i, j) => surest(j) - surest(i));
    this.largest = this.readings.reduce((most, { hidden }) => Math.max(most, ...hidden), 0);
  }

  get parameters(): number {
    return this.net.parameters.length;
  }

  /** How many activations the last hidden layer has. */
  get units(): number {
    return this.mean.length;
  }

  image(i: number): Float64Array {
    return this.images.subarray(i * CELLS, (i + 1) * CELLS);
  }

  /** With what weights the first layer's unit sees the cells. */
  weightsOf(unit: number): Float64Array {
    return this.net.parameters.subarray(unit * CELLS, (unit + 1) * CELLS);
  }

  read(image: Float64Array): Reading {
    const values = this.net.through(image);
    const hidden = values[values.length - 2];
    const probs = softmax(values[values.length - 1]);
    const along = (axis: number): number => hidden.reduce((sum, value, i) => sum + (value - this.mean[i]) * this.axes[axis * hidden.length + i], 0);
    return { hidden, probs, answer: argmax(probs), place: [along(0), along(1)] };
  }
}

/** A picture blurred by a normal density so many pixels wide, cut off at four times that; beyond the edge is paper. */
export function blur(image: Float64Array, width: number): Float64Array {
  if (width <= 0) return Float64Array.from(image);
  const reach = Math.floor(4 * width + 0.5);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / width) ** 2));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const spread = (from: Float64Array, step: number, across: number): Float64Array => {
    const result = new Float64Array(CELLS);
    for (let line = 0; line < SIDE; line++) {
      for (let at = 0; at < SIDE; at++) {
        for (let other = Math.max(0, at - reach); other <= Math.min(SIDE - 1, at + reach); other++) {
          result[line * across + at * step] += (from[line * across + other * step] * weights[other - at + reach]) / sum;
        }
      }
    }
    return result;
  };
  return spread(spread(image, SIDE, 1), 1, SIDE);
}

// ---- drawing -----------------------------------------------------------------------------------------------------

const SIGNS = "0123456789abcdefg";
/** The grid of bits below a cell, by whose number the digits of the data were made of what was written. */
const FINE = 4;
const ROUND = 2.5; // radius of the pen, in such bits

/** A drawing in an address: a sign for each cell. */
export const spellInk = (ink: ArrayLike<number>): string => Array.from(ink, (value) => SIGNS[value]).join("");

export function readInk(text: string | undefined): Uint8Array | null {
  return text !== undefined && /^[0-9a-g]{64}$/.test(text) ? Uint8Array.from(text, (sign) => SIGNS.indexOf(sign)) : null;
}

/** The next ink of a cell at a key: all, half, none. */
export const cycled = (ink: number): number => (ink === 0 ? DARKEST : ink > DARKEST / 2 ? DARKEST / 2 : 0);

/**
 * One stroke of a pen or a rubber. As in the data, a cell's ink is the number of bits under the stroke, of 4 × 4, so
 * that slanted lines have soft edges. Places are in cells, from the upper left corner.
 */
export class Stroke {
  private readonly bits = new Uint8Array(CELLS * FINE * FINE);
  private last: [number, number] | null = null;

  constructor(
    private readonly before: Uint8Array,
    private readonly isRubber: boolean,
  ) {}

  /** Go on in a straight line; the drawing as it is then. */
  to(x: number, y: number): Uint8Array {
    const [x0, y0] = this.last ?? [x, y];
    const steps = Math.max(1, Math.ceil(FINE * Math.hypot(x - x0, y - y0)));
    for (let i = 0; i <= steps; i++) this.stamp(FINE * (x0 + ((x - x0) * i) / steps), FINE * (y0 + ((y - y0) * i) / steps));
    this.last = [x, y];
    return this.before.map((ink, cell) => (this.isRubber ? Math.min(ink, DARKEST - this.under(cell)) : Math.max(ink, this.under(cell))));
  }

  private stamp(x: number, y: number): void {
    const across = SIDE * FINE;
    for (let row = Math.max(0, Math.floor(y - ROUND)); row < Math.min(across, y + ROUND); row++) {
      for (let column = Math.max(0, Math.floor(x - ROUND)); column < Math.min(across, x + ROUND); column++) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= ROUND) this.bits[row * across + column] = 1;
      }
    }
  }

  private under(cell: number): number {
    const [top, left] = [Math.floor(cell / SIDE) * FINE, (cell % SIDE) * FINE];
    let count = 0;
    for (let row = top; row < top + FINE; row++) {
      for (let column = left; column < left + FINE; column++) count += this.bits[row * SIDE * FINE + column];
    }
    return count;
  }
}
