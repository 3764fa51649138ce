// Many curves on one canvas. uPlot keeps axes, zoom and cursor; the lines are drawn here, each with places of its own.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { colour, el, perFrame } from "./dom.js";
import { show, short } from "./format.js";

const NEAR = 24; // px from the cursor to a curve that is meant
const charts = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((c) => c.redraw()));

export class Chart {
  /**
   * A line is {key, label, colour: name of a CSS colour, dash, x, y, faint: {low, high} | {y}}; y may hold null.
   * @param options {height, log, xLabel, metric: key that says how values are written, over(key | null), floor}
   */
  constructor(label, options = {}) {
    this.options = { height: 340, ...options };
    this.lines = [];
    this.hidden = new Set();
    this.strong = null; // key of the line that is pointed at
    this.tip = el("div", { class: "tip hidden" });
    this.node = el("div", { class: "chart", role: "img", "aria-label": label, style: { height: `${this.options.height}px` } }, this.tip);
    this.redraw = perFrame(() => this.plot?.redraw(false));
    this.watch = new ResizeObserver(perFrame(() => this.fit()));
    this.watch.observe(this.node);
    charts.add(this);
  }

  close() {
    charts.delete(this);
    this.watch.disconnect();
    this.plot?.destroy();
    this.plot = null;
  }

  fit() {
    const width = this.node.clientWidth;
    if (!width) return;
    if (this.plot) this.plot.setSize({ width, height: this.options.height });
    else if (this.lines.length) this.make();
  }

  set(lines, changes = {}) {
    const anew = "log" in changes && changes.log !== this.options.log;
    Object.assign(this.options, changes);
    this.lines = lines;
    this.spans = lines.map((l) => [l.x[0], l.x.at(-1)]);
    if (anew) {
      this.plot?.destroy();
      this.plot = null;
    }
    if (!this.plot) this.fit();
    else {
      const { min, max } = this.plot.scales.x;
      const zoomed = this.whole && (min > this.whole[0] || max < this.whole[1]);
      this.whole = this.across();
      const [x, y] = [this.whole, [1, 1]];
      this.plot.batch(() => {
        this.plot.setData([x, y], !zoomed);
        if (zoomed) this.plot.setScale("x", { min, max });
      });
      this.redraw();
    }
  }

  seen() {
    return this.lines.filter((l) => !this.hidden.has(l.key));
  }

  across() {
    const there = this.lines.filter((l) => l.x.length);
    const low = Math.min(...there.map((l) => l.x[0]));
    const high = Math.max(...there.map((l) => l.x.at(-1)));
    return Number.isFinite(low) ? [low, high > low ? high : low + 1] : [0, 1];
  }

  /** Range of the values in sight. */
  up(plot) {
    const { min, max } = plot.scales.x;
    const { log } = this.options;
    let low = Infinity;
    let high = -Infinity;
    const take = (v) => {
      if (v === null || (log && v <= 0)) return;
      if (v < low) low = v;
      if (v > high) high = v;
    };
    for (const line of this.seen()) {
      const faint = line.faint?.y ?? line.y;
      for (let i = 0; i < line.x.length; i++) {
        if (min !== null && (line.x[i] < min || line.x[i] > max)) continue;
        take(line.y[i]);
        take(faint[i]);
      }
    }
    if (!Number.isFinite(low)) return log ? [0.1, 1] : [0, 1];
    if (log) return uPlot.rangeLog(low, high, 10, false);
    if (this.options.floor !== undefined) return [this.options.floor, high > this.options.floor ? high * 1.05 : this.options.floor + 1];
    const span = high - low || Math.abs(low) * 0.2 || (show(this.options.metric ?? "", 0).endsWith("%") ? 0.1 : 1);
    // Loss, norms and rates do not fall below 0, so neither does their axis.
    return [low >= 0 ? Math.max(0, low - 0.06 * span) : low - 0.06 * span, Math.max(high, low + span) + 0.06 * span];
  }

  make() {
    const text = () => colour("dim");
    const grid = { stroke: () => colour("line"), width: 1 };
    const font = "12px system-ui, sans-serif";
    this.whole = this.across();
    const metric = this.options.metric ?? "";
    const write = (u, values) => values.map((v) => (v === null ? "" : metric ? show(metric, v).replace(/\.0 %$/, " %") : short(v)));
    this.plot = new uPlot({
      width: this.node.clientWidth, height: this.options.height, legend: { show: false },
      cursor: { points: { show: false }, drag: { x: true, y: false }, y: false },
      scales: { x: { time: false, range: (u, low, high) => [low, high] }, y: { distr: this.options.log ? 3 : 1, range: (u) => this.up(u) } },
      axes: [
        { stroke: text, grid, ticks: grid, font, label: this.options.xLabel ?? "", labelFont: font, labelSize: 20, size: 34,
          values: (u, values) => values.map((v) => short(v)) },
        { stroke: text, grid, ticks: grid, font, size: 62, values: write },
      ],
      series: [{}, { paths: () => null, points: { show: false } }],
      hooks: { draw: [(u) => this.draw(u)], setCursor: [(u) => this.point(u)] },
    }, [this.whole, [1, 1]], this.node);
    this.plot.over.addEventListener("mouseleave", () => this.over(null));
  }

