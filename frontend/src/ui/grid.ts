// A table of any length of which only the rows in sight exist; a change touches the cells of its own row.
import type { Keyed } from "../core/table.ts";
import { keyOf } from "../core/table.ts";
import type { Sort } from "../core/orders.ts";
import { all, need, setAttribute } from "./dom.ts";

export interface Source<T extends Keyed> {
  readonly shown: readonly T[];
  indexOf(key: string): number;
}

export interface GridOptions<T extends Keyed> {
  source: Source<T>;
  template: HTMLTemplateElement;
  /** Fill a row's cells; called only when the row's object has changed. */
  fill(element: HTMLElement, row: T): void;
  /** Called each second for rows in sight, to age what ages. */
  tick?(element: HTMLElement, row: T): void;
  onSort(sort: Sort): void;
  onOpen?(row: T): void;
  sort: Sort;
}

interface Line<T> {
  element: HTMLElement;
  row: T | null;
  index: number;
}

const OVERSCAN = 8;
/** Milliseconds a change stays marked; no shorter than its animation. */
const FLASH = 1400;

export class Grid<T extends Keyed> {
  readonly #root: HTMLElement;
  readonly #options: GridOptions<T>;
  readonly #canvas: HTMLElement;
  readonly #lines = new Map<string, Line<T>>();
  readonly #spare: Line<T>[] = [];
  readonly #flashed = new Map<HTMLElement, number>();
  #sort: Sort;
  #rowHeight = 0;
  #selected = "";

