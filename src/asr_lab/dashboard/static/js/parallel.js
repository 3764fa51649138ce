// Parallel coordinates: an axis for each factor and for what came of it, a line for each run; ranges that are brushed
// on an axis filter all other views too.

import { numbers, words } from "./axes.js";
import { colour, el, fill, perFrame } from "./dom.js";
import { label, nameOf, order, show } from "./format.js";

const TOP = 40;
const BOTTOM = 30;
const STEP = 0.05; // of an axis, by an arrow key
// From the worst to the best score: cividis (Nunez, Anderton & Renslow 2018), even in grey and to colour-blind readers.
const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 182, 102], [254, 232, 56]];

export class Parallel {
  constructor(filter, go) {
    Object.assign(this, { filter, go, ranges: filter.ranges, axes: [] });
    this.canvas = el("canvas", { role: "img", "aria-label": "Parallel coordinates of the runs" });
    this.over = el("div");
    this.tip = el("div", { class: "tip hidden" });
    this.inner = el("div", { class: "inner" }, this.canvas, this.over, this.tip);
    this.box = el("div", { class: "parallel" }, this.inner);
    this.node = el("section", { class: "card" },
      el("p", { class: "small dim" }, "Drag along an axis to keep a range, click on it to let go; or Tab to an axis: arrows move the range, + and − make it wider or narrower, Escape lets go. Bright lines: the best scores."),
      this.box);
    this.redraw = perFrame(() => this.draw());
    this.watch = new ResizeObserver(() => this.place());
    this.watch.observe(this.inner);
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => this.mark(null));
    this.canvas.addEventListener("click", () => this.strong && this.go(this.strong));
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", this.redraw);
  }

  close() {
    this.watch.disconnect();
    this.dark.removeEventListener("change", this.redraw);
  }

  set(view, cells) {
    this.view = view;
    this.cells = cells;
    this.all = view.cells;
    const factors = [...view.factors, ...(new Set(view.cells.map((c) => c.factors.seed)).size > 1 ? ["seed"] : [])];
    this.axes = factors.map((f) => words(f, f, view.cells.map((c) => c.factors[f] ?? ""), (c) => c.factors[f] ?? ""));
    for (const key of ["train/clipped", "parameters", "seconds"].filter((k) => view.columns.includes(k))) {
      const one = numbers(key, nameOf(key), view.cells.map((c) => c.numbers[key]), (c) => c.numbers[key], (v) => show(key, v));
      if (one) this.axes.push(one);
    }
    const score = numbers("score", view.score.toUpperCase(), view.cells.map((c) => c.score), (c) => c.score, (v) => show(view.score, v));
    if (score) this.axes.push(score);
    this.score = score;
    this.place();
  }

  place() {
    this.inner.style.minWidth = `${90 * this.axes.length}px`;
    const width = this.inner.clientWidth;
    const height = this.inner.clientHeight;
    if (!width || !this.axes.length) return;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    const side = Math.min(70, width / 8);
    this.axes.forEach((a, i) => { a.x = this.axes.length < 2 ? width / 2 : side + (i * (width - 2 * side)) / (this.axes.length - 1); });
    this.apart = this.axes.length < 2 ? 200 : this.axes[1].x - this.axes[0].x - 10;
    const text = this.axes.map((a) => a.key).join() + width;
    if (text !== this.placed) {
      this.placed = text;
      fill(this.over, this.axes.map((a) => this.handle(a)));
    }
    for (const a of this.axes) this.brushed(a);
    this.redraw();
  }

  handle(a) {
    const brush = el("div", { class: "brush hidden" });
    const node = el("div", { class: "axis", role: "slider", tabindex: 0, "aria-orientation": "vertical", "aria-label": `range of ${a.name}`,
      "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 50, dataset: { axis: a.key }, style: { left: `${a.x}px` } }, brush);
    let from = null;
    const at = (event) => {
      const { top, height } = node.getBoundingClientRect();
      return Math.min(1, Math.max(0, 1 - (event.clientY - top) / height));
    };
    node.addEventListener("pointerdown", (event) => {
      from = at(event);
      node.setPointerCapture(event.pointerId);
    });
    node.addEventListener("pointermove", (event) => {
      if (from !== null) this.range(a.key, Math.min(from, at(event)), Math.max(from, at(event)));
    });
    node.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(at(event) - from) < 0.015) this.range(a.key, null);
      from = null;
    });
    node.addEventListener("keydown", (event) => {
      const [low, high] = this.ranges.get(a.key) ?? [0, 1];
      const moves = { ArrowUp: [STEP, STEP], ArrowDown: [-STEP, -STEP], "+": [-STEP, STEP], "=": [-STEP, STEP], "-": [STEP, -STEP] };
      if (event.key === "Escape") this.range(a.key, null);
      else if (moves[event.key]) {
        let [d, e] = moves[event.key];
        if (low === 0 && high === 1 && d === e) [d, e] = d > 0 ? [0.5, 0] : [0, -0.5];
        const next = [Math.min(0.97, Math.max(0, low + d)), Math.max(0.03, Math.min(1, high + e))];
        if (next[1] - next[0] > 0.01) this.range(a.key, ...next);
      } else return;
      event.preventDefault();
    });
    return [el("span", { class: "axis-name", title: a.name, style: { left: `${a.x}px`, "max-width": `${this.apart}px` } }, a.name), node];
  }

  range(key, low, high) {
    if (low === null || (low <= 0 && high >= 1)) {
      this.ranges.delete(key);
      this.filter.brushes.delete(key);
    } else {
      this.ranges.set(key, [low, high]);
      this.filter.brushes.set(key, (cell) => {
        const up = this.axes.find((a) => a.key === key)?.of(cell);
        return up !== null && up >= low - 1e-9 && up <= high + 1e-9;
      });
    }
    this.filter.changed();
  }

  brushed(a) {
    const node = this.over.querySelector(`[data-axis="${CSS.escape(a.key)}"]`);
    const range = this.ranges.get(a.key);
    if (!node) return;
    const brush = node.firstChild;
    brush.classList.toggle("hidden", !range);
    node.setAttribute("aria-valuetext", range ? `${Math.round(100 * range[0])} to ${Math.round(100 * range[1])} % of the axis` : "all");
    if (range) {
      brush.style.bottom = `${100 * range[0]}%`;
      brush.style.height = `${100 * (range[1] - range[0])}%`;
    }
  }

  points(cell) {
    const height = this.inner.clientHeight - TOP - BOTTOM;
    return this.axes.map((a) => {
      const up = a.of(cell);
      return up === null ? null : [a.x, TOP + (1 - up) * height];
    });
  }

  draw() {
    const ctx = this.canvas.getContext("2d");
    const ratio = devicePixelRatio;
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const passes = new Set(this.cells.map((c) => c.name));
    const lines = this.all.map((cell) => ({ cell, on: passes.has(cell.name), points: this.points(cell) }));
    ctx.lineWidth = 1;
    ctx.strokeStyle = colour("line");
    ctx.globalAlpha = 0.5;
    for (const line of lines) if (!line.on) trace(ctx, line.points);
    const many = lines.length > 150;
    this.lines = lines.filter((l) => l.on);
    // The best are drawn last.
    for (const line of this.lines.toSorted((a, b) => -order(a.cell.score, b.cell.score))) {
      ctx.globalAlpha = many ? 0.55 : 0.85;
      ctx.lineWidth = many ? 1.1 : 1.8;
      ctx.strokeStyle = this.ramp(line.cell);
      trace(ctx, line.points);
    }
    ctx.globalAlpha = 1;
    const strong = this.lines.find((l) => l.cell === this.strong);
    if (strong) {
      ctx.lineWidth = 3.5;
      ctx.strokeStyle = colour("c1");
      trace(ctx, strong.points);
    }
    this.scales(ctx);
  }

  scales(ctx) {
    const bottom = this.inner.clientHeight - BOTTOM;
    ctx.font = "12px system-ui, sans-serif";
    ctx.textAlign = "center";
    ctx.lineWidth = 1.5;
    for (const a of this.axes) {
      ctx.strokeStyle = colour("dim");
      trace(ctx, [[a.x, TOP], [a.x, bottom]]);
      let last = Infinity;
      for (const [up, text] of a.ticks) {
        const y = TOP + (1 - up) * (bottom - TOP);
        trace(ctx, [[a.x - 4, y], [a.x + 4, y]]);
        if (last - y < 15) continue;
        last = y;
        const short = text.length > 16 ? `${text.slice(0, 15)}…` : text;
        const width = ctx.measureText(short).width + 6;
        ctx.fillStyle = colour("card");
        ctx.globalAlpha = 0.82;
        ctx.fillRect(a.x - width / 2, y - 8, width, 16);
        ctx.globalAlpha = 1;
        ctx.fillStyle = colour("text");
        ctx.fillText(short, a.x, y + 4);
      }
    }
  }

  ramp(cell) {
    const up = this.score?.of(cell) ?? null;
    if (up === null) return colour("planned");
    const place = Math.min(1, Math.max(0, 1 - up)) * (RAMP.length - 1);
    const i = Math.min(RAMP.length - 2, Math.floor(place));
    const mix = RAMP[i].map((v, k) => Math.round(v + (place - i) * (RAMP[i + 1][k] - v)));
    if (this.dark.matches) return `rgb(${mix.map((v) => Math.min(255, 60 + 0.8 * v)).join(" ")})`;
    return `rgb(${mix.map((v) => Math.round(0.92 * v)).join(" ")})`;
  }

  point(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    let best = null;
    for (const line of this.lines ?? []) {
      for (let i = 1; i < line.points.length; i++) {
        const [p, q] = [line.points[i - 1], line.points[i]];
        if (!p || !q || x < p[0] || x > q[0]) continue;
        const far = Math.abs(p[1] + ((x - p[0]) / (q[0] - p[0])) * (q[1] - p[1]) - y);
        if (far < 8 && (!best || far < best.far)) best = { far, line };
      }
    }
    this.mark(best?.line.cell ?? null, x, y);
  }

  mark(cell, x, y) {
    if (cell !== this.strong) {
      this.strong = cell;
      this.redraw();
    }
    this.canvas.style.cursor = cell ? "pointer" : "";
    this.tip.classList.toggle("hidden", !cell);
    if (!cell) return;
    fill(this.tip, el("b", {}, show(cell.metric, cell.score)), ` ${cell.state}`, el("br"), label(cell, this.view.factors));
    this.tip.style.left = `${Math.min(x + 14, this.inner.clientWidth - 180)}px`;
    this.tip.style.top = `${y + 14}px`;
  }
}

function trace(ctx, points) {
  ctx.beginPath();
  let down = false;
  for (const p of points) {
    if (p === null) down = false;
    else if (down) ctx.lineTo(...p);
    else {
      ctx.moveTo(...p);
      down = true;
    }
  }
  ctx.stroke();
}
