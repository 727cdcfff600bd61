// Fills the cells of one row; touches only what differs.
import { age, amount, price, quantity, signed, time } from "../core/format.ts";
import type { Order, Position, Trade } from "../core/wire.ts";
import { overlay, statusWord, whyFixed } from "../core/words.ts";
import { setAttribute, setIcon, setText } from "./dom.ts";

type Cells = Map<string, HTMLElement>;

const known = new WeakMap<HTMLElement, Cells>();

/** The cells of a row by the class that names them, looked up once. */
function cells(row: HTMLElement): Cells {
  const before = known.get(row);
  if (before !== undefined) return before;
  const found: Cells = new Map();
  for (const element of row.querySelectorAll<HTMLElement>('[class*="t-"], .side, .status, .meter > i')) {
    const name = [...element.classList].find((word) => word.startsWith("t-")) ?? element.classList[0] ?? "meter";
    found.set(name, element);
  }
  for (const button of row.querySelectorAll<HTMLElement>("[data-do]")) found.set(`do-${button.dataset["do"]}`, button);
  known.set(row, found);
  return found;
}

function put(row: HTMLElement, name: string, text: string): void {
  const cell = cells(row).get(name);
  if (cell !== undefined) setText(cell, text);
}

function lead(row: HTMLElement, name: string, path: string): void {
  const cell = cells(row).get(name);
  if (cell !== undefined) setAttribute(cell, "href", path);
}

/** Where an order's own page is. */
export function storyPath(account: string, row: string): string {
  return `/orders/${encodeURIComponent(account)}/${encodeURIComponent(row)}`;
}

function putSide(row: HTMLElement, side: string): void {
  put(row, "side", side);
  setAttribute(row, "data-side", side);
}

export function fillOrder(row: HTMLElement, order: Order, account: string): void {
  const said = statusWord(order.status);
  put(row, "t-time", time(order.first_seen || order.broker_time));
  putSide(row, order.action);
  put(row, "t-symbol", order.symbol);
  lead(row, "t-symbol", storyPath(order.account, order.row));
  put(row, "t-exchange", order.exchange);
  put(row, "t-type", order.pricetype);
  put(row, "t-product", order.product);
  put(row, "t-filled", `${quantity(order.filled_quantity)} / ${quantity(order.quantity)}`);
  put(row, "t-price", order.price === 0 && order.pricetype.startsWith("M") ? "market" : price(order.price));
  put(row, "t-trigger", order.trigger_price > 0 ? `stop ${price(order.trigger_price)}` : "");
  put(row, "t-average", price(order.average_price));
  put(row, "t-status", said.word);
  put(row, "t-overlay", overlay(order) || order.rejection_reason);
  put(row, "t-account", account);
  fillStatus(row, order, said.icon, said.tone);
}

function fillStatus(row: HTMLElement, order: Order, sign: string, tone: string): void {
  const found = cells(row);
  const status = found.get("status");
  if (status !== undefined) {
    setAttribute(status, "data-tone", tone);
    const svg = status.querySelector("svg");
    if (svg !== null) setIcon(svg, sign);
  }
  setAttribute(row, "data-status", order.status);
  const reason = found.get("t-overlay");
  if (reason !== undefined) setAttribute(reason, "title", order.rejection_reason);
  const meter = found.get("meter");
  if (meter !== undefined) {
    const part = order.quantity > 0 ? Math.min(1, order.filled_quantity / order.quantity) : 0;
    meter.style.transform = `scaleX(${part})`;
  }
  const why = whyFixed(order);
  for (const name of ["do-modify", "do-cancel"]) {
    const button = found.get(name);
    if (button === undefined) continue;
    setAttribute(button, "aria-disabled", String(why !== ""));
    setAttribute(button, "title", why || (name === "do-modify" ? "Modify (m)" : "Cancel (x)"));
  }
}

export function ageOrder(row: HTMLElement, order: Order, now: number): void {
  const at = order.broker_time || order.first_seen;
  put(row, "t-age", at > 0 ? age(Math.max(0, now - at)) : "");
}

export function fillTrade(row: HTMLElement, trade: Trade, account: string): void {
  put(row, "t-time", time(trade.traded_at));
  putSide(row, trade.action);
  put(row, "t-symbol", trade.symbol);
  put(row, "t-exchange", trade.exchange);
  put(row, "t-quantity", quantity(trade.quantity));
  put(row, "t-price", price(trade.price));
  put(row, "t-value", amount(trade.price * trade.quantity));
  put(row, "t-order", trade.orderid);
  lead(row, "t-order", storyPath(trade.account, trade.orderid));
  put(row, "t-account", account);
}

export function ageTrade(row: HTMLElement, trade: Trade, now: number): void {
  put(row, "t-age", trade.traded_at > 0 ? age(Math.max(0, now - trade.traded_at)) : "");
}

export function fillPosition(row: HTMLElement, position: Position, account: string): void {
  put(row, "t-symbol", position.symbol);
  put(row, "t-exchange", position.exchange);
  put(row, "t-product", position.product);
  put(row, "t-quantity", position.quantity > 0 ? `+${quantity(position.quantity)}` : quantity(position.quantity).replace("-", "−"));
  put(row, "t-average", price(position.average_price));
  put(row, "t-last", price(position.last_price));
  put(row, "t-pnl", position.last_price === 0 && position.pnl === 0 ? "–" : signed(position.pnl));
  put(row, "t-account", account);
  setAttribute(row, "data-pnl", position.pnl > 0 ? "up" : position.pnl < 0 ? "down" : "flat");
}
