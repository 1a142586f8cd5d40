/** The page's one way to the server: typed calls that can be given up, and one class of error. */

import type { Change } from "./change.ts";
import type { Land, LandEvent, Plane } from "./landscape.ts";
import { floats, parseSafetensors, type Tensors } from "./safetensors.ts";
import { bytesOf } from "./saved.ts";
import type { ModelRef } from "./route.ts";
import type { Sampler } from "./softmax.ts";

const START = "glassgpt serve";

export type ErrorType = "usage" | "missing" | "busy" | "too_big" | "cancelled" | "failed" | "gone" | "key";

/** What went wrong, and what to do about it. "gone": the server doesn't answer at all; "key": it wants its key. */
export class ApiError extends Error {
  constructor(
    readonly type: ErrorType,
    message: string,
    readonly cure = "",
  ) {
    super(message);
  }
}

export interface ModelInfo {
  id: string;
  ref: string;
  title: string;
  kind: "run" | "model";
  vocab_size: number;
  context_length: number;
  n_layer: number | null;
  n_head: number | null;
  n_embd: number | null;
  n_parameters: number | null;
  n_states: number | null;
  steps: number[];
  sequence: string | null;
  symbols: string[] | null;
  state: "ready" | "loading" | "error";
  message: string;
}

export interface Info {
  version: string;
  models: ModelInfo[];
  limits: {
    max_states: number;
    max_trace_tokens: number;
    max_ablation_tokens?: number;
    max_new_tokens: number;
    max_train_steps?: number;
    max_beams?: number;
    max_beam_tokens?: number;
    max_logits?: number;
    max_scored_tokens?: number;
    max_changeable?: number;
  };
}

export interface Piece {
  id: number;
  text: string;
  bytes: number[];
}

export interface TrainRequest {
  config: { vocab_size: number; context_length: number; n_layer: number; n_head: number; n_embd: number };
  sequence: string;
  symbols: string[] | null;
  steps: number;
  learning_rate: number;
  seed: number;
}

export interface TokenEvent {
  i: number;
  id: number;
  /** What the text grew by: of a character in several tokens it comes with the last one. */
  text: string;
  /** Null where the model itself gives the token no chance at all. */
  logprob: number | null;
  entropy: number;
  top: [number, number, string][];
}

/** New tokens that follow a text, each one's log-probability by the model itself, and their sum. */
export interface FoundBeam {
  ids: number[];
  pieces: string[];
  logprobs: number[];
  logprob: number;
  score: number;
  /** Why it ended, once the search is over: after a token that ends texts, or because it is long enough. */
  reason?: "stop" | "length";
}

export type BeamEvent =
  /** After one more token: what goes on, what was given up at this step, and the best that have ended. */
  | { name: "step"; running: FoundBeam[]; dropped: FoundBeam[]; finished: FoundBeam[] }
  | { name: "done"; beams: FoundBeam[] };

export type TrainEvent =
  /** `step` updates were made, and this was the loss before the next one. */
  | { name: "step"; step: number; loss: number }
  | { name: "frame"; step: number; logits: Float32Array }
  | { name: "done"; model: string };

export interface ChainReply {
  logits: Float32Array;
  counts: Int32Array | null;
}

export interface Place3 {
  id: number | null;
  text: string;
  xyz: [number, number, number];
}

export interface Projection {
  points: Place3[];
  path: Place3[];
  fans: (Place3 & { prob: number })[][];
  /** The share of all variance that each axis keeps. */
  explained: number[];
}

/** How likely a pattern is within n tokens: decimal logarithms, minus infinity for a probability of exactly 0. */
export type RedEvent = { name: "estimate"; n: number; log10: number } | { name: "done"; within: number[] };

/** Some parts of a model, and how far the next token's distribution moves without each; `n` of `of` are done. */
export interface PartsEvent {
  parts: string[];
  js_nats: number[];
  n: number;
  of: number;
}

/** The same where it is estimated from walks: the curve at some numbers of tokens, with an interval around it. */
export interface RedEstimate {
  /** Within how many tokens. */
  n: number;
  walks: number;
  /** How many walks of equal weight would be as good, and how much of the estimate comes from the heaviest. */
  effective: number;
  heaviest: number;
  /** Whether the interval may be taken at its word. */
  isTrusted: boolean;
  isExact: boolean;
  points: { n: number; log10: number; low: number; high: number }[];
}

