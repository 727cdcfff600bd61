// Which orders are being checked with the broker: a mark on the row, told apart from the changes of the order.
import type { Order, OrderChecking } from "./wire.ts";

function key(of: { account: string; orderid: string }): string {
  return `${of.account}\n${of.orderid}`;
}

export class Checks {
  readonly #orders = new Set<string>();

  take(check: OrderChecking): void {
    if (check.checking) this.#orders.add(key(check));
    else this.#orders.delete(key(check));
  }

  /** Put the mark on an order, whatever brought it: a change says nothing about checks that are under way. */
  marked(order: Order): Order {
    return !order.checking && this.#orders.has(key(order)) ? { ...order, checking: true } : order;
  }

  /** A new connection is told anew what is being checked. */
  forget(): void {
    this.#orders.clear();
  }
}
