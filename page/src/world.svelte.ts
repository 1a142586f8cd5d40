/**
 * The one state that all views share. The context is the state: whatever sets the text (typing, clicking a node, a row,
 * a bar) sets `route.ids`, and every picture follows from there.
 */

import { untrack } from "svelte";
import { Api, ApiError, isCancelled, type ChainReply, type Info, type ModelInfo, type TrainRequest } from "./lib/api.ts";
import { spellChange, type Change } from "./lib/change.ts";
import { Background } from "./lib/background.ts";
import { lossOn, tableOf, type Law, type Reach, type Table } from "./lib/chain.ts";
import { countWindows, idsOf, numberOf, tokensOf, visible } from "./lib/contexts.ts";
import { answered, type Answer, type Question } from "./lib/long-run.ts";
import { nextOf, packed, unpacked, type Deed } from "./lib/path.ts";
import { draw, Pcg32 } from "./lib/random.ts";
import { savedIn, type Known } from "./lib/saved.ts";
import { SavedApi } from "./lib/saved-api.ts";
import { fromHash, PLACES, toHash, type ModelRef, type Place, type Route } from "./lib/route.ts";
import { falling, PLAIN, shape, type Distribution } from "./lib/softmax.ts";
import { bounded, grown, MOST_NODES, raised, rooted, within as treeWithin, type Search, type Tree } from "./lib/tree.ts";
import { nextFrame } from "./lib/task.ts";
import { filled, LANGUAGES, STRINGS, type Key, type Language, type Values } from "./lib/strings.ts";
import type { Theme } from "./lib/colour.ts";
import { longRunWorker } from "./worker.ts";

/** Below so many numbers, the tables of all kept steps are fetched ahead, so that the timeline moves without waiting. */
const MOST_AHEAD = 2_000_000;
const LONGEST_TEXT = 4000;
const WALK_MS = 420;
/** Chains of more states than this are asked about in a worker, so that sliders move freely. */
const MOST_AT_ONCE = 256;
const NOTHING_KNOWN: Answer = { law: null, danger: null, dangerB: null };
const HASH_MS = 150;
/** Of a training of so many steps each is on the screen for a frame at least; of a longer one as many as it comes to. */
const MOST_SEEN = 200;
/** After more steps than any training makes: only its end is waited for. */
const NO_STEP = 999_999_999;

export const keyOf = ({ id, step, change }: ModelRef): string => `${id}@${step ?? ""}${change ? `~${spellChange(change)}` : ""}`;
/** The same with its weights as they were. */
export const unchanged = ({ id, step }: ModelRef): ModelRef => ({ id, step });

export type Mode = Theme | "system";

class World {
  /** What this page carries if it was saved as a file; then nobody is asked for anything. */
  readonly saved = savedIn(document);
  readonly api = this.saved ? new SavedApi(this.saved) : new Api();

  constructor() {
    this.api.key = storage("tab")?.getItem("key") ?? "";
  }

  route = $state.raw<Route>(fromHash(location.hash || (this.saved?.hash ?? "")));
  info = $state.raw<Info | null>(null);
  /** What the whole page has to tell: the server is gone, or the address names no model. */
  problem = $state.raw<ApiError | null>(null);
  language = $state<Language>(this.saved?.language ?? remembered("language", LANGUAGES, navigator.language.startsWith("zh") ? "zh" : "en"));
  mode = $state<Mode>(this.saved?.mode ?? remembered("mode", ["system", "light", "dark"] as const, "system"));
  isDarkSystem = $state(false);
  isHelpOpen = $state(false);
  /** A reader's own text for the lessons; it stays in this page and out of the address. */
  ownText = $state(this.saved?.text ?? "");
  /** What the lessons had from the server, as text, by what they asked. */
  readonly lessonReplies = new Map(Object.entries(this.saved?.lessons ?? {}));
  /** Something that went wrong beside the views, to be told once. */
  mishap = $state.raw<{ title: string; error: ApiError } | null>(null);
  done = $state.raw<Set<Deed>>(unpacked(Number(storage()?.getItem("path") ?? 0)));

  theme: Theme = $derived(this.mode === "system" ? (this.isDarkSystem ? "dark" : "light") : this.mode);
  nextDeed = $derived(nextOf(this.done));

  // ---- models ------------------------------------------------------------------------------------------------

  training = $state.raw<Training | null>(null);
  models: ModelInfo[] = $derived.by(() => {
    const served = this.info?.models ?? [];
    const live = this.training?.isDone === false ? this.training.model : null;
    return live && !served.some(({ id }) => id === live.id) ? [...served, live] : served;
  });
  /** Where one can go: in a saved page, where nothing has to be asked for. */
  places: readonly Place[] = $derived(
    this.saved === null ? PLACES : this.models.length > 0 ? (["chain", "red", "lessons"] as const) : (["lessons"] as const),
  );
  // Of a route that changes, what stays the same: whatever follows from these alone is not worked out anew.
  private chosenA = $derived(this.route.a);
  private chosenB = $derived(this.route.b);
  private written = $derived(this.route.ids);
  private cut = $derived(this.route.at);
  private branched = $derived(this.route.tree);
  a: ModelRef | null = $derived(this.resolve(this.chosenA) ?? this.first());
  b: ModelRef | null = $derived(this.resolve(this.chosenB));
  /** Whether the address names a model that isn't served. */
  isStray = $derived(this.info !== null && this.route.a !== null && this.find(this.route.a) === null);
  modelA: ModelInfo | null = $derived(this.find(this.a));
  modelB: ModelInfo | null = $derived(this.find(this.b));
  isComparing = $derived(this.b !== null && this.route.shown !== "a");