export type RedNews =
  | { name: "estimate" | "done"; estimate: RedEstimate }
  /** So many walks are done; of so many more so many tokens. */
  | { name: "progress"; walks: number; underway: number; drawn: number };

export interface Neighbour {
  id: number;
  text: string;
  cosine: number;
}

export class Api {
  /** What a server that listens to other machines wants to be shown. */
  key = "";

  constructor(
    private readonly base = "api/v1",
    private readonly fetcher: typeof fetch = (...args) => fetch(...args),
  ) {}

  async info(signal?: AbortSignal): Promise<Info> {
    return (await this.ask("GET", "/info", undefined, signal)).json();
  }

  async tokenize(model: ModelRef, text: string, signal?: AbortSignal): Promise<Piece[]> {
    const reply = await this.ask("POST", "/tokenize", { ...named(model), text }, signal);
    return ((await reply.json()) as { pieces: Piece[] }).pieces;
  }

  async pieces(model: ModelRef, ids: readonly number[], signal?: AbortSignal): Promise<string[]> {
    const reply = await this.ask("POST", "/pieces", { ...named(model), ids }, signal);
    return ((await reply.json()) as { pieces: string[] }).pieces;
  }

  async next(model: ModelRef, ids: readonly number[], signal?: AbortSignal): Promise<Float32Array> {
    return floats(await this.tensors("/next", { ...named(model), ids }, signal), "logits");
  }

  /** The logits after each of the last tokens of a text, the newest in the end. */
  async nextEach(model: ModelRef, ids: readonly number[], last: number, signal?: AbortSignal): Promise<Float32Array[]> {
    const all = floats(await this.tensors("/next", { ...named(model), ids, last }, signal), "logits");
    return Array.from({ length: last }, (_, i) => all.subarray((i * all.length) / last, ((i + 1) * all.length) / last));
  }

  /** The log-probability of each token after those before it; null for the first, and for what is impossible. */
  async score(model: ModelRef, ids: readonly number[], signal?: AbortSignal): Promise<(number | null)[]> {
    const reply = await this.ask("POST", "/score", { ...named(model), ids }, signal);
    return ((await reply.json()) as { logprobs: (number | null)[] }).logprobs;
  }

  async chain(model: ModelRef, signal?: AbortSignal): Promise<ChainReply> {
    const file = await this.tensors("/chain", named(model), signal);
    const counts = file.tensors.counts;
    return { logits: floats(file, "logits"), counts: counts ? Int32Array.from(counts.data) : null };
  }

  /** What goes on inside for a text: the named tensors, each of them only if it was asked for. */
  async trace(model: ModelRef, ids: readonly number[], want: string[], signal?: AbortSignal): Promise<Tensors> {
    return this.tensors("/trace", { ...named(model), ids, want }, signal);
  }

  /** The shapes of all parameters, and the numbers of those that are named. */
  async weights(model: ModelRef, want: string[], signal?: AbortSignal): Promise<{ shapes: Record<string, number[]>; values: Float32Array[] }> {
    const file = await this.tensors("/weights", { ...named(model), want }, signal);
    return { shapes: JSON.parse(file.metadata.shapes) as Record<string, number[]>, values: want.map((name) => floats(file, name)) };
  }

  async project(
    model: ModelRef,
    what: { ids: readonly number[]; steps: number; top: number } | { words: string[] },
    axes: [string, string] | null,
    signal?: AbortSignal,
  ): Promise<Projection> {
    return (await this.ask("POST", "/project", { ...named(model), ...what, axes }, signal)).json();
  }

  async neighbours(model: ModelRef, text: string, n: number, signal?: AbortSignal): Promise<Neighbour[]> {
    const reply = await this.ask("POST", "/neighbours", { ...named(model), text, n }, signal);
    return ((await reply.json()) as { neighbours: Neighbour[] }).neighbours;
  }

  async *generate(
    model: ModelRef,
    sampler: Sampler,
    more: { ids: readonly number[]; max_new_tokens: number; seed: number; top: number },
    signal?: AbortSignal,
  ): AsyncGenerator<TokenEvent> {
    const body = { ...named(model), ...spelled(sampler), ...more };
    for await (const { name, data } of this.events("POST", "/generate", body, signal)) {
      if (name === "token") yield data as unknown as TokenEvent;
    }
  }

