// The order ticket: place a new order or change the terms of a live one; every field says what is wrong with it.
import { amount, price, quantity } from "../core/format.ts";
import { keyOf } from "../core/table.ts";
import { type Draft, type Found, missing, needsPrice, needsTrigger, promise, value } from "../core/ticket.ts";
import type { Order } from "../core/wire.ts";
import { sentence } from "../core/words.ts";
import { all, need, setText } from "./dom.ts";
import { post, Refused } from "./http.ts";
import { SymbolSearch } from "./search.ts";
import type { Toasts } from "./toasts.ts";

/** What the server says of an order it has sent on. */
export interface Placed {
  submission: string;
  state: string;
  orderid: string;
  message?: string;
}

export class Ticket {
  readonly #dialog = need<HTMLDialogElement>("#ticket");
  readonly #form = need<HTMLFormElement>("#ticket-form");
  readonly #send = need<HTMLButtonElement>("#ticket-send");
  readonly #toasts: Toasts;
  readonly #blocked: (account: string) => string;
  readonly #done: (key: string, placed: Placed, title: string) => void;
  #changing: Order | null = null;
  #chosen: Found | null = null;
  #sending = false;
  #key = "";

  /** `blocked` says why an account cannot send orders now, or ""; `done` is told of every order that was sent. */
  constructor(options: {
    toasts: Toasts;
    blocked: (account: string) => string;
    done: (key: string, placed: Placed, title: string) => void;
  }) {
    this.#toasts = options.toasts;
    this.#blocked = options.blocked;
    this.#done = options.done;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    this.#form.addEventListener("input", (event) => this.#onInput(event));
    need("[data-close]", this.#dialog).addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    new SymbolSearch({
      input: this.#input("symbol"),
      list: need<HTMLUListElement>("#t-found"),
      account: () => this.#value("account"),
      choose: (found) => this.#choose(found),
    });
  }

  get open(): boolean {
    return this.#dialog.open;
  }

  /** Start a new order; what was typed before stays when the ticket was only closed. */
  place(account: string): void {
    if (this.#changing !== null) this.#form.reset();
    this.#changing = null;
    this.#key = crypto.randomUUID();
    if (account) this.#select("account").value = account;
    this.#show("New order");
    this.#input("symbol").focus();
    this.#input("symbol").select();
  }

  /** Change the terms of a live order. */
  modify(order: Order): void {
    this.#form.reset();
    this.#changing = order;
    this.#chosen = null;
    this.#fill(order);
    this.#show(`Modify ${order.symbol}`);
    const first = needsPrice(order.pricetype) ? this.#input("price") : this.#input("quantity");
    first.focus();
    first.select();
  }

  /** The account's feed may have changed: say again whether orders can be sent. */
  refresh(): void {
    if (this.#dialog.open) this.#draw();
  }

  #show(title: string): void {
    setText(need("#ticket-title"), title);
    this.#clearProblems();
    const fixed = this.#changing !== null;
    for (const name of ["account", "symbol"]) this.#control(name).toggleAttribute("disabled", fixed);
    for (const radio of all<HTMLInputElement>('[name="action"]', this.#form)) radio.disabled = fixed;
    this.#draw();
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #fill(order: Order): void {
    this.#select("account").value = order.account;
    this.#input("symbol").value = order.symbol;
    this.#input("exchange").value = order.exchange;
    this.#input("quantity").value = String(order.quantity);
    this.#input("price").value = order.price > 0 ? String(order.price) : "";
    this.#input("trigger_price").value = order.trigger_price > 0 ? String(order.trigger_price) : "";
    this.#input("disclosed_quantity").value = order.disclosed_quantity > 0 ? String(order.disclosed_quantity) : "";
    this.#select("product").value = order.product;
    this.#check("action", order.action);
    this.#check("pricetype", order.pricetype);
  }

  #choose(found: Found): void {
    this.#chosen = found;
    this.#input("symbol").value = found.symbol;
    this.#input("exchange").value = found.exchange;
    this.#problem("symbol", "");
    if (found.lot_size > 1 && this.#value("quantity") === "") this.#input("quantity").value = String(found.lot_size);
    this.#draw();
    this.#input("quantity").focus();
    this.#input("quantity").select();
  }

  #onInput(event: Event): void {
    const control = event.target as HTMLInputElement;
    if (control.name === "symbol") this.#forgetChoice();
    this.#problem(control.name, "");
    need("#ticket-problem").hidden = true;
    if (this.#changing === null) this.#key = crypto.randomUUID();
    this.#draw();
  }

  #forgetChoice(): void {
    if (this.#chosen?.symbol === this.#value("symbol").toUpperCase()) return;
    this.#chosen = null;
    this.#input("exchange").value = "";
  }

  #draft(): Draft {
    const names = ["symbol", "exchange", "quantity", "pricetype", "product", "price", "trigger_price"] as const;
    const draft = Object.fromEntries(names.map((name) => [name, this.#value(name)])) as unknown as Draft;
    return { ...draft, side: this.#value("action"), disclosed_quantity: this.#value("disclosed_quantity") };
  }

  #draw(): void {
    const draft = this.#draft();
    this.#dialog.dataset["side"] = draft.side;
    setText(need("#t-exchange-word"), draft.exchange);
    this.#toggle("price", needsPrice(draft.pricetype));
    this.#toggle("trigger_price", needsTrigger(draft.pricetype));
    this.#hintLot();
    const worth = value(draft);
    setText(need("#ticket-sum"), worth === null ? "" : `Order value ${amount(worth)}`);
    setText(need("#ticket-promise"), this.#changing ? "Send the new terms" : promise(draft));
    const why = this.#why(draft);
    this.#send.setAttribute("aria-disabled", String(why !== "" || this.#sending));
    setText(need("#ticket-why"), why);
    need(".loading", this.#send).hidden = !this.#sending;
  }

  #why(draft: Draft): string {
    return this.#blocked(this.#value("account")) || missing(draft);
  }

  #hintLot(): void {
    const hint = need("#p-quantity");
    if (hint.closest(".field")?.classList.contains("has-problem")) return;
    const changing = this.#changing;
    const filled = changing !== null && changing.filled_quantity > 0;
    const lot = this.#chosen !== null && this.#chosen.lot_size > 1;
    if (filled) setText(hint, `${quantity(changing.filled_quantity)} filled already; this is the total.`);
    else setText(hint, lot ? `Lot of ${quantity(this.#chosen?.lot_size ?? 1)}` : "");
    const tick = need("#p-price");
    if (tick.closest(".field")?.classList.contains("has-problem")) return;
    setText(tick, this.#chosen && this.#chosen.tick_size > 0 ? `Steps of ${price(this.#chosen.tick_size)}` : "");
  }

  #toggle(name: string, used: boolean): void {
    need(`[data-field="${name}"]`, this.#form).classList.toggle("is-unused", !used);
    this.#input(name).disabled = !used;
  }

  async #submit(): Promise<void> {
    const draft = this.#draft();
    const why = this.#why(draft);
    if (this.#sending || why !== "") {
      if (why) this.#focusMissing(draft);
      return;
    }
    this.#sending = true;
    this.#clearProblems();
    this.#draw();
    try {
      await (this.#changing ? this.#sendChange(this.#changing) : this.#sendNew(draft));
    } catch (error) {
      this.#refused(error);
    } finally {
      this.#sending = false;
      this.#draw();
    }
  }

  async #sendNew(draft: Draft): Promise<void> {
    const { side, ...rest } = draft;
    const order = { ...rest, action: side, account: this.#value("account") };
    const placed = await post<Placed>("/ui/orders", order, { "Idempotency-Key": this.#key });
    this.#done(keyOf({ account: order.account, row: placed.submission }), placed, promise(draft));
    this.#dialog.close();
    this.#form.reset();
    this.#chosen = null;
  }

  async #sendChange(order: Order): Promise<void> {
    const draft = this.#draft();
    const { side: _side, symbol: _symbol, exchange: _exchange, ...terms } = draft;
    await post("/ui/orders/modify", { ...terms, account: order.account, orderid: order.orderid, validity: order.validity || "DAY" });
    this.#toasts.show({ tone: "info", title: "New terms sent", text: sentence(order) });
    this.#dialog.close();
  }

  #refused(error: unknown): void {
    if (!(error instanceof Refused)) throw error;
    const { problems, message } = error.refusal;
    let placed = false;
    for (const [name, problem] of Object.entries(problems)) placed = this.#problem(name, problem) || placed;
    if (!placed) {
      const note = need("#ticket-problem");
      setText(need("span", note), message);
      note.hidden = false;
    }
    this.#form.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus();
    if (error.refusal.status === 422) this.#key = crypto.randomUUID(); // the broker said no: the next try is a new order
  }

  #problem(name: string, problem: string): boolean {
    const field = this.#form.querySelector(`[data-field="${name === "exchange" ? "symbol" : name}"]`);
    const hint = field?.querySelector(".hint");
    if (field == null || hint == null) return false;
    field.classList.toggle("has-problem", problem !== "");
    setText(hint, problem);
    const control = field.querySelector("input:not([type=hidden]), select");
    if (problem) control?.setAttribute("aria-invalid", "true");
    else control?.removeAttribute("aria-invalid");
    return problem !== "";
  }

  #clearProblems(): void {
    for (const field of all("[data-field]", this.#form)) this.#problem(field.dataset["field"] ?? "", "");
    need("#ticket-problem").hidden = true;
  }

  #focusMissing(draft: Draft): void {
    const order: [string, string][] = [
      ["symbol", draft.symbol],
      ["quantity", draft.quantity],
      ["price", needsPrice(draft.pricetype) ? draft.price : "-"],
      ["trigger_price", needsTrigger(draft.pricetype) ? draft.trigger_price : "-"],
    ];
    const empty = order.find(([, text]) => text.trim() === "");
    if (empty !== undefined) this.#input(empty[0]).focus();
  }

  #value(name: string): string {
    const control = this.#form.elements.namedItem(name);
    return control !== null && "value" in control ? String(control.value) : "";
  }

  #control(name: string): Element {
    return need(`[name="${name}"]`, this.#form);
  }

  #input(name: string): HTMLInputElement {
    return this.#control(name) as HTMLInputElement;
  }

  #select(name: string): HTMLSelectElement {
    return this.#control(name) as HTMLSelectElement;
  }

  #check(name: string, wanted: string): void {
    for (const radio of all<HTMLInputElement>(`[name="${name}"]`, this.#form)) radio.checked = radio.value === wanted;
  }
}
