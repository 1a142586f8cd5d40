/** In place of worker.ts in a saved page: one file has no worker, and answers itself. */
export const longRunWorker = (): Worker | null => null;
