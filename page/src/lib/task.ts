/** Until the browser has answered what waits for it. Work in several tasks holds a slow processor up for less at a time. */
export const nextTask = (): Promise<void> => new Promise((done) => setTimeout(done));

/** After the next frame has begun; where none does, as in a tab that isn't seen, soon. */
export const nextFrame = (): Promise<unknown> => Promise.race([new Promise(requestAnimationFrame), new Promise((done) => setTimeout(done, 100))]);
