// The cells as a matrix: a row for each configuration, a column for each value of one factor (the seed, if there is one).

import { el } from "./dom.js";
import { label, order, show } from "./format.js";
import { grouped } from "./filter.js";
import { Rows } from "./rows.js";
import { sign } from "./states.js";

const HEIGHT = 36;

export class Matrix {
  constructor(filter, go) {
    this.filter = filter;
    this.go = go;
    this.rows = new Rows("Cells by configuration", HEIGHT, (item) => this.draw(item));
    this.node = el("div", { class: "matrix" }, this.rows.node, this.legend = el("div", { class: "legend" }));
  }

  close() {
    this.rows.close();
  }

  set(view, cells) {
    const seeds = new Set(view.cells.map((c) => c.factors.seed).filter((s) => s !== undefined));
    const across = seeds.size > 1 || view.factors.length < 2 ? "seed" : view.factors.at(-1);
    const down = view.factors.filter((f) => f !== across);
    const columns = [...new Set(view.cells.map((c) => c.factors[across] ?? ""))].sort(order);
    this.best = view.best;
    const scores = view.cells.filter((c) => c.state === "done" && c.score !== null).map((c) => c.score).sort((a, b) => a - b);
    // One cell that learnt nothing must not make all others look alike.
    this.range = [scores[0], scores[Math.floor(0.9 * (scores.length - 1))]];
    this.columns = columns;
    this.across = across;
    const items = [];
    for (const [heading, group] of grouped(cells, this.filter.group)) {
      const rows = new Map();
      for (const cell of group) {
        const key = JSON.stringify([...down, ...(cell.planned ? [] : ["+"])].map((f) => cell.factors[f] ?? ""));
        if (!rows.has(key)) rows.set(key, { name: label({ ...cell, factors: { ...cell.factors, seed: undefined } }, down), cells: [] });
        rows.get(key).cells.push(cell);
      }
      if (this.filter.group) {
        items.push({ key: `group ${heading}`, text: `${heading} ${group.length}`, heading, n: group.length });
      }
      const single = down.length === 0;
      for (const [key, row] of rows) {
        const name = single ? view.name : row.name;
        items.push({ key: `${heading} ${key}`, text: JSON.stringify([name, row.cells, this.range, columns.length]), name, cells: row.cells });
      }
    }
    const wide = Math.min(34, Math.max(12, ...items.map((i) => (i.name ?? "").length + 2)));
    const head = [el("span", { role: "columnheader", class: "stick" }, down.join(" · ") || "experiment"),
      ...columns.map((c) => el("span", { role: "columnheader" }, c === "" ? "–" : `${across} ${c}`))];
    if (this.rows.head.textContent !== head.map((h) => h.textContent).join("")) this.rows.head.replaceChildren(...head);
    this.rows.set(items, (there) => {
      const first = Math.min(8.4 * wide, Math.max(130, 0.42 * there));
      const rest = Math.min(150, Math.max(92, (there - first - 2) / columns.length));
      return [first, ...columns.map(() => rest)];
    });
    const there = Object.keys(view.counts);
    if (this.legend.dataset.of !== there.join()) {
      this.legend.dataset.of = there.join();
      this.legend.replaceChildren(...there.map((s) => el("span", {}, sign(s), s)),
        el("span", {}, "score: on test; of a run that is not done, on validation"));
    }
  }

  draw(item) {
    if (item.heading !== undefined) {
      return el("div", { class: "group", role: "row" },
        el("span", { role: "rowheader" }, `${this.filter.group} ${item.heading}`), el("span", { class: "dim" }, `${item.n} runs`));
    }
    return el("div", { role: "row" },
      el("span", { role: "rowheader", class: "stick", title: item.name }, item.name),
      this.columns.map((column, col) => {
        const found = item.cells.filter((c) => (c.factors[this.across] ?? "") === column);
        return el("span", { role: "gridcell" }, found.length ? this.cell(found, col) : null);
      }));
  }

  cell(found, col) {
    const [cell] = found;
    const score = cell.score === null ? "" : show(cell.metric, cell.score);
    const share = cell.state !== "done" && cell.steps > 0 ? cell.step / cell.steps : null;
    const [low, high] = this.range;
    const good = cell.state === "done" && cell.score !== null && high > low ? Math.round(45 * Math.max(0, 1 - (cell.score - low) / (high - low))) : null;
    const said = [cell.state, score, share === null ? "" : `${Math.round(100 * share)} % of its steps`, cell.reason].filter(Boolean);
    return el("button", {
      class: `cell${cell.state === "done" && cell.score === this.best ? " best" : ""}`, dataset: { col, run: cell.name, state: cell.state },
      title: `${cell.name}\n${said.join(", ")}`, "aria-label": `${cell.name}: ${said.join(", ")}`, onclick: () => this.go(cell), style: good === null ? undefined : { "--good": good },
    }, sign(cell.state), score,
    share === null ? null : el("span", { class: "meter" }, el("i", { style: { width: `${100 * share}%` } })),
    found.length > 1 ? el("span", { class: "dim" }, `+${found.length - 1}`) : null);
  }
}