  /** The likeliest texts that a beam search finds, by the model itself; no sampler has a say. */
  async *beams(
    model: ModelRef,
    more: { ids: readonly number[]; max_new_tokens: number; n_beams: number },
    signal?: AbortSignal,
  ): AsyncGenerator<BeamEvent> {
    for await (const { name, data } of this.events("POST", "/beams", { ...named(model), ...more }, signal)) {
      if (name === "step" || name === "done") yield { name, ...data } as unknown as BeamEvent;
    }
  }

  /** How likely a pattern of tokens is to be written within so many; without a prompt, in a text that has long run on. */
  async *red(
    model: ModelRef,
    sampler: Sampler,
    more: { pattern: readonly number[]; prompt_ids: readonly number[]; horizon: number },
    signal?: AbortSignal,
  ): AsyncGenerator<RedEvent> {
    for await (const { name, data } of this.job("/red", { ...named(model), ...spelled(sampler), ...more }, signal)) {
      if (name === "estimate") yield { name, n: data.n as number, log10: orNever(data.log10_p) };
      if (name === "done") yield { name, within: (data.log10_within as unknown[]).map(orNever) };
    }
  }

  /** The same of a model whose states can't be listed. */
  async *estimateRed(
    model: ModelRef,
    sampler: Sampler,
    more: { pattern: readonly number[]; prompt_ids: readonly number[]; horizon: number; walks: number; seed: number },
    signal?: AbortSignal,
  ): AsyncGenerator<RedNews> {
    for await (const { name, data } of this.job("/red", { ...named(model), ...spelled(sampler), ...more }, signal)) {
      if (name === "estimate" || name === "done") yield { name, estimate: asEstimate(data) };
      if (name === "progress") yield { name, walks: data.n_walks as number, underway: data.underway as number, drawn: data.n_drawn as number };
    }
  }

  /** What the token after a text loses without each head and MLP of a model, some of them at a time. */
  async *ablations(model: ModelRef, ids: readonly number[], signal?: AbortSignal): AsyncGenerator<PartsEvent> {
    for await (const { name, data } of this.job("/ablations", { ...named(model), ids }, signal)) {
      if (name === "parts") yield data as unknown as PartsEvent;
    }
  }

  /** The loss around a run's path, or in random directions around one of its steps. */
  async *landscape(model: ModelRef, plane: Plane, seed: number, signal?: AbortSignal): AsyncGenerator<LandEvent> {
    for await (const { name, data } of this.job("/landscape", { ...named(model), plane, seed }, signal)) {
      if (name === "progress") yield { name, done: data.done as number, total: data.total as number };
      if (name === "done") yield { name, land: data as unknown as Land };
    }
  }

  /** The net that reads digits, as a safetensors file. */
  async digits(seed: number, signal?: AbortSignal): Promise<ArrayBuffer> {
    return (await this.ask("POST", "/lessons/digits", { seed }, signal)).arrayBuffer();
  }

  /** The events of something that takes long. Leaving the loop early ends it on the server too. */
  private async *job(path: string, body: object, signal?: AbortSignal): AsyncGenerator<ServerEvent> {
    const reply = await this.ask("POST", path, body, signal);
    const place = `/jobs/${encodeURIComponent(((await reply.json()) as { job: string }).job)}`;
    let isDone = false;
    try {
      for await (const event of this.events("GET", `${place}/events`, undefined, signal)) {
        isDone ||= event.name === "done";
        yield event;
      }
    } finally {
      if (!isDone) void this.ask("DELETE", place, undefined).catch(() => undefined);
    }
  }

  async train(request: TrainRequest, signal?: AbortSignal): Promise<string> {
    const reply = await this.ask("POST", "/train", request, signal);
    return ((await reply.json()) as { run: string }).run;
  }

  async *training(run: string, after: number, signal?: AbortSignal): AsyncGenerator<TrainEvent> {
    const path = `/train/${encodeURIComponent(run)}/events?after=${after}`;
    for await (const { name, data } of this.events("GET", path, undefined, signal)) {
      if (name === "step") yield { name, step: data.step as number, loss: data.loss as number };
      if (name === "frame") yield { name, step: data.step as number, logits: await this.frame(run, data, signal) };
      if (name === "done") yield { name, model: data.model as string };
    }
  }

