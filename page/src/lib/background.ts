/** One question at a time to a worker. A newer one waits for the answer under way, or ends it if it takes long. */

import type { Chain } from "./chain.ts";
import { answered, type Answer, type Question } from "./long-run.ts";
import type { Message, Reply } from "./long-run.worker.ts";

const PATIENCE_MS = 400;
/** Where there is no worker, the page is only held up once a slider has come to rest. */
const REST_MS = 150;
const MOST_SENT = 8;

export interface Named {
  name: string;
  chain: Chain;
}

export interface Asked {
  a: Named;
  b: Named | null;
  question: Question;
  then: (answer: Answer) => void;
}

export class Background {
  private worker: Worker | null = null;
  private sent = new Set<string>();
  private number = 0;
  private underWay: { number: number; since: number; asked: Asked } | null = null;
  private waiting: Asked | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** `make` makes a worker, or returns null where there can be none. */
  constructor(private readonly make: () => Worker | null) {}

  ask(asked: Asked): void {
    clearTimeout(this.timer);
    if (this.underWay && performance.now() - this.underWay.since > PATIENCE_MS) this.stop();
    if (this.underWay) {
      this.waiting = asked;
      this.timer = setTimeout(() => this.waiting && this.ask(this.waiting), PATIENCE_MS);
      return;
    }
    this.waiting = null;
    if (this.sent.size > MOST_SENT) this.stop(); // a new worker holds no old tables
    this.worker ??= this.made();
    if (!this.worker) {
      this.timer = setTimeout(() => asked.then(answered(asked.a.chain, asked.b?.chain ?? null, asked.question)), REST_MS);
      return;
    }
    const message: Message = { number: ++this.number, question: asked.question, chains: [asked.a.name, asked.b?.name ?? null], sent: [] };
    for (const named of [asked.a, asked.b]) {
      if (named && !this.sent.has(named.name)) message.sent.push([named.name, named.chain]);
    }
    this.underWay = { number: this.number, since: performance.now(), asked };
    this.worker.postMessage(message);
    for (const [name] of message.sent) this.sent.add(name);
  }

  private made(): Worker | null {
    const worker = this.make();
    if (!worker) return null;
    worker.onmessage = ({ data: { number, answer } }: MessageEvent<Reply>) => {
      if (this.underWay?.number !== number) return;
      const { asked } = this.underWay;
      this.underWay = null;
      asked.then(answer);
      if (this.waiting) this.ask(this.waiting);
    };
    return worker;
  }

  private stop(): void {
    this.worker?.terminate();
    this.worker = null;
    this.underWay = null;
    this.sent = new Set();
  }
}
