// Numbers and times as Indian traders read them.

const quantities = new Intl.NumberFormat("en-IN", { maximumFractionDigits: 0 });
const prices = new Intl.NumberFormat("en-IN", { minimumFractionDigits: 2, maximumFractionDigits: 4 });
const amounts = new Intl.NumberFormat("en-IN", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const times = new Intl.DateTimeFormat("en-GB", {
  timeZone: "Asia/Kolkata",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

export function quantity(value: number): string {
  return quantities.format(value);
}

/** A price, or a dash where there is none (a market order has no price). */
export function price(value: number): string {
  return value === 0 ? "–" : prices.format(value);
}

export function amount(value: number): string {
  return amounts.format(value);
}

/** An amount whose sign is always said, with a real minus. */
export function signed(value: number): string {
  const text = amounts.format(Math.abs(value));
  if (value === 0) return text;
  return value > 0 ? `+${text}` : `−${text}`;
}

/** Time of day in India, HH:MM:SS. */
export function time(ms: number): string {
  return ms > 0 ? times.format(ms) : "–";
}

/** An age in few letters: now, 7 s, 3 min, 2 h, 5 d. */
export function age(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "now";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** The same in a sentence: "just now", "7 s ago". */
export function ago(ms: number): string {
  const text = age(ms);
  return text === "now" ? "just now" : `${text} ago`;
}