  /** The logits of a frame: inside the event if they are few. */
  private async frame(run: string, data: Record<string, unknown>, signal?: AbortSignal): Promise<Float32Array> {
    if (typeof data.logits === "string") return new Float32Array(bytesOf(data.logits));
    const path = `/train/${encodeURIComponent(run)}/frames/${Number(data.step)}`;
    return floats(parseSafetensors(await (await this.ask("GET", path, undefined, signal)).arrayBuffer()), "logits");
  }

  async steer(run: string, verb: "pause" | "resume" | "step" | "stop"): Promise<void> {
    await this.ask("POST", `/train/${encodeURIComponent(run)}/${verb}`, {});
  }

  private async tensors(path: string, body: object, signal?: AbortSignal): Promise<Tensors> {
    return parseSafetensors(await (await this.ask("POST", path, body, signal)).arrayBuffer());
  }

  private async *events(method: string, path: string, body: object | undefined, signal?: AbortSignal) {
    const reply = await this.ask(method, path, body, signal);
    for await (const event of readEvents(reply.body!, signal)) {
      if (event.name === "error") throw errorOf(event.data, 500);
      yield event;
    }
  }

  private async ask(method: string, path: string, body: object | undefined, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = {};
    const request: RequestInit = { method, headers };
    if (signal) request.signal = signal;
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    if (body) {
      headers["Content-Type"] = "application/json";
      request.body = JSON.stringify(body);
    }
    let reply: Response;
    try {
      reply = await this.fetcher(this.base + path, request);
    } catch (error) {
      throw given(error, signal);
    }
    if (reply.ok) return reply;
    throw errorOf(await reply.json().catch(() => null), reply.status);
  }
}

/** Whether a call was given up on purpose, which is no error to tell anyone of. */
export function isCancelled(error: unknown): boolean {
  return error instanceof ApiError && error.type === "cancelled";
}

function named({ id, step, change }: ModelRef): { model: string; step: number | null; change?: Change } {
  return change ? { model: id, step, change } : { model: id, step };
}

function spelled({ temperature, topK, topP }: Sampler) {
  return { temperature, top_k: topK, top_p: topP };
}

/** A decimal logarithm, for which JSON has no minus infinity. */
function orNever(log10: unknown): number {
  return (log10 as number | null) ?? -Infinity;
}

function asEstimate(data: Record<string, unknown>): RedEstimate {
  const [within, low, high] = ["within", "low", "high"].map((name) => (data[`log10_${name}`] as unknown[]).map(orNever));
  return {
    n: data.n as number,
    walks: data.n_walks as number,
    effective: data.effective_walks as number,
    heaviest: data.largest_share as number,
    isTrusted: data.is_trusted as boolean,
    isExact: data.method === "exact",
    points: (data.at as number[]).map((n, i) => ({ n, log10: within[i], low: low[i], high: high[i] })),
  };
}

function given(error: unknown, signal?: AbortSignal): ApiError {
  if (signal?.aborted) return new ApiError("cancelled", "given up");
  return new ApiError("gone", String((error as Error).message), START);
}

function errorOf(content: unknown, status: number): ApiError {
  const error = (content as { error?: { type?: string; message?: string; cure?: string } } | null)?.error;
  if (status === 401) return new ApiError("key", error?.message ?? "this server wants its key", error?.cure ?? "");
  if (error?.message) return new ApiError((error.type ?? "failed") as ErrorType, error.message, error.cure ?? "");
  // A proxy that stands in for a server that is gone answers in its own words.
  if (status === 502 || status === 503 || status === 504) return new ApiError("gone", `HTTP ${status}`, START);
  return new ApiError("failed", `the server answered ${status}`);
}

interface ServerEvent {
  name: string;
  data: Record<string, unknown>;
}

/** Server-sent events as they come. Leaving the loop early hangs up. */
export async function* readEvents(
  body: ReadableStream<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw given(error, signal);
      });
      text += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const parts = text.split(/\r?\n\r?\n/);
      text = done ? "" : parts.pop()!;
      for (const part of parts) {
        const event = parseEvent(part);
        if (event) yield event;
      }
      if (done) return;
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

function parseEvent(part: string): ServerEvent | null {
  let name = "message";
  const data: string[] = [];
  for (const line of part.split(/\r?\n/)) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  return data.length > 0 ? { name, data: JSON.parse(data.join("\n")) as Record<string, unknown> } : null;
}
