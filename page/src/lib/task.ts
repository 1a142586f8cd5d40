/** Until the browser has answered what waits for it. Work in several tasks holds a slow processor up for less at a time. */
export const nextTask = (): Promise<void> => new Promise((done) => setTimeout(done));
