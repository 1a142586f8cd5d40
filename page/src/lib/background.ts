/**
 * One question at a time to a worker. A newer one waits for the first part of the answer under way, or ends it if that
 * takes long; the other part the worker gives up by itself.
 */

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
  /** Told the answer part by part. */
  then: (part: Partial<Answer>) => void;
}

export class Background {
  private worker: Worker | null = null;
  private sent = new Set<string>();
  private number = 0;
  /** The question that was asked last, and since when its first part is awaited. */
  private last: { number: number; asked: Asked } | null = null;
  private since: number | null = null;
  private waiting: Asked | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** `make` makes a worker, or returns null where there can be none. */
  constructor(private readonly make: () => Worker | null) {}

  ask(asked: Asked): void {
    clearTimeout(this.timer);
    if (this.since !== null && performance.now() - this.since > PATIENCE_MS) this.stop();
    if (this.since !== null) {
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
    [this.last, this.since] = [{ number: this.number, asked }, performance.now()];
    this.worker.postMessage(message);
    for (const [name] of message.sent) this.sent.add(name);
  }

  private made(): Worker | null {
    const worker = this.make();
    if (!worker) return null;
    worker.onmessage = ({ data: { number, part } }: MessageEvent<Reply>) => {
      if (this.last?.number !== number) return;
      this.since = null;
      this.last.asked.then(part);
      if (this.waiting) this.ask(this.waiting);
    };
    return worker;
  }

  private stop(): void {
    this.worker?.terminate();
    this.worker = null;
    [this.last, this.since] = [null, null];
    this.sent = new Set();
  }
}
