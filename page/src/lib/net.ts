/** A plain neural net and its training, in so few lines that they can be read: forward, backward, Adam. */

import { Pcg32 } from "./random.ts";

export type Bend = "tanh" | "relu";

/** What bends a layer's numbers, and its slope by the number that came out. */
const BENDS: Record<Bend, { value: (x: number) => number; slope: (bent: number) => number }> = {
  tanh: { value: Math.tanh, slope: (bent) => 1 - bent * bent },
  relu: { value: (x) => (x > 0 ? x : 0), slope: (bent) => (bent > 0 ? 1 : 0) },
};

/** One layer's place in the list of all parameters: `to` rows of `from` weights, then `to` biases. */
interface Layer {
  from: number;
  to: number;
  first: number;
}

/**
 * Layers of `sizes` numbers from the input to the output, each h -> bend(W h + b), the last one without the bend.
 * Weights are drawn from the seed, evenly within 1 / sqrt(inputs).
 */
export class Net {
  readonly parameters: Float64Array;
  private readonly layers: Layer[] = [];
  /** What each layer gave for the example at hand. */
  private readonly values: Float64Array[];

  constructor(
    readonly sizes: readonly number[],
    readonly bend: Bend,
    seed: number,
  ) {
    let first = 0;
    for (let i = 1; i < sizes.length; i++) {
      this.layers.push({ from: sizes[i - 1], to: sizes[i], first });
      first += (sizes[i - 1] + 1) * sizes[i];
    }
    this.parameters = new Float64Array(first);
    const random = new Pcg32(seed);
    for (const { from, to, first } of this.layers) {
      for (let i = 0; i < (from + 1) * to; i++) this.parameters[first + i] = (2 * random.uniform() - 1) / Math.sqrt(from);
    }
    this.values = sizes.map((size) => new Float64Array(size));
  }

  /** The outputs for `inputs`, (examples, sizes[0]), one after the other. */
  outputs(inputs: Float64Array): Float64Array {
    const [width, last] = [this.sizes[0], this.sizes[this.sizes.length - 1]];
    const result = new Float64Array((inputs.length / width) * last);
    for (let i = 0; i * width < inputs.length; i++) {
      this.forward(inputs.subarray(i * width, (i + 1) * width));
      result.set(this.values[this.values.length - 1], i * last);
    }
    return result;
  }

  /** What each layer gives for one input, the input itself first. */
  through(input: Float64Array): Float64Array[] {
    this.forward(input);
    return this.values.map((values) => values.slice());
  }

  private forward(input: Float64Array): void {
    const { parameters, layers, values } = this;
    const { value } = BENDS[this.bend];
    values[0].set(input);
    for (let l = 0; l < layers.length; l++) {
      const { from, to, first } = layers[l];
      const [h, next] = [values[l], values[l + 1]];
      for (let j = 0; j < to; j++) {
        let sum = parameters[first + to * from + j];
        for (let i = 0; i < from; i++) sum += parameters[first + j * from + i] * h[i];
        next[j] = l < layers.length - 1 ? value(sum) : sum;
      }
    }
  }

  /** The mean squared error of the outputs, and its gradient with respect to every parameter. */
  lossAndGradient(inputs: Float64Array, targets: Float64Array): { loss: number; gradient: Float64Array } {
    const { parameters, layers, values, sizes } = this;
    const { slope } = BENDS[this.bend];
    const gradient = new Float64Array(parameters.length);
    const errors = sizes.map((size) => new Float64Array(size));
    const [width, last] = [sizes[0], sizes[sizes.length - 1]];
    let loss = 0;
    for (let example = 0; example * width < inputs.length; example++) {
      this.forward(inputs.subarray(example * width, (example + 1) * width));
      for (let j = 0; j < last; j++) {
        const off = values[layers.length][j] - targets[example * last + j];
        loss += off ** 2 / targets.length;
        errors[layers.length][j] = (2 * off) / targets.length;
      }
      for (let l = layers.length - 1; l >= 0; l--) {
        const { from, to, first } = layers[l];
        const [h, error, before] = [values[l], errors[l + 1], errors[l]];
        before.fill(0);
        for (let j = 0; j < to; j++) {
          gradient[first + to * from + j] += error[j];
          for (let i = 0; i < from; i++) {
            gradient[first + j * from + i] += error[j] * h[i];
            before[i] += error[j] * parameters[first + j * from + i];
          }
        }
        if (l > 0) for (let i = 0; i < from; i++) before[i] *= slope(h[i]);
      }
    }
    return { loss, gradient };
  }
}

/** Steps against the gradient, each parameter's by its own measure (Kingma and Ba, arXiv 1412.6980). */
export class Adam {
  private readonly first: Float64Array;
  private readonly second: Float64Array;
  private step = 0;

  constructor(
    private readonly net: Net,
    private readonly rate: number,
  ) {
    this.first = new Float64Array(net.parameters.length);
    this.second = new Float64Array(net.parameters.length);
  }

  /** One step on these examples; the loss before it. */
  train(inputs: Float64Array, targets: Float64Array): number {
    const { loss, gradient } = this.net.lossAndGradient(inputs, targets);
    this.step++;
    const [a, b] = [1 - 0.9 ** this.step, 1 - 0.999 ** this.step];
    for (let i = 0; i < gradient.length; i++) {
      this.first[i] = 0.9 * this.first[i] + 0.1 * gradient[i];
      this.second[i] = 0.999 * this.second[i] + 0.001 * gradient[i] ** 2;
      this.net.parameters[i] -= (this.rate * (this.first[i] / a)) / (Math.sqrt(this.second[i] / b) + 1e-8);
    }
    return loss;
  }
}
