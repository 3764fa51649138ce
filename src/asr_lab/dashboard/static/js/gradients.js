// The gradients of a run: norms before and after clipping, the share of clipped steps, layers over time, findings.

import { follow, path } from "./api.js";
import { Chart } from "./chart.js";
import { choice, colour, el, fill } from "./dom.js";
import { NOTHING, count, short, show } from "./format.js";
import { lineOf } from "./lines.js";
import { notes } from "./states.js";

const ROW = 20; // px of a layer
// Cividis (Nunez, Anderton & Renslow 2018): even in grey and to colour-blind readers.
const RAMP = [[0, 34, 78], [38, 59, 109], [87, 92, 109], [124, 123, 120], [166, 156, 117], [210, 193, 95], [254, 232, 56]];
const WHAT = [["norms", "gradient norm of each layer"], ["ratios", "step over weights of each layer"]];

export class Gradients {
  constructor(experiment, run) {
    this.notes = el("div");
    this.facts = el("div", { class: "big" });
    this.norms = new Chart("Gradient norm before and after clipping", { height: 300, log: true, xLabel: "step" });
    this.clipped = new Chart("Share of clipped steps", { height: 170, metric: "clipped", xLabel: "step", floor: 0 });
    this.heat = new Heat();
    this.findings = el("div");
    this.pictures = el("div", {},
      el("section", { class: "card" }, el("h2", {}, "Global norm"), this.facts,
        el("p", { class: "small dim" }, swatch("c1"), " before clipping ", swatch("c0"), " after; shaded: the range of steps drawn as one point"), this.norms.node),
      el("section", { class: "card" }, el("h2", {}, "Steps that were clipped"), this.clipped.node),
      this.layers = el("section", { class: "card" }, el("h2", {}, "Layers"), this.heat.node));
    this.node = el("div", {}, this.notes, this.pictures, el("section", { class: "card" }, el("h2", {}, "What the detectors found"), this.findings));
    this.stop = follow(`${path(experiment, run)}/gradients`, (value) => this.take(value), (error) => fill(this.notes, notes([error.message])), 5000);
  }

  close() {
    this.stop();
    this.norms.close();
    this.clipped.close();
    this.heat.close();
  }

  take(value) {
    fill(this.notes, notes(value.notes));
    this.pictures.classList.toggle("hidden", !value.record);
    if (value.record) this.record(value.record);
    fill(this.findings,
      value.incidents.map((i) => el("p", {}, el("span", { class: "tag" }, `step ${i.step}`), " ", el("b", {}, i.verdict))),
      value.findings.length ? el("table", { class: "facts" },
        el("thead", {}, el("tr", {}, ["step", "kind", "layer", "what"].map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, value.findings.map((f) => el("tr", {}, el("td", { class: "num" }, f.step ?? NOTHING), el("td", {}, f.kind),
          el("td", { class: "mono" }, f.layer ?? "whole model"), el("td", {}, f.text, f.ids.length ? el("span", { class: "dim" }, ` (${f.ids.join(", ")})`) : null)))))
        : value.incidents.length ? null : el("p", { class: "dim" }, "Nothing: no detector spoke."),
      value.n_findings > value.findings.length ? el("p", { class: "dim" }, `The first ${value.findings.length} of ${value.n_findings}.`) : null);
  }

  record(record) {
    const before = lineOf(record.curves.norm_before, 0, { key: "before", label: "before clipping", colour: "c1" });
    const after = lineOf(record.curves.norm_after, 0, { key: "after", label: "after clipping", colour: "c0", dash: [5, 3] });
    this.norms.set([before, after]);
    const line = lineOf({ x: record.clipped.x, y: record.clipped.y }, 0, { key: "clipped", label: "clipped steps", colour: "c0" });
    this.clipped.set([line]);
    const p = record.percentiles;
    fill(this.facts, fact(show("clipped", record.share), "of steps clipped"), fact(record.role, "what clipping was"),
      fact(short(p["50"]), "median norm"), fact(short(p["99"]), "99th percentile"), fact(count(record.n_steps, "step"), "recorded"),
      record.skipped ? fact(show("clipped", record.skipped), "of steps skipped") : null);
    this.layers.classList.toggle("hidden", !record.layers);
    if (record.layers) this.heat.set(record.layers);
  }
}

const swatch = (name) => el("span", { class: "swatch", style: { color: `var(--${name})`, display: "inline-block", "vertical-align": "middle" } });
const fact = (value, text) => el("div", {}, el("b", {}, value), el("span", {}, text));

class Heat {
  constructor() {
    this.what = "norms";
    this.canvas = el("canvas", { role: "img" });
    this.tip = el("div", { class: "tip hidden" });
    this.scale = el("div", { class: "row small dim", style: { margin: ".3rem 0" } });
    this.node = el("div", {}, el("div", { class: "row" }, choice("What the map shows", WHAT, "norms", (v) => {
      this.what = v;
      this.draw();
    })), this.scale, this.box = el("div", { class: "heat" }, this.canvas, this.tip));
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(this.box);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.again = () => this.draw();
    this.dark.addEventListener("change", this.again);
    this.canvas.addEventListener("mousemove", (event) => this.point(event));
    this.canvas.addEventListener("mouseleave", () => this.tip.classList.add("hidden"));
  }

