// What the server sends over Socket.IO and JSON, field for field (docs/decisions/0006-pages.md).

export type Status =
  | "PENDING_NEW"
  | "TRIGGER_PENDING"
  | "OPEN"
  | "PARTIALLY_FILLED"
  | "FILLED"
  | "CANCELLED"
  | "REJECTED"
  | "EXPIRED"
  | "UNKNOWN";

export type FreshnessName = "LIVE" | "RECONCILING" | "DEGRADED" | "STALE" | "AUTH_REQUIRED" | "MANUAL";

/** One order as a row of the book; OpenAlgo's fields and ours. Times are milliseconds since the epoch. */
export interface Order {
  account: string;
  row: string;
  broker: string;
  orderid: string;
  submission: string;
  symbol: string;
  exchange: string;
  action: string;
  quantity: number;
  filled_quantity: number;
  pending_quantity: number;
  price: number;
  trigger_price: number;
  average_price: number;
  disclosed_quantity: number;
  pricetype: string;
  product: string;
  validity: string;
  order_status: string;
  status: Status;
  raw_status: string;
  pending_modify: boolean;
  pending_cancel: boolean;
  conflict: boolean;
  checking: boolean;
  rejection_reason: string;
  timestamp: string;
  broker_time: number;
  first_seen: number;
  source: string;
}

export interface Trade {
  account: string;
  row: string;
  orderid: string;
  tradeid: string;
  symbol: string;
  exchange: string;
  action: string;
  product: string;
  quantity: number;
  price: number;
  traded_at: number;
}

export interface Position {
  account: string;
  row: string;
  symbol: string;
  exchange: string;
  product: string;
  quantity: number;
  average_price: number;
  last_price: number;
  pnl: number;
}

/** Where a delivery stands in its account's gap-free log. */
export interface Place {
  account: string;
  epoch: string;
  sequence: number;
  /** The sequence this client was last given; it differs from ours only when something was lost. */
  previous: number;
}

export interface Stamps {
  broker: number;
  received: number;
  queued: number;
  joined: number;
  committed: number;
  emitted: number;
}

export type OrderUpdate = Order & Place & { version: number; event_id: string; stamps: Stamps };
export type TradeUpdate = Trade & Place;
export type PositionUpdate = Position & Place;

/** An order is being checked with the broker, or is not any more; says nothing else about it. */
export interface OrderChecking {
  account: string;
  row: string;
  orderid: string;
  checking: boolean;
}

export interface FeedStatus {
  account: string;
  freshness: FreshnessName;
  since: number;
  detail: string;
  read_at: number;
  connected: boolean;
  next_try: number;
}

export interface Snapshot {
  account: string;
  epoch: string;
  sequence: number;
  orders: Order[];
  trades: Trade[];
  positions: Position[];
  feed: FeedStatus | null;
}

export interface Cursor {
  epoch: string;
  sequence: number;
}

export interface Painted {
  /** Milliseconds since the epoch, in the server's clock. */
  painted: number;
  hidden: boolean;
}

export interface AccountInfo {
  id: string;
  broker: string;
  title: string;
  broker_title: string;
}
