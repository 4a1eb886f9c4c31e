// <etude-curves run="NAME">: the curves of a run, drawn anew as it trains.
//
// The server has drawn them as SVG, with tables; here they become charts that follow. Where reading
// has been left is the server's position in metrics.jsonl, so that after a reload, or when the
// server was away, no point is missing and none comes twice.

import uPlot from "uplot";
import { follow } from "./events";

type Value = number | null;
type Points = Map<number, Value>;
interface Series {
  cursor: string;
  points: Record<string, { steps: number[]; values: Value[] }>;
  step: number;
  total_steps: number | null;
}
interface Portion {
  records: Record<string, unknown>[];
  anew: boolean;
}

const TITLES: Record<string, [string, string]> = {
  loss: ["Training loss", ""],
  lr: ["Learning rate", ""],
  grad_norm: ["Gradient norm", "before clipping"],
  tokens_per_s: ["Speed", "tokens a second"],
  rss: ["Memory", "GB of the process"],
  peak_gpu_memory: ["GPU memory", "GB, its peak so far"],
};
const NOT_DRAWN = new Set(["step", "total_steps", "epoch", "tokens", "trained_tokens", "seconds"]);
const BYTES = new Set(["rss", "peak_gpu_memory"]);
/** Points of a line in this page; older ones are thinned by the server at the next reload. */
const MOST = 6000;
const HEIGHT = 200;
const RECENT = 20;

class Curves extends HTMLElement {
  #points = new Map<string, Points>();
  #charts = new Map<string, { plot: uPlot; keys: string[]; value: HTMLElement; host: HTMLElement }>();
  #recent: { step: number; seconds: number }[] = [];
  #step = 0;
  /** Losses that came, each of which is to be drawn once. */
  #received = 0;
  #total: number | null = null;
  #end: (() => void) | null = null;
  #drawing = 0;
  #resized = new ResizeObserver(() => this.#resize());

