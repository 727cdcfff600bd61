// The words and signs a trader sees for each state; state is never told by colour alone.
import type { FreshnessName, Order, Status } from "./wire.ts";

export interface StatusWord {
  word: string;
  icon: string;
  tone: "wait" | "work" | "good" | "bad" | "calm";
}

const STATUS: Record<Status, StatusWord> = {
  PENDING_NEW: { word: "Pending", icon: "pending", tone: "wait" },
  TRIGGER_PENDING: { word: "Trigger pending", icon: "trigger", tone: "wait" },
  OPEN: { word: "Open", icon: "open", tone: "work" },
  PARTIALLY_FILLED: { word: "Partly filled", icon: "partial", tone: "work" },
  FILLED: { word: "Filled", icon: "filled", tone: "good" },
  CANCELLED: { word: "Cancelled", icon: "cancelled", tone: "calm" },
  REJECTED: { word: "Rejected", icon: "rejected", tone: "bad" },
  EXPIRED: { word: "Expired", icon: "expired", tone: "calm" },
  UNKNOWN: { word: "Unknown", icon: "unknown", tone: "wait" },
};

export function statusWord(status: Status): StatusWord {
  return STATUS[status] ?? STATUS.UNKNOWN;
}

/** What is under way or in doubt about an order, for the small line beside its status. */
export function overlay(order: Order): string {
  if (order.conflict) return "broker contradicts itself";
  if (order.pending_cancel) return "cancelling";
  if (order.pending_modify) return "modifying";
  if (order.checking) return "checking";
  if (order.status === "UNKNOWN" && order.raw_status) return order.raw_status;
  return "";
}

/** The groups the state filter knows. */
export type StateFilter = "all" | "working" | "filled" | "rejected" | "cancelled";

const GROUPS: Record<Status, StateFilter> = {
  PENDING_NEW: "working",
  TRIGGER_PENDING: "working",
  OPEN: "working",
  PARTIALLY_FILLED: "working",
  UNKNOWN: "working",
  FILLED: "filled",
  REJECTED: "rejected",
  CANCELLED: "cancelled",
  EXPIRED: "cancelled",
};

export function stateGroup(status: Status): StateFilter {
  return GROUPS[status] ?? "working";
}

const TERMINAL = new Set<Status>(["FILLED", "CANCELLED", "REJECTED", "EXPIRED"]);

export function isTerminal(status: Status): boolean {
  return TERMINAL.has(status);
}

/** Why an order cannot be modified or cancelled now, or "" when it can. */
export function whyFixed(order: Order): string {
  if (isTerminal(order.status)) return `This order is ${statusWord(order.status).word.toLowerCase()}.`;
  if (order.orderid === "") return "The broker has not confirmed this order yet.";
  if (order.pending_cancel) return "A cancellation is already on its way.";
  return "";
}

export interface FreshnessWord {
  word: string;
  icon: string;
  tone: "good" | "wait" | "bad" | "calm";
  meaning: string;
}

const FRESHNESS: Record<FreshnessName | "OFFLINE", FreshnessWord> = {
  LIVE: {
    word: "Live",
    icon: "live",
    tone: "good",
    meaning: "Changes reach this page the moment the broker sends them, and the order book is read as a check.",
  },
  RECONCILING: {
    word: "Reconciling",
    icon: "reconciling",
    tone: "wait",
    meaning: "The order book is being read, to be sure that nothing was missed.",
  },
  DEGRADED: {
    word: "Polling",
    icon: "polling",
    tone: "wait",
    meaning: "The live stream is down. The order book is read every few seconds instead.",
  },
  STALE: {
    word: "Stale",
    icon: "stale",
    tone: "bad",
    meaning: "The broker does not answer. What you see may be out of date.",
  },
  AUTH_REQUIRED: {
    word: "Log in",
    icon: "login",
    tone: "bad",
    meaning: "The broker session has ended. Log in to the broker again to see and send orders.",
  },
  MANUAL: {
    word: "Manual",
    icon: "manual",
    tone: "calm",
    meaning: "Real-time updates are off. Use Refresh to see changes.",
  },
  OFFLINE: {
    word: "Offline",
    icon: "offline",
    tone: "bad",
    meaning: "This page has lost its connection to orderwire and is trying again.",
  },
};

export function freshnessWord(name: FreshnessName | "OFFLINE"): FreshnessWord {
  return FRESHNESS[name];
}

/** One order in a sentence, for toasts and for people who listen to the page. */
export function sentence(order: Order): string {
  const side = order.action === "BUY" ? "Buy" : order.action === "SELL" ? "Sell" : order.action;
  return `${side} ${order.quantity} ${order.symbol}`;
}
