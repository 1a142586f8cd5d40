/** The API of GlassGPT's server for `npm run dev` and `npm run preview`, as far as the page needs it to be looked at. */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connect, Plugin } from "vite";
import baby from "../golden/baby.json" with { type: "json" };
import digits from "../golden/digits.json" with { type: "json" };
import landscapes from "../golden/landscape.json" with { type: "json" };
import { countWindows, idsOf, tokensOf } from "../src/lib/contexts.ts";
import { draw, Pcg32 } from "../src/lib/random.ts";
import { entropy, likeliest, logSoftmax, shape } from "../src/lib/softmax.ts";
import { theBaby, twelve, wide, writer, type MockModel } from "./models.ts";

type Body = Record<string, any>;
type Handler = (body: Body, response: ServerResponse, request: IncomingMessage) => unknown;

const trained = theBaby("run", "baby GPT, a run", baby.steps);
const models = [theBaby("baby", "baby GPT, untrained", []), trained, twelve, writer, wide];
const STEP_MS = 60;

interface Training {
  step: number;
  steps: number;
  isPaused: boolean;
  isStopped: boolean;
}
const trainings = new Map<string, Training>();

class Refusal extends Error {
  constructor(readonly type: string, message: string, readonly cure = "") {
    super(message);
  }
}

