// How fresh a page of the host is, in one word, from every account's feed and the page's own connection.

export interface Feed {
  account: string;
  broker?: string;
  /** LIVE, RECONCILING, DEGRADED, STALE, AUTH_REQUIRED or MANUAL. */
  freshness: string;
  detail: string;
  /** Milliseconds since the epoch; 0 for never. */
  since: number;
  read_at: number;
  connected: boolean;
}

export interface Summary {
  /** The least fresh of them, OFFLINE without a connection, NONE without an account. */
  freshness: string;
  words: string;
  detail: string;
}

const WORST_FIRST = ["AUTH_REQUIRED", "STALE", "MANUAL", "DEGRADED", "RECONCILING", "LIVE"];

const WORDS: Record<string, string> = {
  AUTH_REQUIRED: "Log in to the broker",
  STALE: "Out of date",
  MANUAL: "Not live",
  DEGRADED: "Polling",
  RECONCILING: "Checking",
  LIVE: "Live",
  OFFLINE: "Not connected",
  NONE: "",
};

/** A word that is not known counts as the worst: nothing is called live that may not be. */
export function summary(feeds: Iterable<Feed>, connected: boolean): Summary {
  const all = [...feeds];
  if (!connected) return told("OFFLINE", "This page hears of no change until it is connected again.");
  const worst = all.sort((a, b) => rank(a) - rank(b))[0];
  return worst === undefined ? told("NONE", "") : told(worst.freshness, worst.detail);
}

function rank(feed: Feed): number {
  return WORST_FIRST.indexOf(feed.freshness);
}

function told(freshness: string, detail: string): Summary {
  return { freshness, words: WORDS[freshness] ?? freshness, detail };
}
