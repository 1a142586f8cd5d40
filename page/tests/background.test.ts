import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Background, type Asked } from "../src/lib/background.ts";
import type { Chain } from "../src/lib/chain.ts";
import { reach, stationary, tableOf } from "../src/lib/chain.ts";
import { answered, type Answer, type Question } from "../src/lib/long-run.ts";
import type { Message, Reply } from "../src/lib/long-run.worker.ts";
import { PLAIN } from "../src/lib/softmax.ts";

const chain = (seed: number): Chain => ({ vocabSize: 2, nStates: 4, logits: Float32Array.from({ length: 8 }, (_, i) => Math.sin(seed * 9 + i)) });
const question: Question = { sampler: PLAIN, start: 0, red: [3], horizon: 5 };

/** A worker that answers when it is told to. */
class Fake {
  messages: Message[] = [];
  isEnded = false;
  onmessage: ((event: { data: Reply }) => void) | null = null;
  postMessage(message: Message): void {
    this.messages.push(message);
  }
  terminate(): void {
    this.isEnded = true;
  }
  answer(): void {
    const { number, question, sent } = this.messages.at(-1)!;
    const { danger, dangerB } = answered(sent[0]?.[1] ?? chain(1), null, question);
    this.onmessage!({ data: { number, part: { danger, dangerB } } });
  }
  tell(number: number, part: Partial<Answer>): void {
    this.onmessage!({ data: { number, part } });
  }
}

let made: Fake[];
const background = (): Background =>
  new Background(() => {
    made.push(new Fake());
    return made.at(-1) as unknown as Worker;
  });
const ask = (horizon: number, then: Asked["then"] = () => undefined, name = "a"): Asked => ({ a: { name, chain: chain(1) }, b: null, question: { ...question, horizon }, then });

beforeEach(() => {
  made = [];
  vi.useFakeTimers();
});
afterEach(() => void vi.useRealTimers());

describe("questions in the background", () => {
  test("the answer is that of the page's own arithmetic", () => {
    const [a, b] = [chain(1), chain(2)];
    const { law, danger, dangerB } = answered(a, b, question);
    expect(law).toEqual(stationary(tableOf(a, PLAIN), 0));
    expect(danger).toEqual(reach(tableOf(a, PLAIN), new Set([3]), 5, 0));
    expect(dangerB).toEqual(reach(tableOf(b, PLAIN), new Set([3]), 5, 0));
    expect(answered(a, null, { ...question, red: [] }).danger).toBeNull();
    expect(answered(a, null, { ...question, red: [0, 1, 2, 3] }).danger).toBeNull();
  });

  test("while one is under way only the newest waits, and a table is sent once", () => {
    const asked = background();
    const said: number[] = [];
    for (const horizon of [1, 2, 3]) asked.ask(ask(horizon, ({ danger }) => said.push(danger!.profile.length - 1)));
    const [worker] = made;
    expect(worker.messages.length).toBe(1);
    worker.answer();
    expect(worker.messages.map(({ question }) => question.horizon)).toEqual([1, 3]);
    expect(worker.messages.map(({ sent }) => sent.length)).toEqual([1, 0]);
    worker.answer();
    expect(said).toEqual([1, 3]);
  });

  test("the long run comes after the rest, and not at all for a question that is no longer asked", () => {
    const asked = background();
    const said: string[] = [];
    const hear = (name: string) => (part: Partial<Answer>) => said.push(`${name} ${Object.keys(part).join()}`);
    const { law } = answered(chain(1), null, question);
    asked.ask(ask(1, hear("old")));
    const [worker] = made;
    worker.answer();
    worker.tell(1, { law });
    asked.ask(ask(2, hear("new"))); // at once: nobody waits for the long run
    expect(worker.messages.length).toBe(2);
    worker.tell(1, { law });
    worker.answer();
    expect(said).toEqual(["old danger,dangerB", "old law", "new danger,dangerB"]);
  });

  test("one that takes long is ended for a newer one", () => {
    const asked = background();
    const said: string[] = [];
    asked.ask(ask(1, () => said.push("old")));
    vi.advanceTimersByTime(100);
    asked.ask(ask(2, () => said.push("new")));
    expect(made.length).toBe(1);
    vi.advanceTimersByTime(1000);
    expect([made.length, made[0].isEnded]).toEqual([2, true]);
    expect(made[1].messages[0].sent.length).toBe(1); // it has nothing from before
    made[0].answer();
    made[1].answer();
    expect(said).toEqual(["new"]);
  });

  test("without a worker the page answers itself once it is left in peace", () => {
    const asked = new Background(() => null);
    const said: number[] = [];
    for (const horizon of [1, 2]) asked.ask(ask(horizon, ({ danger }) => said.push(danger!.profile.length - 1)));
    vi.advanceTimersByTime(1000);
    expect(said).toEqual([2]);
  });
});
