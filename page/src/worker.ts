/** The worker of this page, if the browser has such. */
export function longRunWorker(): Worker | null {
  if (typeof Worker === "undefined") return null;
  return new Worker(new URL("./lib/long-run.worker.ts", import.meta.url), { type: "module" });
}
