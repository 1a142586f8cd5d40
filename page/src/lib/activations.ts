/** What bends a layer: functions of one number, and their slopes, by the formulas of the package's models. */

export const ACTIVATIONS = ["sigmoid", "tanh", "relu", "relu2", "gelu", "silu"] as const;
export type Activation = (typeof ACTIVATIONS)[number];

const ROOT = Math.sqrt(2 / Math.PI);
const CUBE = 0.044715;

/** GPT-2's form of GELU: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))) (Hendrycks and Gimpel, arXiv 1606.08415). */
function gelu(x: number): number {
  return 0.5 * x * (1 + Math.tanh(ROOT * (x + CUBE * x ** 3)));
}

function geluSlope(x: number): number {
  const bend = Math.tanh(ROOT * (x + CUBE * x ** 3));
  return 0.5 * (1 + bend) + 0.5 * x * (1 - bend ** 2) * ROOT * (1 + 3 * CUBE * x ** 2);
}

const sigmoid = (x: number): number => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)));

export const VALUE: Record<Activation, (x: number) => number> = {
  sigmoid,
  tanh: Math.tanh,
  relu: (x) => Math.max(x, 0),
  relu2: (x) => Math.max(x, 0) ** 2,
  gelu,
  silu: (x) => x * sigmoid(x),
};

export const SLOPE: Record<Activation, (x: number) => number> = {
  sigmoid: (x) => sigmoid(x) * (1 - sigmoid(x)),
  tanh: (x) => 1 - Math.tanh(x) ** 2,
  relu: (x) => (x > 0 ? 1 : 0),
  relu2: (x) => 2 * Math.max(x, 0),
  gelu: geluSlope,
  silu: (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))),
};