  draw(u) {
    const { ctx } = u;
    const box = u.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.left, box.top, box.width, box.height);
    ctx.clip();
    ctx.lineJoin = "round";
    const ratio = devicePixelRatio;
    const seen = this.seen();
    const many = seen.length > 60;
    for (const faint of [true, false]) {
      for (const line of seen) {
        if (faint && !line.faint) continue;
        const strong = this.strong === line.key;
        ctx.strokeStyle = ctx.fillStyle = colour(line.colour);
        ctx.setLineDash(line.dash ? line.dash.map((d) => d * ratio) : []);
        ctx.lineWidth = (strong ? 3 : many ? 1 : 1.7) * ratio;
        const dimmed = this.strong !== null && !strong;
        if (faint) {
          ctx.globalAlpha = dimmed ? 0.05 : 0.22;
          if (line.faint.low) this.band(u, line);
          else this.path(u, line.x, line.faint.y);
        } else {
          ctx.globalAlpha = dimmed ? 0.25 : many ? 0.7 : 1;
          this.path(u, line.x, line.y);
        }
      }
    }
    const line = seen.find((l) => l.key === this.strong);
    if (line) {
      ctx.globalAlpha = 1;
      ctx.setLineDash([]);
      ctx.strokeStyle = colour(line.colour);
      ctx.lineWidth = 3 * ratio;
      this.path(u, line.x, line.y);
    }
    ctx.restore();
  }

  path(u, xs, ys) {
    const { ctx } = u;
    const { log } = this.options;
    ctx.beginPath();
    let down = false;
    let last = 0;
    for (let i = 0; i < xs.length; i++) {
      if (ys[i] === null || (log && ys[i] <= 0)) {
        down = false;
        continue;
      }
      const x = u.valToPos(xs[i], "x", true);
      const y = u.valToPos(ys[i], "y", true);
      if (down) ctx.lineTo(x, y);
      else {
        ctx.moveTo(x, y);
        last = i;
      }
      down = true;
      // A point without neighbours would not be seen.
      if (last === i && (i + 1 === xs.length || ys[i + 1] === null)) ctx.lineTo(x + 3 * devicePixelRatio, y);
    }
    ctx.stroke();
  }

  band(u, { x, faint: { low, high } }) {
    const { ctx } = u;
    const { log } = this.options;
    ctx.beginPath();
    const there = x.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null && (!log || low[i] > 0));
    for (const i of there) ctx.lineTo(u.valToPos(x[i], "x", true), u.valToPos(high[i], "y", true));
    for (const i of there.reverse()) ctx.lineTo(u.valToPos(x[i], "x", true), u.valToPos(low[i], "y", true));
    ctx.closePath();
    ctx.fill();
  }

  /** The curve nearest to the cursor. */
  point(u) {
    const { left, top } = u.cursor;
    if (left < 0) return this.over(null);
    const x = u.posToVal(left, "x");
    let best = null;
    for (const line of this.seen()) {
      const i = nearest(line.x, x);
      if (i < 0 || line.y[i] === null || (this.options.log && line.y[i] <= 0)) continue;
      const far = Math.hypot((u.valToPos(line.x[i], "x") - left) / 3, u.valToPos(line.y[i], "y") - top);
      if (far < NEAR && (!best || far < best.far)) best = { far, line, i };
    }
    this.over(best);
  }

  over(best) {
    const key = best?.line.key ?? null;
    if (key !== this.strong) {
      this.strong = key;
      this.redraw();
      this.options.over?.(key);
    }
    this.tip.classList.toggle("hidden", !best);
    if (!best) return;
    const { line, i } = best;
    const value = this.options.metric ? show(this.options.metric, line.y[i]) : short(line.y[i]);
    this.tip.replaceChildren(el("b", {}, value), ` at ${short(line.x[i])}`, el("br"), line.label);
    const left = this.plot.valToPos(line.x[i], "x") + this.plot.over.offsetLeft;
    const top = this.plot.valToPos(line.y[i], "y") + this.plot.over.offsetTop;
    const right = left > this.node.clientWidth / 2;
    this.tip.style.left = right ? "" : `${left + 12}px`;
    this.tip.style.right = right ? `${this.node.clientWidth - left + 12}px` : "";
    this.tip.style.top = `${Math.max(0, top - 18)}px`;
  }

  /** Points at a line from elsewhere (its name in a list). */
  mark(key) {
    this.strong = key;
    this.redraw();
  }

  toggle(key) {
    if (this.hidden.has(key)) this.hidden.delete(key);
    else this.hidden.add(key);
    this.plot?.batch(() => this.plot.setScale("x", { min: this.plot.scales.x.min, max: this.plot.scales.x.max }));
    this.redraw();
  }
}

function nearest(xs, x) {
  let low = 0;
  let high = xs.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle;
    else high = middle;
  }
  return x - xs[low] < xs[high] - x ? low : high;
}
