// The order book as the page filters, sorts and counts it.
import type { Compare, Keep } from "./table.ts";
import { type StateFilter, stateGroup, statusWord } from "./words.ts";
import type { Order, Position, Trade } from "./wire.ts";

export interface Filter {
  account: string;
  state: StateFilter;
  text: string;
}

export const NO_FILTER: Filter = { account: "", state: "all", text: "" };

export interface Sort {
  column: string;
  descending: boolean;
}

type Key<T> = (row: T) => number | string;

const ORDER_KEYS: Record<string, Key<Order>> = {
  time: (order) => order.first_seen || order.broker_time,
  symbol: (order) => order.symbol,
  side: (order) => order.action,
  type: (order) => order.pricetype,
  quantity: (order) => (order.quantity > 0 ? order.filled_quantity / order.quantity : 0),
  price: (order) => order.price,
  average: (order) => order.average_price,
  status: (order) => statusWord(order.status).word,
  account: (order) => order.account,
};

const TRADE_KEYS: Record<string, Key<Trade>> = {
  time: (trade) => trade.traded_at,
  symbol: (trade) => trade.symbol,
  side: (trade) => trade.action,
  quantity: (trade) => trade.quantity,
  price: (trade) => trade.price,
  value: (trade) => trade.price * trade.quantity,
  order: (trade) => trade.orderid,
  account: (trade) => trade.account,
};

const POSITION_KEYS: Record<string, Key<Position>> = {
  symbol: (position) => position.symbol,
  product: (position) => position.product,
  quantity: (position) => position.quantity,
  average: (position) => position.average_price,
  last: (position) => position.last_price,
  pnl: (position) => position.pnl,
  account: (position) => position.account,
};

function by<T>(keys: Record<string, Key<T>>, sort: Sort): Compare<T> {
  const key = keys[sort.column] ?? (() => 0);
  const sign = sort.descending ? -1 : 1;
  return (a, b) => {
    const [left, right] = [key(a), key(b)];
    return left === right ? 0 : left < right ? -sign : sign;
  };
}

export const byOrder = (sort: Sort): Compare<Order> => by(ORDER_KEYS, sort);
export const byTrade = (sort: Sort): Compare<Trade> => by(TRADE_KEYS, sort);
export const byPosition = (sort: Sort): Compare<Position> => by(POSITION_KEYS, sort);

const haystacks = new WeakMap<Order, string>();

function haystack(order: Order): string {
  const known = haystacks.get(order);
  if (known !== undefined) return known;
  const text = [
    order.symbol,
    order.exchange,
    order.orderid,
    order.submission,
    order.action,
    order.pricetype,
    order.product,
    order.account,
    statusWord(order.status).word,
    order.rejection_reason,
  ]
    .join(" ")
    .toLowerCase();
  haystacks.set(order, text);
  return text;
}

export function words(text: string): string[] {
  return text.toLowerCase().split(/\s+/).filter(Boolean);
}

export function keepOrder(filter: Filter): Keep<Order> {
  const wanted = words(filter.text);
  return (order) =>
    (filter.account === "" || order.account === filter.account) &&
    (filter.state === "all" || stateGroup(order.status) === filter.state) &&
    wanted.every((word) => haystack(order).includes(word));
}

export function keepOther<T extends Trade | Position>(filter: Filter): Keep<T> {
  const wanted = words(filter.text);
  return (row) => {
    if (filter.account !== "" && row.account !== filter.account) return false;
    const text = Object.values(row).join(" ").toLowerCase();
    return wanted.every((word) => text.includes(word));
  };
}

/** How many orders each state filter would show; kept up to date one change at a time. */
export class Tally {
  readonly #counts = new Map<StateFilter, number>();

  move(before: Order | undefined, after: Order): void {
    if (before !== undefined) this.#add(stateGroup(before.status), -1);
    this.#add(stateGroup(after.status), 1);
  }

  recount(orders: Iterable<Order>): void {
    this.#counts.clear();
    for (const order of orders) this.#add(stateGroup(order.status), 1);
  }

  of(state: StateFilter): number {
    if (state !== "all") return this.#counts.get(state) ?? 0;
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  #add(group: StateFilter, by: number): void {
    this.#counts.set(group, (this.#counts.get(group) ?? 0) + by);
  }
}