  async connectedCallback(): Promise<void> {
    const run = this.getAttribute("run");
    if (!run) return;
    let series: Series;
    try {
      const answer = await fetch(`/lab/runs/${encodeURIComponent(run)}/series`);
      if (!answer.ok) return;
      series = (await answer.json()) as Series;
    } catch {
      return; // what the server drew stays
    }
    if (!this.isConnected) return;
    for (const [name, { steps, values }] of Object.entries(series.points)) {
      this.#points.set(name, new Map(steps.map((step, i) => [step, values[i] ?? null])));
    }
    this.#received = series.points.loss?.steps.length ?? 0;
    this.#step = series.step;
    this.#total = series.total_steps;
    this.#draw();
    this.#end = follow(`run/${run}`, series.cursor, {
      step: (data) => this.#add(data as Portion),
    });
    this.#resized.observe(this);
  }

  disconnectedCallback(): void {
    this.#end?.();
    this.#resized.disconnect();
    for (const { plot } of this.#charts.values()) plot.destroy();
    this.#charts.clear();
  }

  #add({ records, anew }: Portion): void {
    if (anew) {
      this.#points.clear();
      this.#recent = [];
      this.#received = 0;
      this.#step = 0;
    }
    for (const record of records) {
      const step = Number(record.step);
      if ("loss" in record) this.#received += 1;
      for (const [name, value] of Object.entries(record)) {
        if (NOT_DRAWN.has(name) || !(value === null || typeof value === "number")) continue;
        let points = this.#points.get(name);
        if (!points) this.#points.set(name, (points = new Map()));
        points.set(step, value);
        if (points.size > MOST) points.delete(points.keys().next().value as number);
      }
      if (typeof record.seconds === "number") {
        this.#recent.push({ step, seconds: record.seconds });
        if (this.#recent.length > RECENT + 1) this.#recent.shift();
      }
      if (typeof record.total_steps === "number") this.#total = record.total_steps;
      this.#step = Math.max(this.#step, step);
    }
    this.#drawing ||= requestAnimationFrame(() => {
      this.#drawing = 0;
      this.#draw();
    });
  }

  #draw(): void {
    const names = [...this.#points.keys()].filter((name) => name !== "eval_loss");
    const order = Object.keys(TITLES);
    const rank = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length);
    for (const name of names.sort((a, b) => rank(a) - rank(b))) {
      const keys = name === "loss" && this.#points.has("eval_loss") ? ["loss", "eval_loss"] : [name];
      const data = this.#table(keys);
      let chart = this.#charts.get(name);
      if (chart && chart.keys.length !== keys.length) {
        chart.plot.destroy();
        chart.host.replaceChildren();
        chart = undefined;
      }
      if (chart) chart.plot.setData(data);
      else chart = this.#chart(name, keys, data);
      const line = (data[1] ?? []) as Value[];
      const last = line.filter((value) => value !== null).at(-1);
      chart.value.textContent = last === undefined || last === null ? "" : written(last);
    }
    this.dataset.steps = String(this.#points.get("loss")?.size ?? 0);
    this.dataset.received = String(this.#received);
    const progress = this.querySelector('[data-part="progress"]');
    if (progress && this.#step) progress.textContent = this.#progress();
  }

  #progress(): string {
    const of = this.#total ? ` of ${this.#total.toLocaleString("en")}` : "";
    const first = this.#recent[0];
    const last = this.#recent.at(-1);
    let left = "";
    if (this.#total && first && last && last.step > first.step) {
      const seconds =
        ((this.#total - last.step) * (last.seconds - first.seconds)) / (last.step - first.step);
      if (seconds > 0) left = `, ${duration(seconds)} left`;
    }
    return `Step ${this.#step.toLocaleString("en")}${of}${left}.`;
  }

  /** Steps, and a row of values for each key. */
  #table(keys: string[]): uPlot.AlignedData {
    const lines = keys.map((key) => this.#points.get(key) ?? new Map<number, Value>());
    const steps = [...new Set(lines.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
    const scaled = (key: string, value: Value | undefined) =>
      value == null ? null : BYTES.has(key) ? value / 1e9 : value;
    return [
      steps,
      ...keys.map((key, i) => steps.map((step) => scaled(key, lines[i]?.get(step)))),
    ] as uPlot.AlignedData;
  }

  #chart(name: string, keys: string[], data: uPlot.AlignedData) {
    const figure = this.#figure(name);
    const host = figure.querySelector(".plot") as HTMLElement;
    host.replaceChildren();
    const readout = document.createElement("p");
    readout.className = "readout";
    const style = getComputedStyle(this);
    const colour = (variable: string) => style.getPropertyValue(variable).trim();
    const axis = {
      stroke: () => getComputedStyle(this).getPropertyValue("--muted").trim(),
      grid: { stroke: () => getComputedStyle(this).getPropertyValue("--grid").trim(), width: 1 },
      ticks: { show: false },
      font: "12px sans-serif",
    };
    const plot = new uPlot(
      {
        width: Math.max(200, host.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { drag: { x: false, y: false } },
        scales: { x: { time: false } },
        axes: [
          { ...axis, space: 60, size: 28 },
          { ...axis, size: 58, values: (_, ticks) => ticks.map(written) },
        ],
        series: [
          {},
          ...keys.map((_, i) => ({
            stroke: colour(i === 0 ? "--blue" : "--orange"),
            width: 1.75,
            spanGaps: true,
            points: { show: i > 0 || (data[0]?.length ?? 0) < 3, size: 6 },
          })),
        ],
        hooks: {
          setCursor: [
            (chart: uPlot) => {
              readout.textContent = said(chart, keys);
            },
          ],
        },
      },
      data,
      host,
    );
    host.append(readout);
    // The readout follows the arrow keys as it does the pointer.
    host.tabIndex = 0;
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", `${TITLES[name]?.[0] ?? name}: arrow keys read single steps`);
    readout.setAttribute("aria-live", "polite");
    host.onkeydown = (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const steps = plot.data[0];
      if (!move || !steps.length) return;
      event.preventDefault();
      const at = plot.cursor.idx ?? (move > 0 ? -1 : steps.length);
      const next = Math.min(steps.length - 1, Math.max(0, at + move));
      plot.setCursor({ left: plot.valToPos(steps[next] as number, "x"), top: HEIGHT / 2 });
    };
    const chart = { plot, keys, value: figure.querySelector(".value") as HTMLElement, host };
    this.#charts.set(name, chart);
    return chart;
  }

  #figure(name: string): HTMLElement {
    const there = this.querySelector<HTMLElement>(`figure[data-name="${CSS.escape(name)}"]`);
    if (there) return there;
    const figure = document.createElement("figure");
    figure.className = "curve";
    figure.dataset.name = name;
    const [title, unit] = TITLES[name] ?? [name.replaceAll("_", " "), ""];
    const caption = document.createElement("figcaption");
    const strong = document.createElement("strong");
    strong.textContent = title;
    const quiet = document.createElement("span");
    quiet.className = "quiet";
    quiet.textContent = ` ${unit} `;
    const value = document.createElement("span");
    value.className = "value";
    caption.append(strong, quiet, value);
    const plot = document.createElement("div");
    plot.className = "plot";
    figure.append(caption, plot);
    this.querySelector(".charts")?.append(figure);
    return figure;
  }

  #resize(): void {
    for (const { plot, host } of this.#charts.values()) {
      const width = Math.max(200, host.clientWidth);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}

function said(chart: uPlot, keys: string[]): string {
  const at = chart.cursor.idx;
  if (at === null || at === undefined) return "";
  const values = keys.flatMap((key, i) => {
    const value = chart.data[i + 1]?.[at];
    return value == null ? [] : [keys.length > 1 ? `${key} ${written(value)}` : written(value)];
  });
  return `step ${chart.data[0][at]}: ${values.join(", ")}`;
}

function written(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

customElements.define("etude-curves", Curves);
