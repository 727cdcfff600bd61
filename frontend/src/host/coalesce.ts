// Lets many changes cause few refreshes: one at a time, and one more when something changed meanwhile.

/** Return a function that asks for `work`; while it runs, further asking causes one more run and no pile. */
export function coalesce(work: () => unknown): () => void {
  let running = false;
  let again = false;

  async function run(): Promise<void> {
    running = true;
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        console.warn("orderwire: a refresh failed", error); // the next change asks again
      }
    } while (again);
    running = false;
  }

  return () => {
    if (running) again = true;
    else void run();
  };
}
