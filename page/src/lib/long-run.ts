/** What follows from a table in the long run, and what it costs: the questions that a large chain is asked in a worker. */

import { reach, stationary, tableOf, type Chain, type Law, type Reach } from "./chain.ts";
import { isCut, type Sampler } from "./softmax.ts";

export interface Question {
  sampler: Sampler;
  start: number;
  red: number[];
  horizon: number;
}

export interface Answer {
  law: Law;
  /** Null where no state is red, or all are. */
  danger: Reach | null;
  /** The same of the chain that is compared with. */
  dangerB: Reach | null;
}

/** Only where tokens are excluded may it matter for the long run where the text begins. */
export function answered(chain: Chain, other: Chain | null, { sampler, start, red, horizon }: Question): Answer {
  const table = tableOf(chain, sampler);
  const marked = new Set(red);
  const danger = (of: Chain): Reach | null =>
    marked.size > 0 && marked.size < of.nStates ? reach(of === chain ? table : tableOf(of, sampler), marked, horizon, start) : null;
  return { law: stationary(table, isCut(sampler) ? start : 0), danger: danger(chain), dangerB: other ? danger(other) : null };
}
