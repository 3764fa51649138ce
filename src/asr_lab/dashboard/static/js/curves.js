// Curves of many runs over each other: any number that runs log, smoothed, coloured by what they are grouped by.

import { get, path } from "./api.js";
import { Chart } from "./chart.js";
import { choice, el, fill, later } from "./dom.js";
import { count, label, order } from "./format.js";
import { lineOf, style } from "./lines.js";

const TOGETHER = 50; // runs of one request
const POINTS = 40000; // of all curves
const LIST = 120; // names in the list
const AXES = [["step", "step"], ["epoch", "epoch"], ["seconds", "time"]];

export class Curves {
  constructor(filter, experiment) {
    Object.assign(this, { filter, experiment, keys: [], found: new Map(), cells: [], asked: 0 });
    this.options = filter.curves;
    this.chart = new Chart("Curves of the runs shown", { height: 420, over: (key) => this.point(key) });
    this.controls = el("div", { class: "row" });
    this.said = el("p", { class: "small dim", role: "status" });
    this.list = el("ul", { class: "series", "aria-label": "Runs that are drawn" });
    this.node = el("section", { class: "card" }, this.controls, this.said, el("div", { class: "curves" }, this.chart.node, this.list));
    this.ask = later(() => this.fetch(), 60);
    this.timer = setInterval(() => document.hidden || this.running && this.fetch(), 3000);
  }

  close() {
    clearInterval(this.timer);
    this.closed = true;
    this.chart.close();
  }

  set(view, cells) {
    const { selected } = this.filter;
    const chosen = cells.filter((c) => selected.has(c.name));
    const most = this.options.most === "all" ? Infinity : Number(this.options.most);
    const begun = cells.filter((c) => c.state !== "planned" && c.state !== "queued");
    const first = begun.toSorted((a, b) => order(a.score, b.score)).slice(0, most);
    this.cells = chosen.length ? chosen : first;
    this.running = this.cells.some((c) => c.state === "running");
    this.view = view;
    const all = first.length === begun.length;
    const what = chosen.length ? count(chosen.length, "chosen run") : all ? count(begun.length, "run") : `The ${first.length} best of ${count(begun.length, "run")}`;
    const rest = chosen.length || all ? "" : " Choose others in the table.";
    this.text = `${what}.${rest} Drag to zoom, double click to see all.`;
    const now = JSON.stringify(this.cells.map((c) => [c.name, c.state, c.step, c.epoch, c.finished]));
    if (now !== this.known) this.ask();
    else this.draw();
    this.known = now;
  }

  async fetch() {
    const names = this.cells.map((c) => c.name);
    const mine = ++this.asked;
    const stale = () => this.closed || mine !== this.asked;
    const runs = (part) => part.map((n) => `run=${encodeURIComponent(n)}`).join("&");
    try {
      const spread = [...new Set([0, 0.3, 0.6, 1].map((s) => names[Math.round(s * (names.length - 1))]))].filter(Boolean);
      const { value } = await get(`${path(this.experiment)}/keys?${runs(spread)}`);
      if (stale()) return;
      this.keys = value.keys;
      if (!this.keys.includes(this.options.key)) {
        this.options.key = this.keys.find((k) => k === `val/${this.view.score}`) ?? this.keys.find((k) => k.startsWith("val/")) ?? this.keys[0] ?? "";
      }
      this.control();
      const points = Math.min(300, Math.max(40, Math.floor(POINTS / Math.max(1, names.length))));
      const found = new Map();
      for (let i = 0; i < names.length; i += TOGETHER) {
        const query = `${runs(names.slice(i, i + TOGETHER))}&key=${encodeURIComponent(this.options.key)}&axis=${this.options.axis}&points=${points}`;
        const part = await get(`${path(this.experiment)}/curves?${query}`);
        if (stale()) return;
        for (const [name, curve] of Object.entries(part.value)) found.set(name, curve);
        if (!this.found.size && i) this.draw(found);
      }
      this.found = found;
      this.draw();
    } catch (error) {
      if (!stale()) this.said.textContent = error.message;
    }
  }

