// Plots (uPlot): a figure names its data, given in the page or fetched; colours follow the theme, sizes the window.
import uPlot from "uplot";
import { all, make, need } from "./dom.ts";
import { get } from "./http.ts";

/** What a plot shows. `time` is in seconds since the epoch; a missing value is null. */
export interface Plot {
  time: number[];
  series: { label: string; values: (number | null)[]; tone?: string }[];
  unit?: string;
}

const TONES = ["--color-primary", "--color-accent", "--color-warning", "--color-success", "--color-error", "--color-secondary"];
const NAMED: Record<string, string> = { good: "--color-success", bad: "--color-error", wait: "--color-warning", work: "--color-info", calm: "--dim" };
const HEIGHT = 220;

export function charts(): void {
  document.addEventListener("htmx:load", (event) => begin(event.target as HTMLElement));
  begin(document.body);
}

function begin(root: HTMLElement): void {
  for (const figure of all("figure.chart:not([data-drawn])", root)) {
    figure.dataset["drawn"] = "";
    void new Chart(figure).start();
  }
}

class Chart {
  readonly #figure: HTMLElement;
  readonly #place: HTMLElement;
  #plot: uPlot | null = null;
  #shape = "";
  #data: Plot | null = null;

  constructor(figure: HTMLElement) {
    this.#figure = figure;
    this.#place = need(".chart-plot", figure);
  }

  async start(): Promise<void> {
    const given = this.#figure.querySelector('script[type="application/json"]');
    if (given !== null) this.show(JSON.parse(given.textContent ?? "") as Plot);
    new ResizeObserver(() => this.#plot?.setSize({ width: this.#place.clientWidth, height: HEIGHT })).observe(this.#place);
    new MutationObserver(() => this.#redraw()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    if (this.#figure.dataset["source"]) await this.#fetch();
  }

  show(data: Plot): void {
    this.#data = data;
    this.#figure.classList.toggle("is-empty", data.time.length === 0);
    this.#tell(data);
    const shape = data.series.map((one) => one.label).join("\n");
    const columns = [data.time, ...data.series.map((one) => one.values)] as uPlot.AlignedData;
    if (this.#plot !== null && shape === this.#shape) return this.#plot.setData(columns);
    this.#shape = shape;
    this.#plot?.destroy();
    this.#plot = new uPlot(this.#options(data), columns, this.#place);
  }

  async #fetch(): Promise<void> {
    if (!this.#figure.isConnected) return; // swapped out of the page
    const every = Number(this.#figure.dataset["every"]) * 1000;
    if (!document.hidden) {
      try {
        this.show(await get<Plot>(this.#figure.dataset["source"] ?? ""));
        this.#figure.classList.remove("is-old");
      } catch {
        this.#figure.classList.add("is-old");
      }
    }
    if (every > 0) setTimeout(() => void this.#fetch(), every);
  }

  #redraw(): void {
    if (this.#data === null) return;
    this.#shape = "";
    this.show(this.#data);
  }

  /** The last values in words, for people who do not see the plot. */
  #tell(data: Plot): void {
    const title = this.#figure.querySelector("figcaption")?.textContent ?? "";
    const unit = this.#unit(data);
    const last = data.series.map((one) => `${one.label} ${one.values.at(-1) ?? "none"}${unit}`).join(", ");
    this.#place.setAttribute("aria-label", data.time.length === 0 ? `${title}: no data yet` : `${title}: now ${last}`);
  }

  #unit(data: Plot): string {
    const unit = data.unit ?? this.#figure.dataset["unit"] ?? "";
    return unit ? ` ${unit}` : "";
  }

  #options(data: Plot): uPlot.Options {
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string): string => paint(style.getPropertyValue(name));
    const unit = this.#unit(data);
    const axis = { stroke: colour("--color-base-content"), font: "11px Inter Variable, sans-serif", grid: { stroke: colour("--color-base-300"), width: 1 }, ticks: { show: false } };
    return {
      width: this.#place.clientWidth,
      height: HEIGHT,
      cursor: { y: false, points: { size: 6 } },
      legend: { live: true },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Asia/Kolkata"),
      axes: [
        { ...axis, space: 64, values: [[3600, "{HH}:{mm}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
        { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => `${tick}${unit}`) },
      ],
      series: [
        { label: "Time", value: "{HH}:{mm}:{ss}" },
        ...data.series.map((one, index) => ({
          label: one.label,
          stroke: colour(NAMED[one.tone ?? ""] ?? TONES[index % TONES.length] ?? ""),
          width: 1.75,
          dash: index > 0 && index % 2 === 1 ? [6, 3] : [], // told apart without colour, too
          points: { show: data.time.length < 2 },
          value: (_: uPlot, value: number | null) => (value === null ? "–" : `${value}${unit}`),
        })),
      ],
    };
  }
}

/** A canvas takes fewer colour notations than a style sheet: let the browser translate. */
function paint(colour: string): string {
  const probe = make("span");
  probe.style.color = colour.trim();
  document.body.append(probe);
  const said = getComputedStyle(probe).color;
  probe.remove();
  return said;
}
