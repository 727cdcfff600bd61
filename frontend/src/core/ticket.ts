// What the ticket asks for and says before anything is sent; the server has the last word on every field.

export interface Draft {
  side: string;
  symbol: string;
  exchange: string;
  quantity: string;
  pricetype: string;
  product: string;
  price: string;
  trigger_price: string;
  disclosed_quantity: string;
}

export interface Found {
  symbol: string;
  exchange: string;
  name: string;
  kind: string;
  lot_size: number;
  tick_size: number;
}

export const needsPrice = (pricetype: string): boolean => pricetype === "LIMIT" || pricetype === "SL";
export const needsTrigger = (pricetype: string): boolean => pricetype === "SL" || pricetype === "SL-M";

/** The words on the button: what pressing it will do. */
export function promise(draft: Draft): string {
  const verb = draft.side === "SELL" ? "Sell" : "Buy";
  return [verb, draft.quantity.trim(), draft.symbol.trim().toUpperCase()].filter(Boolean).join(" ");
}

/** What is missing before it makes sense to send, or "". */
export function missing(draft: Draft): string {
  if (draft.symbol.trim() === "") return "Choose a symbol.";
  if (draft.quantity.trim() === "") return "Enter a quantity.";
  if (needsPrice(draft.pricetype) && draft.price.trim() === "") return "Enter a price.";
  if (needsTrigger(draft.pricetype) && draft.trigger_price.trim() === "") return "Enter a trigger price.";
  return "";
}

/** Quantity times price, when both are numbers; otherwise null. */
export function value(draft: Draft): number | null {
  const price = needsPrice(draft.pricetype) ? draft.price : draft.pricetype === "SL-M" ? draft.trigger_price : "";
  const product = Number(draft.quantity) * Number(price);
  return price.trim() !== "" && Number.isFinite(product) && product > 0 ? product : null;
}