  // ---- what is known of them ---------------------------------------------------------------------------------

  private chains = $state.raw<ReadonlyMap<string, ChainReply>>(new Map());
  private names = $state.raw<ReadonlyMap<string, ReadonlyMap<number, string>>>(new Map());
  private replies = $state.raw<ReadonlyMap<string, Float32Array>>(new Map());
  failures = $state.raw<ReadonlyMap<string, ApiError>>(new Map());
  private underway = new Map<string, AbortController>();

  chainA: ChainReply | null = $derived(this.a ? (this.chains.get(keyOf(this.a)) ?? null) : null);
  chainB: ChainReply | null = $derived(this.b ? (this.chains.get(keyOf(this.b)) ?? null) : null);
  tableA: Table | null = $derived(this.tabled(this.modelA, this.chainA));
  tableB: Table | null = $derived(this.isComparing ? this.tabled(this.modelB, this.chainB) : null);
  symbols: string[] | null = $derived(this.modelA?.symbols ?? null);

  /** The whole text. Ids that the model lacks, as an address made with another one has them, are left out. */
  ids: number[] = $derived(within(this.written, this.modelA?.vocab_size ?? Infinity));
  /** How many were left out. */
  nStrange = $derived(this.written.length - this.ids.length);
  /** The text up to where it is looked at; what stands after that stays until something else is written. */
  text: number[] = $derived(
    this.cut === null ? this.ids : within(this.written.slice(0, this.cut), this.modelA?.vocab_size ?? Infinity),
  );
  /** The contexts that were visited since the prompt, and the tokens from there to where the text is looked at. */
  tree: Tree = $derived.by(() => {
    const [tree, ids, V] = [this.branched, this.written, this.modelA?.vocab_size ?? Infinity];
    if (this.nStrange === 0) return treeWithin(tree, V);
    const root = within(ids.slice(0, tree.root), V).length;
    return grown(treeWithin({ ...tree, root }, V), this.ids.slice(root));
  });
  branch: number[] | null = $derived(this.text.length < this.tree.root ? null : this.text.slice(this.tree.root));
  /** The tokens that the model sees, and the number of the state if the context is full and states are few. */
  context: number[] = $derived(this.text.slice(-(this.modelA?.context_length ?? 1)));
  state: number | null = $derived(
    this.modelA?.n_states != null ? numberOf(this.context, this.modelA.vocab_size, this.modelA.context_length) : null,
  );
  logitsA: Float32Array | null = $derived(this.logitsOf(this.a, this.modelA));
  logitsB: Float32Array | null = $derived(this.isComparing ? this.logitsOf(this.b, this.modelB) : null);
  private orderedA = $derived(this.logitsA ? falling(this.logitsA) : null);
  distributionA: Distribution | null = $derived(
    this.logitsA ? shape(this.logitsA, this.route.sampler, this.orderedA ?? undefined) : null,
  );
  /** What the model itself says, without a sampler. */
  plainA: Distribution | null = $derived(this.logitsA ? shape(this.logitsA, PLAIN) : null);
  distributionB: Distribution | null = $derived(this.logitsB ? shape(this.logitsB, this.route.sampler) : null);

  /** What the long run and red follow from. */
  private question: Question | null = $derived.by(() => {
    const { tableA: table, state, route } = this;
    if (!table) return null;
    const red = route.red.filter((other) => other < table.nStates);
    return { sampler: route.sampler, start: state ?? table.nStates - 1, red, horizon: route.horizon };
  });
  /** Whether a chain is so large that these questions are asked beside the page. */
  private isLarge = $derived((this.tableA?.nStates ?? 0) > MOST_AT_ONCE);
  private latest = $state.raw<{ id: string; question: Question; answer: Answer; hasLaw: boolean } | null>(null);
  private atOnce: Answer | null = $derived.by(() => {
    const { question, modelA, chainA, modelB, chainB, isComparing, isLarge } = this;
    if (!question || isLarge || !modelA || !chainA) return null;
    return answered(asChain(modelA, chainA), isComparing && modelB && chainB ? asChain(modelB, chainB) : null, question);
  });
  /** Of a large chain the last answer stays until the next one comes. */
  private answer: Answer | null = $derived(this.isLarge ? (this.latest?.id === this.a?.id ? this.latest!.answer : null) : this.atOnce);
  isSettled = $derived(!this.isLarge || this.latest?.question === this.question);
  /** Whether the law is that of what is shown, and not still the one before. */
  isLawSettled = $derived(this.isSettled && (!this.isLarge || this.latest!.hasLaw));
  law: Law | null = $derived(this.answer?.law ?? null);
  danger: Reach | null = $derived(this.answer?.danger ?? null);
  dangerB: Reach | null = $derived(this.answer?.dangerB ?? null);
  private background = new Background(longRunWorker);

