/** What the tree of contexts has to ask the server: the logits after each of its contexts, and beam searches. */

import { untrack } from "svelte";
import { ApiError, isCancelled, type FoundBeam } from "./lib/api.ts";
import { wanted, type Found, type Seen } from "./lib/branches.ts";
import { gistOf, sharesOf, type Gist } from "./lib/gist.ts";
import type { ModelRef } from "./lib/route.ts";
import { keyOf, world } from "./world.svelte.ts";

const MOST_GISTS = 1000;
const MOST_WANTED = 500; // contexts of a tree; what a search found beyond them stays without widths
const MOST_LOGITS = 1 << 21; // in one answer, unless the server says more
const MOST_AT_ONCE = 32; // contexts in one answer, so that whoever asks something else does not wait for long

/** A context whose logits are needed, and the tokens whose shares will be asked for. */
interface Want {
  ids: number[];
  tokens: number[];
}

class Branches {
  private gists = $state.raw<ReadonlyMap<string, Gist>>(new Map());
  error = $state.raw<ApiError | null>(null);
  isAsking = $state(false);
  private asking: { model: string; controller: AbortController } | null = null;
  private attempt = $state(0);

  private results = $state.raw<Omit<Found, "path"> | null>(null);
  searchError = $state.raw<ApiError | null>(null);
  isSearching = $state(false);
  private searching: AbortController | null = null;
  private searched = "";

  /** What a search from somewhere in the tree has come to. */
  found: Found | null = $derived(world.tree.search && this.results ? { ...this.results, path: world.tree.search.path } : null);

  private prompt = $derived(world.ids.slice(0, world.tree.root));
  /** By what the model sees of them: where branches come to the same context, it is asked about once. */
  private wants: ReadonlyMap<string, Want> = $derived.by(() => {
    const wants = new Map<string, Want>();
    if (this.prompt.length === 0) return wants;
    const asked = { tree: world.tree, here: world.branch };
    // What was visited comes first, then what the search found; that knows the visited ones' tokens too.
    const known = new Set(wanted({ ...asked, found: null }).map(({ path }) => path.join()));
    const all = wanted({ ...asked, found: this.found });
    const isVisited = ({ path }: { path: number[] }): boolean => known.has(path.join());
    for (const { path, tokens } of [...all.filter(isVisited), ...all.filter((one) => !isVisited(one))].slice(0, MOST_WANTED)) {
      const key = this.keyOf(path);
      wants.set(key, { ids: [...this.prompt, ...path], tokens: [...tokens, ...(wants.get(key)?.tokens ?? [])] });
    }
    return wants;
  });

  private keyOf(path: readonly number[]): string {
    const context = [...this.prompt, ...path].slice(-(world.modelA?.context_length ?? 1));
    return world.a ? `${keyOf(world.a)} ${context.join()}` : "";
  }

  /** What is known of the logits after a path from the prompt, under the sampler: worked out when it is looked at. */
  seen: (path: readonly number[]) => Seen | null = $derived.by(() => {
    const { sampler } = world.route;
    const { gists } = this;
    const found = new Map<string, Seen>();
    return (path) => {
      const key = this.keyOf(path);
      const gist = gists.get(key);
      if (gist && !found.has(key)) found.set(key, { gist, shares: sharesOf(gist, sampler) });
      return found.get(key) ?? null;
    };
  });

  /** Take what is here already; of what isn't, ask for the longest branch first, unless there is something to wait for. */
  want(isWaiting: boolean): void {
    const { a, modelA, problem } = world;
    const missing = new Map([...this.wants].filter(([key, { tokens }]) => !this.gists.get(key) || tokens.some((token) => !this.gists.get(key)!.places.has(token))));
    void this.attempt;
    if (!a || !modelA || problem || missing.size === 0) return;
    const atHand = [...missing].flatMap(([key, { ids, tokens }]) => {
      const logits = world.logitsAfter(a, modelA, ids);
      return logits ? [{ key, tokens, logits }] : [];
    });
    if (atHand.length > 0) return untrack(() => this.keep(atHand));
    // Where the person is, the bars ask.
    if (world.branch) missing.delete(this.keyOf(world.branch));
    if (!isWaiting && missing.size > 0 && !world.isLive(a.id)) untrack(() => void this.ask(a, missing));
  }