  constructor(root: HTMLElement, options: GridOptions<T>) {
    this.#root = root;
    this.#options = options;
    this.#sort = options.sort;
    this.#canvas = need(".grid-canvas", root);
    root.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.#measure()).observe(root);
    for (const button of all<HTMLButtonElement>("[data-sort]", root)) {
      button.addEventListener("click", () => this.#sortBy(button.dataset.sort ?? ""));
    }
    this.#canvas.addEventListener("keydown", (event) => this.#onKey(event));
    this.#canvas.addEventListener("focusin", (event) => this.#onFocus(event));
    this.#canvas.addEventListener("dblclick", (event) => this.#open(event.target));
    this.#showSort();
  }

  /** Bring what is in sight up to date; cheap when nothing changed. */
  draw(): void {
    if (this.#rowHeight === 0) this.#measure();
    if (this.#rowHeight === 0) return;
    const rows = this.#options.source.shown;
    const head = this.#canvas.offsetTop;
    const from = Math.max(0, Math.floor((this.#root.scrollTop - head) / this.#rowHeight) - OVERSCAN);
    const to = Math.min(rows.length, Math.ceil((this.#root.scrollTop + this.#root.clientHeight) / this.#rowHeight) + OVERSCAN);
    const height = `${rows.length * this.#rowHeight}px`;
    if (this.#canvas.style.height !== height) this.#canvas.style.height = height;
    setAttribute(this.#root, "aria-rowcount", String(rows.length + 1));
    this.#root.classList.toggle("is-empty", rows.length === 0);
    this.#retire(rows, from, to);
    for (let index = from; index < to; index += 1) this.#place(rows[index] as T, index);
    this.#rove(rows, from);
  }

  /** Let what ages in sight age, and let marks of changes fade that nothing animates away. */
  tick(): void {
    const faded = performance.now() - FLASH;
    for (const [element, at] of this.#flashed) {
      if (at > faded) continue;
      element.classList.remove("flash-a", "flash-b");
      this.#flashed.delete(element);
    }
    for (const line of this.#lines.values()) if (line.row !== null) this.#options.tick?.(line.element, line.row);
  }

  /** Draw attention to a row that changed, if it is in sight. */
  flash(key: string): void {
    const line = this.#lines.get(key);
    if (line === undefined) return;
    const next = line.element.classList.contains("flash-a") ? "flash-b" : "flash-a";
    line.element.classList.remove("flash-a", "flash-b");
    line.element.classList.add(next);
    this.#flashed.set(line.element, performance.now());
  }

  /** Scroll a row into sight and give it the focus. */
  reveal(key: string): void {
    const index = this.#options.source.indexOf(key);
    if (index < 0) return;
    this.#selected = key;
    this.#scrollTo(index);
    this.draw();
    this.#lines.get(key)?.element.focus({ preventScroll: true });
  }

  get selected(): string {
    return this.#selected;
  }

  #measure(): void {
    const height = Number.parseFloat(getComputedStyle(this.#root).getPropertyValue("--row-height")) || 0;
    this.#rowHeight = this.#root.clientHeight > 0 ? height : 0;
    if (this.#rowHeight > 0) {
      for (const line of this.#lines.values()) line.index = -1;
      this.draw();
    }
  }

  #retire(rows: readonly T[], from: number, to: number): void {
    const wanted = new Set<string>();
    for (let index = from; index < to; index += 1) wanted.add(keyOf(rows[index] as T));
    for (const [key, line] of this.#lines) {
      if (wanted.has(key) || line.element.contains(document.activeElement) && this.#options.source.indexOf(key) >= 0) continue;
      this.#lines.delete(key);
      line.element.hidden = true;
      line.element.classList.remove("flash-a", "flash-b");
      line.row = null;
      this.#spare.push(line);
    }
  }

  #place(row: T, index: number): void {
    const key = keyOf(row);
    let line = this.#lines.get(key);
    if (line === undefined) {
      line = this.#spare.pop() ?? this.#build();
      line.index = -1;
      line.element.hidden = false;
      line.element.dataset.key = key;
      this.#lines.set(key, line);
    }
    if (line.row !== row) {
      line.row = row;
      this.#options.fill(line.element, row);
      this.#options.tick?.(line.element, row);
    }
    if (line.index !== index) {
      line.index = index;
      line.element.style.transform = `translateY(${index * this.#rowHeight}px)`;
      line.element.setAttribute("aria-rowindex", String(index + 2));
      line.element.classList.toggle("is-odd", index % 2 === 1);
    }
  }

  #build(): Line<T> {
    const fragment = this.#options.template.content.cloneNode(true) as DocumentFragment;
    const element = need('[role="row"]', fragment);
    this.#canvas.append(element);
    return { element, row: null, index: -1 };
  }

  /** One row can be reached with Tab: the selected one, or the first in sight. */
  #rove(rows: readonly T[], from: number): void {
    const first = rows[from];
    if (!this.#lines.has(this.#selected) && first !== undefined) this.#selected = keyOf(first);
    for (const [key, line] of this.#lines) {
      line.element.tabIndex = key === this.#selected ? 0 : -1;
    }
  }

  #onFocus(event: FocusEvent): void {
    const row = (event.target as Element).closest<HTMLElement>('[role="row"]');
    if (row?.dataset.key === undefined || row.dataset.key === this.#selected) return;
    this.#selected = row.dataset.key;
    for (const [key, line] of this.#lines) line.element.tabIndex = key === this.#selected ? 0 : -1;
  }

  #onKey(event: KeyboardEvent): void {
    if (event.target !== event.currentTarget && !(event.target as Element).matches('[role="row"]')) return;
    const page = Math.max(1, Math.floor(this.#root.clientHeight / this.#rowHeight) - 2);
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: page,
      PageUp: -page,
      Home: Number.NEGATIVE_INFINITY,
      End: Number.POSITIVE_INFINITY,
    };
    const step = steps[event.key];
    if (step !== undefined) {
      event.preventDefault();
      this.#move(step);
    } else if (event.key === "Enter") this.#open(event.target);
  }

  #move(step: number): void {
    const rows = this.#options.source.shown;
    const at = this.#options.source.indexOf(this.#selected);
    const target = rows[Math.min(rows.length - 1, Math.max(0, at + step))];
    if (target !== undefined) this.reveal(keyOf(target));
  }

  #scrollTo(index: number): void {
    const head = this.#canvas.offsetTop;
    const top = index * this.#rowHeight;
    const low = this.#root.scrollTop;
    const high = low + this.#root.clientHeight - head - this.#rowHeight;
    if (top < low) this.#root.scrollTop = top;
    else if (top > high) this.#root.scrollTop = top - (high - low);
  }

  #open(target: EventTarget | null): void {
    const element = (target as Element | null)?.closest<HTMLElement>('[role="row"]');
    const line = element?.dataset.key === undefined ? undefined : this.#lines.get(element.dataset.key);
    if (line?.row != null) this.#options.onOpen?.(line.row);
  }

  #sortBy(column: string): void {
    const descending = this.#sort.column === column ? !this.#sort.descending : column === "time";
    this.#sort = { column, descending };
    this.#showSort();
    this.#options.onSort(this.#sort);
    this.#root.scrollTop = 0;
    this.draw();
  }

  #showSort(): void {
    for (const button of all("[data-sort]", this.#root)) {
      const header = button.closest('[role="columnheader"]');
      const mine = button.dataset.sort === this.#sort.column;
      const order = mine ? (this.#sort.descending ? "descending" : "ascending") : "none";
      header?.setAttribute("aria-sort", order);
    }
  }
}
