// What an account's pill says, from its feed and from this page's own connection.
import { age, ago, time } from "./format.ts";
import { type FreshnessWord, freshnessWord } from "./words.ts";
import type { FeedStatus } from "./wire.ts";

export interface Pill extends FreshnessWord {
  /** The age of the data in few letters, "" where there is none to tell. */
  age: string;
  facts: string[];
}

/** `now` is in the server's clock; `lostAt` is when this page lost its connection, 0 while it has one. */
export function pill(feed: FeedStatus | undefined, now: number, lostAt: number): Pill {
  if (lostAt > 0) {
    const word = freshnessWord("OFFLINE");
    return { ...word, age: age(now - lostAt), facts: [`Showing what was known at ${time(lostAt)}.`] };
  }
  if (feed === undefined) return { ...freshnessWord("RECONCILING"), age: "", facts: [] };
  const word = freshnessWord(feed.freshness);
  return { ...word, age: feed.read_at > 0 ? age(now - feed.read_at) : "", facts: facts(feed, now) };
}

function facts(feed: FeedStatus, now: number): string[] {
  const said = feed.detail ? [feed.detail] : [];
  said.push(feed.read_at > 0 ? `Order book read ${ago(now - feed.read_at)}.` : "The order book has not been read yet.");
  said.push(feed.connected ? "Live stream connected." : "Live stream not connected.");
  if (feed.since > 0) said.push(`So since ${time(feed.since)}.`);
  if (feed.next_try > now) said.push(`Next try in ${age(feed.next_try - now)}.`);
  return said;
}