  /** Ask what is not known of a large chain. */
  wantLongRun(): void {
    const { question, isLarge, a, b, modelA, chainA, modelB, chainB, isComparing } = this;
    if (!question || !isLarge || !a || !modelA || !chainA) return;
    const other = isComparing && b && modelB && chainB ? { name: keyOf(b), chain: asChain(modelB, chainB) } : null;
    this.background.ask({
      a: { name: keyOf(a), chain: asChain(modelA, chainA) },
      b: other,
      question,
      then: (part) => {
        const before = this.latest?.id === a.id ? this.latest.answer : NOTHING_KNOWN;
        this.latest = { id: a.id, question, answer: { ...before, ...part }, hasLaw: "law" in part };
      },
    });
  }

  /** The loss at each training step whose table is known, by the data's own counts. */
  losses: { step: number; loss: number }[] = $derived.by(() => {
    const { a, modelA } = this;
    if (!a || !modelA || modelA.n_states === null) return [];
    const points = new Map(this.training?.run === a.id ? this.training.losses : []);
    for (const step of modelA.steps) {
      const chain = this.chains.get(keyOf({ id: a.id, step }));
      const loss = chain ? lossOf(modelA, chain) : null;
      if (loss !== null) points.set(step, loss);
    }
    return [...points].map(([step, loss]) => ({ step, loss })).sort((x, y) => x.step - y.step);
  });

  /** The loss of what is shown. */
  lossA: number | null = $derived.by(() => {
    const { a, modelA, chainA, losses } = this;
    if (a?.change) return modelA && chainA ? lossOf(modelA, chainA) : null;
    return losses.find(({ step }) => step === a?.step)?.loss ?? null;
  });

  // ---- choosing ----------------------------------------------------------------------------------------------

  private hashTimer = 0;
  private isUnwritten = false;
  /** The way that the model goes on, in Meaning space, and how far along it one looks. */
  path = $state.raw<{ names: string[]; at: number } | null>(null);
  /** What the space bar plays and the comma and the point step through, where that isn't the walk. */
  player: Player | null = null;

  /** Change what was chosen. "push" is a step that the back button undoes. */
  go(changes: Partial<Route>, how: "push" | "replace" = "push"): void {
    clearTimeout(this.hashTimer);
    if (how === "push" && this.isUnwritten) history.replaceState(null, "", toHash(this.route));
    this.route = { ...this.route, ...changes };
    this.isUnwritten = how === "replace";
    if (how === "push") history.pushState(null, "", toHash(this.route));
    // Browsers refuse an address that changes with every pixel of a slider.
    else this.hashTimer = window.setTimeout(() => this.writeHash(), HASH_MS);
  }

  /** The route with its model and step spelt out, though they are as usual. */
  get settledRoute(): Route {
    return { ...this.route, a: this.a ?? this.route.a };
  }

  private writeHash(): void {
    history.replaceState(null, "", toHash(this.route));
    this.isUnwritten = false;
  }

  /** The address was changed from outside: by the back button, a link, or by hand. */
  follow(): void {
    const route = fromHash(location.hash);
    if (toHash(route) === toHash(this.route)) return;
    this.stopWalking();
    this.route = route;
  }

  open(place: Place): void {
    this.go({ place });
    if (place === "inside" || place === "meaning") this.did(place);
  }

  /** Set the text, and with it the context and the state. It is a new prompt: a new tree begins with it. */
  setIds(ids: readonly number[], how: "push" | "replace" = "push"): void {
    this.stopWalking();
    this.generator = null;
    const kept = ids.slice(-LONGEST_TEXT);
    this.settle({ ids: kept, at: null, tree: rooted(kept.length) }, how);
  }

  /** Go to a context: along the text where it leads there, else the text becomes this one. */
  visit(ids: readonly number[]): void {
    this.stopWalking();
    this.generator = null;
    const isAlong = ids.length < this.ids.length && ids.every((id, i) => id === this.ids[i]);
    this.settle(isAlong ? { ids: this.ids, at: ids.length, tree: this.tree } : this.extended(ids), "push");
  }

  /** Write tokens after where the text is looked at. */
  grow(tokens: readonly number[], how: "push" | "replace" = "push"): void {
    this.generator = null;
    this.settle(this.extended([...this.text, ...tokens]), how);
  }

  /** One token less; of the prompt too. */
  shorten(): void {
    this.settle(this.extended(this.text.slice(0, -1)), "push");
  }

  /** Let the tree begin anew where the text is looked at. */
  beginTree(): void {
    this.go({ ids: this.text, at: null, tree: rooted(this.text.length) });
  }

  showBeams(search: Search | null, how: "push" | "replace" = "push"): void {
    this.go({ ids: this.ids, tree: { ...this.tree, search } }, how);
  }

  /** A text in the tree: the prompt is shortened if it has to be. A text that shares no token with it is a new prompt. */
  private extended(ids: readonly number[]): Partial<Route> {
    let { tree, ids: before } = this;
    let common = 0;
    while (common < tree.root && common < ids.length && ids[common] === before[common]) common++;
    if (common === 0) tree = rooted(ids.length);
    else if (tree.root - common > MOST_NODES) tree = rooted(common);
    else if (common < tree.root) tree = raised(tree, before.slice(common, tree.root));
    const path = ids.slice(tree.root);
    tree = bounded(grown(tree, path), path);
    const cut = Math.max(0, ids.length - LONGEST_TEXT);
    return { ids: ids.slice(cut), at: null, tree: cut < tree.root ? { ...tree, root: tree.root - cut } : rooted(ids.length - cut) };
  }

