// Where this page stands in each account's log, and whether a delivery follows on from it.
import type { Cursor, Place } from "./wire.ts";

export type Verdict = "apply" | "known" | "gap";

export class Cursors {
  readonly #at = new Map<string, Cursor>();

  /** Say what to do with a delivery; "apply" moves the cursor. */
  take(place: Place): Verdict {
    const at = this.#at.get(place.account);
    if (at === undefined || at.epoch !== place.epoch) return "gap";
    if (place.sequence <= at.sequence) return "known";
    if (place.previous !== at.sequence) return "gap";
    this.#at.set(place.account, { epoch: place.epoch, sequence: place.sequence });
    return "apply";
  }

  /** A snapshot replaces everything known of its account. */
  reset(account: string, cursor: Cursor): void {
    this.#at.set(account, { epoch: cursor.epoch, sequence: cursor.sequence });
  }

  /** What `follow` sends on every connection. */
  all(): Record<string, Cursor> {
    return Object.fromEntries(this.#at);
  }
}