  private async ask(a: ModelRef, missing: ReadonlyMap<string, Want>): Promise<void> {
    const model = keyOf(a);
    if (this.asking?.model === model) return; // whatever else is missing is asked for after it
    this.asking?.controller.abort();
    const asking = { model, controller: new AbortController() };
    this.asking = asking;
    this.isAsking = true;
    const run = this.runOf(missing);
    try {
      const all = await world.api.nextEach(a, run.at(-1)!.want.ids, run.length, asking.controller.signal);
      if (this.asking !== asking) return;
      this.asking = null;
      this.error = null;
      this.keep(run.map(({ key, want: { tokens } }, i) => ({ key, tokens, logits: all[i] })));
    } catch (error) {
      if (this.asking === asking && !isCancelled(error)) this.error = asApiError(error);
    } finally {
      // After an error nothing is asked for until the tree changes, or somebody wants it.
      if (this.asking === asking) this.asking = null;
      this.isAsking = this.asking !== null;
    }
  }

  /** Contexts along one text, of which one forward pass gives the logits: the longest, and those before it. */
  private runOf(missing: ReadonlyMap<string, Want>): { key: string; want: Want }[] {
    const [last] = [...missing].sort(([, x], [, y]) => y.ids.length - x.ids.length);
    const most = Math.min(MOST_AT_ONCE, Math.floor((world.info?.limits.max_logits ?? MOST_LOGITS) / world.modelA!.vocab_size));
    const run = [{ key: last[0], want: last[1] }];
    for (let n = last[1].ids.length - this.prompt.length - 1; n >= 0 && run.length < most; n--) {
      const path = last[1].ids.slice(this.prompt.length, this.prompt.length + n);
      const want = missing.get(this.keyOf(path));
      if (!want) break;
      run.unshift({ key: this.keyOf(path), want });
    }
    return run;
  }

  private keep(found: { key: string; tokens: number[]; logits: Float32Array }[]): void {
    const gists = new Map([...this.gists].slice(-MOST_GISTS));
    for (const { key, tokens, logits } of found) gists.set(key, gistOf(logits, tokens));
    this.gists = gists;
  }

  again(): void {
    this.error = null;
    this.attempt++;
  }

  // ---- searching ---------------------------------------------------------------------------------------------------

  /** Search as the tree says, once. */
  wantSearch(): void {
    const { a, tree, problem } = world;
    const { search } = tree;
    void this.attempt;
    const ids = search ? [...this.prompt, ...search.path] : [];
    const key = a && search ? [keyOf(a), ids.join(), search.beams, search.tokens].join(" ") : "";
    if (key === this.searched || problem || (a && world.isLive(a.id))) return;
    untrack(() => {
      this.stop();
      this.searched = key;
      if (a && search) void this.search(a, { ids, n_beams: search.beams, max_new_tokens: search.tokens });
    });
  }

  private async search(a: ModelRef, what: { ids: number[]; n_beams: number; max_new_tokens: number }): Promise<void> {
    const controller = new AbortController();
    [this.searching, this.isSearching] = [controller, true];
    const dropped: FoundBeam[] = [];
    const learn = (beams: FoundBeam[]): FoundBeam[] => {
      world.learnNames(a.id, beams.flatMap(({ ids, pieces }) => ids.map((id, i) => [id, pieces[i]] as const)));
      return beams;
    };
    try {
      for await (const event of world.api.beams(a, what, controller.signal)) {
        if (this.searching !== controller) return;
        if (event.name === "done") this.results = { beams: learn(event.beams), running: [], dropped: [...dropped] };
        else {
          dropped.push(...event.dropped);
          this.results = { beams: null, running: learn([...event.finished, ...event.running]), dropped: [...dropped] };
        }
      }
    } catch (error) {
      if (this.searching === controller && !isCancelled(error)) this.searchError = asApiError(error);
    } finally {
      if (this.searching === controller) [this.searching, this.isSearching] = [null, false];
    }
  }

  searchAgain(): void {
    this.searched = "";
    this.attempt++;
  }

  private stop(): void {
    this.searching?.abort();
    [this.searching, this.isSearching, this.results, this.searchError] = [null, false, null, null];
  }
}

const asApiError = (error: unknown): ApiError => (error instanceof ApiError ? error : new ApiError("failed", String((error as Error).message)));

export const branches = new Branches();