const handlers: Record<string, Handler> = {
  "GET /info": () => ({
    version: "mock",
    models: models.map(({ info }) => info),
    limits: { max_states: 65536, max_trace_tokens: 256, max_new_tokens: 1024, max_scored_tokens: 256 },
  }),
  "POST /tokenize": ({ text, ...asked }) => {
    const { tokenize, pieces } = find(asked);
    const ids = tokenize(text);
    return { ids, pieces: ids.map((id) => ({ id, text: pieces(id), bytes: [...new TextEncoder().encode(pieces(id))] })) };
  },
  "POST /pieces": ({ ids, ...asked }) => ({ pieces: ids.map(find(asked).pieces) }),
  "POST /next": ({ ids, last, ...asked }, response) => {
    const model = find(asked);
    if (last) {
      const rows = Array.from({ length: last }, (_, i) => model.logits(ids.slice(0, ids.length - last + 1 + i), asked.step));
      return sendTensors(response, { logits: [Float32Array.from(rows.flat()), [last, model.info.vocab_size]] });
    }
    sendTensors(response, { logits: [Float32Array.from(model.logits(ids, asked.step)), [model.info.vocab_size]] });
  },
  "POST /chain": (asked, response) => {
    const { info, logits, tokenize } = find(asked);
    const [V, k] = [info.vocab_size, info.context_length];
    const n = info.n_states as number | null;
    if (n === null) throw new Refusal("too_big", `${V}^${k} contexts are too many to list: at most 65,536`, "look token by token");
    const rows = Array.from({ length: n }, (_, state) => logits(tokensOf(state, V, k), asked.step ?? null));
    const tensors: Tensors = { logits: [Float32Array.from(rows.flat()), [n, V]] };
    if (info.sequence) tensors.counts = [countWindows(tokenize(info.sequence as string), V, k), [n, V]];
    sendTensors(response, tensors);
  },
  "POST /generate": async ({ ids, max_new_tokens, seed, top, temperature, top_k, top_p, ...asked }, response) => {
    const model = find(asked);
    const random = new Pcg32(seed);
    const send = startEvents(response);
    const text: number[] = [...ids];
    for (let i = 0; i < max_new_tokens && !response.closed; i++) {
      const logits = model.logits(text, asked.step ?? null);
      const { probs } = shape(logits, { temperature, topK: top_k, topP: top_p });
      const logs = logSoftmax(logits);
      const id = draw(probs, random.uniform());
      text.push(id);
      const named = likeliest(logits, top).map((other) => [other, logs[other], model.pieces(other)]);
      send("token", { i, id, text: model.pieces(id), logprob: logs[id], entropy: entropy(logs.map(Math.exp)), top: named });
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
    send("done", { ids: text, reason: "length" });
    response.end();
  },
  "POST /score": ({ ids, ...asked }) => {
    const model = find(asked);
    return { logprobs: (ids as number[]).map((id, i) => (i === 0 ? null : logSoftmax(model.logits(ids.slice(0, i), asked.step ?? null))[id])) };
  },
  "POST /beams": async ({ ids, n_beams, max_new_tokens, ...asked }, response) => {
    const model = find(asked);
    const send = startEvents(response);
    const told = ({ ids, logprobs }: { ids: number[]; logprobs: number[] }) => {
      const logprob = logprobs.reduce((sum, one) => sum + one, 0);
      return { ids, logprobs, pieces: ids.map(model.pieces), logprob, score: logprob / ids.length };
    };
    let beams: { ids: number[]; logprobs: number[] }[] = [{ ids: [], logprobs: [] }];
    for (let i = 1; i <= max_new_tokens && !response.closed; i++) {
      const longer = beams.flatMap((beam) => {
        const logs = logSoftmax(model.logits([...ids, ...beam.ids], asked.step ?? null));
        return likeliest(logs, n_beams).map((id) => ({ from: beam, ids: [...beam.ids, id], logprobs: [...beam.logprobs, logs[id]] }));
      });
      const best = longer.map(told).map((beam, at) => ({ beam, at })).sort((x, y) => y.beam.logprob - x.beam.logprob).slice(0, n_beams);
      const dropped = beams.filter((beam) => best.every(({ at }) => longer[at].from !== beam));
      beams = best.map(({ at }) => longer[at]);
      const isLast = i === max_new_tokens;
      send("step", { running: isLast ? [] : beams.map(told), dropped: dropped.map(told), finished: isLast ? beams.map(told) : [] });
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
    send("done", { beams: beams.map((beam) => ({ ...told(beam), reason: "length" })) });
    response.end();
  },
  "POST /train": ({ config, sequence, symbols, steps }) => {
    if (config.vocab_size !== 2 || config.context_length !== 3 || idsOf(sequence, symbols ?? ["0", "1"]) === null) {
      throw new Refusal("failed", "the mock has trained one baby only: two tokens, a context of three", "start glassgpt see");
    }
    const run = `run-${trainings.size + 1}`;
    trainings.set(run, { step: 0, steps: Math.min(steps, 50), isPaused: false, isStopped: false });
    return { run };
  },
  "POST /lessons/digits": (_, response) => {
    response.writeHead(200, { "Content-Type": "application/octet-stream" });
    response.end(Buffer.from(digits.reply, "base64"));
  },
  "POST /landscape": ({ plane, ...asked }) => {
    if (find(asked).info.kind !== "run") throw new Refusal("usage", `${asked.model} is no run`, "look at the baby's");
    return { job: plane };
  },
  "GET /jobs/path/events": (_, response) => measuring("path", response),
  "GET /jobs/random/events": (_, response) => measuring("random", response),
};

async function measuring(plane: "path" | "random", response: ServerResponse): Promise<void> {
  const send = startEvents(response);
  for (let done = 0; done < 20 && !response.closed; done++) {
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    send("progress", { done, total: 20 });
  }
  send("done", landscapes[plane]);
  response.end();
}

function find({ model }: Body): MockModel {
  const found = models.find(({ info }) => info.id === model);
  if (!found) throw new Refusal("missing", `there is no model ${model}`, "choose one of /info's");
  return found;
}

// ---- training ----------------------------------------------------------------------------------------------------

async function trainingEvents(run: string, response: ServerResponse): Promise<void> {
  const training = trainings.get(run);
  if (!training) throw new Refusal("missing", `there is no training ${run}`);
  const send = startEvents(response);
  const frame = (step: number) => {
    const bytes = Buffer.from(Float32Array.from(baby.tables["3"][step].flat()).buffer);
    send("frame", { step, logits: bytes.toString("base64") });
  };
  frame(training.step);
  while (training.step < training.steps && !training.isStopped && !response.closed) {
    await new Promise((resolve) => setTimeout(resolve, STEP_MS));
    if (training.isPaused) continue;
    advance(training, send, frame);
  }
  const id = `${run}-model`;
  if (!models.some(({ info }) => info.id === id)) {
    models.push(theBaby(id, `baby GPT, ${run}`, baby.steps.slice(0, training.step + 1)));
  }
  send("done", { model: id });
  response.end();
}

function advance(training: Training, send: Send, frame: (step: number) => void): void {
  send("step", { step: training.step, loss: baby.losses[training.step] });
  training.step++;
  frame(training.step);
}

function command(run: string, verb: string): object {
  const training = trainings.get(run);
  if (!training) throw new Refusal("missing", `there is no training ${run}`);
  if (verb === "pause") training.isPaused = true;
  if (verb === "resume") training.isPaused = false;
  if (verb === "stop") training.isStopped = true;
  if (verb === "step") {
    training.isPaused = false;
    setTimeout(() => (training.isPaused = true), STEP_MS);
  }
  return {};
}

// ---- HTTP --------------------------------------------------------------------------------------------------------

type Tensors = Record<string, [Float32Array | Int32Array, number[]]>;
type Send = (name: string, data: unknown) => void;

function startEvents(response: ServerResponse): Send {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  return (name, data) => void response.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
}

function sendTensors(response: ServerResponse, tensors: Tensors): void {
  let at = 0;
  const entries = Object.entries(tensors).map(([name, [data, shape]]) => {
    const offsets = [at, (at += data.byteLength)];
    return [name, { dtype: data instanceof Float32Array ? "F32" : "I32", shape, data_offsets: offsets }];
  });
  const header = Buffer.from(JSON.stringify({ __metadata__: {}, ...Object.fromEntries(entries) }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const bodies = Object.values(tensors).map(([data]) => Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  response.writeHead(200, { "Content-Type": "application/octet-stream" });
  response.end(Buffer.concat([length, header, ...bodies]));
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url!.replace(/^\/api\/v1/, "").replace(/\?.*/, "");
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = chunks.length > 0 && chunks[0].length > 0 ? JSON.parse(Buffer.concat(chunks).toString()) : {};
    const training = /^\/train\/([^/]+)\/(\w+)$/.exec(path);
    let content: unknown;
    if (training?.[2] === "events") await trainingEvents(training[1], response);
    else if (training) content = command(training[1], training[2]);
    else {
      const handler = handlers[`${request.method} ${path}`];
      if (!handler) throw new Refusal("missing", `the mock has no ${request.method} ${path}`, "start glassgpt see");
      content = await handler(body, response, request);
    }
    if (!response.headersSent) sendJson(response, 200, content ?? {});
  } catch (error) {
    const { type = "failed", message, cure = "" } = error as Refusal;
    if (!response.headersSent) sendJson(response, type === "failed" ? 500 : 400, { error: { type, message, cure } });
  }
}

function sendJson(response: ServerResponse, status: number, content: unknown): void {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(content));
}

export function mockApi(): Plugin {
  const middleware: Connect.NextHandleFunction = (request, response, next) => {
    if (request.url?.startsWith("/api/v1/")) void answer(request, response);
    else next();
  };
  return {
    name: "mock-api",
    configureServer: (server) => void server.middlewares.use(middleware),
    configurePreviewServer: (server) => void server.middlewares.use(middleware),
  };
}
