// The order page: the stream's changes into tables, tables into rows, what the user does into calls.
import { Checks } from "../core/checks.ts";
import { ago, price } from "../core/format.ts";
import {
  byOrder,
  byPosition,
  byTrade,
  type Filter,
  keepOrder,
  keepOther,
  type Sort,
  Tally,
} from "../core/orders.ts";
import { Median } from "../core/median.ts";
import { BOOKS, type Book, placeQuery, readPlace, STATES } from "../core/place.ts";
import { keyOf, Table } from "../core/table.ts";
import type { AccountInfo, Order, OrderChecking, OrderUpdate, Position, Snapshot, Trade } from "../core/wire.ts";
import { sentence, type StateFilter, statusWord, whyFixed } from "../core/words.ts";
import { Ask } from "./ask.ts";
import { all, need, setText } from "./dom.ts";
import { Grid } from "./grid.ts";
import { get, post, Refused } from "./http.ts";
import { shortcuts } from "./keys.ts";
import { Pills } from "./pills.ts";
import { csv, orderColumns, positionColumns, tradeColumns } from "../core/csv.ts";
import { ageOrder, ageTrade, fillOrder, fillPosition, fillTrade, storyPath } from "./rows.ts";
import { chime } from "./sound.ts";
import { type Listener, Stream } from "./stream.ts";
import { Tabs } from "./tabs.ts";
import { type Placed, Ticket } from "./ticket.ts";
import { Toasts, type Tone, Voice } from "./toasts.ts";

const NEWEST: Sort = { column: "time", descending: true };
const TONES: Partial<Record<Order["status"], Tone>> = { FILLED: "good", REJECTED: "bad", CANCELLED: "info", EXPIRED: "info" };

