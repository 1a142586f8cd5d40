/**
 * Answers questions about large chains beside the page, which meanwhile follows the sliders: first how likely red is,
 * then the long run, which is given up as soon as there is a newer question.
 */

import { stationaryInParts, tableOf, type Chain, type Law } from "./chain.ts";
import { dangers, lawStart, type Answer, type Question } from "./long-run.ts";
import { nextTask } from "./task.ts";

export interface Message {
  number: number;
  question: Question;
  /** Names of chains, and those of them that this worker hasn't been sent yet. */
  chains: [string, string | null];
  sent: [string, Chain][];
}

export interface Reply {
  number: number;
  part: Partial<Answer>;
}

const BREATH_MS = 15;
const known = new Map<string, Chain>();
let newest = 0;

self.onmessage = async ({ data: { number, question, chains, sent } }: MessageEvent<Message>) => {
  newest = number;
  for (const [name, chain] of sent) known.set(name, chain);
  const [a, b] = chains.map((name) => (name === null ? null : known.get(name)!));
  const reply = (part: Partial<Answer>): void => self.postMessage({ number, part } satisfies Reply);
  const table = tableOf(a!, question.sampler);
  reply(dangers(table, b, question));
  const law = await found(stationaryInParts(table, lawStart(question)), () => newest !== number);
  if (law) reply({ law });
};

/** What the work comes to; null if it `isStale` before. */
async function found(parts: Generator<void, Law>, isStale: () => boolean): Promise<Law | null> {
  for (let since = performance.now(); ; ) {
    const { done, value } = parts.next();
    if (done) return value;
    if (performance.now() - since < BREATH_MS) continue;
    await nextTask(); // in which a newer question may come
    if (isStale()) return null;
    since = performance.now();
  }
}
