/** The landscape that is looked at: measured by the server when it is asked for, and kept as long as the page is open. */

import { ApiError, isCancelled } from "../lib/api.ts";
import type { Land, Plane } from "../lib/landscape.ts";
import type { ModelRef } from "../lib/route.ts";
import { world } from "../world.svelte.ts";

const MOST_KEPT = 12;

export class Landscape {
  land = $state.raw<Land | null>(null);
  /** What `land` answers, and what was asked last. */
  key = $state("");
  asked = $state("");
  error = $state.raw<ApiError | null>(null);
  /** The share that is done; null while nothing is under way. */
  progress = $state<number | null>(null);
  private controller: AbortController | null = null;

  isKept(key: string): boolean {
    return world.lessonReplies.has(`landscape ${key}`);
  }

  async ask(key: string, ref: ModelRef, plane: Plane, seed: number): Promise<void> {
    this.giveUp();
    [this.asked, this.error] = [key, null];
    const kept = world.lessonReplies.get(`landscape ${key}`);
    if (kept) {
      [this.land, this.key] = [JSON.parse(kept) as Land, key];
      return;
    }
    const controller = new AbortController();
    this.controller = controller;
    this.progress = 0;
    try {
      for await (const event of world.api.landscape(ref, plane, seed, controller.signal)) {
        if (this.controller !== controller) return;
        if (event.name === "progress") this.progress = event.done / event.total;
        else this.keep(key, event.land);
      }
    } catch (error) {
      if (this.controller !== controller || isCancelled(error)) return;
      this.error = error instanceof ApiError ? error : new ApiError("failed", String((error as Error).message));
    }
    if (this.controller === controller) this.progress = null;
  }

  private keep(key: string, land: Land): void {
    [this.land, this.key] = [land, key];
    const names = [...world.lessonReplies.keys()].filter((name) => name.startsWith("landscape "));
    for (const name of names.slice(0, Math.max(0, names.length - MOST_KEPT + 1))) world.lessonReplies.delete(name);
    world.lessonReplies.set(`landscape ${key}`, JSON.stringify(land));
  }

  /** As if what is under way had never been asked. */
  forget(): void {
    if (this.progress !== null) this.asked = "";
    this.giveUp();
  }

  giveUp(): void {
    this.controller?.abort();
    this.controller = null;
    this.progress = null;
  }
}