export class OrderPage implements Listener {
  readonly #accounts: Map<string, AccountInfo>;
  readonly #orders = new Table<Order>(byOrder(NEWEST));
  readonly #trades = new Table<Trade>(byTrade(NEWEST));
  readonly #positions = new Table<Position>(byPosition({ column: "symbol", descending: false }));
  readonly #grids: { orders: Grid<Order>; trades: Grid<Trade>; positions: Grid<Position> };
  readonly #checks = new Checks();
  readonly #tally = new Tally();
  readonly #toasts = new Toasts();
  readonly #voice = new Voice();
  readonly #ask = new Ask();
  readonly #pills: Pills;
  readonly #ticket: Ticket;
  readonly #stream: Stream;
  readonly #latency = new Median(100);
  readonly #changed = new Set<string>();
  readonly #known = new Set<string>();
  readonly #placed = new Set<string>();
  #sorts: Record<Book, Sort> = {
    orders: NEWEST,
    trades: NEWEST,
    positions: { column: "symbol", descending: false },
  };
  #filter: Filter;
  #shown: Book = "orders";
  #lostAt = 0;
  #received: number[] = [];
  #remembering = 0;

  constructor() {
    const given = JSON.parse(need("#accounts-data").textContent ?? "[]") as AccountInfo[];
    this.#accounts = new Map(given.map((account) => [account.id, account]));
    const place = readPlace(location.search, new Set(this.#accounts.keys()));
    this.#filter = place.filter;
    this.#pills = new Pills((account) => void this.#refresh(account));
    this.#ticket = new Ticket({
      toasts: this.#toasts,
      blocked: (account) => this.#blocked(account),
      done: (key, placed, title) => this.#sent(key, placed, title),
    });
    this.#grids = { orders: this.#orderGrid(), trades: this.#tradeGrid(), positions: this.#positionGrid() };
    this.#stream = new Stream(this, document.body.dataset["version"] ?? "");
    const tabs = this.#controls();
    this.#arrange();
    tabs.open(BOOKS.indexOf(place.book));
    setInterval(() => this.#tick(), 1000);
    if (given.length > 0) this.#stream.start();
  }

  // --- from the stream --------------------------------------------------------------------------------

  snapshot(snapshot: Snapshot): void {
    this.#orders.replace(
      snapshot.account,
      snapshot.orders.map((order) => this.#checks.marked(order)),
    );
    this.#trades.replace(snapshot.account, snapshot.trades);
    this.#positions.replace(snapshot.account, snapshot.positions);
    if (snapshot.feed !== null) this.#pills.set(snapshot.feed);
    this.#tally.recount(this.#orders.all());
    this.#known.add(snapshot.account);
  }

  order(update: OrderUpdate): void {
    const before = this.#orders.put(this.#checks.marked(update));
    this.#tally.move(before, update);
    this.#changed.add(keyOf(update));
    if (update.stamps.received > 0) this.#received.push(update.stamps.received);
    if (before?.status !== update.status) this.#announce(update, before);
  }

  trade(update: Trade): void {
    this.#trades.put(update);
  }

  position(update: Position): void {
    this.#positions.put(update);
  }

  checking(check: OrderChecking): void {
    this.#checks.take(check);
    const order = this.#orders.get(keyOf(check));
    if (order !== undefined && order.checking !== check.checking) this.#orders.put({ ...order, checking: check.checking });
  }

  feed(status: Parameters<Listener["feed"]>[0]): void {
    this.#pills.set(status);
    this.#pills.draw(this.#now());
    this.#ticket.refresh();
  }

  connection(connected: boolean): void {
    if (!connected && this.#lostAt > 0) return;
    if (connected) this.#forgetChecks();
    this.#lostAt = connected ? 0 : this.#now();
    this.#pills.lost(this.#lostAt);
    this.#pills.draw(this.#now());
    this.#sayLost();
  }

  #forgetChecks(): void {
    this.#checks.forget();
    for (const order of [...this.#orders.all()]) {
      if (order.checking && order.orderid !== "") this.#orders.put({ ...order, checking: false });
    }
  }

  outdated(): void {
    const reload = { label: "Reload", run: () => location.reload() };
    this.#toasts.show({ tone: "info", title: "There is a newer version of this page", action: reload, key: "outdated" });
  }

  draw(): void {
    this.#grids[this.#shown].draw();
    for (const key of this.#changed) this.#grids.orders.flash(key);
    this.#changed.clear();
    this.#pills.draw(this.#now());
    this.#count();
  }

  painted(at: number): void {
    for (const received of this.#received) this.#latency.add(at - received);
    this.#received = [];
    const middle = this.#latency.value;
    setText(need("#latency"), middle === null ? "" : `On screen ${Math.max(1, Math.round(middle))} ms after it arrived`);
  }

  // --- what is shown ----------------------------------------------------------------------------------

  #announce(order: Order, before: Order | undefined): void {
    const said = statusWord(order.status);
    const details = order.status === "FILLED" ? ` at ${price(order.average_price)}` : "";
    this.#voice.say(`${sentence(order)}: ${said.word.toLowerCase()}${details}`);
    const news = this.#placed.has(keyOf(order)) || order.status === "REJECTED";
    if (before !== undefined && news) this.#sayEnd(order);
  }

  /**
   * Messages are for orders placed from this page, and for rejections: a program's thousand fills only move rows.
   * Returns whether the order has come to an end.
   */
  #sayEnd(order: Order): boolean {
    const tone = TONES[order.status];
    if (tone === undefined) return false;
    chime(tone);
    const average = order.status === "FILLED" ? `Average price ${price(order.average_price)}` : "";
    this.#toasts.show({
      tone,
      title: `${statusWord(order.status).word}: ${sentence(order)}`,
      text: order.rejection_reason || average,
      key: keyOf(order),
    });
    return true;
  }

  /** The server has sent an order of ours; it may have been filled before its answer came. */
  #sent(key: string, placed: Placed, title: string): void {
    this.#placed.add(key);
    const order = this.#orders.get(key);
    if (order !== undefined && this.#sayEnd(order)) return;
    if (placed.state === "ACCEPTED") this.#toasts.show({ tone: "info", title: `Sent: ${title}`, text: `Order ${placed.orderid}`, key });
    else this.#toasts.show({ tone: "wait", title: `In doubt: ${title}`, text: placed.message ?? "", key });
  }

  #sayLost(): void {
    const banner = need("#lost");
    banner.hidden = this.#lostAt === 0 || this.#known.size === 0;
    document.body.classList.toggle("is-lost", !banner.hidden);
    if (!banner.hidden) {
      const since = ago(this.#now() - this.#lostAt);
      setText(need("#lost-text"), `Not connected to orderwire. What you see is as of ${since}. Trying again …`);
    }
  }

  #count(): void {
    for (const state of STATES) setText(need(`[data-state="${state}"]`), String(this.#tally.of(state)));
    setText(need('[data-count="orders"]'), String(this.#orders.size));
    setText(need('[data-count="trades"]'), String(this.#trades.size));
    setText(need('[data-count="positions"]'), String(this.#positions.size));
    const table = this.#table();
    const part = table.shown.length === table.size ? `${table.size}` : `${table.shown.length} of ${table.size}`;
    setText(need("#shown"), `${part} ${table.size === 1 ? this.#shown.slice(0, -1) : this.#shown}`);
    this.#sayEmpty();
  }

  #sayEmpty(): void {
    const line = document.querySelector('[data-empty="orders"] .empty-line');
    if (line === null || this.#accounts.size === 0) return;
    const filtered = this.#orders.size > 0;
    if (this.#known.size === 0) setText(line, "Waiting for the order book");
    else setText(line, filtered ? "No order matches the filter" : "No orders yet today");
    const hint = document.querySelector('[data-empty="orders"] .empty-hint');
    if (hint !== null) setText(hint, filtered ? "Clear the filter with Escape." : this.#known.size > 0 ? "Press n to place one." : "");
  }

  #tick(): void {
    this.#grids[this.#shown].tick();
    this.#pills.draw(this.#now());
    if (this.#lostAt > 0) this.#sayLost();
  }

  #now(): number {
    return this.#stream.clock.at(Date.now());
  }

  #title(account: string): string {
    return this.#accounts.get(account)?.title ?? account;
  }

  #table(): Table<Order> | Table<Trade> | Table<Position> {
    return { orders: this.#orders, trades: this.#trades, positions: this.#positions }[this.#shown];
  }

  // --- grids ------------------------------------------------------------------------------------------

  #orderGrid(): Grid<Order> {
    const root = need("#grid-orders");
    root.addEventListener("click", (event) => this.#onAction(event));
    return new Grid<Order>(root, {
      source: this.#orders,
      template: need<HTMLTemplateElement>("#row-orders"),
      fill: (row, order) => fillOrder(row, order, this.#title(order.account)),
      tick: (row, order) => ageOrder(row, order, this.#now()),
      onSort: (sort) => this.#sort("orders", sort),
      onOpen: (order) => this.#modify(order),
      sort: NEWEST,
    });
  }

  #tradeGrid(): Grid<Trade> {
    return new Grid<Trade>(need("#grid-trades"), {
      source: this.#trades,
      template: need<HTMLTemplateElement>("#row-trades"),
      fill: (row, trade) => fillTrade(row, trade, this.#title(trade.account)),
      tick: (row, trade) => ageTrade(row, trade, this.#now()),
      onSort: (sort) => this.#sort("trades", sort),
      sort: NEWEST,
    });
  }

  #positionGrid(): Grid<Position> {
    return new Grid<Position>(need("#grid-positions"), {
      source: this.#positions,
      template: need<HTMLTemplateElement>("#row-positions"),
      fill: (row, position) => fillPosition(row, position, this.#title(position.account)),
      onSort: (sort) => this.#sort("positions", sort),
      sort: this.#sorts.positions,
    });
  }

  #sort(book: Book, sort: Sort): void {
    this.#sorts[book] = sort;
    this.#arrange();
  }

  #arrange(): void {
    this.#orders.arrange(keepOrder(this.#filter), byOrder(this.#sorts.orders));
    this.#trades.arrange(keepOther<Trade>(this.#filter), byTrade(this.#sorts.trades));
    this.#positions.arrange(keepOther<Position>(this.#filter), byPosition(this.#sorts.positions));
    this.#grids[this.#shown].draw();
    this.#count();
  }

  // --- what the user does -----------------------------------------------------------------------------

  /** Wire the controls up, each as the address says; returns the tabs. */
  #controls(): Tabs {
    const filter = need<HTMLInputElement>("#filter");
    filter.value = this.#filter.text;
    filter.addEventListener("input", () => this.#narrow({ text: filter.value }));
    filter.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      filter.value = "";
      this.#narrow({ text: "" });
      filter.blur();
    });
    for (const radio of all<HTMLInputElement>('#states [name="state"]')) {
      radio.checked = radio.value === this.#filter.state;
      radio.addEventListener("change", () => this.#narrow({ state: radio.value as StateFilter }));
    }
    const account = document.querySelector<HTMLSelectElement>("#account");
    if (account !== null) account.value = this.#filter.account;
    account?.addEventListener("change", () => this.#narrow({ account: account.value }));
    need("#refresh").addEventListener("click", () => void this.#refresh(""));
    need("#new-order").addEventListener("click", () => this.#place());
    need("#csv").addEventListener("click", () => this.#save());
    const help = need<HTMLDialogElement>("#help");
    need("#help-open").addEventListener("click", () => help.showModal());
    const tabs = new Tabs((name) => this.#showBook(name as "orders"));
    shortcuts({
      n: () => this.#place(),
      r: () => void this.#refresh(""),
      "/": () => filter.focus(),
      "?": () => help.showModal(),
      o: () => this.#withSelected((order) => location.assign(storyPath(order.account, order.row))),
      m: () => this.#withSelected((order) => this.#modify(order)),
      x: () => this.#withSelected((order) => this.#cancel(order)),
      "1": () => tabs.open(0),
      "2": () => tabs.open(1),
      "3": () => tabs.open(2),
    });
    return tabs;
  }

  /** Save the rows that are shown, in the order they are shown. */
  #save(): void {
    const text = {
      orders: () => csv(orderColumns, this.#orders.shown),
      trades: () => csv(tradeColumns, this.#trades.shown),
      positions: () => csv(positionColumns, this.#positions.shown),
    }[this.#shown]();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${this.#shown}-${new Date(this.#now()).toISOString().slice(0, 19).replaceAll(":", "")}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  #narrow(part: Partial<Filter>): void {
    this.#filter = { ...this.#filter, ...part };
    this.#arrange();
    this.#remember();
  }

  /**
   * Keep the address with what is shown. Typing makes no history to go back through, and is written once it pauses:
   * browsers refuse an address that changes at every key.
   */
  #remember(): void {
    clearTimeout(this.#remembering);
    this.#remembering = window.setTimeout(() => {
      const query = placeQuery({ book: this.#shown, filter: this.#filter });
      history.replaceState(history.state, "", `${location.pathname}${query}${location.hash}`);
    }, 150);
  }

  #showBook(name: Book): void {
    this.#shown = name;
    this.#remember();
    need("#states").classList.toggle("is-unused", name !== "orders");
    this.#grids[name].draw();
    this.#count();
  }

  #withSelected(act: (order: Order) => void): void {
    const order = this.#orders.get(this.#grids.orders.selected);
    if (order !== undefined && this.#shown === "orders") act(order);
  }

  #onAction(event: Event): void {
    const button = (event.target as Element).closest<HTMLElement>("[data-do]");
    const order = this.#orders.get(button?.closest<HTMLElement>('[role="row"]')?.dataset["key"] ?? "");
    if (button === null || order === undefined) return;
    if (button.dataset["do"] === "modify") this.#modify(order);
    else this.#cancel(order);
  }

  #place(): void {
    if (this.#accounts.size === 0) return location.assign("/accounts/new");
    this.#ticket.place(this.#filter.account);
  }

  #modify(order: Order): void {
    if (this.#says(whyFixed(order))) this.#ticket.modify(order);
  }

  #cancel(order: Order): void {
    if (!this.#says(whyFixed(order))) return;
    const filled = order.filled_quantity > 0 ? ` ${order.filled_quantity} of it are filled and stay.` : "";
    this.#ask.open({
      title: "Cancel this order?",
      text: `${sentence(order)} at ${order.price > 0 ? price(order.price) : "market"}.${filled}`,
      yes: "Cancel the order",
      no: "Keep it",
      act: async () => {
        await post("/ui/orders/cancel", { account: order.account, orderid: order.orderid });
        this.#toasts.show({ tone: "info", title: "Cancellation sent", text: sentence(order), key: keyOf(order) });
      },
    });
  }

  /** Say why something cannot be done; true when it can. */
  #says(why: string): boolean {
    if (why) this.#toasts.show({ tone: "info", title: why, key: "why" });
    return why === "";
  }

  #blocked(account: string): string {
    const feed = this.#pills.feed(account);
    if (feed?.freshness === "AUTH_REQUIRED") return `Log in to ${this.#title(account)} first: its broker session has ended.`;
    return "";
  }

  /** Without a stream a refresh shows what the server knows now, and the stream goes on from there. */
  async #fetch(accounts: readonly string[]): Promise<void> {
    for (const account of accounts) {
      this.#stream.adopt(await get<Snapshot>(`/ui/snapshot?account=${encodeURIComponent(account)}`));
    }
  }

  async #refresh(account: string): Promise<void> {
    const button = need("#refresh");
    button.classList.add("is-busy");
    try {
      const { accounts } = await post<{ accounts: string[] }>("/ui/refresh", account ? { account } : {});
      if (this.#lostAt > 0) await this.#fetch(accounts);
      this.#toasts.show({ tone: "info", title: "Reading the order book", key: "refresh" });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#toasts.show({ tone: "bad", title: "Not refreshed", text: error.message, key: "refresh" });
    } finally {
      setTimeout(() => button.classList.remove("is-busy"), 600);
    }
  }
}

