// How far the server's clock is from ours, from the exchange with the shortest way there and back.

export class ServerClock {
  #offset = 0;
  #best = Number.POSITIVE_INFINITY;

  /** Take one exchange: sent and answered in our milliseconds, `server` in theirs. */
  sample(sent: number, server: number, answered: number): void {
    const round = answered - sent;
    if (round < 0 || round > this.#best) return;
    this.#best = round;
    this.#offset = server - (sent + answered) / 2;
  }

  /** Forget how good the best sample was, so that a drifting clock is measured anew. */
  renew(): void {
    this.#best = Number.POSITIVE_INFINITY;
  }

  /** Translate our time into the server's. */
  at(ours: number): number {
    return ours + this.#offset;
  }

  get offset(): number {
    return this.#offset;
  }
}
