// The cells as a table: sorted by any column, grouped, runs chosen for curves and comparisons.

import { el } from "./dom.js";
import { NOTHING, label, nameOf, order, show } from "./format.js";
import { grouped } from "./filter.js";
import { Rows } from "./rows.js";
import { sign } from "./states.js";

const HEIGHT = 34;

export class Table {
  constructor(filter, href) {
    this.filter = filter;
    this.href = href;
    this.rows = new Rows("Runs", HEIGHT, (item) => this.draw(item));
    this.node = this.rows.node;
    this.drawn = "";
  }

  close() {
    this.rows.close();
  }

  set(view, cells) {
    this.view = view;
    const factors = [...view.factors, ...(view.cells.some((c) => "seed" in c.factors) ? ["seed"] : [])];
    this.columns = [
      { key: "state", name: "state", width: 8, value: (c) => c.state },
      ...factors.map((f) => ({ key: `factor:${f}`, name: f, width: this.widest(view, f), value: (c) => c.factors[f] })),
      { key: "score", name: view.score.toUpperCase(), width: 8, right: true, value: (c) => c.score, text: (c) => show(c.metric, c.score) },
      ...view.columns.map((k) => ({ key: k, name: nameOf(k), width: Math.max(8, nameOf(k).length + 1), right: true,
        value: (c) => c.numbers[k], text: (c) => show(k, c.numbers[k]) })),
      { key: "name", name: "run", width: 30, value: (c) => c.name },
    ];
    this.head();
    const { key, down } = this.filter.sort;
    const by = this.columns.find((c) => c.key === key) ?? this.columns[0];
    const items = [];
    for (const [heading, group] of grouped(cells, this.filter.group)) {
      if (this.filter.group) items.push({ key: `group ${heading}`, text: `${heading} ${group.length}`, heading, group });
      const missing = (c) => [undefined, null, ""].includes(by.value(c));
      const sorted = group.toSorted((a, b) => missing(a) - missing(b) || (down ? -1 : 1) * order(by.value(a), by.value(b)));
      for (const cell of sorted) {
        items.push({ key: cell.name, text: JSON.stringify(cell) + this.filter.selected.has(cell.name) + this.columns.length, cell });
      }
    }
    this.rows.set(items, () => [36, ...this.columns.map((c) => 8.6 * c.width + 12)]);
  }

  widest(view, factor) {
    return Math.min(24, Math.max(factor.length + 2, ...view.cells.map((c) => (c.factors[factor] ?? "").length + 3)));
  }

  head() {
    const { key, down } = this.filter.sort;
    const text = JSON.stringify([this.columns.map((c) => c.name), key, down]);
    if (text === this.drawn) return;
    this.drawn = text;
    const focus = this.rows.head.contains(document.activeElement) ? document.activeElement.dataset.sort : null;
    this.rows.head.replaceChildren(
      el("span", { role: "columnheader" }, el("span", { class: "dim", title: "chosen runs are drawn and compared" }, "☑")),
      ...this.columns.map((c) => el("span", {
        role: "columnheader", class: c.right ? "right" : "", "aria-sort": c.key === key ? (down ? "descending" : "ascending") : "none",
      }, el("button", { dataset: { sort: c.key }, title: `sort by ${c.name}`, onclick: () => {
        this.filter.sort = { key: c.key, down: c.key === key && !down };
        this.filter.changed();
      } }, c.name, c.key === key ? (down ? " ▼" : " ▲") : ""))));
    if (focus) this.rows.head.querySelector(`[data-sort="${CSS.escape(focus)}"]`)?.focus();
  }

  draw(item) {
    if (item.heading !== undefined) {
      const scores = item.group.filter((c) => c.state === "done" && c.score !== null).map((c) => c.score);
      const mean = scores.reduce((a, b) => a + b, 0) / scores.length;
      return el("div", { class: "group", role: "row" },
        el("span", { role: "rowheader" }, `${this.filter.group} ${item.heading}`),
        el("span", { class: "dim" }, `${item.group.length} runs`, scores.length ? `, mean ${show(this.view.score, mean)}, best ${show(this.view.score, Math.min(...scores))}` : ""));
    }
    const { cell } = item;
    const name = label(cell, this.view.factors);
    return el("div", { role: "row", dataset: { run: cell.name } },
      el("span", { role: "gridcell" }, el("input", {
        type: "checkbox", checked: this.filter.selected.has(cell.name), "aria-label": `choose ${name}`, dataset: { col: 0 },
        onchange: (event) => {
          if (event.target.checked) this.filter.selected.add(cell.name);
          else this.filter.selected.delete(cell.name);
          this.filter.changed();
        },
      })),
      this.columns.map((c, i) => this.place(c, i, cell)));
  }

  place(column, i, cell) {
    if (column.key === "state") {
      const share = cell.state !== "done" && cell.steps > 0 ? ` ${Math.round((100 * cell.step) / cell.steps)} %` : "";
      return el("span", { role: "gridcell", title: cell.reason || cell.state }, el("span", { class: "row" }, sign(cell.state), share));
    }
    const text = column.text ? column.text(cell) : column.value(cell) ?? NOTHING;
    if (column.key !== "name") return el("span", { role: "gridcell", class: column.right ? "right" : "", title: text }, text);
    return el("span", { role: "gridcell", title: text }, el("a", { href: this.href(cell), dataset: { col: 1 } }, text),
      cell.planned ? null : el("span", { class: "tag" }, "not in the plan"));
  }
}