  private settle(changes: Partial<Route>, how: "push" | "replace"): void {
    this.go(changes, how);
    const { state, chainA, modelA } = this;
    if (state === null || !modelA) return;
    this.did("context");
    const V = modelA.vocab_size;
    if (chainA?.counts && chainA.counts.subarray(state * V, (state + 1) * V).every((count) => count === 0)) this.did("unseen");
  }

  setState(number: number): void {
    const model = this.modelA;
    if (model) this.setIds(tokensOf(number, model.vocab_size, model.context_length));
  }

  append(token: number): void {
    this.stopWalking();
    this.grow([token]);
  }

  /** Look at the text as it was after so many tokens. */
  lookAt(count: number): void {
    this.stopWalking();
    this.generator = null;
    this.go({ ids: this.ids, tree: this.tree, at: count >= this.ids.length ? null : Math.max(1, count) }, "replace");
  }

  choose(which: "a" | "b", ref: ModelRef | null): void {
    const before = this.modelA;
    const changes: Partial<Route> = which === "a" ? { a: ref } : { b: ref, shown: ref ? "both" : "a" };
    if (which === "b" && ref) this.did("compare");
    this.go(changes);
    const after = this.modelA;
    if (which === "a" && before && after && before.vocab_size !== after.vocab_size) this.go({ ids: [], at: null, tree: rooted(0), red: [], pattern: [] }, "replace");
    if (which === "a" && after) this.did(after.n_states === null ? "real" : after.n_states > 64 ? "map" : null);
  }

  /** Set something of the lesson; null for as it usually is. */
  turn(name: string, value: string | number | null, how: "push" | "replace" = "replace"): void {
    const { [name]: _, ...others } = this.route.knobs;
    this.go({ knobs: value === null ? others : { ...others, [name]: String(value) } }, how);
  }

  /** What a number of the lesson is set to. */
  knob(name: string, low: number, high: number, usual: number): number {
    const value = Number(this.route.knobs[name] ?? NaN);
    return value >= low && value <= high ? value : usual;
  }

  scrub(step: number): void {
    if (!this.a) return;
    if (this.a.step !== null && step < this.a.step) this.did("scrub");
    this.go({ a: { id: this.a.id, step } }, "replace");
  }

  private wish: ModelRef | null = null;

  /** Change a weight by hand, or put it back: as soon as the table of such a model is there. The newest wish counts. */
  async change(change: Change | null): Promise<void> {
    const { a, modelA } = this;
    if (!a || !modelA) return;
    const isWaiting = this.wish !== null;
    this.wish = change ? { ...a, change } : unchanged(a);
    while (!isWaiting && this.wish) {
      const ref: ModelRef = this.wish;
      try {
        if (modelA.n_states !== null && !this.chains.has(keyOf(ref))) this.keepChain(ref, await this.api.chain(ref));
        if (this.a?.id === ref.id && this.a.step === ref.step) this.go({ a: ref }, "replace");
      } catch (error) {
        this.tell(this.t("change.failed"), error);
      }
      if (this.wish === ref) this.wish = null;
    }
  }

  /** One kept step back or forward. */
  stepAlong(by: 1 | -1): void {
    const { a, modelA } = this;
    if (!a || !modelA || a.step === null) return;
    const at = modelA.steps.indexOf(a.step) + by;
    if (at >= 0 && at < modelA.steps.length) this.scrub(modelA.steps[at]);
  }

  /** To the layer or head before or after; false where there is none. */
  turnTo(what: "layer" | "head", by: 1 | -1): boolean {
    const count = (what === "layer" ? this.modelA?.n_layer : this.modelA?.n_head) ?? 0;
    const next = this.route[what] + by;
    if (this.route.place !== "inside" || next < 0 || next >= count) return false;
    this.go(what === "layer" ? { layer: next } : { head: next }, "replace");
    return true;
  }

  /** Switch the head that is looked at off, or whatever is off on again; false elsewhere than Inside. */
  toggleOff(): boolean {
    const { layer, head, off, place } = this.route;
    const { n_layer, n_head } = this.modelA ?? {};
    if (place !== "inside" || !n_layer || !n_head) return false;
    this.go({ off: off ? null : { layer: Math.min(layer, n_layer - 1), head: Math.min(head, n_head - 1) } }, "replace");
    return true;
  }

  toggleRed(state: number): void {
    const { red } = this.route;
    this.go({ red: red.includes(state) ? red.filter((other) => other !== state) : [...red, state] });
    this.did("red");
  }

  did(deed: Deed | null): void {
    if (deed === null || this.done.has(deed)) return;
    this.done = new Set([...this.done, deed]);
    storage()?.setItem("path", String(packed(this.done)));
  }

  // ---- walking -----------------------------------------------------------------------------------------------

  /** How many tokens are still to be drawn; Infinity while it plays. */
  walking = $state(0);
  private generator: Pcg32 | null = null;
  private walkTimer = 0;

