/** Answers questions about large chains beside the page, which meanwhile follows the sliders. */

import type { Chain } from "./chain.ts";
import { answered, type Answer, type Question } from "./long-run.ts";

export interface Message {
  number: number;
  question: Question;
  /** Names of chains, and those of them that this worker hasn't been sent yet. */
  chains: [string, string | null];
  sent: [string, Chain][];
}

export interface Reply {
  number: number;
  answer: Answer;
}

const known = new Map<string, Chain>();

self.onmessage = ({ data: { number, question, chains, sent } }: MessageEvent<Message>) => {
  for (const [name, chain] of sent) known.set(name, chain);
  const [a, b] = chains.map((name) => (name === null ? null : known.get(name)!));
  const reply: Reply = { number, answer: answered(a!, b, question) };
  self.postMessage(reply);
};
