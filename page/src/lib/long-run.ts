/** What follows from a table in the long run, and what it costs: the questions that a large chain is asked in a worker. */

import { reach, stationary, tableOf, type Chain, type Law, type Reach, type Table } from "./chain.ts";
import { isCut, type Sampler } from "./softmax.ts";

export interface Question {
  sampler: Sampler;
  start: number;
  red: number[];
  horizon: number;
}

export interface Dangers {
  /** Null where no state is red, or all are. */
  danger: Reach | null;
  /** The same of the chain that is compared with. */
  dangerB: Reach | null;
}

export interface Answer extends Dangers {
  /** Null while it isn't known: of a chain that mixes slowly it takes seconds. */
  law: Law | null;
}

export function answered(chain: Chain, other: Chain | null, question: Question): Answer {
  const table = tableOf(chain, question.sampler);
  return { ...dangers(table, other, question), law: stationary(table, lawStart(question)) };
}

export function dangers(table: Table, other: Chain | null, { sampler, start, red, horizon }: Question): Dangers {
  const marked = new Set(red);
  if (marked.size === 0 || marked.size === table.nStates) return { danger: null, dangerB: null };
  const danger = (of: Table): Reach => reach(of, marked, horizon, start);
  return { danger: danger(table), dangerB: other && danger(tableOf(other, sampler)) };
}

/** Only where tokens are excluded may it matter for the long run where the text begins. */
export const lawStart = ({ sampler, start }: Question): number => (isCut(sampler) ? start : 0);