  /** Draw `count` tokens, one after the other. The same context and seed take the same walk. */
  walk(count: number): void {
    const model = this.modelA;
    if (this.state === null && model?.n_states != null) this.setState(model.n_states - 1);
    this.generator ??= new Pcg32(this.route.seed);
    const isRunning = this.walking > 0;
    this.walking = count;
    this.did("walk");
    if (!isRunning) this.walkOn(true);
  }

  setSeed(seed: number): void {
    this.stopWalking();
    this.generator = null;
    this.go({ seed }, "replace");
  }

  stopWalking(): void {
    clearTimeout(this.walkTimer);
    this.walking = 0;
  }

  private walkOn(isFirst: boolean): void {
    const { distributionA } = this;
    if (this.walking <= 0) return;
    if (distributionA && this.generator) {
      const token = draw(distributionA.probs, this.generator.uniform());
      this.go(this.extended([...this.text, token]), isFirst ? "push" : "replace");
      this.walking -= 1;
    }
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (this.walking > 0) this.walkTimer = window.setTimeout(() => this.walkOn(false), isStill && this.walking < 100 ? 0 : WALK_MS);
  }

  // ---- training ----------------------------------------------------------------------------------------------

  async train(request: TrainRequest): Promise<void> {
    this.stopWalking();
    this.training = { ...NO_TRAINING, request, isStarting: true };
    try {
      const run = await this.api.train(request);
      this.training = { ...NO_TRAINING, request, run, model: liveModel(run, request) };
      this.go({ a: { id: run, step: 0 } });
      this.note();
      await this.watch(run, request);
    } catch (error) {
      if (this.training) this.training = { ...this.training, isStarting: false, isDone: true, error: asApiError(error) };
      this.note();
      await this.refresh();
    }
  }

  /** A training that this tab had begun and the server no longer knows. */
  lost = $state.raw<Begun | null>(null);
  /** A training that the address names, and that was begun elsewhere. */
  awaited = $state<string | null>(null);
  /** Whether this tab's own training has been looked for. */
  isTakenUp = $state(false);
  private tried = new Set<string>();

  /** Keep in this tab's memory which training is under way, so that it is found again after a reload. */
  private note(): void {
    const { training } = this;
    const isUnderWay = training?.run && training.request && !training.isDone;
    const begun: Begun | null = isUnderWay ? { run: training.run!, request: training.request!, isPaused: training.isPaused } : null;
    if (begun) storage("tab")?.setItem("training", JSON.stringify(begun));
    else storage("tab")?.removeItem("training");
  }

  /** After a reload: go on with the training that this tab had begun, if the server knows it. */
  async takeUp(): Promise<void> {
    const begun = readBegun();
    this.isTakenUp = true;
    if (this.saved || begun === null || this.training || this.info === null) return;
    const { run, request, isPaused } = begun;
    if (this.find({ id: run, step: null })) return this.note(); // it is done, and listed
    this.training = { ...NO_TRAINING, request, run, model: liveModel(run, request), isPaused };
    try {
      await this.watch(run, request);
    } catch (error) {
      const told = asApiError(error);
      const isUnknown = told.type === "missing";
      if (isUnknown) this.lost = begun;
      this.training = isUnknown ? null : { ...this.training, isDone: true, error: told };
      this.note();
      await this.refresh();
    }
  }

  /** Wait for a training that the address names and another window began: once it is done it is a model like others. */
  async awaitStray(): Promise<void> {
    const id = this.route.a?.id;
    if (!id || !this.isStray || this.tried.has(id) || this.lost?.run === id) return;
    this.tried.add(id);
    this.awaited = id;
    try {
      for await (const event of this.api.training(id, NO_STEP)) if (event.name === "done") await this.refresh();
    } catch {
      // The server knows no such training: the address is simply wrong, and that is told.
    } finally {
      if (this.awaited === id) this.awaited = null;
    }
  }

  private async watch(run: string, request: TrainRequest): Promise<void> {
    for await (const event of this.api.training(run, -1)) {
      const training = this.training;
      if (!training || training.run !== run) return;
      if (event.name === "step") {
        const losses: [number, number][] = [...training.losses, [event.step, event.loss]];
        this.training = { ...training, step: event.step + 1, losses };
      } else if (event.name === "frame") {
        this.keepFrame(run, event.step, event.logits, request);
        if (request.steps <= MOST_SEEN) await nextFrame();
      } else if (event.name === "done") {
        await this.refresh();
        this.adopt(run, event.model);
        this.note();
        this.did("train");
      }
    }
  }

  private keepFrame(run: string, step: number, logits: Float32Array, request: TrainRequest): void {
    const model = liveModel(run, request);
    const ids = model.symbols ? idsOf(request.sequence, model.symbols) : null;
    const counts = ids ? countWindows(ids, model.vocab_size, model.context_length) : null;
    this.keepChain({ id: run, step }, { logits, counts });
    const training = this.training!;
    const before = training.model?.steps ?? [];
    this.training = { ...training, model: { ...model, steps: [...before, step] } };
    // Whoever has gone back to look at an earlier step stays there.
    const { a } = this.route;
    if (a?.id === run && (before.length === 0 || a.step === before.at(-1))) this.go({ a: { id: run, step } }, "replace");
  }

