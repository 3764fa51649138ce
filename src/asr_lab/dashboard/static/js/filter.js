// Which cells are shown: by words, by state, by the values of factors, by what was brushed; and how they are grouped.

import { choice, el, fill, later } from "./dom.js";
import { label, order } from "./format.js";

const kept = new Map(); // experiment -> Filter: a page that is left and entered again is as it was

export function filterOf(experiment) {
  if (!kept.has(experiment)) kept.set(experiment, new Filter());
  return kept.get(experiment);
}

export class Filter {
  constructor() {
    this.words = "";
    this.states = new Set();
    this.values = new Map(); // factor -> set of values
    this.ranges = new Map(); // axis of the parallel coordinates -> [low, high], of its length
    this.brushes = new Map(); // and what that means: (cell) => boolean
    this.group = "";
    this.sort = { key: "score", down: false };
    this.selected = new Set(); // names of runs
    this.listeners = new Set();
    this.curves = { key: "", axis: "step", log: false, smooth: 0, most: "30" };
  }

  changed() {
    for (const f of this.listeners) f();
  }

  /** Cells that pass. */
  apply(cells, factors) {
    const words = this.words.toLowerCase().split(/\s+/).filter(Boolean);
    return cells.filter((cell) => {
      if (this.states.size && !this.states.has(cell.state)) return false;
      for (const [factor, values] of this.values) {
        if (values.size && !values.has(cell.factors[factor] ?? "")) return false;
      }
      for (const passes of this.brushes.values()) if (!passes(cell)) return false;
      if (!words.length) return true;
      const text = `${cell.name} ${label(cell, factors)} ${cell.state} ${cell.reason}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }

  get active() {
    return this.words || this.states.size || this.brushes.size || [...this.values.values()].some((v) => v.size);
  }

  clear() {
    this.words = "";
    this.states.clear();
    this.values.clear();
    this.ranges.clear();
    this.brushes.clear();
    this.changed();
  }
}

/** The bar above the cells. `set(view, shown)` renews it without touching what somebody is typing in. */
export function filterBar(filter) {
  const words = el("input", { type: "search", placeholder: "Filter: words of a name, state, reason", "aria-label": "Filter runs by words",
    value: filter.words });
  words.addEventListener("input", later(() => {
    filter.words = words.value;
    filter.changed();
  }, 80));
  const menus = el("div", { class: "row" });
  const grouped = el("span");
  const said = el("span", { class: "dim small", role: "status" });
  const clear = el("button", { onclick: () => {
    words.value = "";
    filter.clear();
  } }, "Clear");
  const node = el("div", { class: "filters", role: "search" }, words, menus, grouped, clear, said);
  const close = (event) => {
    for (const menu of menus.querySelectorAll("details[open]")) {
      if (event.key === "Escape" || (event.type === "pointerdown" && !menu.contains(event.target))) {
        menu.open = false;
        if (event.key === "Escape" && menu.contains(document.activeElement)) menu.querySelector("summary").focus();
      }
    }
  };
  node.addEventListener("keydown", close);
  document.addEventListener("pointerdown", close);
  let drawn = "";
  return {
    node,
    close: () => document.removeEventListener("pointerdown", close),
    set(view, shown) {
      const factors = [...view.factors, ...(view.cells.some((c) => "seed" in c.factors) ? ["seed"] : [])];
      const values = factors.map((f) => [f, [...new Set(view.cells.map((c) => c.factors[f] ?? ""))].sort(order)]);
      const text = JSON.stringify([values, [...filter.values].map(([k, v]) => [k, [...v]]), filter.group]);
      if (text !== drawn && !menus.querySelector("details[open]")) {
        drawn = text;
        fill(menus, values.filter(([, vs]) => vs.length > 1).map(([factor, vs]) => menu(filter, factor, vs)));
        fill(grouped, el("label", { class: "inline small" }, "group by",
          choice("Group by", [["", "nothing"], ["state", "state"], ...factors.map((f) => [f, f])], filter.group, (value) => {
            filter.group = value;
            filter.changed();
          })));
      }
      for (const summary of menus.querySelectorAll("summary")) {
        const n = filter.values.get(summary.dataset.factor)?.size ?? 0;
        summary.parentElement.classList.toggle("on", n > 0);
        summary.textContent = n ? `${summary.dataset.factor} (${n})` : summary.dataset.factor;
      }
      if (document.activeElement !== words && words.value !== filter.words) words.value = filter.words;
      clear.classList.toggle("hidden", !filter.active);
      const n = shown.length.toLocaleString("en");
      const total = view.cells.length.toLocaleString("en");
      const now = shown.length === view.cells.length ? `${total} runs` : `${n} of ${total} runs`;
      if (said.textContent !== now) said.textContent = now;
    },
  };
}

function menu(filter, factor, values) {
  const chosen = filter.values.get(factor) ?? new Set();
  return el("details", { class: "pick" },
    el("summary", { dataset: { factor } }, factor),
    el("div", { class: "menu", role: "group", "aria-label": `Values of ${factor}` }, values.map((value) =>
      el("label", {},
        el("input", { type: "checkbox", checked: chosen.has(value), onchange: (event) => {
          const now = filter.values.get(factor) ?? new Set();
          if (event.target.checked) now.add(value);
          else now.delete(value);
          filter.values.set(factor, now);
          filter.changed();
        } }),
        value === "" ? "–" : value))));
}

/** [heading, cells] of each group; one without heading where nothing is grouped. */
export function grouped(cells, key) {
  if (!key) return [["", cells]];
  const groups = new Map();
  for (const cell of cells) {
    const value = key === "state" ? cell.state : cell.factors[key] ?? "–";
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(cell);
  }
  return [...groups].sort(([a], [b]) => order(a, b));
}
