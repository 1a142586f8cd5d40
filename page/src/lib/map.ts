/**
 * Where the states of a long context lie on a map: one cell a state, and states that end alike side by side.
 *
 * The newest token says in which of V columns a state lies, the one before it in which of V rows of that column, the
 * next again in which column within, and so on. For two tokens this is the baker's map; a transition is a stretch of
 * one direction and a fold of the other.
 */

export interface MapPlan {
  vocabSize: number;
  contextLength: number;
  columns: number;
  rows: number;
}

export function planMap(vocabSize: number, contextLength: number): MapPlan {
  return {
    vocabSize,
    contextLength,
    columns: vocabSize ** Math.ceil(contextLength / 2),
    rows: vocabSize ** Math.floor(contextLength / 2),
  };
}

export function cellOf(plan: MapPlan, state: number): { x: number; y: number } {
  let [x, y] = [0, 0];
  for (let back = 0; back < plan.contextLength; back++) {
    const token = state % plan.vocabSize;
    state = Math.floor(state / plan.vocabSize);
    if (back % 2 === 0) x = x * plan.vocabSize + token;
    else y = y * plan.vocabSize + token;
  }
  return { x, y };
}

export function stateAt(plan: MapPlan, x: number, y: number): number {
  const { vocabSize: V, contextLength } = plan;
  const tokens: number[] = [];
  let [xs, ys] = [plan.columns, plan.rows];
  for (let back = 0; back < contextLength; back++) {
    if (back % 2 === 0) {
      xs /= V;
      tokens.push(Math.floor(x / xs) % V);
    } else {
      ys /= V;
      tokens.push(Math.floor(y / ys) % V);
    }
  }
  return tokens.reduceRight((number, token) => number * V + token, 0);
}