  /** A finished training is a model like others: its frames are that model's steps. */
  private adopt(run: string, id: string): void {
    const chains = new Map(this.chains);
    for (const [key, chain] of this.chains) {
      if (key.startsWith(`${run}@`)) chains.set(`${id}@${key.slice(run.length + 1)}`, chain);
    }
    this.chains = chains;
    const at = this.route.a;
    if (this.training) this.training = { ...this.training, isDone: true };
    if (at?.id === run) this.go({ a: { id, step: at.step } }, "replace");
  }

  async steer(verb: "pause" | "resume" | "step" | "stop"): Promise<void> {
    const { training } = this;
    if (!training?.run) return;
    try {
      await this.api.steer(training.run, verb);
      this.training = { ...this.training!, isPaused: verb === "pause" || verb === "step" };
      this.note();
    } catch (error) {
      this.training = { ...this.training!, error: asApiError(error) };
    }
  }

  // ---- asking the server -------------------------------------------------------------------------------------

  /** Show the server its key, which this tab remembers. */
  async unlock(key: string): Promise<void> {
    this.api.key = key;
    storage("tab")?.setItem("key", key);
    await this.refresh();
  }

  async refresh(): Promise<void> {
    try {
      this.info = await this.api.info();
      this.problem = null;
    } catch (error) {
      this.problem = asApiError(error);
    }
  }

  /** Fetch a model's whole chain unless it is here already. */
  wantChain(ref: ModelRef | null, model: ModelInfo | null): void {
    if (!ref || model?.n_states == null || this.chains.has(keyOf(ref)) || this.isLive(ref.id)) return;
    void this.once(`chain ${keyOf(ref)}`, async (signal) => this.keepChain(ref, await this.api.chain(ref, signal)));
  }

  /** Fetch the tables of all kept steps, one after the other, so that the timeline needs no waiting. */
  async wantAllSteps(model: ModelInfo | null): Promise<void> {
    if (!model || model.n_states === null || this.isLive(model.id)) return;
    if (model.n_states * model.vocab_size * model.steps.length > MOST_AHEAD) return;
    for (const step of model.steps) {
      const ref = { id: model.id, step };
      if (this.chains.has(keyOf(ref))) continue;
      await this.once(`chain ${keyOf(ref)}`, async (signal) => this.keepChain(ref, await this.api.chain(ref, signal)));
      if (this.problem || (this.a?.id !== model.id && this.b?.id !== model.id)) return;
    }
  }

  /** Fetch the logits after the context, where no table holds them. A newer question gives up the older. */
  wantNext(ref: ModelRef | null, model: ModelInfo | null, slot: string): void {
    if (!ref || !model || this.context.length === 0 || this.isLive(ref.id)) return;
    if (this.logitsOf(ref, model)) return;
    if (this.state !== null && model.n_states !== null) return; // its table is on the way
    const ids = this.context;
    const key = replyKey(ref, ids);
    for (const [name, controller] of this.underway) {
      if (name.startsWith(`next ${slot} `) && name !== `next ${slot} ${key}`) controller.abort();
    }
    void this.once(`next ${slot} ${key}`, async (signal) => {
      this.keepReply(key, await this.api.next(ref, ids, signal));
    });
  }

  /** The logits after the contexts that are not full yet, all lengths from one token up. */
  wantShort(ref: ModelRef | null, model: ModelInfo | null): void {
    if (!ref || !model || this.isLive(ref.id)) return;
    const missing = shortContexts(model).filter((ids) => !this.replies.has(replyKey(ref, ids)));
    if (missing.length === 0) return;
    void this.once(`short ${keyOf(ref)}`, async (signal) => {
      for (const ids of missing) this.keepReply(replyKey(ref, ids), await this.api.next(ref, ids, signal));
    });
  }

  /** Next-token probabilities of the contexts that are not full yet, shortest first; null until all are known. */
  shortRows(ref: ModelRef | null, model: ModelInfo | null): Float64Array[] | null {
    if (!ref || !model) return null;
    const replies = shortContexts(model).map((ids) => this.replies.get(replyKey(ref, ids)));
    return replies.every((reply) => reply !== undefined)
      ? replies.map((logits) => shape(logits!, this.route.sampler).probs)
      : null;
  }

  /** Everything that a page needs to show models with tables without a server: those shown, and of them all that is here. */
  async known(most: number): Promise<Known> {
    const models = [...new Set([this.modelA, this.modelB])].filter((model) => model?.n_states != null && !this.isLive(model.id)) as ModelInfo[];
    const known: Known = { models: [], chains: [], replies: [] };
    for (const model of models) {
      const kept = [...(model.steps.length > 0 ? model.steps : [null])].map((step): ModelRef => ({ id: model.id, step }));
      const refs = [...kept, ...[this.a, this.b].filter((ref) => ref?.id === model.id && ref.change !== undefined)] as ModelRef[];
      const chains = refs.flatMap((ref) => (this.chains.has(keyOf(ref)) ? [{ ref, chain: this.chains.get(keyOf(ref))! }] : []));
      const isMuch = chains.length * model.n_states! * model.vocab_size > most;
      const shown = [this.a, this.b].map((ref) => ref && keyOf(ref));
      const carried = isMuch ? chains.filter(({ ref }) => shown.includes(keyOf(ref))) : chains;
      if (carried.length === 0) continue;
      known.models.push(model);
      known.chains.push(...carried);
      for (const { ref } of carried.filter(({ ref }) => shown.includes(keyOf(ref)))) known.replies.push(...(await this.knownShort(ref, model)));
    }
    return known;
  }

