// Follows the orders of a host's user in the host's own page: what changed, and how fresh the page is.
import { io, type Socket } from "socket.io-client";
import { type Feed, type Summary, summary } from "./summary.ts";

/** OpenAlgo's 16 fields and ours (docs/decisions/0006-pages.md). */
export interface OrderUpdate {
  account: string;
  broker: string;
  orderid: string;
  symbol: string;
  exchange: string;
  action: string;
  quantity: number;
  order_status: string;
  filled_quantity: number;
  pending_quantity: number;
  average_price: number;
  rejection_reason: string;
  sequence: number;
  [more: string]: unknown;
}

export interface Follower {
  /** Something of the book may be other than it is shown: an order, a trade or a position changed, or was missed. */
  onChange?: () => void;
  onOrder?: (order: OrderUpdate) => void;
  onFreshness?: (summary: Summary) => void;
}

export interface Options {
  /** For programs; a page is known by its session. */
  apikey?: string;
  /** The host's Socket.IO path, where it is not the usual one. */
  path?: string;
}

const CHANGES = ["order_update", "trade_update", "position_update", "snapshot"];

/** One connection for everybody on the page who wants to know; it begins with the first and ends with the last. */
export class Following {
  readonly #options: Options;
  readonly #followers = new Set<Follower>();
  readonly #feeds = new Map<string, Feed>();
  #socket: Socket | undefined;

  constructor(options: Options = {}) {
    this.#options = options;
  }

  /** Follow; returns what ends it. Is told the freshness at once. */
  add(follower: Follower): () => void {
    this.#followers.add(follower);
    this.#socket ??= this.#connect();
    follower.onFreshness?.(this.summary());
    return () => {
      this.#followers.delete(follower);
      if (this.#followers.size > 0) return;
      this.#socket?.disconnect();
      this.#socket = undefined;
      this.#feeds.clear();
    };
  }

  summary(): Summary {
    return summary(this.#feeds.values(), this.#socket?.connected ?? false);
  }

  #connect(): Socket {
    const { apikey, path } = this.#options;
    const socket = io("/orderwire", {
      reconnectionDelay: 300,
      reconnectionDelayMax: 4000,
      ...(apikey === undefined ? {} : { auth: { apikey } }),
      ...(path === undefined ? {} : { path }),
    });
    socket.on("connect", () => {
      this.#tell((one) => one.onChange?.()); // what happened while nobody listened
      this.#freshness();
    });
    socket.on("disconnect", () => this.#freshness());
    socket.on("connect_error", () => this.#freshness());
    socket.on("feed_status", (feed: Feed) => {
      this.#feeds.set(feed.account, feed);
      this.#freshness();
    });
    for (const name of CHANGES) socket.on(name, () => this.#tell((one) => one.onChange?.()));
    socket.on("order_update", (order: OrderUpdate) => this.#tell((one) => one.onOrder?.(order)));
    return socket;
  }

  #freshness(): void {
    const now = this.summary();
    this.#tell((one) => one.onFreshness?.(now));
  }

  #tell(what: (one: Follower) => void): void {
    for (const one of [...this.#followers]) what(one);
  }
}
