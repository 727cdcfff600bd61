// What is shown, as CSV: one line a row, exact numbers, times in India's time; safe to open in a spreadsheet.
import type { Order, Position, Trade } from "./wire.ts";

type Columns<T> = readonly (readonly [title: string, value: (row: T) => string | number])[];

const STAMP = new Intl.DateTimeFormat("sv-SE", { timeZone: "Asia/Kolkata", dateStyle: "short", timeStyle: "medium" });

function at(milliseconds: number): string {
  return milliseconds > 0 ? STAMP.format(milliseconds) : "";
}

export const orderColumns: Columns<Order> = [
  ["time", (row) => at(row.first_seen || row.broker_time)],
  ["broker_time", (row) => at(row.broker_time)],
  ["account", (row) => row.account],
  ["orderid", (row) => row.orderid],
  ["action", (row) => row.action],
  ["symbol", (row) => row.symbol],
  ["exchange", (row) => row.exchange],
  ["quantity", (row) => row.quantity],
  ["filled_quantity", (row) => row.filled_quantity],
  ["pricetype", (row) => row.pricetype],
  ["product", (row) => row.product],
  ["price", (row) => row.price],
  ["trigger_price", (row) => row.trigger_price],
  ["average_price", (row) => row.average_price],
  ["status", (row) => row.status],
  ["rejection_reason", (row) => row.rejection_reason],
];

export const tradeColumns: Columns<Trade> = [
  ["time", (row) => at(row.traded_at)],
  ["account", (row) => row.account],
  ["tradeid", (row) => row.tradeid],
  ["orderid", (row) => row.orderid],
  ["action", (row) => row.action],
  ["symbol", (row) => row.symbol],
  ["exchange", (row) => row.exchange],
  ["product", (row) => row.product],
  ["quantity", (row) => row.quantity],
  ["price", (row) => row.price],
];

export const positionColumns: Columns<Position> = [
  ["account", (row) => row.account],
  ["symbol", (row) => row.symbol],
  ["exchange", (row) => row.exchange],
  ["product", (row) => row.product],
  ["quantity", (row) => row.quantity],
  ["average_price", (row) => row.average_price],
  ["last_price", (row) => row.last_price],
  ["pnl", (row) => row.pnl],
];

export function csv<T>(columns: Columns<T>, rows: readonly T[]): string {
  const lines = rows.map((row) => columns.map(([, value]) => cell(value(row))).join(","));
  return `${[columns.map(([title]) => title).join(","), ...lines].join("\r\n")}\r\n`;
}

/** A text that a spreadsheet would take for a formula gets an apostrophe before it: brokers' words are foreign. */
function cell(value: string | number): string {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