  /** The logits after contexts that are not full yet, as far as they can be had. */
  private async knownShort(ref: ModelRef, model: ModelInfo): Promise<Known["replies"]> {
    const found: Known["replies"] = [];
    for (const ids of shortContexts(model)) {
      const logits = this.replies.get(replyKey(ref, ids)) ?? (await this.api.next(ref, ids).catch(() => null));
      if (logits) found.push({ ref, ids, logits });
    }
    return found;
  }

  /** A saved page has them of the steps only that were shown when it was saved. */
  get canHaveShort(): boolean {
    const { a, saved } = this;
    return saved === null || saved.replies.some((reply) => a !== null && keyOf(reply) === keyOf(a));
  }

  private keepReply(key: string, logits: Float32Array): void {
    const most = Math.max(20, Math.floor(MOST_AHEAD / logits.length));
    this.replies = new Map([...[...this.replies].slice(-most), [key, logits]]);
  }

  /** The tables of those kept steps that are here, under the sampler. */
  tablesOf(model: ModelInfo): { step: number; table: Table }[] {
    return model.steps.flatMap((step) => {
      const chain = this.chains.get(keyOf({ id: model.id, step }));
      return chain ? [{ step, table: tableOf(asChain(model, chain), this.route.sampler) }] : [];
    });
  }

  /** Learn what some ids are called. */
  async wantNames(ids: readonly number[]): Promise<void> {
    const { a, modelA } = this;
    if (!a || !modelA || modelA.symbols) return;
    const missing = [...new Set(ids)].filter((id) => this.names.get(a.id)?.has(id) !== true);
    if (missing.length === 0) return;
    await this.once(`names ${a.id} ${missing.join()}`, async (signal) => {
      const texts = await this.api.pieces(a, missing, signal);
      this.learnNames(a.id, missing.map((id, i) => [id, texts[i]]));
    });
  }

  learnNames(model: string, names: Iterable<readonly [number, string]>): void {
    this.names = new Map([...this.names, [model, new Map([...(this.names.get(model) ?? []), ...names])]]);
  }

  /** The text of a token, or null while it isn't known. */
  textOf(id: number): string | null {
    return this.symbols?.[id] ?? this.names.get(this.a?.id ?? "")?.get(id) ?? null;
  }

  /** A token as pictures write it. */
  nameOf(id: number): string {
    const text = this.textOf(id);
    return text === null ? `#${id}` : visible(text);
  }

  /** One of two models as headings and legends call it: "B: baby, step 50". */
  headingOf(which: "A" | "B", ref: ModelRef | null, title: string): string {
    const step = ref?.step == null ? [] : [this.t("step.n", { step: ref.step })];
    return `${which}: ${[title, ...step, ...(ref?.change ? [this.t("change.one")] : [])].join(", ")}`;
  }

  isBusy(prefix: string): boolean {
    return this.busy.some((name) => name.startsWith(prefix));
  }
  busy = $state.raw<string[]>([]);

  private async once(name: string, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.underway.get(name)?.signal.aborted === false) return;
    const controller = new AbortController();
    this.underway.set(name, controller);
    // Whatever effect asks is not to be run again because of how the asking went.
    untrack(() => {
      this.busy = [...this.underway.keys()];
      this.forgetFailure(name);
    });
    try {
      await work(controller.signal);
    } catch (error) {
      if (isCancelled(error)) return;
      const told = asApiError(error);
      if (told.type === "gone") this.problem = told;
      else this.failures = new Map([...this.failures, [name, told]]);
    } finally {
      if (this.underway.get(name) === controller) this.underway.delete(name);
      this.busy = [...this.underway.keys()];
    }
  }

  private forgetFailure(name: string): void {
    const failures = new Map(this.failures);
    if (failures.delete(name)) this.failures = failures;
  }

  // ---- words -------------------------------------------------------------------------------------------------

  t = (key: Key, values: Values = {}): string => filled(STRINGS[this.language][key], values);

  tell(title: string, error: unknown): void {
    this.mishap = { title, error: asApiError(error) };
  }

  setLanguage(language: Language): void {
    this.language = language;
    storage()?.setItem("language", language);
  }

  setMode(mode: Mode): void {
    this.mode = mode;
    storage()?.setItem("mode", mode);
  }

  // ---- small parts -------------------------------------------------------------------------------------------

  isLive(id: string): boolean {
    return this.training?.run === id && !this.training.isDone;
  }

  /** Whether the server can be asked about a model now. */
  canAsk(ref: ModelRef): boolean {
    return !this.isLive(ref.id) && this.problem === null;
  }

  private keepChain(ref: ModelRef, chain: ChainReply): void {
    // Of models changed by hand, as many as a slider passes, those that are shown stay.
    const shown = [this.a, this.b].map((ref) => ref && keyOf(ref));
    const kept = ref.change ? [...this.chains].filter(([key]) => !key.includes("~") || shown.includes(key)) : this.chains;
    this.chains = new Map([...kept, [keyOf(ref), chain]]);
  }

  private find(ref: ModelRef | null): ModelInfo | null {
    return ref ? (this.models.find(({ id }) => id === ref.id) ?? null) : null;
  }

  /** The model meant, with its step: of a run the last one kept if none was said. */
  private resolve(ref: ModelRef | null): ModelRef | null {
    const model = this.find(ref);
    if (!ref || !model) return null;
    if (model.steps.length === 0) return { ...ref, step: null };
    return { ...ref, step: ref.step !== null && model.steps.includes(ref.step) ? ref.step : model.steps.at(-1)! };
  }

  /** Where the page begins: with the smallest model there is, before its training if that was kept. */
  private first(): ModelRef | null {
    const [smallest] = [...this.models].sort((x, y) => (x.n_states ?? Infinity) - (y.n_states ?? Infinity));
    return smallest ? { id: smallest.id, step: smallest.steps[0] ?? null } : null;
  }

  private tabled(model: ModelInfo | null, chain: ChainReply | null): Table | null {
    return model && chain ? tableOf(asChain(model, chain), this.route.sampler) : null;
  }

  private logitsOf(ref: ModelRef | null, model: ModelInfo | null): Float32Array | null {
    return this.logitsAfter(ref, model, this.context);
  }

  /** The logits after a text, if they are here already. */
  logitsAfter(ref: ModelRef | null, model: ModelInfo | null, ids: readonly number[]): Float32Array | null {
    if (!ref || !model || ids.length === 0) return null;
    const { vocab_size: V, context_length, n_states } = model;
    const context = ids.slice(-context_length);
    const chain = this.chains.get(keyOf(ref));
    const state = n_states === null ? null : numberOf(context, V, context_length);
    if (chain && state !== null && chain.logits.length === n_states! * V) return chain.logits.subarray(state * V, (state + 1) * V);
    return this.replies.get(replyKey(ref, context)) ?? null;
  }
}