  control() {
    const { options } = this;
    const text = JSON.stringify([this.keys, options.key]);
    if (this.drawn === text) return;
    this.drawn = text;
    const again = (name) => (value) => {
      options[name] = value;
      if (name === "most") this.filter.changed();
      else this.ask();
    };
    const smooth = el("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: options.smooth, "aria-label": "Smoothing",
      oninput: () => {
        options.smooth = Number(smooth.value);
        said.textContent = options.smooth.toFixed(2);
        this.draw();
      } });
    const said = el("span", { class: "num small" }, options.smooth.toFixed(2));
    fill(this.controls,
      el("label", { class: "inline" }, "curve", choice("Curve", this.keys.map((k) => [k, k]), options.key, again("key"))),
      el("label", { class: "inline" }, "over", choice("Over", AXES, options.axis, again("axis"))),
      el("label", { class: "inline" }, el("input", { type: "checkbox", checked: options.log, onchange: (event) => {
        options.log = event.target.checked;
        this.draw();
      } }), "log"),
      el("label", { class: "inline" }, "smooth", smooth, said),
      el("label", { class: "inline" }, "of", choice("How many runs", [["30", "30 best"], ["100", "100 best"], ["all", "all"]], options.most, again("most"))));
  }

  draw(found = this.found) {
    if (this.said.textContent !== this.text) this.said.textContent = this.text;
    const { group } = this.filter;
    const kinds = group ? [...new Set(this.cells.map((c) => this.kind(c)))].sort(order) : [];
    const lines = [];
    this.cells.forEach((cell, i) => {
      const curve = found.get(cell.name);
      if (!curve) return;
      const look = style(group ? kinds.indexOf(this.kind(cell)) : i);
      lines.push(lineOf(curve, this.options.smooth, { key: cell.name, label: label(cell, this.view.factors), ...look, kind: group && this.kind(cell) }));
    });
    const axis = AXES.find(([k]) => k === this.options.axis)[1];
    this.chart.set(lines, { log: this.options.log, metric: this.options.key, xLabel: axis === "time" ? "seconds of training" : axis });
    const text = lines.map((l) => l.key + l.colour + l.dash).join() + group;
    if (text === this.listed) return;
    this.listed = text;
    const shown = lines.slice(0, LIST);
    fill(this.list, shown.map((line) => el("li", {}, el("button", {
      dataset: { run: line.key }, "aria-pressed": String(!this.chart.hidden.has(line.key)), title: `${line.key}: show or hide`,
      onmouseenter: () => this.chart.mark(line.key), onmouseleave: () => this.chart.mark(null),
      onfocus: () => this.chart.mark(line.key), onblur: () => this.chart.mark(null),
      onclick: (event) => {
        this.chart.toggle(line.key);
        event.currentTarget.setAttribute("aria-pressed", String(!this.chart.hidden.has(line.key)));
      },
    }, el("span", { class: `swatch${line.dash ? " dashed" : ""}`, style: { color: `var(--${line.colour})` } }), el("span", { class: "name" }, line.label)))),
    lines.length > LIST ? el("li", { class: "dim" }, `and ${lines.length - LIST} more`) : null);
  }

  kind(cell) {
    return this.filter.group === "state" ? cell.state : cell.factors[this.filter.group] ?? "–";
  }

  point(key) {
    for (const button of this.list.querySelectorAll("button")) {
      const here = button.dataset.run === key;
      button.style.fontWeight = here ? "700" : "";
      if (here) {
        const { top, bottom } = button.getBoundingClientRect();
        const box = this.list.getBoundingClientRect();
        if (top < box.top || bottom > box.bottom) this.list.scrollTop += top - box.top - box.height / 2;
      }
    }
  }
}

