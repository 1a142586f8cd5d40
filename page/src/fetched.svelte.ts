/** One question to the server at a time: a newer one gives up the older, whose picture stays until the answer comes. */

import { ApiError, isCancelled } from "./lib/api.ts";

export class Fetched<T> {
  value = $state.raw<T | null>(null);
  error = $state.raw<ApiError | null>(null);
  isBusy = $state(false);
  /** What `value` answers. */
  key = $state("");
  private controller: AbortController | null = null;
  private asked = "";
  private last: { key: string; work: (signal: AbortSignal) => Promise<T> } | null = null;

  /** Ask after a moment, in which a newer question may come, unless this very one was asked last. */
  ask(key: string, work: (signal: AbortSignal) => Promise<T>, waitMs = 0): void {
    if (key === this.asked) return;
    this.asked = key;
    this.last = { key, work };
    this.controller?.abort();
    const controller = new AbortController();
    this.controller = controller;
    this.isBusy = true;
    setTimeout(() => void this.answer(key, work, controller), waitMs);
  }

  /** Ask no more; what is known stays. */
  giveUp(): void {
    this.controller?.abort();
    this.controller = null;
    this.asked = "";
    this.isBusy = false;
  }

  /** Ask what was asked last once more. */
  again(): void {
    this.asked = "";
    this.error = null;
    if (this.last) this.ask(this.last.key, this.last.work);
  }

  private async answer(key: string, work: (signal: AbortSignal) => Promise<T>, controller: AbortController): Promise<void> {
    if (controller.signal.aborted) return;
    try {
      const value = await work(controller.signal);
      if (this.controller !== controller) return;
      [this.value, this.error, this.key] = [value, null, key];
    } catch (error) {
      if (this.controller !== controller || isCancelled(error)) return;
      this.error = error instanceof ApiError ? error : new ApiError("failed", String((error as Error).message));
      this.asked = "";
    }
    this.isBusy = false;
  }
}