/** Something in a view that moves by itself. */
export interface Player {
  toggle: () => void;
  step: (by: 1 | -1) => void;
  /** Put into the address how far it is. */
  note: () => void;
}

export interface Training {
  request: TrainRequest | null;
  run: string | null;
  model: ModelInfo | null;
  step: number;
  losses: [number, number][];
  isStarting: boolean;
  isPaused: boolean;
  isDone: boolean;
  error: ApiError | null;
}

/** What a tab remembers of a training under way. */
interface Begun {
  run: string;
  request: TrainRequest;
  isPaused: boolean;
}

function readBegun(): Begun | null {
  try {
    const begun = JSON.parse(storage("tab")?.getItem("training") ?? "null") as Begun | null;
    return begun?.run && begun.request?.config ? begun : null;
  } catch {
    return null;
  }
}

const NO_TRAINING: Training = {
  request: null,
  run: null,
  model: null,
  step: 0,
  losses: [],
  isStarting: false,
  isPaused: false,
  isDone: false,
  error: null,
};

const within = (ids: number[], vocabSize: number): number[] => (ids.every((id) => id < vocabSize) ? ids : ids.filter((id) => id < vocabSize));
const replyKey = (ref: ModelRef, ids: readonly number[]): string => `${keyOf(ref)} ${ids.join()}`;

/** All contexts shorter than the model's, of one token first; none where they would be too many to ask for. */
function shortContexts({ vocab_size: V, context_length }: ModelInfo): number[][] {
  const lengths = Array.from({ length: context_length - 1 }, (_, i) => i + 1);
  if (lengths.reduce((sum, length) => sum + V ** length, 0) > 64) return [];
  return lengths.flatMap((length) => Array.from({ length: V ** length }, (_, number) => tokensOf(number, V, length)));
}

const LOSSES = new WeakMap<ChainReply, number>();

/** The loss of a table on the data that it came with; worked out once. */
function lossOf(model: ModelInfo, chain: ChainReply): number | null {
  if (!chain.counts) return null;
  const known = LOSSES.get(chain);
  if (known !== undefined) return known;
  const loss = lossOn(tableOf(asChain(model, chain), PLAIN), chain.counts);
  LOSSES.set(chain, loss);
  return loss;
}

function liveModel(run: string, { config, sequence, symbols }: TrainRequest): ModelInfo {
  const n = config.vocab_size ** config.context_length;
  return {
    id: run,
    ref: run,
    title: sequence.length > 24 ? `${sequence.slice(0, 24)}…` : sequence,
    kind: "run",
    ...config,
    n_parameters: null,
    n_states: n <= 65536 ? n : null,
    steps: [],
    sequence,
    symbols: symbols ?? [...Array(config.vocab_size).keys()].map(String),
    state: "ready",
    message: "",
  };
}

function asChain(model: ModelInfo, { logits }: ChainReply) {
  return { vocabSize: model.vocab_size, nStates: logits.length / model.vocab_size, logits };
}

function asApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError("failed", (error as Error).message);
}

/** The browser's memory, which it may refuse. */
function storage(which: "browser" | "tab" = "browser"): Storage | null {
  try {
    return which === "browser" ? localStorage : sessionStorage;
  } catch {
    return null;
  }
}

function remembered<T extends string>(name: string, choices: readonly T[], usual: T): T {
  const kept = storage()?.getItem(name);
  return choices.find((choice) => choice === kept) ?? usual;
}

export const world = new World();