  close() {
    this.watch.disconnect();
    this.dark.removeEventListener("change", this.again);
  }

  set(layers) {
    this.layers = layers;
    this.draw();
  }

  draw() {
    const width = this.box.clientWidth;
    if (!this.layers || !width) return;
    const { names, steps } = this.layers;
    const rows = this.layers[this.what];
    const height = names.length * ROW + 24;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    this.canvas.setAttribute("aria-label", `${names.length} layers over ${steps.length} looks`);
    const ctx = this.canvas.getContext("2d");
    ctx.scale(devicePixelRatio, devicePixelRatio);
    ctx.font = "11px ui-monospace, 'DejaVu Sans Mono', monospace";
    this.left = Math.min(width * 0.4, 8 + Math.max(...names.map((n) => ctx.measureText(n).width)));
    const there = rows.flat().filter((v) => v !== null).sort((a, b) => a - b);
    // One step that exploded must not make all others look alike.
    const [low, high] = [there[Math.floor(0.01 * there.length)] ?? 0, there[Math.ceil(0.99 * there.length) - 1] ?? 1];
    const wide = (width - this.left) / steps.length;
    rows.forEach((row, i) => {
      ctx.fillStyle = colour("text");
      ctx.textAlign = "right";
      ctx.fillText(names[i], this.left - 6, i * ROW + 14, this.left - 6);
      row.forEach((v, k) => {
        ctx.fillStyle = v === null ? colour("line") : ramp((v - low) / (high - low || 1));
        ctx.fillRect(this.left + k * wide, i * ROW, Math.ceil(wide + 0.3), ROW - 1);
      });
    });
    ctx.fillStyle = colour("dim");
    ctx.textAlign = "left";
    ctx.fillText(`step ${steps[0]}`, this.left, height - 8);
    ctx.textAlign = "right";
    ctx.fillText(`step ${steps.at(-1)}`, width - 2, height - 8);
    fill(this.scale, short(10 ** low), el("span", { class: "row", style: { gap: "0" } }, Array.from({ length: 24 }, (_, i) =>
      el("i", { style: { width: "8px", height: "12px", background: ramp(i / 23) } }))), short(10 ** high), "(logarithmic; grey: none)");
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const { names, steps } = this.layers;
    const i = Math.floor((event.clientY - box.top) / ROW);
    const k = Math.floor(((event.clientX - box.left - this.left) / (box.width - this.left)) * steps.length);
    const there = i >= 0 && i < names.length && k >= 0 && k < steps.length;
    this.tip.classList.toggle("hidden", !there);
    if (!there) return;
    const v = this.layers[this.what][i][k];
    fill(this.tip, el("b", {}, v === null ? "none" : short(10 ** v)), ` at step ${steps[k]}`, el("br"), names[i]);
    this.tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 170)}px`;
    this.tip.style.top = `${event.clientY - box.top + 14}px`;
  }
}

function ramp(share) {
  const place = Math.min(1, Math.max(0, share)) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(place));
  return `rgb(${RAMP[i].map((v, k) => Math.round(v + (place - i) * (RAMP[i + 1][k] - v))).join(" ")})`;
}
