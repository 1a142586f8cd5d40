import { describe, expect, test } from "vitest";
import { Api, ApiError, isCancelled, readEvents } from "../src/lib/api.ts";

type Call = [string, RequestInit];

function served(reply: (call: Call) => Response | Promise<Response>): { api: Api; calls: Call[] } {
  const calls: Call[] = [];
  const api = new Api("api/v1", async (...call) => {
    calls.push(call as Call);
    return reply(call as Call);
  });
  return { api, calls };
}

const json = (content: unknown, status = 200): Response => new Response(JSON.stringify(content), { status });

function streamOf(...chunks: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
      controller.close();
    },
  });
}

async function all<T>(events: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const event of events) found.push(event);
  return found;
}

describe("calls", () => {
  test("a question names the model and the step", async () => {
    const { api, calls } = served(() => json({ pieces: ["a"] }));
    expect(await api.pieces({ id: "baby", step: 3 }, [1])).toEqual(["a"]);
    expect(calls[0][0]).toBe("api/v1/pieces");
    expect(JSON.parse(calls[0][1].body as string)).toEqual({ model: "baby", step: 3, ids: [1] });
    expect(calls[0][1].headers).toEqual({ "Content-Type": "application/json" });
  });

  test("a key is shown where there is one", async () => {
    const { api, calls } = served(() => json({}));
    api.key = "secret";
    await api.info();
    expect(calls[0][1].headers).toEqual({ Authorization: "Bearer secret" });
  });

  test("a refusal says what and what to do", async () => {
    const { api } = served(() => json({ error: { type: "too_big", message: "too many states", cure: "fewer" } }, 400));
    await expect(api.info()).rejects.toMatchObject({ type: "too_big", message: "too many states", cure: "fewer" });
  });

  test.each([
    [401, "key"],
    [502, "gone"],
    [500, "failed"],
  ])("an answer %i that says nothing is told as %s", async (status, type) => {
    const { api } = served(() => new Response("<html>", { status }));
    await expect(api.info()).rejects.toMatchObject({ type });
  });

  test("no answer means that the server is gone, unless the call was given up", async () => {
    const { api } = served(() => Promise.reject(new TypeError("Failed to fetch")));
    await expect(api.info()).rejects.toMatchObject({ type: "gone" });
    const given = new AbortController();
    given.abort();
    const error: unknown = await api.info(given.signal).catch((error: unknown) => error);
    expect(isCancelled(error)).toBe(true);
  });
});

describe("server-sent events", () => {
  test("events are whole however the bytes are cut, also in the middle of a character", async () => {
    const text = new TextEncoder().encode('event: token\ndata: {"text":"é"}\n\n: still here\n\nevent: done\r\ndata: {}\r\n\r\n');
    for (let cut = 1; cut < text.length; cut++) {
      const events = await all(readEvents(streamOf(text.slice(0, cut), text.slice(cut))));
      expect(events).toEqual([{ name: "token", data: { text: "é" } }, { name: "done", data: {} }]);
    }
  });

  test("the last event needs no empty line after it", async () => {
    expect(await all(readEvents(streamOf('data: {"a":1}')))).toEqual([{ name: "message", data: { a: 1 } }]);
  });

  test("an error inside the stream is thrown", async () => {
    const told = 'event: error\ndata: {"error":{"type":"failed","message":"it broke","cure":""}}\n\n';
    const { api } = served(() => new Response(streamOf(told)));
    const sampler = { temperature: 1, topK: 0, topP: 1 };
    const writing = all(api.generate({ id: "m", step: null }, sampler, { ids: [1], max_new_tokens: 1, seed: 0, top: 1 }));
    await expect(writing).rejects.toThrow(ApiError);
  });

  test("frames come with their logits, whether in the event or by their address", async () => {
    const logits = Float32Array.of(1, 2, 3, 4);
    const base64 = btoa(String.fromCharCode(...new Uint8Array(logits.buffer)));
    const header = new TextEncoder().encode('{"logits":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}');
    const file = new Uint8Array(8 + header.length + 16);
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    file.set(header, 8);
    file.set(new Uint8Array(logits.buffer), 8 + header.length);
    const events = `event: frame\ndata: {"step":0,"logits":"${base64}"}\n\nevent: frame\ndata: {"step":1,"url":"/x"}\n\nevent: done\ndata: {"model":"m"}\n\n`;
    const { api, calls } = served(([path]) => new Response(path.includes("frames") ? file : streamOf(events)));
    const found = await all(api.training("run 1", -1));
    expect(found).toEqual([
      { name: "frame", step: 0, logits },
      { name: "frame", step: 1, logits },
      { name: "done", model: "m" },
    ]);
    expect(calls.map(([path]) => path)).toEqual(["api/v1/train/run%201/events?after=-1", "api/v1/train/run%201/frames/1"]);
  });
});

const told = (name: string, data: object): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

