/** How far apart the attention of two models is. */

/**
 * For each head of each layer the distance of its rows in two models, from 0 (the same) to 1 (nothing in common): half
 * the sum of what they differ by, the mean over the rows. Both are (L, H, t, t); so is `shape`.
 */
export function distances(a: ArrayLike<number>, b: ArrayLike<number>, shape: readonly number[]): Float64Array {
  const [L, H, side] = shape;
  const found = new Float64Array(L * H);
  for (let i = 0; i < a.length; i++) found[Math.floor(i / side ** 2)] += Math.abs(a[i] - b[i]) / (2 * side);
  return found;
}

/** What each cell of one head has more in the first than in the second: rows of `side` numbers. */
export function less(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value - b[i]);
}