describe("parts switched off in turn", () => {
  test("are a job that tells some of them at a time", async () => {
    const some = [
      { parts: ["0.0", "0.mlp"], js_nats: [0.1, 0.2], kl_nats: [1, 2], n: 2, of: 4 },
      { parts: ["1.0", "1.mlp"], js_nats: [0.3, 0.4], kl_nats: [3, 4], n: 4, of: 4 },
    ];
    const { api, calls } = served(([path]) =>
      path.endsWith("/ablations") ? json({ job: "j1" }) : new Response(streamOf(...some.map((data) => told("parts", data)), told("done", { n: 4, of: 4 }))),
    );
    expect(await all(api.ablations({ id: "m", step: 3 }, [1, 2]))).toEqual(some);
    expect(calls.map(([path, { method }]) => `${method} ${path}`)).toEqual(["POST api/v1/ablations", "GET api/v1/jobs/j1/events"]);
    expect(JSON.parse(calls[0][1].body as string)).toEqual({ model: "m", step: 3, ids: [1, 2] });
  });
});

describe("red patterns", () => {
  const what = { pattern: [0, 0], prompt_ids: [1], horizon: 2 };
  const sampler = { temperature: 0.5, topK: 0, topP: 1 };

  test("are a job whose events say how likely they are; exactly 0 is told as such", async () => {
    const { api, calls } = served(([path]) =>
      path.endsWith("/red")
        ? json({ job: "j1" })
        : new Response(streamOf(told("estimate", { n: 1, log10_p: null }), told("done", { n: 2, log10_p: -2, log10_within: [null, null, -2] }))),
    );
    const events = await all(api.red({ id: "m", step: 3 }, sampler, what));
    expect(events).toEqual([{ name: "estimate", n: 1, log10: -Infinity }, { name: "done", within: [-Infinity, -Infinity, -2] }]);
    expect(calls.map(([path, { method }]) => `${method} ${path}`)).toEqual(["POST api/v1/red", "GET api/v1/jobs/j1/events"]);
    expect(JSON.parse(calls[0][1].body as string)).toEqual({ model: "m", step: 3, temperature: 0.5, top_k: 0, top_p: 1, ...what });
  });

  test("of a model with too many states are estimated: a curve with its interval, and how far the walks are", async () => {
    const data = { n: 2, log10_p: -2, n_walks: 4, effective_walks: 3.5, largest_share: 0.4, is_trusted: false, method: "estimate" };
    const curve = { at: [0, 2], log10_within: [null, -2], log10_low: [null, -3], log10_high: [null, 0] };
    const { api, calls } = served(([path]) =>
      path.endsWith("/red")
        ? json({ job: "j1" })
        : new Response(streamOf(told("progress", { n_walks: 4, underway: 8, n_drawn: 1 }), told("done", { ...data, ...curve }))),
    );
    const events = await all(api.estimateRed({ id: "m", step: null }, sampler, { ...what, walks: 4, seed: 7 }));
    const points = [{ n: 0, log10: -Infinity, low: -Infinity, high: -Infinity }, { n: 2, log10: -2, low: -3, high: 0 }];
    expect(events).toEqual([
      { name: "progress", walks: 4, underway: 8, drawn: 1 },
      { name: "done", estimate: { n: 2, walks: 4, effective: 3.5, heaviest: 0.4, isTrusted: false, isExact: false, points } },
    ]);
    expect(JSON.parse(calls[0][1].body as string)).toMatchObject({ walks: 4, seed: 7, prompt_ids: [1] });
    expect(calls).toHaveLength(2);  // it was done, and nothing had to be given up
  });

  test("that nobody waits for any more are given up at the server too", async () => {
    const { api, calls } = served(([path]) =>
      path.endsWith("/red") ? json({ job: "j1" }) : new Response(streamOf(told("estimate", { n: 1, log10_p: -1 }), told("estimate", { n: 10, log10_p: -1 }))),
    );
    for await (const event of api.red({ id: "m", step: null }, sampler, what)) if (event.name === "estimate") break;
    expect(calls.at(-1)!.slice(0, 1)).toEqual(["api/v1/jobs/j1"]);
    expect(calls.at(-1)![1].method).toBe("DELETE");
  });
});

describe("lessons", () => {
  test("a landscape is a job that tells how far it is, and then all of it", async () => {
    const { api, calls } = served(([path]) =>
      path.endsWith("/landscape")
        ? json({ job: "j2" })
        : new Response(streamOf('event: progress\ndata: {"done":1,"total":4}\n\nevent: done\ndata: {"plane":"random","steps":[7]}\n\n')),
    );
    const events = await all(api.landscape({ id: "m", step: 7 }, "random", 3));
    expect(events).toEqual([{ name: "progress", done: 1, total: 4 }, { name: "done", land: { plane: "random", steps: [7] } }]);
    expect(calls.map(([path, { method }]) => `${method} ${path}`)).toEqual(["POST api/v1/landscape", "GET api/v1/jobs/j2/events"]);
    expect(JSON.parse(calls[0][1].body as string)).toEqual({ model: "m", step: 7, plane: "random", seed: 3 });
  });

  test("the net that reads digits is asked for by its seed", async () => {
    const { api, calls } = served(() => new Response(Uint8Array.of(1, 2, 3)));
    expect([...new Uint8Array(await api.digits(5))]).toEqual([1, 2, 3]);
    expect([calls[0][0], calls[0][1].body]).toEqual(["api/v1/lessons/digits", '{"seed":5}']);
  });
});
